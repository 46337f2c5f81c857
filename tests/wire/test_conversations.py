# SPDX-License-Identifier: Apache-2.0
"""Pairing, order, time and loss: what no transcript alone can say."""

from __future__ import annotations

import random

import pytest
from tests.wire.battery import truths
from tests.wire.transcripts import CHUNKED, answer, bare, get, post, request
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Heads, Reader, Wire, read

from otelauto.abi import SegmentFlag
from otelauto.flows import meanings
from otelauto.flows.vocabulary import Family


def facts(wire: Wire) -> list[tuple[object, ...]]:
    return [(t.method, t.path, t.status, t.incomplete) for t in truths(read(wire))]


def test_times_run_from_the_first_request_byte_to_the_last_response_byte() -> None:
    wire = Wire().open()
    data, reply = post("/a", b"x" * 10), answer(200, b"y" * 10)
    begin = wire.time + 1000
    for piece in (data[:5], data[5:]):
        wire.send(CLIENT, piece)
    wire.time += 5_000_000
    for piece in (reply[:-1], reply[-1:]):
        wire.send(SERVER, piece)
    end = wire.time
    wire.time += SECOND_NS
    wire.send(CLIENT, get("/b"))
    exchange = Reader().feed(wire.records).exchanges[0]
    assert (exchange.start_ns, exchange.end_ns) == (begin, end)
    assert exchange.tcp_sequences == (1000, 2000)
    assert (exchange.tgid, exchange.tid) == (77, 78)


def test_an_exchange_is_delivered_with_its_last_byte_not_later() -> None:
    wire = Wire().open().send(CLIENT, get("/a")).send(SERVER, bare(200, b"Content-Length: 9"))
    reader = Reader().feed(wire.records)
    wire.send(SERVER, b"12345678")
    assert not reader.feed(wire.records[-1:]).exchanges
    wire.send(SERVER, b"9", captured=0)
    assert len(reader.feed(wire.records[-1:]).exchanges) == 1


def test_bytes_that_nobody_saw_count_for_the_length() -> None:
    """sendfile: the body passes without payload, or between two records."""
    wire = Wire().open().send(CLIENT, get("/a"))
    wire.send(SERVER, bare(200, b"Content-Length: 100000"))
    wire.send(SERVER, b"x" * 60000, captured=0)
    wire.offsets[wire.direction(SERVER)] += 30000
    wire.send(SERVER, b"x" * 10000, captured=0)
    wire.send(CLIENT, get("/b")).send(SERVER, answer(200))
    assert [t.response_size for t in truths(read(wire))] == [100000, 0]


def test_a_request_recorded_before_the_end_of_the_response_before_it() -> None:
    """One thread reads, another writes: both orders give the same."""
    for cut in range(1, len(answer(200, b"first"))):
        reply = answer(200, b"first")
        wire = Wire().open().send(CLIENT, get("/a")).send(SERVER, reply[:cut])
        wire.send(CLIENT, get("/b")).send(SERVER, reply[cut:]).send(SERVER, answer(201, b"no"))
        wire.send(CLIENT, get("/c")).send(SERVER, answer(202))
        found = [(t.path, t.status, t.response_size) for t in truths(read(wire))]
        assert found == [("/a", 200, 5), ("/b", 201, 2), ("/c", 202, 0)]


def test_records_numbered_by_two_threads_at_once_are_not_lost_records() -> None:
    wire = Wire().open()
    for number in range(10):
        wire.send(CLIENT, get(f"/{number}"))
        wire.sequence += 1
        wire.send(SERVER, answer(200))
        wire.sequence -= 2
        wire.end(SegmentFlag(0))
        wire.sequence += 1
    reader = Reader().feed(wire.records).tick(wire.time + SECOND_NS)
    assert len(reader.exchanges) == 10
    assert reader.counters.get(meanings.RECORDS_LOST) == 0


def test_first_exchange_after_the_attach_is_reported_at_once_when_the_next_begins() -> None:
    wire = Wire(midstream=True).open()
    wire.send(SERVER, answer(200, b"to a request before"))
    reader = Reader().feed(wire.records)
    assert reader.counters.get(meanings.RESPONSES_UNMATCHED) == 1
    at = len(wire.records)
    wire.send(CLIENT, get("/a")).send(SERVER, answer(201))
    reader.feed(wire.records[at:])
    assert not reader.exchanges  # a second response would show that /a waits for another
    at = len(wire.records)
    wire.send(CLIENT, get("/b"))
    reader.feed(wire.records[at:])
    assert [e.path for e in reader.exchanges] == ["/a"]
    at = len(wire.records)
    wire.send(SERVER, answer(202))
    reader.feed(wire.records[at:])
    assert [e.path for e in reader.exchanges] == ["/a", "/b"]


def test_first_exchange_after_the_attach_is_reported_when_silence_falls() -> None:
    wire = Wire(midstream=True).open().send(CLIENT, get("/a")).send(SERVER, answer(201))
    reader = Reader().feed(wire.records).tick(wire.time + SECOND_NS // 4)
    assert not reader.exchanges
    assert [t.status for t in truths(reader.tick(wire.time + SECOND_NS).exchanges)] == [201]


def test_a_response_too_many_after_the_attach_spoils_the_pairing() -> None:
    """The client had pipelined: the first response belongs to a request before the attach."""
    wire = Wire(midstream=True).open().send(CLIENT, get("/b"))
    wire.send(SERVER, answer(200, b"for /a")).send(SERVER, answer(404, b"for /b"))
    wire.send(CLIENT, get("/c")).send(SERVER, answer(500))
    reader = Reader().feed(wire.records).tick(wire.time + SECOND_NS)
    assert [(e.path, e.attributes["http.response.status_code"]) for e in reader.exchanges] == [
        ("/c", 500)
    ]
    assert reader.counters.get(meanings.EXCHANGES_UNCONFIRMED) == 1


def test_after_a_lost_record_the_next_exchanges_are_all_there() -> None:
    for lost in range(1, 41):
        wire = Wire().open()
        for number in range(20):
            wire.send(CLIENT, get(f"/{number}")).send(SERVER, answer(200 + number))
        reader = Reader().feed(wire.records[:lost] + wire.records[lost + 1 :])
        reader.tick(wire.time + SECOND_NS)
        whole = [e.path for e in reader.exchanges if e.incomplete is None]
        hit = (lost - 1) // 2
        assert [f"/{n}" for n in range(20) if abs(n - hit) > 1] == [
            p for p in whole if p is not None and abs(int(p[1:]) - hit) > 1
        ]
        assert len(whole) >= 18


def test_many_random_conversations_with_pipelining_are_exact() -> None:
    choice = random.Random(1)
    for _ in range(60):
        wire = Wire(view=choice.choice([SERVER, CLIENT])).open()
        expected = []
        for burst in range(choice.randint(1, 6)):
            paths = [f"/{burst}/{n}" for n in range(choice.randint(1, 8))]
            statuses = [choice.choice([200, 404, 503]) for _ in paths]
            expected += list(zip(paths, statuses, strict=True))
            for piece in _cut(choice, b"".join(get(p) for p in paths)):
                wire.send(CLIENT, piece)
            replies = b"".join(
                answer(s, b"x" * choice.randint(0, 300))
                if choice.random() < 0.5
                else bare(s, CHUNKED) + b"1\r\nx\r\n0\r\n\r\n"
                for s in statuses
            )
            for piece in _cut(choice, replies):
                wire.send(SERVER, piece)
        assert [(t.path, t.status) for t in truths(read(wire))] == expected


def _cut(choice: random.Random, data: bytes) -> list[bytes]:
    at = sorted(choice.sample(range(1, len(data)), choice.randint(0, 5)))
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


@pytest.mark.parametrize("size", [300, 5000, 40000])
def test_chunked_bodies_not_wholly_copied_end_at_their_terminator(size: int) -> None:
    body = b"%x\r\n" % size + b"z" * size + b"\r\n" + b"%x\r\n" % size + b"y" * size + b"\r\n"
    reply = bare(200, CHUNKED) + body
    wire = Wire(heads=Heads(8192, 100)).open().send(CLIENT, get("/a")).send(SERVER, reply)
    wire.send(SERVER, b"z" * 700 + b"\r\n0\r\n\r\n")
    end = wire.time
    reader = Reader().feed(wire.records)
    assert not reader.exchanges
    (exchange,) = reader.tick(wire.time + SECOND_NS).exchanges
    assert exchange.end_ns == end
    assert "http.response.body.size" not in exchange.attributes
    wire_size = len(body) + 707
    assert exchange.attributes["otelauto.http.response.wire_size"] == wire_size


def test_a_terminator_is_confirmed_by_the_next_request() -> None:
    wire = Wire(heads=Heads(8192, 60)).open().send(CLIENT, get("/a"))
    wire.send(SERVER, bare(200, CHUNKED) + b"200\r\n" + b"z" * 512 + b"\r\n0\r\n\r\n")
    wire.send(CLIENT, get("/b"))
    assert [e.path for e in Reader().feed(wire.records).exchanges] == ["/a"]


def test_a_streamed_response_is_not_ended_by_a_pause() -> None:
    wire = Wire(heads=Heads(8192, 60)).open().send(CLIENT, get("/a"))
    wire.send(SERVER, bare(200, CHUNKED) + b"200\r\n" + b"z" * 512 + b"\r\n")
    reader = Reader().feed(wire.records).tick(wire.time + 60 * SECOND_NS)
    assert not reader.exchanges
    wire.time += 60 * SECOND_NS
    wire.send(SERVER, b"0\r\n\r\n")
    reader.feed(wire.records[-1:]).tick(wire.time + SECOND_NS)
    assert [e.end_ns for e in reader.exchanges] == [wire.time]


def test_a_chunked_upload_not_wholly_copied() -> None:
    wire = Wire(heads=Heads(150, 1024)).open()
    body = b"1000\r\n" + b"u" * 4096 + b"\r\n0\r\n\r\n"
    wire.send(CLIENT, request("POST", "/a", CHUNKED, b"X: " + b"p" * 60) + body)
    wire.send(SERVER, answer(201)).send(CLIENT, get("/b")).send(SERVER, answer(200))
    found = read(wire)
    assert [(e.path, e.attributes["http.response.status_code"]) for e in found] == [
        ("/a", 201), ("/b", 200),
    ]  # fmt: skip
    assert found[0].attributes["otelauto.http.request.wire_size"] == len(body)


def test_heads_longer_than_what_was_copied_are_flagged_and_counted() -> None:
    padding = b"X-Long: " + b"p" * 3000
    wire = Wire(heads=Heads(1024, 1024)).open()
    wire.send(CLIENT, get("/a", padding)).send(SERVER, bare(200, padding))
    wire.send(CLIENT, get("/b")).send(SERVER, answer(204))
    reader = Reader().feed(wire.records).tick(wire.time + SECOND_NS)
    assert [(t.path, t.status) for t in truths(reader.exchanges)] == [("/a", 200), ("/b", 204)]
    assert reader.exchanges[0].attributes["otelauto.head.truncated"] is True
    assert "otelauto.head.truncated" not in reader.exchanges[1].attributes
    assert reader.counters.get(meanings.HEADS_TRUNCATED) == 1


def test_a_reset_leaves_an_aborted_exchange_without_a_status() -> None:
    wire = Wire().open().send(CLIENT, get("/a"))
    wire.end(SegmentFlag.FLAG_RESET | SegmentFlag.FLAG_CLOSED)
    assert facts(wire) == [("GET", "/a", None, "aborted")]


def test_a_close_delimited_response_that_is_reset_is_aborted() -> None:
    wire = Wire(view=CLIENT).open().send(CLIENT, get("/a")).send(SERVER, bare(200) + b"part")
    wire.end(SegmentFlag.FLAG_RESET)
    assert facts(wire) == [("GET", "/a", 200, "aborted")]


def test_a_half_closing_client_still_gets_its_answer() -> None:
    wire = Wire().open().send(CLIENT, get("/a")).finish(CLIENT).send(SERVER, answer(200)).close()
    assert facts(wire) == [("GET", "/a", 200, None)]


def test_an_aborted_head_says_what_is_known() -> None:
    wire = Wire().open().send(CLIENT, b"GET /a HTTP/1.1\r\nHost: x\r\n").finish(CLIENT).close()
    assert facts(wire) == [("GET", "/a", None, "aborted")]
    wire = Wire().open().send(CLIENT, b"GET /a HTT").finish(CLIENT).close()
    assert facts(wire) == []


def test_a_stream_whose_framing_is_lost_is_not_ended_by_a_pause_but_by_its_terminator() -> None:
    wire = Wire(heads=Heads(8192, 60)).open().send(CLIENT, get("/a"))
    wire.send(SERVER, bare(200, CHUNKED) + b"7\r\n1234567\r\n" + b"200\r\n" + b"z" * 512 + b"\r\n")
    wire.send(SERVER, b"200\r\n" + b"y" * 512 + b"\r\n")
    reader = Reader().feed(wire.records).tick(wire.time + 60 * SECOND_NS)
    assert not reader.exchanges
    wire.time += 60 * SECOND_NS
    wire.send(SERVER, b"0\r\n\r\n")
    reader.feed(wire.records[-1:]).tick(wire.time + SECOND_NS)
    assert [e.end_ns for e in reader.exchanges] == [wire.time]


def test_a_body_after_100_continue_is_not_the_next_request() -> None:
    lengths = (b"Content-Length: 31", b"Content-Length: 32", b"Expect: 100-continue")
    wire = Wire().open().send(CLIENT, request("POST", "/a", *lengths)).send(SERVER, bare(100))
    wire.send(CLIENT, b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n.").send(SERVER, answer(400))
    wire.send(CLIENT, get("/b")).send(SERVER, answer(200))
    assert facts(wire) == [("POST", "/a", 400, None), ("GET", "/b", 200, None)]


def test_after_100_continue_the_body_comes_whatever_the_answer() -> None:
    fields = (b"Content-Length: 5", b"Expect: 100-continue")
    wire = Wire().open().send(CLIENT, request("POST", "/a", *fields)).send(SERVER, bare(100))
    wire.send(SERVER, answer(413)).send(CLIENT, b"12345").send(CLIENT, get("/b"))
    wire.send(SERVER, answer(200))
    assert [(t.status, t.request_size) for t in truths(read(wire))] == [(413, 5), (200, None)]


def test_a_pause_ends_no_event_stream_even_where_no_close_would_be_seen() -> None:
    """On a unix socket a silent response is taken for ended; events may be minutes apart."""
    for media, ended in ((b"text/event-stream; charset=utf-8", False), (b"text/plain", True)):
        wire = Wire(family=Family.UNIX, path=b"/run/a.sock").open().send(CLIENT, get("/a"))
        wire.send(SERVER, bare(200, CHUNKED, b"Content-Type: " + media))
        wire.send(SERVER, b"9\r\ndata: 1\n\n\r\n")
        reader = Reader().feed(wire.records).tick(wire.time + 600 * SECOND_NS)
        assert len(reader.exchanges) == ended
        wire.records.clear()
        wire.time += 600 * SECOND_NS
        reader.feed(wire.send(SERVER, b"0\r\n\r\n").records).tick(wire.time + SECOND_NS)
        assert [e.incomplete for e in reader.exchanges] == ["aborted" if ended else None]
        if not ended:
            assert reader.exchanges[0].end_ns == wire.time


def test_an_event_stream_is_one_exchange_however_its_events_look() -> None:
    event = b"data: HTTP/1.1 200 OK\n\ndata: GET /no HTTP/1.1\r\nHost: x\r\n\r\n"
    chunk = b"%x\r\n" % len(event) + event + b"\r\n"
    wire = Wire(heads=Heads()).open().send(CLIENT, get("/a"))
    wire.send(SERVER, bare(200, CHUNKED, b"Content-Type: text/event-stream"))
    for _ in range(500):
        wire.time += SECOND_NS
        wire.send(SERVER, chunk)
    wire.send(SERVER, b"0\r\n\r\n").send(CLIENT, get("/b")).send(SERVER, answer(204))
    first, second = read(wire)
    assert (first.path, first.incomplete, second.path) == ("/a", None, "/b")
    assert first.attributes["http.response.body.size"] == 500 * len(event)
    assert first.end_ns - first.start_ns > 500 * SECOND_NS
