# SPDX-License-Identifier: Apache-2.0
"""The standard library's threading server, HTTP/1.1. Usage: ``http_server.py PORT``.

Over TLS if TLS_CERT and TLS_KEY are set.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from accesslog import AccessLog

LOG = AccessLog()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def handle_any(self) -> None:
        self.started_ns = time.monotonic_ns()
        kind, *rest = self.path.strip("/").split("/")
        body = self.read_body()
        if kind == "status":
            self.answer(int(rest[0]), b"" if rest[0] in ("204", "304") else b"status\n", body)
        elif self.command == "DELETE":
            self.answer(204, b"", body)
        elif kind in ("echo", "upload"):
            self.answer(200, body if kind == "echo" else b"%d\n" % len(body), body)
        elif kind == "chunked":
            self.answer_in_pieces([b"piece %d\n" % i for i in range(5)])
        elif kind == "big":
            self.answer(200, b"b" * 200_000, body)
        elif kind == "slow":
            time.sleep(0.02)
            self.answer(200, b"slow\n", body)
        elif kind == "close":
            self.close_connection = True
            self.answer_in_pieces([b"until the end\n"], delimited=False)
        else:
            self.answer(200, b"item " + rest[-1].encode() + b"\n", body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 (names are the API)

    def read_body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def answer(self, status: int, body: bytes, request_body: bytes) -> None:
        self.send_response(status)
        if status not in (204, 304):
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        sent = b"" if self.command == "HEAD" else body
        self.wfile.write(sent)
        self.record(status, len(request_body), len(sent))

    def answer_in_pieces(self, pieces: list[bytes], *, delimited: bool = True) -> None:
        chunked = delimited and self.request_version == "HTTP/1.1"
        self.send_response(200)
        if chunked:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("connection", "close")
            self.close_connection = True
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.record(200, 0, sum(map(len, pieces)))

    def record(self, status: int, received: int, sent: int) -> None:
        LOG.write(self.command, self.path, status, received, sent, self.started_ns)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on stderr: the access log is the record."""


if __name__ == "__main__":
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    if "TLS_CERT" in os.environ:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
        # The handshake is the handler's: accept() must not wait for a client.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.serve_forever()
