# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 in the fast lane is published as the general path would have published it."""

from __future__ import annotations

from functools import partial

import pytest
from tests.hot.http2_traffic import Http2Traffic
from tests.hot.seeds import each
from tests.hot.test_lane import EXCHANGES_A_RUN, EXPONENTIAL, RUNS
from tests.hot.twin import METRICS, TRACES, Step, compare
from tests.wire.http2 import (
    END_STREAM,
    GRPC_HEAD,
    RST,
    TALKS,
    Talk,
    asks,
    calls,
    data,
    frame,
    grpc_trailers,
    hello,
    message,
    says,
)
from tests.wire.test_http2 import play
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Heads, Wire

BOTH = {**TRACES, **METRICS}
SETTINGS = (
    (BOTH, {}),
    (METRICS, {}),
    (BOTH, {"OTELAUTO_NAMING": "2023"}),
    (BOTH, {**EXPONENTIAL, "OTELAUTO_SAMPLING_RULES": "always_off if rpc.method=p.S/Unary"}),
    (BOTH, {"OTELAUTO_FILTER_METRICS": "rpc.response.status_code=OK"}),
)
MESSAGES = ("", "gone", "100%25", "caf%C3%A9", "x" * 300, "caf\u00e9")


def talk_on(wire: Wire, exchanges: int, at_once: int = 1) -> Wire:
    """Exchanges and calls in turns, ``at_once`` of them overlapping, answered backwards."""
    c, s, begins, answers = hello()
    wire.open().send(CLIENT, begins).send(SERVER, answers)
    for first in range(0, exchanges, at_once):
        numbers = [2 * n + 1 for n in range(first, first + at_once)]
        for n in numbers:
            if n % 4 == 1:
                wire.send(CLIENT, c.head(n, asks(f"/users/{n}"), END_STREAM))
            else:
                timed = calls("/p.S/Get", ("grpc-timeout", f"{n}m"))
                wire.send(CLIENT, c.head(n, timed) + data(n, message(n), END_STREAM))
        for n in reversed(numbers):
            if n % 4 == 1:
                wire.send(SERVER, s.head(n, says(200)) + data(n, b"x" * n, END_STREAM))
            else:
                wire.send(SERVER, s.head(n, GRPC_HEAD) + data(n, message(9) + message(n)))
                wire.send(SERVER, s.head(n, grpc_trailers(0), END_STREAM))
    return wire


def steps_of(wire: Wire) -> list[Step]:
    return [*wire.records, wire.time + SECOND_NS]


@pytest.mark.parametrize("view", [SERVER, CLIENT])
@pytest.mark.parametrize("at_once", [1, 2, 10, 100])
def test_plain_exchanges_are_the_lanes(view: str, at_once: int) -> None:
    found = compare(steps_of(talk_on(Wire(view=view), 400, at_once)), BOTH)
    assert sum(found.spans.values()) == 400
    # Of each kind the first one is described. A client's series are by host only.
    assert found.in_lane >= 390


def taken_by_lane(kind: int, seed: int) -> int:
    """How many exchanges of a seed's traffic the lane took, when both ways give the same."""
    return compare(Http2Traffic(seed).make(EXCHANGES_A_RUN), *SETTINGS[kind]).in_lane


@pytest.mark.parametrize("kind", range(len(SETTINGS)))
def test_random_traffic(kind: int) -> None:
    seeds = range(kind, max(RUNS // 2, len(SETTINGS)), len(SETTINGS))
    # It is the lane that is tested.
    assert sum(each(partial(taken_by_lane, kind), seeds)) > 0.03 * EXCHANGES_A_RUN * len(seeds)


@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.name)
@pytest.mark.parametrize("heads", [None, Heads(60, 60, b"-")])
def test_every_talk(talk: Talk, heads: Heads | None) -> None:
    for view in (SERVER, CLIENT):
        for cut in (1, 7, 10_000):
            wire = play(talk, view, lambda _, said, n=cut: range(n, len(said), n), heads)
            compare(steps_of(wire), BOTH)


@pytest.mark.parametrize("view", [SERVER, CLIENT])
@pytest.mark.parametrize("code", [*range(18), 99])
def test_every_status_of_a_call(view: str, code: int) -> None:
    c, s, begins, answers = hello()
    wire = Wire(view=view).open().send(CLIENT, begins).send(SERVER, answers)
    for number in range(30):
        n, text = 2 * number + 1, MESSAGES[number % len(MESSAGES)]
        wire.send(CLIENT, c.head(n, calls("/p.S/Get")) + data(n, message(n), END_STREAM))
        wire.send(SERVER, s.head(n, [*GRPC_HEAD, *grpc_trailers(code, text)], END_STREAM))
    found = compare(steps_of(wire), BOTH)
    assert sum(found.spans.values()) == 30
    # What strangers call is not remembered; numbers that are no status are not plain.
    plain = code <= 16 and not (code == 12 and view == SERVER)
    assert (found.in_lane > 5) is plain


@pytest.mark.parametrize("view", [SERVER, CLIENT])
@pytest.mark.parametrize("code", [0, 2, 5, 8])
def test_streams_that_lack_nothing_but_their_end(view: str, code: int) -> None:
    """Reset without trouble they are whole, by what their heads declared."""
    c, s, begins, answers = hello()
    wire = Wire(view=view).open().send(CLIENT, begins).send(SERVER, answers)
    for number in range(30):
        n, length = 2 * number + 1, 30 if number % 3 else 31
        wire.send(CLIENT, c.head(n, asks("/a"), END_STREAM))
        head = s.head(n, says(200, ("content-length", str(length))))
        wire.send(SERVER, head + data(n, b"x" * 30))
        wire.send(CLIENT, frame(RST, 0, n, code.to_bytes(4)))
    found = compare(steps_of(wire), BOTH)
    assert sum(found.spans.values()) == 30
    assert found.in_lane == (0 if code == 2 else 19)


def test_a_connection_is_given_back_and_taken_again() -> None:
    """Whatever disturbs it: a lost record, bytes that are not seen, another process, its end."""
    for disturb in range(5):
        c, s, begins, answers = hello()
        wire = Wire().open().send(CLIENT, begins).send(SERVER, answers)
        for number in range(120):
            n = 2 * number + 1
            wire.send(CLIENT, c.head(n, asks("/a", "POST")) + data(n, b"u" * 50)[:30])
            if number % 40 == 20 and disturb == 0:
                wire.sequence += 1
            elif number % 40 == 20 and disturb == 1:
                wire.tgid = 78 if wire.tgid == 77 else 77
            wire.send(CLIENT, data(n, b"u" * 50)[30:] + data(n, b"", END_STREAM))
            captured = 60 if number % 40 == 20 and disturb == 2 else None
            wire.send(SERVER, s.head(n, says(200)) + data(n, b"d" * 900, END_STREAM), captured)
            if number % 40 == 20 and disturb == 3:
                wire.send(SERVER, b"\xff" * 20)
        if disturb == 4:
            wire.send(CLIENT, c.head(241, asks("/a"), END_STREAM)).close()
        found = compare(steps_of(wire), BOTH)
        assert sum(found.spans.values()) == 120 + (disturb == 4)
        assert found.in_lane > 60


def test_bulk_data_is_still_told_from_exchanges() -> None:
    c, s, begins, answers = hello()
    wire = Wire().open().send(CLIENT, begins).send(SERVER, answers)
    for number in range(12):
        n = 2 * number + 1
        wire.send(CLIENT, c.head(n, asks("/a"), END_STREAM)).send(SERVER, s.head(n, says(200)))
        for _ in range(40):
            wire.send(SERVER, data(n, bytes(16000)))
        wire.send(SERVER, data(n, b"", END_STREAM))
    found = compare(steps_of(wire), BOTH)
    assert any(verdict.connection == 1 for verdict in found.verdicts.values())
