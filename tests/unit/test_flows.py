# SPDX-License-Identifier: Apache-2.0
"""The table of connections: detection, expiry, verdicts, what is counted."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tests.wire.transcripts import answer, bare, get
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Reader, Wire

from otelauto.abi import OPENING, SEGMENT, CaptureMode, Opening, RecordKind, SegmentFlag
from otelauto.flows import meanings
from otelauto.flows.endpoints import (
    GENEROUS,
    LEARN_EXCHANGES,
    WANT_SHORT_REQUEST,
    WANT_SHORT_RESPONSE,
)
from otelauto.flows.flows import (
    IDLE_NS,
    UNIX_FINISHED_NS,
    UNIX_STALLED_NS,
    Unread,
)
from otelauto.flows.vocabulary import Address, Family, Verdict

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)
NETNS = 4026531840


def exchanges(wire: Wire, count: int, head: bytes = b"X: y") -> Wire:
    for number in range(count):
        wire.send(CLIENT, get(f"/{number}")).send(SERVER, answer(200, b"x", head))
    return wire


def unix_wire(cookie: int = 1, tgid: int = 77) -> Wire:
    nowhere = ("0.0.0.0", 0)
    return Wire(
        cookie=cookie, tgid=tgid, family=Family.UNIX, path=b"/x", local=nowhere, remote=nowhere
    ).open()


@pytest.mark.parametrize("cut", [1, 5, 200])
@pytest.mark.parametrize(("view", "name"), [(SERVER, ":443"), (CLIENT, "192.0.2.5:443")])
def test_ciphertext_is_named_and_left_alone(view: str, name: str, cut: int) -> None:
    here, there = ("10.0.0.1", 40000), ("192.0.2.5", 443)
    wire = Wire(view=view, local=there if view == SERVER else here,
                remote=here if view == SERVER else there).open()  # fmt: skip
    wire.send(CLIENT, HELLO[:cut]).send(CLIENT, HELLO[cut:])
    reader = Reader().feed(wire.records)
    assert reader.flows.take_verdicts() == [Verdict(CaptureMode.MODE_NOTHING, connection=1)]
    assert reader.flows.connections().unread == (Unread("tls", name, 1),)
    assert reader.flows.connections().by_protocol == {"tls": 1}
    at = len(wire.records)
    wire.send(SERVER, answer(200)).send(CLIENT, get("/no")).send(SERVER, answer(200)).close()
    reader.feed(wire.records[at:]).tick(wire.time + SECOND_NS)
    assert not reader.exchanges
    assert reader.flows.connections().open == 0
    assert reader.counters.get(meanings.CONNECTIONS_UNREAD, "tls") == 1


@pytest.mark.parametrize(
    ("turns", "carries"),
    [
        ([(SERVER, b"220 mail ESMTP\r\n"), (CLIENT, b"EHLO x\r\n")], "unknown"),
        ([(CLIENT, bytes(40)), (SERVER, bytes(40))], "unknown"),
        ([(CLIENT, b"*1\r\n$4\r\nPING\r\n"), (SERVER, b"+PONG\r\n")], "unknown"),
        ([(CLIENT, b"A" * 40000), (SERVER, b"B" * 40000)], "unknown"),
    ],
)
def test_what_is_not_read_is_given_up_soon(turns: list[tuple[str, bytes]], carries: str) -> None:
    wire = Wire().open()
    for sender, data in turns:
        wire.send(sender, data)
    reader = Reader().feed(wire.records)
    assert reader.flows.take_verdicts() == [Verdict(CaptureMode.MODE_NOTHING, connection=1)]
    assert reader.flows.connections().unread == (Unread(carries, ":8080", 1),)


def test_an_upgraded_connection_is_left_alone() -> None:
    wire = Wire().open().send(CLIENT, get("/ws", b"Upgrade: websocket")).send(SERVER, bare(101))
    reader = Reader().feed(wire.records)
    assert reader.flows.take_verdicts() == [Verdict(CaptureMode.MODE_NOTHING, connection=1)]
    assert reader.counters.get(meanings.CONNECTIONS_UNREAD, "upgraded") == 1
    assert reader.flows.connections().unread == ()


@pytest.mark.parametrize("view", [SERVER, CLIENT])
def test_a_known_endpoint_has_only_heads_copied(view: str) -> None:
    reader = Reader().feed(exchanges(Wire(view=view).open(), LEARN_EXCHANGES - 1).records)
    assert reader.flows.take_verdicts() == []
    reader.feed(exchanges(Wire(view=view, cookie=2).open(), 1).records)
    (verdict,) = reader.flows.take_verdicts()
    assert verdict.mode == CaptureMode.MODE_HEADS
    if view == SERVER:
        assert verdict.endpoint == (NETNS, Address(Family.INET, "", 8080), True)
        assert (verdict.want, verdict.start) == ((8192, 1024), (b"", b"HTTP/1."))
    else:
        assert verdict.endpoint == (NETNS, Address(Family.INET, "10.0.0.1", 40000), False)
        assert (verdict.want, verdict.start) == ((1024, 8192), (b"HTTP/1.", b""))


def test_longer_heads_raise_what_is_copied() -> None:
    reader = Reader().feed(exchanges(Wire().open(), LEARN_EXCHANGES).records)
    reader.flows.take_verdicts()
    reader.feed(exchanges(Wire(cookie=2).open(), 2, b"X: " + b"l" * 1500).records)
    assert [v.want for v in reader.flows.take_verdicts()] == [(8192, 4096)]
    reader.feed(exchanges(Wire(cookie=3).open(), 2, b"X: " + b"l" * 60000).records)
    assert [v.want for v in reader.flows.take_verdicts()] == [(8192, 16384)]  # it was cut


def test_pipelining_has_more_copied_again() -> None:
    reader = Reader().feed(exchanges(Wire().open(), LEARN_EXCHANGES).records)
    reader.flows.take_verdicts()
    wire = Wire(cookie=2).open().send(CLIENT, get("/a") + get("/b"))
    reader.feed(wire.send(SERVER, answer() + answer()).records)
    endpoint = (NETNS, Address(Family.INET, "", 8080), True)
    (verdict,) = reader.flows.take_verdicts()
    assert (verdict.endpoint, verdict.want) == (endpoint, GENEROUS.want)
    assert verdict.start == (b"", b"HTTP/1.")
    reader.feed(exchanges(Wire(cookie=3).open(), LEARN_EXCHANGES).records)
    assert reader.flows.take_verdicts() == []
    reader.feed(exchanges(Wire(cookie=4).open(), 8 * LEARN_EXCHANGES).records)
    (verdict,) = reader.flows.take_verdicts()
    assert verdict.want < GENEROUS.want


def test_missing_bytes_have_more_of_a_connection_copied_for_a_while() -> None:
    wire = exchanges(Wire().open(), LEARN_EXCHANGES)
    reader = Reader().feed(wire.records)
    reader.flows.take_verdicts()
    at = len(wire.records)
    wire.send(CLIENT, get("/lost")).lose()
    exchanges(wire, 40)
    reader.feed(wire.records[at:])
    verdicts = reader.flows.take_verdicts()
    assert [v.connection for v in verdicts] == [1, 1]
    assert verdicts[0].want == GENEROUS.want > verdicts[1].want
    assert reader.counters.get(meanings.DESYNCS) == 1


def test_a_unix_socket_is_told_by_connection() -> None:
    wire = unix_wire()
    reader = Reader().feed(exchanges(wire, LEARN_EXCHANGES).records)
    (verdict,) = reader.flows.take_verdicts()
    assert (verdict.connection, verdict.endpoint) == (1, None)


def test_the_table_is_bounded_and_says_what_it_forgot() -> None:
    reader = Reader(connections_max=10)
    for cookie in range(1, 31):
        wire = Wire(cookie=cookie, time=cookie * SECOND_NS).open().send(CLIENT, get(f"/{cookie}"))
        reader.feed(wire.records)
    assert reader.flows.connections().open == 10
    assert reader.counters.get(meanings.CONNECTIONS_EXPIRED, "full") == 20
    assert {e.incomplete for e in reader.exchanges} == {"expired"}
    assert sorted(int(str(e.path)[1:]) for e in reader.exchanges) == [*range(1, 21)]


def test_idle_connections_are_forgotten() -> None:
    wire = Wire().open().send(CLIENT, get("/a")).send(SERVER, answer())
    reader = Reader().feed(wire.records).tick(wire.time + IDLE_NS - SECOND_NS)
    assert reader.flows.connections().open == 1
    reader.tick(wire.time + IDLE_NS + 5 * SECOND_NS)
    assert reader.flows.connections().open == 0
    assert reader.counters.get(meanings.CONNECTIONS_EXPIRED, "idle") == 1


def test_unix_sockets_are_forgotten_without_a_record_of_their_close() -> None:
    wire = unix_wire()
    wire.send(CLIENT, b"GET /a HTTP/1.0\r\n\r\n").send(SERVER, b"HTTP/1.0 200 OK\r\n\r\nbody")
    reader = Reader().feed(wire.records).tick(wire.time + SECOND_NS)
    assert not reader.exchanges
    reader.tick(wire.time + UNIX_STALLED_NS)
    assert [e.attributes["http.response.body.size"] for e in reader.exchanges] == [4]
    wire.finish(CLIENT)
    reader.feed(wire.records[-1:]).tick(wire.time + UNIX_FINISHED_NS)
    assert reader.flows.connections().open == 0


def test_a_process_that_is_gone_takes_its_connections_with_it() -> None:
    reader = Reader()
    for cookie, tgid in ((1, 5), (2, 6)):
        reader.feed(unix_wire(cookie=cookie, tgid=tgid).send(CLIENT, get(f"/{tgid}")).records)
    told = Wire(cookie=3, tgid=5).open().send(CLIENT, get("/tcp"))  # its close will be told
    reader.feed(told.records).flows.forget(5)
    assert [(e.path, e.incomplete) for e in reader.exchanges] == [("/5", "aborted")]
    assert reader.flows.connections().open == 2
    reader.feed(told.close().records[-1:])
    assert reader.exchanges[-1].path == "/tcp"


def test_a_lost_opening_leaves_the_addresses_unknown_until_it_comes() -> None:
    wire = exchanges(Wire().open(), 2)
    late = Wire(sequence=wire.sequence).open().records
    at = len(wire.records)
    wire.sequence += 1
    exchanges(wire, 2)
    reader = Reader().feed(wire.records[1:at] + late + wire.records[at:])
    reader.tick(wire.time + SECOND_NS)
    assert reader.counters.get(meanings.OPENINGS_MISSING) == 1
    assert reader.counters.get(meanings.RECORDS_LOST) == 0
    assert [e.peer.host for e in reader.exchanges] == ["", "", "10.0.0.1", "10.0.0.1"]
    assert "network.peer.address" not in reader.exchanges[0].attributes


def test_bad_records_are_counted() -> None:
    wire = Wire().open().send(CLIENT, get("/a"))
    opening, segment = wire.records
    too_long = Opening(*OPENING.unpack(opening))._replace(path_length=0xFFFF)
    wrong = bytearray(segment)
    wrong[1] = 2
    bad = [
        b"",
        b"\x09" * 80,
        opening[:-1],
        segment[:40],
        segment[:-1],
        OPENING.pack(*too_long),
        bytes(wrong),
    ]
    reader = Reader().feed(bad)
    total = sum(v for m, _, v in reader.counters.items() if m is meanings.RECORDS_BAD)
    assert total == len(bad)
    assert reader.flows.connections().open == 0


def test_segments_that_overlap_are_a_desync() -> None:
    wire = Wire().open().send(CLIENT, get("/a"))
    wire.offsets[0] = 3
    wire.send(SERVER, answer()).send(CLIENT, get("/b")).send(SERVER, answer(201))
    reader = Reader().feed(wire.records).tick(wire.time + SECOND_NS)
    assert reader.counters.get(meanings.DESYNCS) == 1
    assert [e.path for e in reader.exchanges] == ["/a", "/b"]


def test_an_ending_of_an_unknown_connection_is_nothing() -> None:
    reader = Reader().feed(Wire().end(SegmentFlag.FLAG_CLOSED).records)
    assert reader.flows.connections().open == 0


def test_nonsense_without_end_is_given_up() -> None:
    choice = random.Random(3)
    wire = exchanges(Wire().open(), 1)
    for number in range(60):
        wire.send(CLIENT, get(f"/n{number}")).send(SERVER, choice.randbytes(200))
    reader = Reader().feed(wire.records)
    assert reader.counters.get(meanings.CONNECTIONS_UNREAD, "desync") == 1
    assert Verdict(CaptureMode.MODE_NOTHING, connection=1) in reader.flows.take_verdicts()
    assert [e.path for e in reader.exchanges if e.incomplete is None] == ["/0"]


def test_memory_of_a_connection_that_says_nothing_is_bounded() -> None:
    wire = Wire().open()
    for _ in range(200):
        wire.send(CLIENT, b"GET /" + b"a" * 16000)
    reader = Reader().feed(wire.records)
    assert reader.flows.connections().open == 1
    connection = next(iter(reader.flows._connections.values()))
    assert sum(len(stream.window()) for stream in connection.streams) < 64 * 1024


def test_the_contract_is_what_the_wire_builds() -> None:
    wire = Wire().open().send(CLIENT, b"x")
    assert wire.records[0][0] == RecordKind.RECORD_OPENING
    assert len(wire.records[1]) == SEGMENT.size + 1


@pytest.mark.parametrize("make", [lambda: Wire().open(), unix_wire])
def test_after_an_interruption_nothing_is_paired_with_what_came_before_it(
    make: Callable[[], Wire],
) -> None:
    wire = exchanges(make(), 3).send(CLIENT, get("/in-flight"))
    reader = Reader().feed(wire.records)
    reader.flows.interrupt()
    at = len(wire.records)
    wire.send(SERVER, answer(200, b"too late")).send(CLIENT, get("/after")).send(
        SERVER, answer(404)
    )
    reader.feed(wire.records[at:]).tick(wire.time + SECOND_NS)
    seen = [(e.path, e.attributes.get("http.response.status_code")) for e in reader.exchanges]
    assert seen == [
        ("/0", 200), ("/1", 200), ("/2", 200), ("/in-flight", None), ("/after", 404),
    ]  # fmt: skip
    assert reader.counters.get(meanings.EXCHANGES_INCOMPLETE, "lost") == 1


def test_heads_are_shortened_and_lengthened_again() -> None:
    reader = Reader()
    reader.feed(exchanges(Wire().open(), LEARN_EXCHANGES + 1).records)
    (learned,) = reader.flows.take_verdicts()
    reader.flows.shorten_heads(True)
    (short,) = reader.flows.take_verdicts()
    assert short.want == (WANT_SHORT_REQUEST, WANT_SHORT_RESPONSE)
    assert all(less < more for less, more in zip(short.want, learned.want, strict=True))
    reader.flows.shorten_heads(True)
    assert reader.flows.take_verdicts() == []
    reader.flows.shorten_heads(False)
    assert reader.flows.take_verdicts() == [learned]


def test_heads_of_an_endpoint_learned_later_are_short_too() -> None:
    reader = Reader()
    reader.flows.shorten_heads(True)
    reader.feed(exchanges(Wire().open(), LEARN_EXCHANGES + 1).records)
    (verdict,) = reader.flows.take_verdicts()
    assert verdict.want == (WANT_SHORT_REQUEST, WANT_SHORT_RESPONSE)
