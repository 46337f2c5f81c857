# SPDX-License-Identifier: Apache-2.0
"""Bytes that are known to be missing say nothing against a protocol; bytes that are there do."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tests.wire import http2, test_fastcgi
from tests.wire.transcripts import answer, get
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Reader, Wire

from otelauto.flows import meanings
from otelauto.flows.doubt import DESYNCS_MAX, TURNS_JOINED
from otelauto.flows.multiplexed import LOSSES_MAX

ROUNDS = 80  # of losses in a row; each sets back what was counted before
AFTER = 20

# Writes exchange ``number`` as the two turns that it is.
Say = Callable[[int], tuple[bytes, bytes]]


def http1() -> Say:
    return lambda number: (get(f"/{number}"), answer(200, b"x" * (number % 50)))


def http2_streams() -> Say:
    c, s, begins, answers = http2.hello()

    def say(number: int) -> tuple[bytes, bytes]:
        stream = 2 * number + 1
        asked = c.head(stream, http2.asks(f"/{number}"), http2.END_STREAM)
        said = s.head(stream, http2.says(200)) + http2.data(stream, b"hello", http2.END_STREAM)
        return (begins + asked, answers + said) if not number else (asked, said)

    return say


def fastcgi() -> Say:
    return lambda number: (
        test_fastcgi.asks(f"/{number}"), test_fastcgi.says("Status: 200", b"hello"),
    )  # fmt: skip


PROTOCOLS = pytest.mark.parametrize(
    "make", [http1, http2_streams, fastcgi], ids=["http/1", "http/2", "fastcgi"]
)


def lost_all(_: int) -> tuple[bool, bool]:
    return True, True


def lost_in_turns(number: int) -> tuple[bool, bool]:
    """Never two in a row of one direction, so that none is whole and every hole shows."""
    return number % 2 == 1, number % 2 == 0


def lost_by_chance(number: int) -> tuple[bool, bool]:
    choice = random.Random(number)
    return choice.random() < 0.6, choice.random() < 0.6


def lost_requests(_: int) -> tuple[bool, bool]:
    return True, False


def lost_responses(_: int) -> tuple[bool, bool]:
    return False, True


@PROTOCOLS
@pytest.mark.parametrize("view", [SERVER, CLIENT])
@pytest.mark.parametrize(
    "lost", [lost_all, lost_in_turns, lost_by_chance, lost_requests, lost_responses]
)
@pytest.mark.parametrize("first", [0, 5], ids=["from the beginning", "later"])
def test_after_any_losses_exchanges_are_read_again(
    make: Callable[[], Say], view: str, lost: Callable[[int], tuple[bool, bool]], first: int
) -> None:
    wire, say = Wire(view=view).open(), make()
    for number in range(ROUNDS + AFTER):
        loses = lost(number) if first <= number < ROUNDS else (False, False)
        for sender, said, gone in zip((CLIENT, SERVER), say(number), loses, strict=True):
            wire.send(sender, said)
            if gone:
                wire.lose()
    reader = Reader().feed(wire.records).tick(wire.time + SECOND_NS)
    assert reader.flows.connections().unread == ()
    whole = [exchange for exchange in reader.exchanges if exchange.incomplete is None]
    # After header blocks that were lost the path is known again once it is said literally, as each
    # of these is. Where only responses are lost the first one may belong to an earlier request.
    paths = [exchange.path for exchange in whole]
    begin = ROUNDS + (lost is lost_responses)
    expected = [f"/{number}" for number in range(begin, ROUNDS + AFTER)]
    assert paths[-len(expected) :] == expected
    made = {f"/{number}" for number in range(ROUNDS + AFTER)}
    assert set(paths) <= made | {None}
    assert len(set(paths) - {None}) == len([path for path in paths if path is not None])


def test_a_call_without_end_is_not_given_up_for_what_was_lost_of_it() -> None:
    """Each hole loses the place; the exchange that is open ends all the same, and is reported."""
    c, s, begins, answers = http2.hello()
    wire = Wire().open().send(CLIENT, begins + c.head(1, http2.calls("/p.S/Watch")))
    wire.send(SERVER, answers + s.head(1, http2.GRPC_HEAD))
    for _ in range(3 * LOSSES_MAX):
        wire.send(CLIENT, http2.data(1, http2.message(100)))
        wire.send(SERVER, http2.data(1, http2.message(100))).lose()
        wire.send(SERVER, http2.data(1, http2.message(50)))
    wire.send(CLIENT, http2.data(1, b"", http2.END_STREAM))
    wire.send(SERVER, s.head(1, http2.grpc_trailers(0), http2.END_STREAM))
    (exchange,) = Reader().feed(wire.records).exchanges
    assert exchange.attributes["rpc.method"] == "p.S/Watch"
    assert exchange.incomplete is None


def test_what_is_there_still_speaks() -> None:
    """Losses do not excuse the nonsense that comes behind them."""
    choice = random.Random(4)
    wire = Wire().open()
    for number in range(ROUNDS):
        wire.send(CLIENT, get(f"/{number}")).lose().send(SERVER, choice.randbytes(200))
    reader = Reader().feed(wire.records)
    assert not reader.counters.get(meanings.CONNECTIONS_UNREAD, "desync")
    at = len(wire.records)
    for number in range(4 * (DESYNCS_MAX + TURNS_JOINED)):
        wire.send(CLIENT, get(f"/{number}")).send(SERVER, choice.randbytes(200))
    reader.feed(wire.records[at:])
    assert reader.counters.get(meanings.CONNECTIONS_UNREAD, "desync") == 1
    assert all(exchange.incomplete for exchange in reader.exchanges)


def test_a_whole_exchange_restores_what_was_doubted() -> None:
    """Bouts of nonsense, each enough to look for another protocol, with exchanges in between."""
    choice = random.Random(5)
    wire, number = Wire().open(), 0
    for _ in range(6):
        for _ in range(DESYNCS_MAX):
            wire.send(CLIENT, get("/nonsense")).send(SERVER, choice.randbytes(200))
        for _ in range(3):
            wire.send(CLIENT, get(f"/{number}")).send(SERVER, answer(200))
            number += 1
    reader = Reader().feed(wire.records).tick(wire.time + SECOND_NS)
    assert reader.flows.connections().unread == ()
    whole = [exchange.path for exchange in reader.exchanges if exchange.incomplete is None]
    assert whole == [f"/{n}" for n in range(number)]
