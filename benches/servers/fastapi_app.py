# SPDX-License-Identifier: Apache-2.0
"""The FastAPI application that is measured: one route with a parameter."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

application = FastAPI(openapi_url=None)


@application.get("/items/{ident}")
async def item(ident: str) -> PlainTextResponse:
    return PlainTextResponse(f"item {ident}\n")
