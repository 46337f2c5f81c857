# SPDX-License-Identifier: Apache-2.0
"""The tutorial's small program between OTLP and Zipkin, with a Zipkin that is one here."""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.docs.places import ROOT
from tests.e2e.harness.process import Process, accepts, free_port

PROGRAM = ROOT / "examples" / "otlp_to_zipkin.py"
TRACE, SPAN, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "53995c3f42cd8ad8"
MESSAGE = {
    "resourceSpans": [
        {
            "resource": {
                "attributes": [{"key": "service.name", "value": {"stringValue": "front"}}]
            },
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": TRACE,
                            "spanId": SPAN,
                            "parentSpanId": PARENT,
                            "name": "GET /",
                            "kind": 2,
                            "startTimeUnixNano": "1700000000000001000",
                            "endTimeUnixNano": "1700000000000501000",
                            "attributes": [
                                {"key": "http.response.status_code", "value": {"intValue": "200"}}
                            ],
                        }
                    ]
                }
            ],
        }
    ]
}
CONVERTED = {
    "traceId": TRACE,
    "id": SPAN,
    "parentId": PARENT,
    "name": "GET /",
    "kind": "SERVER",
    "timestamp": 1700000000000001,
    "duration": 500,
    "localEndpoint": {"serviceName": "front"},
    "tags": {"http.response.status_code": "200"},
}


class Zipkin(BaseHTTPRequestHandler):
    taken: list[Any]
    status = 202

    def do_POST(self) -> None:
        self.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        return


@pytest.fixture(name="bridge")
def fixture_bridge(tmp_path: Path) -> Iterator[int]:
    """The port of the program."""
    Zipkin.taken, Zipkin.status = [], 202
    server = HTTPServer(("127.0.0.1", free_port()), Zipkin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    words = [sys.executable, PROGRAM, str(port), f"http://127.0.0.1:{server.server_port}"]
    with Process(words, tmp_path / "bridge.err") as process:
        process.wait_for(lambda: accepts(port), "the program listens")
        yield port
    server.shutdown()
    server.server_close()


def send(port: int) -> int:
    """The status of the answer to MESSAGE."""
    url = f"http://127.0.0.1:{port}/v1/traces"
    request = urllib.request.Request(url, json.dumps(MESSAGE).encode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_zipkin_gets_what_otlp_says(bridge: int) -> None:
    assert send(bridge) == 200
    assert Zipkin.taken == [[CONVERTED]]


def test_what_zipkin_does_not_take_is_refused(bridge: int) -> None:
    Zipkin.status = 500
    assert send(bridge) == 503
