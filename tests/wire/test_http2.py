# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 read in every way: whole, cut anywhere, joined late, with losses, with holes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import accumulate

import pytest
from tests.wire.battery import Cut, pieces
from tests.wire.http2 import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    TALKS,
    Fact,
    Talk,
    asks,
    data,
    facts,
    frame,
    hello,
    many_with_tables,
    says,
)
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Heads, Reader, Wire, read

from otelauto.flows import meanings
from otelauto.flows.vocabulary import Exchange, Side

every = pytest.mark.parametrize("talk", TALKS, ids=lambda t: t.name)
both_views = pytest.mark.parametrize("view", [SERVER, CLIENT])


def close(wire: Wire, talk: Talk) -> Wire:
    if talk.closer:
        wire.finish(talk.closer)
        wire.close()
    return wire


def play(
    talk: Talk, view: str = SERVER, cut: Cut | None = None, heads: Heads | None = None
) -> Wire:
    wire = Wire(view=view, heads=heads).open()
    for number, (sender, said) in enumerate(talk.turns):
        for piece in pieces(said, cut(number, said) if cut is not None else ()):
            wire.send(sender, piece)
    return close(wire, talk)


def contradiction(found: Iterable[Fact], true: Iterable[Fact]) -> str | None:
    """What is wrong in ``found``: it may lack exchanges and facts, but invent nothing."""
    known = {(fact.what or "").removeprefix("/"): fact for fact in true}
    seen = set()
    for each in found:
        if each.what is None:
            if each.status not in {None, 200, *(fact.status for fact in known.values())}:
                return f"a status that nobody sent: {each}"
            continue
        what = each.what.removeprefix("/")
        fact = known.get(what)
        if fact is None or what in seen:
            return f"invented or doubled: {each}"
        seen.add(what)
        # A call whose content-type is not known is an HTTP request as far as is known.
        as_http = each.what != fact.what
        for name in ("status",) if as_http else ("status", "request", "response"):
            if getattr(each, name) not in (None, 200, getattr(fact, name)):
                return f"wrong {name}: {each}, not {fact}"
        if each.incomplete is None and fact.incomplete is not None:
            return f"whole: {each}, not {fact}"
    return None


@every
@both_views
def test_whole(talk: Talk, view: str) -> None:
    exchanges = read(play(talk, view))
    assert facts(exchanges) == list(talk.truths)
    assert {e.side for e in exchanges} == {Side.SERVER if view == SERVER else Side.CLIENT}
    assert all(e.start_ns <= e.end_ns and e.tcp_sequences[0] for e in exchanges)


@every
@both_views
def test_byte_by_byte(talk: Talk, view: str) -> None:
    found = facts(read(play(talk, view, lambda _, said: range(1, len(said)))))
    assert found == list(talk.truths)


@every
def test_split_at_every_boundary(talk: Talk) -> None:
    begins = [0, *accumulate(len(said) for _, said in talk.turns)]
    step = 1 if begins[-1] < 1500 else 7
    for cut in range(1, begins[-1], step):
        wire = play(talk, SERVER, lambda number, _, cut=cut: [cut - begins[number]])
        assert facts(read(wire)) == list(talk.truths), cut


@every
@pytest.mark.parametrize("want", [16, 40, 64, 200, 700])
def test_holes(talk: Talk, want: int) -> None:
    """Of each turn only the beginning is copied: facts may be missing, none is wrong."""
    wire = play(talk, heads=Heads(want, want, b"-"))
    assert contradiction(facts(read(wire)), talk.truths) is None


@every
def test_each_record_lost(talk: Talk) -> None:
    wire = play(talk, cut=lambda _, said: range(40, len(said), 40))
    for lost in range(1, len(wire.records)):
        kept = wire.records[:lost] + wire.records[lost + 1 :]
        reader = Reader().feed(kept).tick(wire.time + SECOND_NS)
        assert contradiction(facts(reader.exchanges), talk.truths) is None, lost


@every
def test_runs_of_records_lost(talk: Talk) -> None:
    choice = random.Random(talk.name)
    wire = play(talk, cut=lambda _, said: range(30, len(said), 30))
    for _ in range(60):
        kept = [r for r in wire.records if choice.random() > 0.2]
        exchanges = Reader().feed(kept).tick(wire.time + SECOND_NS).exchanges
        assert contradiction(facts(exchanges), talk.truths) is None


@every
@both_views
def test_joined_midstream(talk: Talk, view: str) -> None:
    sends = [
        (sender, said[at : at + 50])
        for sender, said in talk.turns
        for at in range(0, len(said), 50)
    ]
    for skipped in range(1, len(sends)):
        wire = Wire(view=view, midstream=True).open()
        for sender, said in sends[skipped:]:
            wire.send(sender, said)
        assert contradiction(facts(read(close(wire, talk))), talk.truths) is None, skipped


@every
def test_noise(talk: Talk) -> None:
    choice = random.Random(talk.name)
    for _ in range(40):
        wire = Wire().open()
        at = choice.randrange(len(talk.turns))
        for number, (sender, said) in enumerate(talk.turns):
            if number == at:
                wire.send(choice.choice([CLIENT, SERVER]), choice.randbytes(choice.randint(1, 400)))
            wire.send(sender, said)
        found = facts(read(close(wire, talk)))
        assert {f.what for f in found} <= {None, *(f.what for f in talk.truths)}, found


def joined(talk: Talk, skipped: int) -> list[Exchange]:
    wire = Wire(midstream=True).open()
    for sender, said in talk.turns[skipped:]:
        wire.send(sender, said)
    return read(wire)


def test_after_the_join_every_exchange_is_there_with_what_its_bytes_say() -> None:
    """What was said before is unknown and counted; what is said after is right at once."""
    talk = many_with_tables()
    exchanges = joined(talk, 12)  # five exchanges have passed
    assert len(exchanges) == 25
    for exchange, true in zip(exchanges, talk.truths[5:], strict=True):
        attributes = exchange.attributes
        assert attributes["http.request.method"] == "GET"
        assert attributes.get("url.path", true.what) == true.what
        assert attributes.get("http.response.status_code", true.status) == true.status
    assert sum(e.attributes["http.request.method"] == "GET" for e in exchanges) == 25
    assert [f.what for f in facts(exchanges)][-5:] == [t.what for t in talk.truths[-5:]]
    assert all("otelauto.fields.unknown" not in e.attributes for e in exchanges[-5:])
    assert "otelauto.fields.unknown" in exchanges[0].attributes


def test_unknown_fields_are_counted() -> None:
    talk = many_with_tables()
    wire = Wire(midstream=True).open()
    for sender, said in talk.turns[12:]:
        wire.send(sender, said)
    reader = Reader().feed(wire.records)
    said = sum(int(e.attributes.get("otelauto.fields.unknown", 0)) for e in reader.exchanges)
    assert reader.counters.get(meanings.FIELDS_UNKNOWN) == said > 0


def test_a_hole_within_data_harms_nothing() -> None:
    c, s, begins, answers = hello()
    wire = Wire().open().send(CLIENT, begins + c.head(1, asks("/a"), END_STREAM))
    wire.send(SERVER, answers + s.head(1, says(200)))
    wire.send(SERVER, data(1, b"x" * 16384), captured=2000)
    wire.send(SERVER, data(1, b"y" * 9000, END_STREAM), captured=9)
    wire.send(CLIENT, c.head(3, asks("/b"), END_STREAM))
    wire.send(SERVER, s.head(3, says(201)) + data(3, b"z" * 500, END_STREAM), captured=60)
    reader = Reader().feed(wire.records)
    assert facts(reader.exchanges) == [Fact("/a", 200, None, 25384), Fact("/b", 201, None, 500)]
    assert reader.counters.get(meanings.DESYNCS) == 0


def bulk(hidden_head: bool) -> list[Exchange]:
    """A hole over frame headers, in the one direction and then in the other.

    ``hidden_head``: a request of its own lies in the hole, and puts a field into the table.
    """
    c, s, begins, answers = hello()
    wire = Wire().open()
    first = c.head(1, asks("/up", "POST", ("x-tag", "one")))
    wire.send(CLIENT, begins + first).send(SERVER, answers)
    inside = c.head(3, asks("/hidden", "GET", ("x-tag", "two")), END_STREAM) if hidden_head else b""
    wire.send(CLIENT, data(1, b"u" * 300) + data(1, b"u" * 300) + inside, captured=100)
    wire.send(CLIENT, data(1, b"u" * 50, END_STREAM))
    wire.send(SERVER, s.head(1, says(200, ("etag", "1"))))
    wire.send(SERVER, data(1, b"d" * 300) + data(1, b"d" * 300), captured=100)
    wire.send(SERVER, data(1, b"d" * 40, END_STREAM))
    number = 5 if hidden_head else 3
    for n in range(2):
        path = f"/{n}" if n else "/up"  # "/up" is in the table now
        wire.send(CLIENT, c.head(number + 2 * n, asks(path), END_STREAM))
        wire.send(SERVER, s.head(number + 2 * n, says(200, ("etag", "1"))))
        wire.send(SERVER, data(number + 2 * n, b"x", END_STREAM))
    return read(wire)


def test_a_place_that_was_lost_is_found_at_the_next_frame() -> None:
    """No stream was opened unseen, and each was seen to end: the tables are still right."""
    found = facts(bulk(hidden_head=False))
    assert found == [Fact("/up", 200), Fact("/up", 200, None, 1), Fact("/1", 200, None, 1)]


def test_a_table_that_may_have_changed_unseen_is_not_used() -> None:
    exchanges = bulk(hidden_head=True)
    assert [f.what for f in facts(exchanges)] == ["/up", None, "/1"]
    assert all(f.status == 200 for f in facts(exchanges))
    assert exchanges[1].attributes["otelauto.fields.unknown"]


def test_a_head_that_was_cut_says_so() -> None:
    c, s, begins, answers = hello()
    head = c.head(1, asks("/a", "GET", *[(f"x-{n}", "v" * 40) for n in range(20)]), END_STREAM)
    wire = Wire().open().send(CLIENT, begins + head, captured=len(begins) + 60)
    wire.send(SERVER, answers + s.head(1, says(200), END_STREAM))
    wire.send(CLIENT, c.head(3, asks("/b"), END_STREAM))
    wire.send(SERVER, s.head(3, says(200), END_STREAM))
    reader = Reader().feed(wire.records)
    assert [f.what for f in facts(reader.exchanges)] == ["/a", "/b"]
    assert reader.exchanges[0].attributes["otelauto.head.truncated"] is True
    assert reader.counters.get(meanings.HEADS_TRUNCATED) == 1


def test_a_connection_may_carry_both_schemes() -> None:
    """As behind a proxy: the port that is not written is the scheme's."""
    c, s, begins, answers = hello()
    wire = Wire().open().send(CLIENT, begins).send(SERVER, answers)
    for number, scheme in ((1, "http"), (3, "https"), (5, "http")):
        fields = [(":method", "GET"), (":scheme", scheme), (":path", "/"), (":authority", "shop")]
        wire.send(CLIENT, c.head(number, fields, END_STREAM))
        wire.send(SERVER, s.head(number, says(200), END_STREAM))
    assert [e.attributes["server.port"] for e in read(wire)] == [80, 443, 80]


def test_more_streams_than_are_kept() -> None:
    c, _, begins, _ = hello()
    wire = Wire().open().send(CLIENT, begins)
    for n in range(5000):
        wire.send(CLIENT, c.head(2 * n + 1, asks(f"/{n % 10}"), END_STREAM))
    reader = Reader().feed(wire.records)
    assert len(reader.exchanges) == 5000 - 4096
    assert {e.incomplete for e in reader.exchanges} == {"lost"}
    reader.flows.close()
    assert len(reader.exchanges) == 5000


def test_more_bytes_than_are_kept_of_open_streams() -> None:
    c, _, begins, _ = hello()
    wire = Wire().open().send(CLIENT, begins)
    for n in range(120):
        path = f"/{n}/".ljust(60_000, "x")
        wire.send(CLIENT, frame(HEADERS, END_STREAM, 2 * n + 1, c.block(asks(path), False)[:16000]))
        rest = c.block(asks(path), False)[16000:]
        for at in range(0, len(rest), 16000):
            flags = END_HEADERS if at + 16000 >= len(rest) else 0
            wire.send(CLIENT, frame(CONTINUATION, flags, 2 * n + 1, rest[at : at + 16000]))
    reader = Reader().feed(wire.records)
    assert 40 < len(reader.exchanges) < 60
    assert {e.incomplete for e in reader.exchanges} == {"lost"}
    reader.flows.close()
    assert len(reader.exchanges) == 120


@pytest.mark.parametrize("segments", [20, 1000])
def test_garbage_is_passed_over(segments: int) -> None:
    c, s, begins, answers = hello()
    wire = Wire().open().send(CLIENT, begins).send(SERVER, answers)
    for n in range(segments):
        wire.send(SERVER if n % 2 else CLIENT, b"\xff" * 50)
    wire.send(CLIENT, c.head(1, asks("/a"), END_STREAM))
    wire.send(SERVER, s.head(1, says(200), END_STREAM))
    reader = Reader().feed(wire.records)
    assert facts(reader.exchanges) == [Fact("/a", 200)]
    assert reader.counters.get(meanings.DESYNCS) >= min(segments, 256)
