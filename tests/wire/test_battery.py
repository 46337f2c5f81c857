# SPDX-License-Identifier: Apache-2.0
"""Every transcript, read in every way."""

from __future__ import annotations

import random

import pytest
from tests.wire.battery import close, contradiction, play, totals, truths
from tests.wire.transcripts import TRANSCRIPTS, Transcript
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Heads, Reader, Wire, read

from otelauto.flows import meanings
from otelauto.flows.vocabulary import Side

every = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t.name)
both_views = pytest.mark.parametrize("view", [SERVER, CLIENT])

# Without the handshake nobody can know that this is a tunnel: HTTP inside it is HTTP.
TUNNELS = ("WebSocket", "WebSocket broken off", "another protocol after an upgrade",
           "CONNECT tunnel")  # fmt: skip
INSIDE = "/inside"


def test_there_are_enough_transcripts_and_names_are_distinct() -> None:
    assert len({t.name for t in TRANSCRIPTS}) == len(TRANSCRIPTS) >= 25


@every
@both_views
def test_whole(transcript: Transcript, view: str) -> None:
    exchanges = read(play(transcript, view))
    assert truths(exchanges) == list(transcript.truths)
    assert {e.side for e in exchanges} == {Side.SERVER if view == SERVER else Side.CLIENT}
    assert all(e.start_ns <= e.end_ns for e in exchanges)


@every
@both_views
def test_byte_by_byte(transcript: Transcript, view: str) -> None:
    exchanges = read(play(transcript, view, lambda _, data: range(1, len(data))))
    assert truths(exchanges) == list(transcript.truths)


@every
def test_split_at_every_boundary(transcript: Transcript) -> None:
    begins = totals(transcript)
    for cut in range(1, begins[-1]):
        wire = play(transcript, SERVER, lambda number, _, cut=cut: [cut - begins[number]])
        assert truths(read(wire)) == list(transcript.truths), cut


@every
def test_random_cuts(transcript: Transcript) -> None:
    choice = random.Random(transcript.name)
    for _ in range(50):
        view = choice.choice([SERVER, CLIENT])
        count = choice.randint(1, 8)
        wire = play(
            transcript,
            view,
            lambda _, data, count=count: [choice.randrange(len(data)) for _ in range(count)],
        )
        assert truths(read(wire)) == list(transcript.truths)


def _enlarged(transcript: Transcript) -> Transcript:
    """The same conversation with long fields in its heads, so that heads mode has to cut."""
    padding = b"X-Padding: " + b"p" * 600 + b"\r\n"
    turns = tuple(
        (sender, data.replace(b"\r\n", b"\r\n" + padding, 1) if b"HTTP/1." in data[:60] else data)
        for sender, data in transcript.turns
    )
    return Transcript(transcript.name, turns, transcript.truths, transcript.closer)


@every
@both_views
def test_heads_mode(transcript: Transcript, view: str) -> None:
    """Less is copied: sizes may be missing, everything else is the same."""
    wire = play(transcript, view, heads=Heads())
    found = truths(read(wire))
    assert contradiction(found, transcript.truths) is None
    pipelined = "pipelin" in transcript.name
    if not pipelined:
        facts = [(t.method, t.path, t.status, t.incomplete) for t in found]
        assert facts == [(t.method, t.path, t.status, t.incomplete) for t in transcript.truths]


@every
@pytest.mark.parametrize("want", [16, 64, 200, 700])
def test_bodies_and_heads_cut_short(transcript: Transcript, want: int) -> None:
    wire = play(_enlarged(transcript), heads=Heads(want, want))
    assert contradiction(truths(read(wire)), transcript.truths) is None


@every
def test_each_record_lost(transcript: Transcript) -> None:
    wire = play(transcript, cut=lambda _, data: range(40, len(data), 40))
    handshake = 3 if transcript.name in TUNNELS else 0  # records before the upgrade is in sight
    for lost in range(1, len(wire.records)):
        kept = wire.records[:lost] + wire.records[lost + 1 :]
        reader = Reader().feed(kept).tick(wire.time + SECOND_NS)
        found = truths(reader.exchanges)
        if lost <= handshake:
            found = [t for t in found if t.path != INSIDE]
        assert contradiction(found, transcript.truths) is None, lost
        if lost < len(wire.records) - 1:
            assert reader.counters.get(meanings.RECORDS_LOST) == 1


@every
def test_runs_of_records_lost(transcript: Transcript) -> None:
    choice = random.Random(transcript.name)
    wire = play(transcript, cut=lambda _, data: range(30, len(data), 30))
    for _ in range(60):
        kept = [r for r in wire.records if choice.random() > 0.2]
        exchanges = Reader().feed(kept).tick(wire.time + SECOND_NS).exchanges
        if transcript.name in TUNNELS:
            exchanges = [e for e in exchanges if e.path != INSIDE]
        assert contradiction(truths(exchanges), transcript.truths) is None


@every
@both_views
def test_joined_midstream(transcript: Transcript, view: str) -> None:
    """Whatever passed before the attach is not there; nothing may be made of the rest."""
    sends = [
        (sender, data[at : at + 50])
        for sender, data in transcript.turns
        for at in range(0, len(data), 50)
    ]
    for skipped in range(1, len(sends)):
        wire = Wire(view=view, midstream=True).open()
        for sender, data in sends[skipped:]:
            wire.send(sender, data)
        found = truths(read(close(wire, transcript)))
        if transcript.name in TUNNELS:
            found = [t for t in found if t.path != INSIDE]
        assert contradiction(found, transcript.truths) is None, skipped


@every
def test_noise(transcript: Transcript) -> None:
    """Bytes of neither side's making between two turns."""
    choice = random.Random(transcript.name)
    for _ in range(40):
        wire = Wire().open()
        at = choice.randrange(len(transcript.turns))
        for number, (sender, data) in enumerate(transcript.turns):
            if number == at:
                wire.send(choice.choice([CLIENT, SERVER]), choice.randbytes(choice.randint(1, 400)))
            wire.send(sender, data)
        found = truths(read(close(wire, transcript)))
        known = [t for t in found if t.path != INSIDE]
        assert all(
            t.status in (None, *(k.status for k in transcript.truths if k.path == t.path))
            for t in known
        ), found
        paths = {k.path for k in transcript.truths}
        assert {t.path for t in known} <= paths
