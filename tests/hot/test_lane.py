# SPDX-License-Identifier: Apache-2.0
"""The fast lane publishes what the general path would have published."""

from __future__ import annotations

import os
from functools import partial

import pytest
from tests.hot.seeds import MANY, each
from tests.hot.traffic import Traffic
from tests.hot.twin import METRICS, TRACES, Agent, Step, compare, differences, run
from tests.wire.battery import play
from tests.wire.transcripts import TRANSCRIPTS, answer, get, post
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Heads, Wire

from otelauto.flows.vocabulary import Family

# TEST_FUZZ_RUNS counts mutated exchanges: that many are compared.
EXCHANGES_A_RUN = 300
RUNS = max(int(os.environ.get("TEST_FUZZ_RUNS", "15000")) // EXCHANGES_A_RUN, 1)
AGGREGATION = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
EXPONENTIAL = {AGGREGATION: "base2_exponential_bucket_histogram"}
SETTINGS = (
    (TRACES, {}),
    (METRICS, {}),
    ({**TRACES, **METRICS}, {"OTELAUTO_NAMING": "2023"}),
    ({**TRACES, **METRICS}, EXPONENTIAL),
)


def keep_alive(exchanges: int, wire: Wire | None = None) -> Wire:
    wire = (wire or Wire()).open()
    for number in range(exchanges):
        wire.send(CLIENT, get(f"/users/{number}", b"User-Agent: t"))
        wire.send(SERVER, answer(200, b"x" * number))
    return wire


@pytest.mark.parametrize("view", [SERVER, CLIENT])
def test_plain_exchanges_are_the_lanes(view: str) -> None:
    steps: list[Step] = [*keep_alive(100, Wire(view=view)).records, 5 * SECOND_NS]
    found = compare(steps)
    assert sum(found.spans.values()) == 100
    # The first exchange is the general reader's, as is the first of each kind.
    assert found.in_lane >= 97


def test_a_difference_is_found() -> None:
    one, other = (run(keep_alive(n).records, True) for n in (5, 6))
    assert differences(one, other)
    assert not differences(one, one)


def test_what_only_time_ends_is_waited_for_in_the_lane_too() -> None:
    """A response on a unix socket ends at a close that leaves no record."""
    agent = Agent(METRICS, True, {})
    wire = keep_alive(10, Wire(family=Family.UNIX, path=b"/run/app.sock\0"))
    response = answer(200, b"x" * 100)
    wire.send(CLIENT, get("/users/1", b"User-Agent: t")).send(SERVER, response[:-1])
    for record in wire.records:
        agent.flows.feed(record)
    agent.tick(wire.time)
    assert agent.publisher.in_lane > 5
    assert agent.flows.waits()
    wire.records.clear()
    for record in wire.send(SERVER, response[-1:]).records:
        agent.flows.feed(record)
    agent.tick(wire.time)
    assert agent.publisher.processed == 11
    assert not agent.flows.waits()


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t.name)
@pytest.mark.parametrize("cut", [None, 1, 7, 40])
def test_every_transcript_after_plain_exchanges(transcript: object, cut: int | None) -> None:
    for view in (SERVER, CLIENT):
        for heads in (None, Heads()):
            wire = keep_alive(3, Wire(view=view, heads=heads))
            for sender, text in transcript.turns:  # type: ignore[attr-defined]
                for at in range(0, len(text), cut or len(text)):
                    wire.send(sender, text[at : at + (cut or len(text))])
            for _ in range(3):
                wire.send(CLIENT, post("/after", b"abc")).send(SERVER, answer(404, b"no"))
            compare([*wire.close().records, wire.time + SECOND_NS])


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t.name)
def test_every_transcript_alone(transcript: object) -> None:
    wire = play(transcript)  # type: ignore[arg-type]
    compare([*wire.records, wire.time + SECOND_NS])


def taken_by_lane(kind: int, seed: int) -> int:
    """How many exchanges of a seed's traffic the lane took, when both ways give the same."""
    return compare(Traffic(seed).make(EXCHANGES_A_RUN), *SETTINGS[kind]).in_lane


@pytest.mark.parametrize("kind", range(len(SETTINGS)))
def test_random_traffic(kind: int) -> None:
    in_lane = sum(each(partial(taken_by_lane, kind), range(kind, RUNS, len(SETTINGS))))
    # It is the lane that is tested.
    assert in_lane > 0.1 * EXCHANGES_A_RUN * RUNS / len(SETTINGS)


def test_a_seed_that_fails_is_named() -> None:
    """Also where other processes take a share."""
    for count in (1, MANY):
        with pytest.raises(AssertionError, match="seed 0: "):
            each(not_the_same, range(count))


def not_the_same(seed: int) -> int:
    assert seed < 0, "of no use"
    return seed
