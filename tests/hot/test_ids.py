# SPDX-License-Identifier: Apache-2.0
"""The ids of the fast lane's spans are of the generator that is named, seeded by the system."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import islice

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.hot.twin import TRACES, Agent
from tests.wire.transcripts import answer, get
from tests.wire.wire import CLIENT, SERVER, Wire

from otelauto.export.encoded import EncodedSpans
from otelauto.export.otlp_encode import SpanEncoder

MASK = (1 << 64) - 1


def words(seed: bytes) -> Iterator[bytes]:
    """xoshiro256++, as its authors describe it."""
    a, b, c, d = struct.unpack("<4Q", seed)
    a |= 1

    def rotated(value: int, by: int) -> int:
        return (value << by | value >> (64 - by)) & MASK

    while True:
        yield ((rotated((a + d) & MASK, 23) + a) & MASK).to_bytes(8, "little")
        moved = (b << 17) & MASK
        c, d = c ^ a, d ^ b
        b, a = b ^ c, a ^ d
        c, d = c ^ moved, rotated(d, 45)


def lane_ids(exchanges: int) -> list[tuple[bytes, bytes]]:
    """Span ids and trace ids of the spans that the lane wrote, in order."""
    agent, wire = Agent(TRACES, True, {}), Wire().open()
    for _ in range(exchanges):
        wire.send(CLIENT, get("/items")).send(SERVER, answer(200, b"x"))
    for record in wire.records:
        agent.flows.feed(record)
    agent.tick(wire.time)
    items = [item for item in agent.items if isinstance(item, EncodedSpans)]
    body = b"".join(SpanEncoder("0", agent.clock).encode(items))
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    return [(span.span_id, span.trace_id) for span in resource.scope_spans[0].spans]


def test_ids_are_those_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: bytes(range(1, size + 1)))
    found = lane_ids(300)
    assert len(found) > 290
    expected = words(bytes(range(1, 33)))
    assert [one + other for one, other in found] == [
        b"".join(islice(expected, 3)) for _ in range(len(found))
    ]


def test_each_agent_has_ids_of_its_own() -> None:
    found = [part for _ in range(2) for ids in lane_ids(2000) for part in ids]
    assert len(found) == len(set(found)) > 7900
    together = [int.from_bytes(part[:8], "big") for part in found]
    for bit in range(64):  # eight standard deviations of a fair coin
        assert abs(sum(word >> bit & 1 for word in together) / len(together) - 0.5) < 0.045
