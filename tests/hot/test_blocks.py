# SPDX-License-Identifier: Apache-2.0
"""Encoded spans lie in blocks, which are used again once nobody reads them."""

from __future__ import annotations

from tests.hot.twin import TRACES, Agent, Step, compare
from tests.wire.transcripts import answer, get
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Wire

from otelauto.export.encoded import EncodedSpans

BLOCK = 64 << 10


def long_paths(wire: Wire, exchanges: int) -> list[Step]:
    wire.records.clear()
    for number in range(exchanges):
        wire.send(CLIENT, get(f"/users/{number}/{'a' * (number * 37 % 6000)}", b"User-Agent: t"))
        wire.send(SERVER, answer(200, b""))
    return [*wire.records, wire.time + SECOND_NS]


def test_spans_of_many_blocks_are_whole() -> None:
    wire = Wire().open()
    opening: list[Step] = [*wire.records]
    assert sum(compare([*opening, *long_paths(wire, 400)]).spans.values()) == 400


def test_a_block_is_not_used_again_while_it_is_read() -> None:
    agent, wire = Agent(TRACES, True, {}), Wire().open()
    for record in wire.records:
        agent.flows.feed(record)
    read: list[tuple[EncodedSpans, bytes]] = []
    for _ in range(4):
        for step in long_paths(wire, 200):
            if isinstance(step, bytes):
                agent.flows.feed(step)
            else:
                agent.tick(step)
        items = [item for item in agent.items if isinstance(item, EncodedSpans)]
        agent.items.clear()
        assert sum(item.count for item in items) >= 190
        assert max(len(item.data) for item in items) > BLOCK // 2
        assert all(item.data.readonly and len(item.data) <= BLOCK for item in items)
        assert all(item.end_of(item.count) == len(item.data) for item in items)
        read = [*read[len(read) // 2 :], *((item, bytes(item.data)) for item in items)]
        assert all(item.data == copy for item, copy in read)
