# SPDX-License-Identifier: Apache-2.0
"""A great many distinct URLs: few routes, little memory, and every overflow counted.

A million with TEST_SCALE=50.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hot.twin import METRICS, Agent
from tests.scale import SCALE
from tests.wire.transcripts import answer, get
from tests.wire.wire import CLIENT, SERVER, Wire

from otelauto.spans.routes import OTHER, ROUTES_OVERFLOWED

URLS = 20_000 * SCALE
A_CONNECTION = 250
GROWTH_MAX = 5 << 20  # bytes
WARM = 4_000  # the tables, of bounded size, are full by then
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def paths() -> Iterator[str]:
    """Distinct: identifiers, names of things, deep ones, and noise."""
    choice = random.Random(11)
    number = 0
    while True:
        number += 1
        word = "".join(choice.choices(LETTERS, k=6))
        yield from (
            f"/users/{number}/orders/{number * 7}",
            f"/{word}{number % 7}x{number}",
            f"/shop/{word}/{word[::-1]}/{number}",
            f"/{word[:3]}/{word[3:]}/{word}" + f"/{word}" * (number % 12),
        )


def play(agent: Agent, urls: Iterator[str], count: int, cookie: int) -> int:
    """Ask for ``count`` URLs on connections from ``cookie`` on; the next free cookie."""
    for cookie in range(cookie, cookie + count // A_CONNECTION):  # noqa: B020
        wire = Wire(cookie=cookie).open()
        for _ in range(A_CONNECTION):
            wire.send(CLIENT, get(next(urls))).send(SERVER, answer(200, b"x"))
        for record in wire.close().records:
            agent.flows.feed(record)
        agent.tick(wire.time)
    return cookie + 1


@pytest.mark.timeout(120 * SCALE)
@pytest.mark.parametrize("unmatched", ["low-cardinality", "path"])
def test_routes_and_memory_are_bounded(tmp_path: Path, unmatched: str) -> None:
    environ = {"OTELAUTO_ROUTES_UNMATCHED": unmatched}
    agent, urls = Agent(METRICS, True, environ), paths()
    cookie = play(agent, urls, WARM, 1)
    before = resident_bytes()
    play(agent, urls, URLS, cookie)
    assert resident_bytes() - before <= GROWTH_MAX
    counts: dict[str, int] = {}
    for one in agent.publisher.red.collect():
        for instrument, every in one.series:
            if instrument.measures is None:
                for series in every:
                    route = str(series.attributes["http.route"])
                    counts[route] = counts.get(route, 0) + series.count
    assert sum(counts.values()) == agent.publisher.processed == WARM + URLS
    assert len(counts) <= 101
    overflowed = agent.counters.get(ROUTES_OVERFLOWED)
    assert counts.get(OTHER, 0) == overflowed
    if unmatched == "path":
        assert overflowed == WARM + URLS - 100
