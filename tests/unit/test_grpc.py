# SPDX-License-Identifier: Apache-2.0
"""gRPC: what is said of a call, and the counting of messages."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.http2 import (
    END_STREAM,
    GRPC_HEAD,
    asks,
    calls,
    data,
    grpc_trailers,
    hello,
    message,
    says,
)
from tests.wire.wire import CLIENT, SERVER, Wire, read

from otelauto.flows.vocabulary import Exchange, Side
from otelauto.protocols import grpc
from otelauto.spans.chain import to_span
from otelauto.spans.naming import Naming2023
from otelauto.spans.select import Select
from otelauto.spans.span import Service

SERVICE = Service("shop", "", "1")
Fields = list[tuple[str, str]]


def call(trailers: Fields, view: str = SERVER, *more: tuple[str, str]) -> Exchange:
    c, s, begins, answers = hello()
    wire = Wire(view=view).open()
    wire.send(
        CLIENT, begins + c.head(1, calls("/p.S/Get", *more)) + data(1, message(4), END_STREAM)
    )
    wire.send(SERVER, answers + s.head(1, GRPC_HEAD) + data(1, message(9)))
    wire.send(SERVER, s.head(1, trailers, END_STREAM))
    (exchange,) = read(wire)
    return exchange


def test_attributes() -> None:
    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    exchange = call(
        grpc_trailers(5, "no%20such%20%E2%82%AC"),
        SERVER,
        ("grpc-timeout", "1500m"),
        ("traceparent", context),
    )
    assert exchange.name == "p.S/Get"
    assert exchange.path is None
    assert exchange.parent is not None
    assert exchange.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "p.S/Get",
        "rpc.response.status_code": "NOT_FOUND",
        "server.address": "svc.example",
        "server.port": 8080,
        "client.address": "10.0.0.1",
        "client.port": 40000,
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 40000,
        "otelauto.rpc.status_message": "no such €",
        "otelauto.rpc.timeout": 1.5,
        "otelauto.rpc.request.messages": 1,
        "otelauto.rpc.request.size": 4,
        "otelauto.rpc.response.messages": 1,
        "otelauto.rpc.response.size": 9,
    }
    assert [i.name for i in exchange.instruments] == ["rpc.server.call.duration"]


@pytest.mark.parametrize("code", range(17))
def test_which_codes_are_errors(code: int) -> None:
    for view, side in ((SERVER, Side.SERVER), (CLIENT, Side.CLIENT)):
        exchange = call(grpc_trailers(code), view)
        failed = code in (2, 4, 12, 13, 14, 15) if side is Side.SERVER else code != 0
        assert exchange.side is side
        assert exchange.error is failed
        assert exchange.attributes.get("error.type") == (grpc.CODES[code] if failed else None)
        unknown = code == 12 and side is Side.SERVER
        assert exchange.attributes["rpc.method"] == ("_OTHER" if unknown else "p.S/Get")


def test_a_status_that_there_is_not() -> None:
    assert call([("grpc-status", "17")]).attributes["rpc.response.status_code"] == "_OTHER"
    assert "rpc.response.status_code" not in call([("x", "y")]).attributes


def test_an_answer_of_somebody_who_knows_http_only() -> None:
    c, s, begins, answers = hello()
    wire = Wire(view=CLIENT).open()
    wire.send(CLIENT, begins + c.head(1, calls("/p.S/Get")) + data(1, message(4), END_STREAM))
    wire.send(SERVER, answers + s.head(1, says(503), END_STREAM))
    (exchange,) = read(wire)
    assert exchange.attributes["http.response.status_code"] == 503
    assert exchange.attributes["error.type"] == "503"
    assert "rpc.response.status_code" not in exchange.attributes


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b'{"code":"unavailable","message":"no"}', "UNAVAILABLE"),
        (b'{"code":"made_up"}', "_OTHER"),
        (b"no json", None),
    ],
)
def test_what_a_unary_call_of_connect_was_refused_for(said: bytes, status: str | None) -> None:
    version = ("connect-protocol-version", "1")
    c, s, begins, answers = hello()
    wire = Wire(view=CLIENT).open()
    ask = c.head(1, asks("/p.S/Get", "POST", ("content-type", "application/json"), version))
    wire.send(CLIENT, begins + ask + data(1, b"{}", END_STREAM))
    head = s.head(1, says(503, ("content-type", "application/json")))
    wire.send(SERVER, answers + head + data(1, said[:5])).send(SERVER, data(1, said[5:], 1))
    (exchange,) = read(wire)
    assert exchange.attributes["rpc.method"] == "p.S/Get"
    assert exchange.attributes.get("rpc.response.status_code") == status
    assert exchange.attributes["error.type"] == (status or "503")


def test_names_of_2023() -> None:
    stages = [Select(as_2023=True), Naming2023()]
    span = to_span(call(grpc_trailers(14)), SERVICE, stages)
    assert span.name == "/p.S/Get"
    said = {k: v for k, v in span.attributes.items() if k.startswith("rpc.") or "net." in k}
    assert said == {
        "rpc.method": "/p.S/Get",
        "rpc.system": "grpc",
        "rpc.grpc.status_code": 14,
        "net.sock.peer.addr": "10.0.0.1",
        "net.sock.peer.port": 40000,
        "net.host.name": "svc.example",
        "net.host.port": 8080,
    }
    (instrument,) = span.instruments
    assert instrument.name == "rpc.server.duration"
    assert instrument.attributes == ("rpc.system", "rpc.method", "rpc.grpc.status_code")


def test_other_content_types_are_http() -> None:
    for content_type in ("application/grpcish", "application/json"):
        c, s, begins, answers = hello()
        wire = Wire().open()
        wire.send(
            CLIENT, begins + c.head(1, asks("/p.S/Get", "POST", ("content-type", content_type)))
        )
        wire.send(SERVER, answers + s.head(1, says(200), END_STREAM))
        (exchange,) = read(wire)
        assert exchange.attributes["url.path"] == "/p.S/Get"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600.0), (b"2M", 120.0), (b"10S", 10.0), (b"99999999m", 99999.999), (b"5u", 5e-6),
     (b"7n", 7e-9), (b"", None), (b"S", None), (b"123456789S", None), (b"-1S", None),
     (b"1x", None)],
)  # fmt: skip
def test_timeouts(value: bytes, seconds: float | None) -> None:
    assert grpc.timeout_seconds(value) == (None if seconds is None else pytest.approx(seconds))


def exchange_of(body: list[tuple[bytes, int]]) -> Exchange:
    """A call whose request is the pieces of ``body``, each with bytes behind that are not seen."""
    c, s, begins, answers = hello()
    wire = Wire().open().send(CLIENT, begins + c.head(1, calls("/p.S/Up")))
    for seen, unseen in body:
        piece = data(1, seen + bytes(unseen))
        wire.send(CLIENT, piece, captured=len(piece) - unseen)
    wire.send(CLIENT, data(1, b"", END_STREAM))
    wire.send(SERVER, answers + s.head(1, [*GRPC_HEAD, *grpc_trailers(0)], END_STREAM))
    (exchange,) = read(wire)
    return exchange


def counted(exchange: Exchange) -> tuple[object, object]:
    get = exchange.attributes.get
    return get("otelauto.rpc.request.messages"), get("otelauto.rpc.request.size")


@settings(max_examples=60)
@given(st.lists(st.integers(0, 300), max_size=8), st.lists(st.integers(0, 1000), max_size=10))
def test_messages_are_counted_however_they_are_cut(sizes: list[int], cuts: list[int]) -> None:
    body = b"".join(message(size) for size in sizes)
    pieces, at = [], 0
    for cut in sorted({min(cut, len(body)) for cut in cuts} | {len(body)}):
        pieces.append((body[at:cut], 0))
        at = cut
    assert counted(exchange_of(pieces)) == (len(sizes), sum(sizes))


WEB = [message(10), message(20), b"\x80\0\0\0\x10grpc-status: 5\r\n"]
CONNECT = [message(10), message(20), b'\2\0\0\0\x1e{"error":{"code":"not_found"}}']


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("kind", "system", "parts"),
    [("grpc-web+proto", "grpc", WEB),
     ("grpc-web-text+proto", "grpc", [base64.b64encode(part) for part in WEB]),
     ("grpc-web-text", "grpc", [base64.b64encode(b"".join(WEB))]),
     ("connect+json", "connectrpc", CONNECT)],
)  # fmt: skip
def test_the_last_message_tells_how_a_call_ended(
    kind: str, system: str, parts: list[bytes], step: int
) -> None:
    c, s, begins, answers = hello()
    asked, said = message(4), b"".join(parts)
    if "text" in kind:
        asked = base64.b64encode(asked)
    content = ("content-type", f"application/{kind}")
    head = [*asks("/p.S/Get", "POST"), content]
    wire = Wire().open().send(CLIENT, begins + c.head(1, head) + data(1, asked, END_STREAM))
    wire.send(SERVER, answers + s.head(1, says(200, content)))
    for at in range(0, len(said), step):
        wire.send(SERVER, data(1, said[at : at + step]))
    (exchange,) = read(wire.send(SERVER, data(1, b"", END_STREAM)))
    expected = {
        "rpc.system.name": system, "rpc.method": "p.S/Get", "rpc.response.status_code": "NOT_FOUND",
        "otelauto.rpc.request.messages": 1, "otelauto.rpc.request.size": 4,
        "otelauto.rpc.response.messages": 2, "otelauto.rpc.response.size": 30,
    }  # fmt: skip
    assert expected.items() <= exchange.attributes.items()


@pytest.mark.parametrize("body", [b"AAAA*AAA", b"A===", b"AA=A", b"====", b"AAA\n"])
def test_a_text_form_that_is_none(body: bytes) -> None:
    """Nothing is counted, nor where bytes of it are missing."""
    for said, captured in ((body, None), (base64.b64encode(message(60)), 30)):
        c, s, begins, answers = hello()
        content = ("content-type", "application/grpc-web-text")
        wire = Wire().open().send(CLIENT, begins + c.head(1, [*asks("/p.S/Up", "POST"), content]))
        wire.send(CLIENT, data(1, said), captured).send(CLIENT, data(1, b"", END_STREAM))
        wire.send(SERVER, answers + s.head(1, [*GRPC_HEAD, *grpc_trailers(0)], END_STREAM))
        (exchange,) = read(wire)
        assert exchange.attributes["rpc.response.status_code"] == "OK"
        assert counted(exchange) == (None, None)


def test_bytes_that_were_not_seen() -> None:
    begun = message(100)[:50]
    assert counted(exchange_of([(begun, 55)])) == (1, 100)
    assert counted(exchange_of([(begun, 55), (message(3), 0)])) == (2, 103)
    assert counted(exchange_of([(begun, 55), (message(3), 1)])) == (None, None)
