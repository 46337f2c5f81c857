# SPDX-License-Identifier: Apache-2.0
"""gRPC-Web and Connect over HTTP/1.1: calls, with the status that their bodies tell."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from tests.wire.transcripts import CHUNKED, answer, bare, get, post
from tests.wire.wire import CLIENT, SERVER, Heads, Wire, read

from otelauto.flows.vocabulary import Exchange

PATH = "/shop.v1.Orders/Get"


def message(body: bytes, flag: int = 0) -> bytes:
    return struct.pack("!BI", flag, len(body)) + body


def media(kind: str) -> bytes:
    return f"Content-Type: application/{kind}".encode()


def call(asked: bytes, said: bytes, *fields: bytes, view: str = SERVER) -> Exchange:
    wire = Wire(view=view).open().send(CLIENT, post(PATH, asked, *fields)).send(SERVER, said)
    wire.send(CLIENT, get("/b")).send(SERVER, answer(204))
    first, second = read(wire)
    assert second.path == "/b"
    return first


def chunked(body: bytes, *fields: bytes) -> bytes:
    parts = (body[:3], body[3:])
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
    return bare(200, CHUNKED, *fields) + coded + b"0\r\n\r\n"


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize(("code", "name"), [(0, "OK"), (5, "NOT_FOUND"), (13, "INTERNAL")])
def test_grpc_web(encoded: bool, code: int, name: str) -> None:
    parts = [message(b"m" * 10), message(b"m" * 20), message(b"grpc-status: %d\r\n" % code, 0x80)]
    body = b"".join(map(base64.b64encode, parts)) if encoded else b"".join(parts)
    asked = message(b"a" * 4)
    if encoded:
        asked = base64.b64encode(asked)
    kind = media("grpc-web-text+proto" if encoded else "grpc-web+proto")
    exchange = call(asked, chunked(body, kind), kind)
    expected = {
        "rpc.system.name": "grpc", "rpc.method": "shop.v1.Orders/Get",
        "rpc.response.status_code": name, "otelauto.rpc.request.messages": 1,
        "otelauto.rpc.request.size": 4, "otelauto.rpc.response.messages": 2,
        "otelauto.rpc.response.size": 30, "server.address": "svc.example", "server.port": 8080,
    }  # fmt: skip
    assert expected.items() <= exchange.attributes.items()
    assert exchange.error is (code == 13)
    assert exchange.path is None
    assert [i.name for i in exchange.instruments] == ["rpc.server.call.duration"]


def test_grpc_web_whose_trailers_are_the_head() -> None:
    exchange = call(
        b"", answer(200, b"", b"grpc-status: 7", b"grpc-message: no%20"), media("grpc-web")
    )
    assert exchange.attributes["rpc.response.status_code"] == "PERMISSION_DENIED"
    assert exchange.attributes["otelauto.rpc.status_message"] == "no "


def test_unary_connect() -> None:
    fields = (media("json"), b"Connect-Protocol-Version: 1")
    exchange = call(b"{}", answer(200, b"{}", media("json")), *fields)
    assert exchange.attributes["rpc.system.name"] == "connectrpc"
    assert exchange.attributes["rpc.method"] == "shop.v1.Orders/Get"
    assert exchange.attributes["rpc.response.status_code"] == "OK"
    refusal = json.dumps({"code": "not_found", "message": "no"}).encode()
    exchange = call(b"{}", answer(404, refusal, media("json")), *fields)
    assert exchange.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert not exchange.error
    exchange = call(b"{}", answer(404, refusal, media("json")), *fields, view=CLIENT)
    assert exchange.error
    assert exchange.attributes["error.type"] == "NOT_FOUND"
    exchange = call(b"{}", answer(502, b"<html>"), *fields)
    assert "rpc.response.status_code" not in exchange.attributes
    assert exchange.attributes["http.response.status_code"] == 502
    assert exchange.error


@pytest.mark.parametrize(
    ("last", "name"),
    [({}, "OK"), ({"error": {"code": "canceled"}}, "CANCELLED"),
     ({"error": {"code": "x"}}, "_OTHER"), ({"error": 1}, None), ([], None)],
)  # fmt: skip
def test_streaming_connect(last: object, name: str | None) -> None:
    body = message(b"m" * 10) * 3 + message(json.dumps(last).encode(), 0x02)
    kind = media("connect+json")
    found = call(message(b"a"), chunked(body, kind), kind).attributes
    assert found.get("rpc.response.status_code") == name
    assert found["otelauto.rpc.response.messages"] == 3


@pytest.mark.parametrize("error", [None, {"code": "internal"}])
def test_an_end_of_a_stream_that_is_not_kept_whole_tells_nothing(error: object) -> None:
    last = json.dumps({"pad": "p" * 3000, "error": error}).encode()
    kind = media("connect+json")
    said = chunked(message(last, 0x02), kind)
    wire = Wire().open().send(CLIENT, post(PATH, message(b"a"), kind))
    for at in range(0, len(said), 100):
        wire.send(SERVER, said[at : at + 100])
    (found,) = read(wire)
    assert "rpc.response.status_code" not in found.attributes


def test_bytes_that_are_missing() -> None:
    kind = media("grpc-web+proto")
    body = message(b"m" * 5000) + message(b"grpc-status: 5\r\n", 0x80)
    wire = Wire(heads=Heads(8192, 400)).open().send(CLIENT, post(PATH, message(b"a"), kind))
    wire.send(SERVER, answer(200, body, kind)).send(CLIENT, get("/b")).send(SERVER, answer(204))
    first, second = read(wire)
    assert first.attributes["rpc.method"] == "shop.v1.Orders/Get"
    assert "rpc.response.status_code" not in first.attributes
    assert "otelauto.rpc.response.messages" not in first.attributes
    assert second.path == "/b"


def test_grpc_itself_is_not_carried_by_http_1() -> None:
    assert call(b"", answer(200), media("grpc")).path == PATH
