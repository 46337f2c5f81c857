# SPDX-License-Identifier: Apache-2.0
"""HTTP exchanges in the words of the semantic conventions."""

from __future__ import annotations

import pytest
from tests.wire.transcripts import V2, answer, bare, get, post, request
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Heads, Reader, Wire

from otelauto.flows.vocabulary import Address, Exchange, Family, TraceContext
from otelauto.protocols import traceparent
from otelauto.protocols.http1_describe import DURATION_BUCKETS, SIZE_BUCKETS
from otelauto.protocols.settings import ProtocolSettings
from otelauto.protocols.url import split_authority

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = TraceContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), 1)


def one(
    sent: bytes,
    reply: bytes | None,
    view: str = SERVER,
    query: bool = False,
    wire: Wire | None = None,
) -> Exchange:
    wire = (wire or Wire(view=view)).open().send(CLIENT, sent)
    if reply is not None:
        wire.send(SERVER, reply)
    else:
        wire.close()
    reader = Reader(ProtocolSettings(capture_query=query)).feed(wire.records)
    (exchange,) = reader.tick(wire.time + SECOND_NS).exchanges
    return exchange


def test_server_side_in_full() -> None:
    exchange = one(post("/a/b?q=1", b"12345", b"User-Agent: curl/8"), answer(503, b"no"))
    assert exchange.attributes == {
        "http.request.method": "POST",
        "url.path": "/a/b",
        "url.scheme": "http",
        "http.response.status_code": 503,
        "network.protocol.version": "1.1",
        "server.address": "svc.example",
        "server.port": 8080,
        "client.address": "10.0.0.1",
        "client.port": 40000,
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 40000,
        "user_agent.original": "curl/8",
        "http.request.body.size": 5,
        "http.response.body.size": 2,
        "error.type": "503",
    }
    assert (exchange.name, exchange.path, exchange.error) == ("POST", "/a/b", True)
    assert exchange.local == Address(Family.INET, "10.0.0.2", 8080)
    assert exchange.peer == Address(Family.INET, "10.0.0.1", 40000)
    assert exchange.protocol == "http"


def test_client_side_in_full() -> None:
    exchange = one(get("/a?q=1"), answer(404), CLIENT)
    assert exchange.attributes == {
        "http.request.method": "GET",
        "url.path": "/a",
        "url.full": "http://svc.example:8080/a",
        "url.scheme": "http",
        "http.response.status_code": 404,
        "network.protocol.version": "1.1",
        "server.address": "svc.example",
        "server.port": 8080,
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 40000,
        "http.response.body.size": 0,
        "error.type": "404",
    }
    assert exchange.error


def test_a_server_does_not_fail_with_a_404() -> None:
    exchange = one(get("/a"), answer(404))
    assert not exchange.error
    assert "error.type" not in exchange.attributes


def test_instruments() -> None:
    for view in (SERVER, CLIENT):
        duration, sent, received = one(get("/a"), answer(200), view).instruments
        assert duration.name == f"http.{view}.request.duration"
        assert (duration.unit, duration.buckets, duration.measures) == ("s", DURATION_BUCKETS, None)
        assert ("http.route" in duration.attributes) == (view == SERVER)
        assert sent.name == f"http.{view}.request.body.size"
        assert (sent.unit, sent.buckets) == ("By", SIZE_BUCKETS)
        assert sent.measures == "http.request.body.size"
        assert received.name == f"http.{view}.response.body.size"
        assert received.measures == "http.response.body.size"


def test_an_unknown_method_is_not_a_name() -> None:
    exchange = one(request("PROPFIND", "/a"), answer(200))
    assert exchange.name == "HTTP"
    assert exchange.attributes["http.request.method"] == "_OTHER"
    assert exchange.attributes["http.request.method_original"] == "PROPFIND"


def test_the_query_only_when_asked_and_signatures_never() -> None:
    sent = get("/a?q=1&Signature=abc&sig=d&x=")
    assert "url.query" not in one(sent, answer()).attributes
    asked = one(sent, answer(), CLIENT, query=True).attributes
    assert asked["url.query"] == "q=1&Signature=REDACTED&sig=REDACTED&x="
    assert asked["url.full"] == f"http://svc.example:8080/a?{asked['url.query']}"


def test_absolute_form_names_the_server_and_hides_credentials() -> None:
    exchange = one(request("GET", "http://me:pw@other.example:81/a?q"), answer(), CLIENT)
    assert exchange.attributes["url.full"] == "http://REDACTED:REDACTED@other.example:81/a"
    assert exchange.attributes["server.address"] == "other.example"
    assert exchange.attributes["server.port"] == 81


@pytest.mark.parametrize(
    ("prefix", "client", "port"),
    [
        (b"PROXY TCP4 192.0.2.9 10.0.0.2 12345 8080\r\n", "192.0.2.9", 12345),
        (b"PROXY TCP6 2001:db8::1 ::1 5 8080\r\n", "2001:db8::1", 5),
        (b"PROXY UNKNOWN\r\n", "10.0.0.1", 40000),
        (V2, "192.0.2.9", 12345),
    ],
)
def test_the_client_that_a_proxy_speaks_for(prefix: bytes, client: str, port: int) -> None:
    attributes = one(prefix + get("/a"), answer()).attributes
    assert (attributes["client.address"], attributes["client.port"]) == (client, port)
    assert attributes["network.peer.address"] == "10.0.0.1"


def test_without_a_host_field_the_socket_names_the_server() -> None:
    sent = b"GET /a HTTP/1.0\r\n\r\n"
    wire = Wire(family=Family.INET6, local=("::ffff:10.0.0.9", 80), remote=("2001:db8::2", 1))
    attributes = one(sent, b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", wire=wire).attributes
    assert (attributes["server.address"], attributes["server.port"]) == ("10.0.0.9", 80)
    assert attributes["network.peer.address"] == "2001:db8::2"
    assert attributes["network.protocol.version"] == "1.0"


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("a", ("a", 80)), ("a:81", ("a", 81)), ("[::1]:8", ("::1", 8)), ("[::1]", ("::1", 80)),
        ("a:", ("a", 80)), ("a:x", ("a:x", 80)), ("", ("", 80)), ("a:123456", ("a:123456", 80)),
    ],
)  # fmt: skip
def test_authorities(authority: str, expected: tuple[str, int]) -> None:
    assert split_authority(authority, "http") == expected


def test_no_status_no_error_and_no_sizes_without_a_response() -> None:
    exchange = one(get("/a"), None)
    assert exchange.incomplete == "aborted"
    assert not {k for k in exchange.attributes if k.startswith(("http.response", "error"))}


def test_sizes_that_are_not_exact_are_wire_sizes() -> None:
    early = one(request("POST", "/a", b"Content-Length: 99", body=b"x" * 9), answer(413))
    assert "http.request.body.size" not in early.attributes
    assert early.attributes["otelauto.http.request.wire_size"] == 9
    none = one(request("HEAD", "/a"), bare(200, b"Content-Length: 7"))
    assert not {k for k in none.attributes if "size" in k}


@pytest.mark.parametrize("padding", [0, 100, 4000, 7900])
def test_a_traceparent_anywhere_in_a_long_head(padding: int) -> None:
    fields = (b"X-Pad: " + b"p" * padding, f"TraceParent:  00-{TRACE}-{SPAN}-01 ".encode())
    wire = Wire(heads=Heads())
    assert one(get("/a", *fields), answer(), wire=wire).parent == CONTEXT


def test_the_first_valid_traceparent_counts() -> None:
    fields = [b"traceparent: 00-zz", f"traceparent: 00-{TRACE}-{SPAN}-01".encode()]
    fields.append(f"traceparent: 00-{TRACE}-{SPAN}-00".encode())
    assert one(get("/a", *fields), answer()).parent == CONTEXT


@pytest.mark.parametrize(
    "value",
    [
        "", "00", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-01-x",
        f"01-{TRACE}-{SPAN}-01x", f"00_{TRACE}-{SPAN}-01", f"0x-{TRACE}-{SPAN}-01",
    ],
)  # fmt: skip
def test_invalid_traceparents(value: str) -> None:
    assert traceparent.parse(value.encode()) is None


def test_a_later_version_of_traceparent() -> None:
    assert traceparent.parse(f"cc-{TRACE}-{SPAN}-01-what-follows".encode()) == CONTEXT


def test_unix_sockets() -> None:
    wire = Wire(family=Family.UNIX, path=b"/run/app.sock\0\0", local=("0.0.0.0", 0),
                remote=("0.0.0.0", 0))  # fmt: skip
    exchange = one(get("/a"), answer(), wire=wire)
    assert exchange.local == Address(Family.UNIX, "/run/app.sock")
    assert exchange.attributes["network.peer.address"] == "/run/app.sock"
    assert "client.address" not in exchange.attributes
    assert "network.peer.port" not in exchange.attributes
