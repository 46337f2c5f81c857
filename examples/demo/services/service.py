# SPDX-License-Identifier: Apache-2.0
"""What the Python services of the demo share: an HTTP server, calls, and their own log.

Nothing here knows otelauto. Each service writes a line of JSON for every request that it answered
and for every call that it made: ``{"kind", "method", "port", "path", "status"}``, where ``port`` is
the server's.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, object]  # status, and what the body says as JSON
Handle = Callable[[str, list[str]], Answer]  # (method, segments of the path)

_log = os.open(os.environ["DEMO_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
_connections = threading.local()


def log(kind: str, method: str, port: int, path: str, status: int) -> None:
    """Append what happened; one write, so that threads do not mix their lines."""
    line = {"kind": kind, "method": method, "port": port, "path": path, "status": status}
    os.write(_log, json.dumps(line).encode() + b"\n")


def call(service: str, method: str, path: str, body: object = None) -> Answer:
    """Ask another service, over a connection that this thread keeps; 503 if it is not there."""
    port = int(os.environ.get(f"DEMO_{service.upper()}", "0"))
    if not port:
        return 503, None
    kept: dict[str, http.client.HTTPConnection] = vars(_connections)
    connection = kept.get(service)
    if connection is None:
        connection = kept[service] = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    data = None if body is None else json.dumps(body).encode()
    connection.request(method, path, data)
    response = connection.getresponse()
    text = response.read()
    log("client", method, port, path, response.status)
    return response.status, json.loads(text) if text else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # the answer goes out in one piece
    handle_with: Handle

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path = self.path.partition("?")[0]
        segments = [segment for segment in path.split("/") if segment]
        status, said = type(self).handle_with(self.command, segments)
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        log("server", self.command, self.server.server_address[1], path, status)

    do_POST = do_DELETE = do_GET  # noqa: N815 - names that http.server asks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def serve(service: str, handle: Handle) -> None:
    """Answer with ``handle`` on the port that the demo chose, until SIGTERM."""
    handler = type("Handler", (_Handler,), {"handle_with": staticmethod(handle)})
    server = _Server(("127.0.0.1", int(os.environ[f"DEMO_{service.upper()}"])), handler)

    def stop(number: int, frame: object) -> None:
        threading.Thread(target=server.shutdown).start()  # it waits for serve_forever's thread

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever(poll_interval=0.2)
    server.server_close()
