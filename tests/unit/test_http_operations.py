# SPDX-License-Identifier: Apache-2.0
"""Names of operations of GraphQL and JSON-RPC, read from bodies where the user asks for it."""

from __future__ import annotations

import json

import pytest
from tests.wire import http2
from tests.wire.transcripts import CHUNKED, answer, get, post, request
from tests.wire.wire import CLIENT, SERVER, Heads, Reader, Wire

from otelauto.counters import Counters
from otelauto.flows.vocabulary import Exchange
from otelauto.protocols.http_operations import definitions
from otelauto.protocols.json_body import BODY_MAX, Body, members
from otelauto.protocols.settings import ProtocolSettings
from otelauto.spans.bounded import OPERATIONS_OVERFLOWED, Bounded
from otelauto.spans.chain import to_span
from otelauto.spans.naming import Naming2023
from otelauto.spans.span import Service

ON = ProtocolSettings(operations=("graphql", "jsonrpc"))
JSON = b"Content-Type: application/json; charset=utf-8"
SERVICE = Service("shop", "", "1")
SECRET = "hunter2"


def exchange(
    body: bytes, reply: bytes = b"{}", view: str = SERVER, settings: ProtocolSettings = ON,
    media: bytes = JSON,
) -> Exchange:  # fmt: skip
    wire = Wire(view=view).open().send(CLIENT, post("/api", body, media))
    wire.send(SERVER, answer(200, reply, JSON))
    (found,) = Reader(settings).feed(wire.records).exchanges
    assert SECRET not in str(found)
    assert found.attributes.get("http.request.body.size") == len(body)
    return found


def exchange2(
    body: bytes, reply: bytes = b"{}", view: str = SERVER, settings: ProtocolSettings = ON,
    media: bytes = JSON,
) -> Exchange:  # fmt: skip
    """The same over HTTP/2, each half in two DATA frames, one of which is padded."""
    c, s, begins, answers = http2.hello()
    name, _, value = media.decode().partition(": ")
    head = c.head(1, http2.asks("/api", "POST", (name.lower(), value)))
    first, rest = body[:9], body[9:]
    padded = http2.frame(http2.DATA, http2.PADDED, 1, bytes([3]) + first + bytes(3))
    wire = Wire(view=view).open().send(CLIENT, begins + head + padded)
    wire.send(CLIENT, http2.data(1, rest, http2.END_STREAM)).send(SERVER, answers)
    said = s.head(1, http2.says(200, ("content-type", "application/json")))
    wire.send(SERVER, said + http2.data(1, reply[:7]) + http2.data(1, reply[7:], 1))
    (found,) = Reader(settings).feed(wire.records).exchanges
    assert SECRET not in str(found)
    assert found.attributes.get("http.request.body.size") == len(body)
    return found


def graphql(view: str = SERVER, **members: object) -> tuple[object, object]:
    found = exchange(json.dumps(members).encode(), view=view).attributes.get
    return found("graphql.operation.type"), found("graphql.operation.name")


DOCUMENT = f'query Find($id: ID!) {{ user(id: $id, key: "{SECRET}") {{ name }} }}'


def test_graphql() -> None:
    assert graphql(query=DOCUMENT, variables={"id": SECRET}) == ("query", "Find")
    assert graphql(query="mutation Buy { buy }", operationName=None) == ("mutation", "Buy")
    assert graphql(query="{ me { id } }") == ("query", None)
    assert graphql(query="query A {a} mutation B {b}", operationName="B") == ("mutation", "B")
    assert graphql(query="subscription($a: Int = 1) @live(if: true) { a }") == (
        "subscription",
        None,
    )
    persisted = {"persistedQuery": {"version": 1, "sha256Hash": "00"}}
    assert graphql(operationName="Find", extensions=persisted) == (None, "Find")


def test_what_is_no_graphql() -> None:
    assert graphql(query="query A {a} mutation B {b}") == (None, None)  # which of them?
    assert graphql(query="shoes") == (None, None)
    assert graphql(query=["query A {a}"]) == (None, None)
    assert graphql(operationName="A") == (None, None)


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("", []),
        ("query", []),
        ("# query No {\nquery Yes {a}", [("query", "Yes")]),
        ('query A { a(x: "} query No {") }', [("query", "A")]),
        ('"""query No {""" query A { a }', [("query", "A")]),
        ('{ a(x: """ \\""" } query No { """) }', [("query", "")]),
        ("fragment query on T { a } query B { ...query }", [("query", "B")]),
        ("query A { a } }}} query B {b}", [("query", "A")]),
        ("{" * 5000, [("query", "")]),
    ],
)
def test_definitions(document: str, found: list[tuple[str, str]]) -> None:
    assert definitions(document) == found


def rpc(method: object, view: str = SERVER, reply: object = None) -> Exchange:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"key": SECRET}}
    said = {
        "jsonrpc": "2.0",
        "id": 1,
        **({"result": SECRET} if reply is None else {"error": reply}),
    }
    return exchange(json.dumps(body).encode(), json.dumps(said).encode(), view)


def test_jsonrpc() -> None:
    found = rpc("eth_call")
    expected = {
        "rpc.system.name": "jsonrpc", "rpc.method": "eth_call", "jsonrpc.protocol.version": "2.0",
        "http.response.status_code": 200, "url.path": "/api",
    }  # fmt: skip
    assert expected.items() <= found.attributes.items()
    assert not found.error
    assert "rpc.response.status_code" not in found.attributes
    names = [instrument.name for instrument in found.instruments]
    assert "http.server.request.duration" in names
    assert names[-1] == "rpc.server.call.duration"
    assert found.bounded == ("rpc.method",)


@pytest.mark.parametrize("view", [SERVER, CLIENT])
def test_errors_of_jsonrpc(view: str) -> None:
    found = rpc("a", view, {"code": -32000, "message": SECRET})
    assert found.error
    assert found.attributes["rpc.response.status_code"] == "-32000"
    assert found.attributes["error.type"] == "-32000"
    unknown = rpc("made.up", view, {"code": -32601, "message": "no"}).attributes
    own = view == CLIENT
    assert unknown["rpc.method"] == ("made.up" if own else "_OTHER")
    assert unknown.get("rpc.method_original") == (None if own else "made.up")


def test_the_same_over_http2() -> None:
    """Whatever HTTP/1 gives, for servers and clients, asked for or not."""
    off = ProtocolSettings()
    calls = {"jsonrpc": "2.0", "id": 1, "method": "made.up", "params": {"key": SECRET}}
    refused = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": SECRET}}
    bodies = [
        (json.dumps({"query": DOCUMENT, "variables": {"id": SECRET}}), "{}"),
        (json.dumps(calls), json.dumps({"jsonrpc": "2.0", "result": SECRET})),
        (json.dumps(calls), json.dumps(refused)),
        ("not json at all", "nor this"),
    ]
    named = 0
    for body, reply in bodies:
        for view in (SERVER, CLIENT):
            for settings in (ON, off):
                for media in (JSON, b"Content-Type: text/plain"):
                    words = body.encode(), reply.encode(), view, settings, media
                    one, two = (said.attributes for said in (exchange(*words), exchange2(*words)))
                    assert one.pop("network.protocol.version") == "1.1"
                    assert two.pop("network.protocol.version") == "2"
                    assert one.pop("user_agent.original", "") != two.pop("user_agent.original")
                    assert one == two
                    found = "graphql.operation.name" in two or "rpc.method" in two
                    named += found
                    assert not found or (settings is ON and media is JSON)
    assert named == 6


def test_content_of_http2_is_kept_up_to_a_hole_and_a_limit() -> None:
    document = json.dumps({"query": DOCUMENT, "variables": {"x": "y" * 40_000}}).encode()
    late = json.dumps({"variables": {"x": "y" * BODY_MAX}, "query": DOCUMENT}).encode()
    for body, captured, name in (
        (document, None, "Find"),
        (document, 2000, "Find"),
        (late, None, None),
        (late, 2000, None),
    ):
        c, _, begins, _ = http2.hello()
        json_type = ("content-type", "application/json")
        wire = Wire().open().send(CLIENT, begins + c.head(1, http2.asks("/a", "POST", json_type)))
        for at in range(0, len(body), 9000):
            wire.send(CLIENT, http2.data(1, body[at : at + 9000]), captured)
        wire.send(CLIENT, http2.data(1, b"", http2.END_STREAM))
        wire.send(SERVER, http2.hello()[3] + http2.End().head(1, http2.says(204), 1))
        (found,) = Reader(ON).feed(wire.records).exchanges
        assert found.attributes.get("graphql.operation.name") == name
        assert found.attributes["http.request.body.size"] == len(body)


def test_no_stream_is_given_up_for_the_content_of_others() -> None:
    """More content than is kept: then it is not looked into, and each exchange is whole."""
    c, s, begins, answers = http2.hello()
    wire, count, said = (
        Wire().open().send(CLIENT, begins),
        400,
        ("content-type", "application/json"),
    )
    body = json.dumps({"query": DOCUMENT, "variables": {"x": "y" * 15_000}}).encode()
    for n in range(1, 2 * count, 2):
        head = c.head(n, http2.asks(f"/{n}", "POST", said))
        wire.send(CLIENT, head).send(CLIENT, http2.data(n, body, http2.END_STREAM))
    wire.send(SERVER, answers)
    for n in range(1, 2 * count, 2):
        wire.send(SERVER, s.head(n, http2.says(204), http2.END_STREAM))
    found = Reader(ON).feed(wire.records).exchanges
    assert [(each.path, each.incomplete) for each in found] == [
        (f"/{n}", None) for n in range(1, 2 * count, 2)
    ]
    named = sum("graphql.operation.name" in each.attributes for each in found)
    assert 100 < named < count


def test_what_is_no_jsonrpc() -> None:
    for body in (b'{"method": "a"}', b'{"jsonrpc": "1.0", "method": "a"}', b'[{"jsonrpc": "2.0"}]',
                 b'{"jsonrpc": "2.0", "method": 1}', b"not json", b"", b"[" * 9000):  # fmt: skip
        assert "rpc.method" not in exchange(body).attributes if body else True


def test_nothing_is_read_unasked() -> None:
    body = json.dumps({"jsonrpc": "2.0", "method": "a", "query": DOCUMENT}).encode()
    for settings, name in (
        (ProtocolSettings(), None),
        (ProtocolSettings(operations=("graphql",)), "graphql.operation.name"),
        (ProtocolSettings(operations=("jsonrpc",)), "rpc.method"),
    ):
        found = exchange(body, settings=settings).attributes
        assert {k for k in found if k.startswith(("graphql", "rpc"))} >= ({name} if name else set())
        assert ("rpc.method" in found) is (name == "rpc.method")
        assert ("graphql.operation.name" in found) is (name == "graphql.operation.name")
    assert "rpc.method" not in exchange(body, media=b"Content-Type: text/plain").attributes


def test_bodies_in_pieces_chunked_and_cut() -> None:
    body = json.dumps({"query": DOCUMENT, "variables": {"x": "y" * 3000}}).encode()
    half = len(body) // 2
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:7], body[7:half], body[half:]))
    plain = post("/a", body, JSON)
    other = request("POST", "/a", JSON, CHUNKED, body=chunked + b"0\r\n\r\n")
    for said in (plain, other):
        for step in (1, 50, 5000):
            wire = Wire().open()
            for at in range(0, len(said), step):
                wire.send(CLIENT, said[at : at + step])
            wire.send(SERVER, answer(200)).send(CLIENT, get("/b")).send(SERVER, answer(204))
            first, second = Reader(ON).feed(wire.records).exchanges
            assert first.attributes["graphql.operation.name"] == "Find"
            assert first.attributes["http.request.body.size"] == len(body)
            assert second.path == "/b"
    wire = Wire(heads=Heads(1000)).open().send(CLIENT, plain).send(SERVER, answer(200))
    wire.send(CLIENT, get("/b")).send(SERVER, answer(204))
    first, second = Reader(ON).feed(wire.records).exchanges
    assert first.attributes["graphql.operation.name"] == "Find"
    assert first.attributes["http.request.body.size"] == len(body)
    assert second.path == "/b"


def test_names_are_few_and_harmless() -> None:
    counters = Counters()
    stage = Bounded(counters, 3)
    for number in range(5):
        span = to_span(rpc(f"m{number}"), SERVICE, [stage])
        assert span.attributes["rpc.method"] == (f"m{number}" if number < 3 else "_OTHER")
    assert to_span(rpc("m1"), SERVICE, [stage]).attributes["rpc.method"] == "m1"
    assert counters.get(OPERATIONS_OVERFLOWED) == 2
    stage.forget(SERVICE)
    assert to_span(rpc("new"), SERVICE, [stage]).attributes["rpc.method"] == "new"
    assert rpc("a\x1b[2J" + "b" * 500).attributes["rpc.method"] == "a?[2J" + "b" * 123


def test_labels_and_names_of_2023() -> None:
    found = exchange(json.dumps({"query": DOCUMENT}).encode())
    assert "graphql.operation.name" in found.instruments[0].attributes
    span = to_span(rpc("eth_call"), SERVICE, [Naming2023()])
    assert span.attributes["rpc.method"] == "eth_call"
    assert span.attributes["rpc.system"] == "jsonrpc"


def test_members() -> None:
    wanted = ("a", "b")
    assert members(' {"a" : 1, "x": {"a": 2}, "b":"c"}', wanted) == {"a": 1, "b": "c"}
    assert members('{"a": 1, "b": "cut of', wanted) == {"a": 1}
    for text in ("", "{", "{}", "[]", '{"a"', '{"a":', "{1:2}", '{"a":' + "[" * 100_000):
        assert members(text, wanted) == {}
    body = Body()
    body.feed(b"x" * (BODY_MAX + 1))
    assert (len(body.text()), body.whole) == (BODY_MAX, False)
    body = Body()
    body.feed(b"\xe2\x82")
    body.skip(1)
    body.feed(b"y")
    assert body.text() == "\ufffd"
