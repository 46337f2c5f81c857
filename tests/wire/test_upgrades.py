# SPDX-License-Identifier: Apache-2.0
"""What follows a response with status 101: WebSocket, and HTTP/2 by ``Upgrade: h2c``."""

from __future__ import annotations

import random

import pytest
from tests.wire import http2
from tests.wire.battery import pieces
from tests.wire.transcripts import bare, get, request
from tests.wire.websocket import BINARY, CLOSE, PING, TEXT, close, frame
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Heads, Reader, Wire, read

from otelauto.abi import CaptureMode
from otelauto.flows import meanings
from otelauto.flows.vocabulary import Exchange, Family
from otelauto.protocols.websocket import WANT

MASK = b"\x12\x34\x56\x78"
ASKS = get("/chat", b"Connection: Upgrade", b"Upgrade: websocket")
SAYS = bare(101, b"Connection: Upgrade", b"Upgrade: WebSocket")


def opened(view: str = SERVER, heads: Heads | None = None) -> Wire:
    wire = Wire(view=view, heads=heads).open().send(CLIENT, ASKS)
    wire.time += 4_000_000
    return wire.send(SERVER, SAYS)


def one(wire: Wire) -> Exchange:
    (exchange,) = read(wire)
    return exchange


@pytest.mark.parametrize("view", [SERVER, CLIENT])
def test_a_websocket_is_one_exchange_up_to_its_close_frame(view: str) -> None:
    wire = opened(view)
    start = wire.time - 4_000_000 - 1000
    for number in range(5):
        wire.time += SECOND_NS
        wire.send(CLIENT, frame(TEXT, b"x" * 10 * number, MASK))
        wire.send(SERVER, frame(BINARY, b"y" * 40000))
    wire.send(CLIENT, close(1001, MASK, b"bye"))
    end = wire.time
    wire.time += SECOND_NS
    wire.send(SERVER, close(1001)).finish(SERVER).close()
    exchange = one(wire)
    assert (exchange.start_ns, exchange.end_ns) == (start, end)
    assert exchange.incomplete is None
    assert not exchange.error
    assert exchange.protocol == "websocket"
    expected = {
        "http.request.method": "GET", "url.path": "/chat", "http.response.status_code": 101,
        "otelauto.websocket.request.messages": 5, "otelauto.websocket.request.size": 100,
        "otelauto.websocket.response.messages": 5, "otelauto.websocket.response.size": 200000,
        "otelauto.websocket.close_code": 1001, "otelauto.http.upgrade.duration": 0.004001,
    }  # fmt: skip
    assert expected.items() <= exchange.attributes.items()
    duration = exchange.instruments[0]
    assert duration.name.endswith("request.duration")
    assert duration.measures == "otelauto.http.upgrade.duration"


def test_it_is_published_with_the_second_close_frame_and_once() -> None:
    wire = opened().send(SERVER, close(1000))
    end = wire.time
    wire.send(CLIENT, frame(TEXT, b"late", MASK))
    reader = Reader().feed(wire.records).tick(wire.time + 3600 * SECOND_NS)
    assert not reader.exchanges
    at = len(wire.records)
    wire.send(CLIENT, close(1001, MASK))
    reader.feed(wire.records[at:])
    (exchange,) = reader.exchanges
    assert exchange.end_ns == end
    assert exchange.attributes["otelauto.websocket.close_code"] == 1000
    assert exchange.attributes["otelauto.websocket.request.messages"] == 1
    at = len(wire.records)
    wire.send(CLIENT, get("/a")).finish(CLIENT).close()
    reader.feed(wire.records[at:]).tick(wire.time + SECOND_NS)
    reader.flows.close()
    assert len(reader.exchanges) == 1
    assert not reader.counters.get(meanings.CONNECTIONS_UNREAD, "upgraded")


def test_its_segments_are_copied_a_little() -> None:
    reader = Reader().feed(opened().records)
    verdict = reader.flows.take_verdicts()[-1]
    assert (verdict.connection, verdict.mode, verdict.want) == (
        1,
        CaptureMode.MODE_HEADS,
        (WANT,) * 2,
    )


@pytest.mark.parametrize("view", [SERVER, CLIENT])
@pytest.mark.parametrize("finisher", [SERVER, CLIENT])
def test_an_end_without_a_close_frame_is_flagged(view: str, finisher: str) -> None:
    wire = opened(view).send(CLIENT, frame(TEXT, b"hi", MASK)).finish(finisher).close()
    reader = Reader().feed(wire.records)
    (exchange,) = reader.exchanges
    assert exchange.incomplete == "aborted"
    assert exchange.start_ns < exchange.end_ns <= wire.time
    assert exchange.attributes["http.response.status_code"] == 101
    assert exchange.attributes["otelauto.websocket.request.messages"] == 1
    assert reader.counters.get(meanings.EXCHANGES_INCOMPLETE, "aborted") == 1


@pytest.mark.parametrize("closer", [SERVER, CLIENT])
def test_one_close_frame_is_enough(closer: str) -> None:
    wire = opened().send(closer, close(1001, MASK if closer == CLIENT else None))
    end = wire.time
    exchange = one(wire.finish(closer).close())
    assert (exchange.incomplete, exchange.end_ns) == (None, end)


def test_the_end_of_otelauto_is_flagged() -> None:
    wire = opened().send(CLIENT, frame(TEXT, b"hi", MASK))
    reader = Reader().feed(wire.records)
    reader.flows.close()
    (exchange,) = reader.exchanges
    assert (exchange.incomplete, exchange.end_ns) == ("aborted", wire.time)
    assert reader.counters.get(meanings.EXCHANGES_INCOMPLETE, "aborted") == 1


def test_silence_on_a_unix_socket_ends_nothing() -> None:
    wire = Wire(family=Family.UNIX, path=b"/run/a.sock").open().send(CLIENT, ASKS)
    reader = Reader().feed(wire.send(SERVER, SAYS).records).tick(wire.time + 600 * SECOND_NS)
    assert not reader.exchanges
    wire.records.clear()
    wire.time += 600 * SECOND_NS
    reader.feed(wire.send(SERVER, close(1000)).send(CLIENT, close(1000, MASK)).records)
    assert [e.incomplete for e in reader.exchanges] == [None]


def conversation(
    choice: random.Random,
) -> tuple[list[tuple[str, bytes]], dict[str, tuple[int, int]]]:
    """Writes, and (messages, bytes) by sender."""
    writes, counts = [], {CLIENT: (0, 0), SERVER: (0, 0)}
    for _ in range(choice.randint(1, 30)):
        side = choice.choice([CLIENT, SERVER])
        mask = choice.randbytes(4) if side == CLIENT else None
        said = b""
        for _ in range(choice.choice([1, 1, 1, 5])):
            size = choice.choice([0, 1, 5, 125, 126, 300, 3000, 70000])
            parts = choice.choice([1, 1, 3])
            for part in range(parts):
                said += frame(
                    TEXT if not part else 0, choice.randbytes(size), mask, part == parts - 1
                )
            if choice.random() < 0.2:
                said += frame(PING, b"p", mask)
            count, total = counts[side]
            counts[side] = (count + 1, total + size * parts)
        writes.append((side, said))
    closer = choice.choice([CLIENT, SERVER])
    writes.append((closer, close(1000, MASK if closer == CLIENT else None)))
    return writes, counts


def test_any_frames_in_any_pieces() -> None:
    choice = random.Random(1)
    for _ in range(40):
        writes, counts = conversation(choice)
        wire = opened(choice.choice([CLIENT, SERVER]))
        for side, said in writes:
            cuts = [choice.randrange(1, len(said)) for _ in range(len(said) // 9000 + 1)]
            for piece in pieces(said, cuts):
                for at in range(0, len(piece), 16384):
                    wire.send(side, piece[at : at + 16384])
        exchange = one(wire.close())
        assert exchange.incomplete is None
        for side, word in ((CLIENT, "request"), (SERVER, "response")):
            get = exchange.attributes.get
            found = tuple(get(f"otelauto.websocket.{word}.{what}") for what in ("messages", "size"))
            assert found == counts[side]


def test_little_of_each_segment_is_enough_for_the_end() -> None:
    """Frames in the middle of what was not copied are missed, and nothing is claimed of them."""
    choice = random.Random(2)
    for _ in range(40):
        writes, counts = conversation(choice)
        wire = opened(heads=Heads(WANT, WANT, b"-"))
        for side, said in writes:
            wire.send(side, said)
        end = wire.time
        exchange = one(wire.close())
        assert (exchange.incomplete, exchange.end_ns) == (None, end)
        for side, word in ((CLIENT, "request"), (SERVER, "response")):
            get = exchange.attributes.get
            found = tuple(get(f"otelauto.websocket.{word}.{what}") for what in ("messages", "size"))
            assert found in (counts[side], (None, None))


@pytest.mark.parametrize("lost", range(3, 12))
def test_a_lost_record_invents_nothing(lost: int) -> None:
    wire = opened()
    for number in range(4):
        wire.send(CLIENT, frame(TEXT, get(f"/{number}"), bytes(4)))
        wire.send(SERVER, frame(TEXT, bare(200), None))
    wire.send(CLIENT, close(1000, MASK))
    del wire.records[lost]
    exchanges = Reader().feed(wire.finish(CLIENT).close().records).exchanges
    assert [e.path for e in exchanges] == ["/chat"]
    assert exchanges[0].incomplete == ("aborted" if lost == 11 else None)


def test_what_is_no_close_frame_ends_nothing() -> None:
    wire = opened()
    wire.send(SERVER, frame(TEXT, close(1000)))  # within a message
    wire.send(CLIENT, b"\xff" * 40)  # no frame at all
    wire.send(CLIENT, close(1000))  # a client masks
    wire.send(CLIENT, frame(CLOSE, b"r" * 126, MASK))  # too long for a control frame
    assert not read(wire)


# ---- h2c ----

UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
SWITCHES = bare(101, b"Connection: Upgrade", b"Upgrade: h2c")


def h2c(asked: bytes, view: str = SERVER) -> tuple[Wire, http2.End, http2.End, bytes]:
    """A wire on which the upgrade was asked for and granted; both ends, the client's beginning."""
    c, s, begins, answers = http2.hello()
    wire = Wire(view=view).open().send(CLIENT, asked).send(SERVER, SWITCHES)
    return wire.send(SERVER, answers), c, s, begins


@pytest.mark.parametrize("view", [SERVER, CLIENT])
def test_the_request_that_asked_for_http2_is_its_first_stream(view: str) -> None:
    context = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    asked = get("/a?q=1", *UPGRADE, b"User-Agent: test/1", b"traceparent: " + context)
    wire, c, s, begins = h2c(asked, view)
    start = wire.time - 2000
    wire.send(CLIENT, begins)
    wire.send(SERVER, s.head(1, http2.says(200)) + http2.data(1, b"hello", http2.END_STREAM))
    end = wire.time
    wire.send(CLIENT, c.head(3, http2.asks("/b"), http2.END_STREAM))
    wire.send(SERVER, s.head(3, http2.says(404)) + http2.data(3, b"no", http2.END_STREAM))
    first, second = read(wire)
    assert http2.facts([first, second]) == [
        http2.Fact("/a", 200, None, 5), http2.Fact("/b", 404, None, 2),
    ]  # fmt: skip
    assert (first.start_ns, first.end_ns) == (start, end)
    assert first.tcp_sequences[0] == 1000 * (2 if view == CLIENT else 1)
    assert (first.tgid, first.tid) == (77, 78)
    assert first.parent is not None
    assert first.parent.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    expected = {
        "http.request.method": "GET", "url.scheme": "http", "server.address": "svc.example",
        "server.port": 8080, "user_agent.original": "test/1", "network.protocol.version": "2",
    }  # fmt: skip
    assert expected.items() <= first.attributes.items()
    assert first.protocol == "http2"


def test_the_server_may_answer_before_the_client_has_begun() -> None:
    wire, _, s, begins = h2c(get("/a", *UPGRADE))
    wire.send(SERVER, s.head(1, http2.says(204), http2.END_STREAM)).send(CLIENT, begins)
    assert http2.facts(read(wire)) == [http2.Fact("/a", 204)]


def test_a_request_with_a_body() -> None:
    length = b"Content-Length: 300"
    wire, _, s, begins = h2c(request("POST", "/a", *UPGRADE, length, body=b"b" * 300))
    wire.send(CLIENT, begins).send(SERVER, s.head(1, http2.says(201), http2.END_STREAM))
    assert http2.facts(read(wire)) == [http2.Fact("/a", 201, 300)]


def test_every_split_of_an_upgrade() -> None:
    c, s, begins, answers = http2.hello()
    turns = [
        (CLIENT, get("/" + "a" * 150, *UPGRADE)),
        (SERVER, SWITCHES + answers + s.head(1, http2.says(200))),
        (CLIENT, begins + c.head(3, http2.asks("/b"), http2.END_STREAM)),
        (SERVER, http2.data(1, b"hello", http2.END_STREAM) + s.head(3, http2.says(404), 1)),
    ]
    for turn, (_, said) in enumerate(turns):
        for cut in range(1, len(said)):
            wire = Wire().open()
            for number, (side, text) in enumerate(turns):
                for piece in pieces(text, [cut] if number == turn else []):
                    wire.send(side, piece)
            expected = [http2.Fact("/" + "a" * 150, 200, None, 5), http2.Fact("/b", 404)]
            assert http2.facts(read(wire)) == expected, (turn, cut)


def test_a_server_that_does_not_change() -> None:
    wire = Wire().open().send(CLIENT, get("/a", *UPGRADE)).send(SERVER, bare(204))
    wire.send(CLIENT, get("/b")).send(SERVER, bare(204))
    assert [e.path for e in read(wire)] == ["/a", "/b"]


def test_after_lost_records_http2_is_found_again() -> None:
    wire, c, s, begins = h2c(get("/a", *UPGRADE))
    wire.send(CLIENT, begins)
    wire.send(SERVER, s.head(1, http2.says(200), http2.END_STREAM))
    for number in range(3, 41, 2):
        wire.send(CLIENT, c.head(number, http2.asks(f"/{number}"), http2.END_STREAM))
        wire.send(SERVER, s.head(number, http2.says(200), http2.END_STREAM))
    for lost in range(4, len(wire.records) - 8):
        kept = wire.records[:lost] + wire.records[lost + 1 :]
        found = Reader().feed(kept).tick(wire.time + SECOND_NS).exchanges
        whole = {e.path for e in found if e.incomplete is None}
        assert {"/37", "/39"} <= whole, lost
        assert whole <= {"/a", None, *(f"/{n}" for n in range(3, 41, 2))}


def test_bytes_recorded_before_the_response_that_they_follow() -> None:
    """One thread reads, another writes: a frame may be recorded before the 101 that allowed it."""
    wire = Wire().open().send(CLIENT, ASKS).send(CLIENT, frame(TEXT, b"hi", MASK))
    wire.send(SERVER, SAYS).send(CLIENT, close(1000, MASK)).close()
    assert one(wire).attributes["otelauto.websocket.request.messages"] == 1


def test_requests_behind_one_that_might_have_changed_the_protocol() -> None:
    asked = (
        get("/a", *UPGRADE) + request("POST", "/b", b"Content-Length: 2", body=b"xy") + get("/c")
    )
    wire = Wire().open().send(CLIENT, asked).send(SERVER, bare(204)).send(SERVER, bare(204) * 2)
    wire.send(CLIENT, get("/d")).send(SERVER, bare(204))
    assert [(e.path, e.incomplete) for e in read(wire)] == [(f"/{n}", None) for n in "abcd"]
