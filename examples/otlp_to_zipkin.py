# SPDX-License-Identifier: Apache-2.0
"""Takes spans by OTLP (HTTP, JSON) and hands them to Zipkin, which has a format of its own.

``python3 otlp_to_zipkin.py [PORT [URL]]`` listens on 127.0.0.1:PORT (4318), and sends to the API of
the Zipkin at URL (http://127.0.0.1:9411). A batch that Zipkin does not take is refused with 503:
who sent it keeps it and tries again. For Jaeger, Tempo and others, which take OTLP, nothing like
this is needed.

Source: https://zipkin.io/zipkin-api/zipkin2-api.yaml
"""

from __future__ import annotations

import json
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KINDS = {2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}


def values(attributes: list[Any]) -> dict[str, str]:
    """The attributes of OTLP as texts."""
    return {each["key"]: str(*each["value"].values()) for each in attributes}


def converted(span: dict[str, Any], resource: dict[str, str]) -> dict[str, Any]:
    """One span of OTLP in Zipkin's format; what has no value is left out."""
    start, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
    made = {
        "traceId": span["traceId"],
        "id": span["spanId"],
        "parentId": span.get("parentSpanId"),
        "name": span["name"],
        "kind": KINDS.get(span.get("kind", 0)),
        "timestamp": start // 1000,
        "duration": max((end - start) // 1000, 1),
        "localEndpoint": {"serviceName": resource.get("service.name", "unknown")},
        "tags": values(span.get("attributes", [])),
    }
    return {key: value for key, value in made.items() if value}


class Bridge(BaseHTTPRequestHandler):
    """Answers with what became of the batch."""

    zipkin = "http://127.0.0.1:9411"

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        spans = [
            converted(span, values(each["resource"].get("attributes", [])))
            for each in message.get("resourceSpans", [])
            for scope in each["scopeSpans"]
            for span in scope["spans"]
        ]
        request = urllib.request.Request(
            f"{self.zipkin}/api/v2/spans",
            json.dumps(spans).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            urllib.request.urlopen(request, timeout=10).close()
            status, body = 200, b"{}"
        except OSError as error:
            status, body = 503, json.dumps({"message": str(error)}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    given = sys.argv[1:]
    if len(given) > 1:
        Bridge.zipkin = given[1]
    port = int(given[0]) if given else 4318
    ThreadingHTTPServer(("127.0.0.1", port), Bridge).serve_forever()
