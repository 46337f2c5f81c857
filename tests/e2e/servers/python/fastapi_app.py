# SPDX-License-Identifier: Apache-2.0
"""A FastAPI application for ASGI servers; ``application`` counts the bytes that really pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

from accesslog import AccessLog
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

LOG = AccessLog()
app = FastAPI(openapi_url=None)


@app.api_route("/items/{ident}", methods=["GET", "HEAD"])
async def item(ident: str) -> PlainTextResponse:
    return PlainTextResponse(f"item {ident}\n")


@app.delete("/items/{ident}")
async def delete(ident: str) -> Response:
    return Response(status_code=204)


@app.post("/echo/{ident}")
async def echo(ident: str, request: Request) -> Response:
    return Response(await request.body())


@app.post("/upload/{ident}")
async def upload(ident: str, request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())}\n")


@app.get("/chunked/{ident}")
async def chunked(ident: str) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for i in range(5):
            yield f"piece {i}\n"

    return StreamingResponse(pieces())


@app.get("/big/{ident}")
async def big(ident: str) -> Response:
    return Response(b"b" * 200_000)


@app.get("/slow/{ident}")
async def slow(ident: str) -> PlainTextResponse:
    await asyncio.sleep(0.02)
    return PlainTextResponse("slow\n")


@app.get("/close/{ident}")
async def close(ident: str) -> Response:
    return Response("closing\n", headers={"Connection": "close"})


@app.get("/status/{code}/{ident}")
async def status(code: int, ident: str) -> Response:
    return Response("" if code in (204, 304) else "status\n", status_code=code)


async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """The ASGI application that counts bytes and writes the log line."""
    if scope["type"] != "http":
        await app(scope, receive, send)
        return
    started_ns = time.monotonic_ns()
    received = sent = code = 0

    async def counted_receive() -> Any:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message

    async def counted_send(message: Any) -> None:
        nonlocal sent, code
        code = message.get("status", code)
        sent += len(message.get("body", b"")) * (scope["method"] != "HEAD")
        await send(message)

    await app(scope, counted_receive, counted_send)
    peer_port = scope["client"][1]
    LOG.write(scope["method"], scope["path"], code, received, sent, started_ns, peer_port)
