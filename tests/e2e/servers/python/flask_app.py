# SPDX-License-Identifier: Apache-2.0
"""A Flask application for gunicorn; ``application`` counts the bytes that really pass."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from accesslog import AccessLog
from flask import Flask, Response, request

LOG = AccessLog()
app = Flask(__name__)


@app.before_request
def read_body() -> None:
    request.environ["body_bytes"] = len(request.get_data())


@app.get("/items/<ident>")
def item(ident: str) -> str:
    return f"item {ident}\n"


@app.delete("/items/<ident>")
def delete(ident: str) -> tuple[str, int]:
    return "", 204


@app.post("/echo/<ident>")
def echo(ident: str) -> bytes:
    return request.get_data()


@app.post("/upload/<ident>")
def upload(ident: str) -> str:
    return f"{len(request.get_data())}\n"


@app.get("/chunked/<ident>")
def chunked(ident: str) -> Iterator[str]:
    return (f"piece {i}\n" for i in range(5))


@app.get("/big/<ident>")
def big(ident: str) -> bytes:
    return b"b" * 200_000


@app.get("/slow/<ident>")
def slow(ident: str) -> str:
    time.sleep(0.02)
    return "slow\n"


@app.get("/close/<ident>")
def close(ident: str) -> Response:
    return Response("closing\n", headers={"Connection": "close"})


@app.route("/status/<int:code>/<ident>")
def status(code: int, ident: str) -> Response:
    return Response("" if code in (204, 304) else "status\n", status=code)


class Counting:
    """Passes a WSGI body on, and writes the log line when the server closes it."""

    def __init__(self, body: Iterable[bytes], environ: dict[str, Any], status: list[int]) -> None:
        self._body, self._environ, self._status = body, environ, status
        self._sent, self._started_ns = 0, environ["started_ns"]

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._body:
            self._sent += len(piece)
            yield piece

    def close(self) -> None:
        if hasattr(self._body, "close"):
            self._body.close()
        method, path = self._environ["REQUEST_METHOD"], self._environ["PATH_INFO"]
        received = self._environ.get("body_bytes", 0)
        LOG.write(method, path, self._status[0], received, self._sent, self._started_ns)


def application(environ: dict[str, Any], start_response: Any) -> Counting:
    environ["started_ns"] = time.monotonic_ns()
    code: list[int] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        code[:] = [int(status[:3])]
        return start_response(status, headers, exc_info)

    return Counting(app.wsgi_app(environ, start), environ, code)
