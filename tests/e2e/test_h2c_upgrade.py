# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 that becomes HTTP/2 (``Upgrade: h2c``): real clients, a real server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import servers, traffic
from tests.e2e.harness.otelauto import Otelauto, configuration
from tests.scale import PATIENCE, SCALE

pytestmark = pytest.mark.e2e
CONNECTIONS, REQUESTS = 11 * SCALE, 9  # of each client, and of each connection
# Little enough to be copied before it is known what the connection has become.
KINDS = ("items", "chunked", "slow", "status/404", "status/500")
Record = dict[str, Any]


def curl(port: int, paths: list[str]) -> None:
    """The first request asks for HTTP/2, the others are streams of the same connection."""
    said = "%{http_version} %{num_connects}\n"
    words = ["curl", "--http2", "--silent", "--write-out", said]
    for path in paths:
        words += ["--output", "/dev/null", f"http://127.0.0.1:{port}{path}"]
    found = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60 * PATIENCE)
    assert found.stdout.split() == ["2", "1"] + ["2", "0"] * (len(paths) - 1)


def nghttp(port: int, paths: list[str]) -> None:
    """All requests but the first at once."""
    urls = [f"http://127.0.0.1:{port}{path}" for path in paths]
    subprocess.run(["nghttp", "--upgrade", "--null-out", "--no-dep", *urls], check=True,
                   capture_output=True, timeout=60 * PATIENCE)  # fmt: skip


def problems(asked: set[str], served: list[Record], spans: list[Record]) -> list[str]:
    """What is wrong in ``spans``, by what the server wrote down."""
    assert {line["path"] for line in served} == asked
    found = {span["attributes"].get("url.path"): span["attributes"] for span in spans}
    wrong = [] if len(found) == len(spans) == len(asked) else [f"{len(spans)} of {len(asked)}"]
    for line in served:
        get = found.get(line["path"], {}).get
        right = (
            get("http.response.status_code") == line["status"]
            and get("http.request.method") == line["method"]
            and get("http.response.body.size") == line["response_bytes"]
            and get("network.protocol.version") == "2"
            and get("otelauto.incomplete") is None
        )
        if not right:
            wrong.append(f"{line} {found.get(line['path'])}")
    return wrong


def test_every_request_is_one_true_span(tmp_path: Path) -> None:
    server = next(each for each in servers.HTTP2 if each.name == "go-h2c")
    asked = set()
    with (
        servers.running(server, tmp_path) as running,
        Otelauto(tmp_path, configuration(ports=[running.port])) as otelauto,
    ):
        for client in (curl, nghttp):
            for connection in range(CONNECTIONS):
                kinds = (KINDS[(connection + n) % len(KINDS)] for n in range(REQUESTS))
                name = f"{client.__name__}{connection}"
                paths = [f"/{kind}/{name}-{n}" for n, kind in enumerate(kinds)]
                client(running.port, paths)
                asked |= set(paths)
        otelauto.wait_for_spans(len(asked))
        served = traffic.server_records(running.log, len(asked))
    wrong = problems(asked, served, otelauto.spans)
    assert not wrong, f"{len(wrong)} of {len(asked)}: {wrong[:3]}"


def test_the_comparison_finds_lies() -> None:
    line = {"path": "/a-1", "method": "GET", "status": 200, "response_bytes": 5}
    attributes = {"url.path": "/a-1", "http.request.method": "GET",
                  "http.response.status_code": 200, "http.response.body.size": 5,
                  "network.protocol.version": "2"}  # fmt: skip
    assert not problems({"/a-1"}, [line], [{"attributes": attributes}])
    assert problems({"/a-1"}, [line], [])
    for name in attributes:
        assert problems({"/a-1"}, [line], [{"attributes": {**attributes, name: "x"}}]), name
