# SPDX-License-Identifier: Apache-2.0
"""The protobuf page, decoded with nothing but the wire format. A real Prometheus judges it too."""

from __future__ import annotations

import math
import struct
from collections import Counter, defaultdict
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from otelauto.counters import Counters
from otelauto.export import exposition_proto
from otelauto.export.exposition import Family, Kind
from otelauto.export.exposition_proto import _spans, family_message, red_messages
from otelauto.export.protobuf import _read_varint, fields
from otelauto.export.red import Red
from otelauto.flows.vocabulary import Instrument, Side
from otelauto.spans.span import Service, Span

BOUNDS = (0.1, 1.0)
TOOK = Instrument("took", "s", "Time.", BOUNDS, ("method",), "value")
Fields = dict[int, list[int | bytes]]


def decoded(data: bytes) -> Fields:
    found: Fields = defaultdict(list)
    for number, value in fields(data):
        found[number].append(value)
    return found


def inside(found: Fields, number: int) -> Fields:
    (value,) = found[number]
    assert isinstance(value, bytes)
    return decoded(value)


def real(found: Fields, number: int) -> float:
    (value,) = found[number]
    assert isinstance(value, bytes)
    return float(struct.unpack("<d", value)[0])


def delimited(data: bytes) -> list[Fields]:
    found, at = [], 0
    while at < len(data):
        size, at = _read_varint(data, at)
        found.append(decoded(data[at : at + size]))
        at += size
    return found


def signed(value: int | bytes) -> int:
    assert isinstance(value, int)
    return (value >> 1) ^ -(value & 1)


def native(histogram: Fields) -> Counter[int]:
    """Counts by bucket index, from spans and deltas."""
    found: Counter[int] = Counter()
    (packed,) = histogram.get(13, [b""])
    assert isinstance(packed, bytes)
    deltas, at = [], 0
    while at < len(packed):
        value, at = _read_varint(packed, at)
        deltas.append(signed(value))
    index = count = taken = 0
    for one in histogram[12]:
        assert isinstance(one, bytes)
        span = decoded(one)
        index += signed(span[1][0])
        length = span[2][0]
        assert isinstance(length, int)
        for _ in range(length):
            count += deltas[taken]
            taken += 1
            if count:
                found[index] = count
            index += 1
    assert taken == len(deltas)
    return found


def histograms(values: Sequence[float]) -> list[Fields]:
    red = Red(Counters(), exponential=True, exemplars=True)
    red.add(
        [
            Span(
                Service("shop", "", "1"), "GET", Side.SERVER, b"t" * 16, b"s" * 8, b"", 1, 0, 5,
                {"method": "GET", "value": value}, False, None, (TOOK,),
            )
            for value in values
        ]
    )  # fmt: skip
    messages = delimited(b"".join(red_messages(red.collect(), lambda ns: ns + 10**9)))
    assert messages[0][1] == [b"target_info"]
    found = []
    for message in messages[1:]:
        assert (message[1], message[2], message[3], message[5]) == (
            [b"took_seconds"], [b"Time."], [4], [b"seconds"]
        )  # fmt: skip
        found += [inside(decoded(one), 7) for one in message[4] if isinstance(one, bytes)]
    return found


@given(
    st.lists(
        st.one_of(st.floats(1e-9, 1e9), st.just(0.0), st.integers(-20, 20).map(lambda n: 2.0**n)),
        min_size=1, max_size=60,
    )
)  # fmt: skip
def test_histograms(values: list[float]) -> None:
    (histogram,) = histograms(values)
    assert histogram[1] == [len(values)]
    assert math.isclose(real(histogram, 2), math.fsum(values))
    buckets = [decoded(one) for one in histogram[3] if isinstance(one, bytes)]
    assert [real(one, 2) for one in buckets] == [*BOUNDS, math.inf]
    cumulated = [sum(value <= bound for value in values) for bound in (*BOUNDS, math.inf)]
    assert [one[1] for one in buckets] == [[count] for count in cumulated]
    schema = signed(histogram[5][0])
    assert -4 <= schema <= 8
    assert histogram[7] == [values.count(0.0)]
    found = native(histogram)
    assert sum(found.values()) == len(values) - values.count(0.0)
    # Bucket i holds what is above 2**((i-1) / 2**schema) and at most 2**(i / 2**schema).
    for value in values:
        if value:
            index = math.log2(value) * 2**schema
            assert any(abs(index - i + 0.5) <= 0.5 + 1e-6 for i in found)


@given(st.dictionaries(st.integers(-50, 50), st.integers(1, 1000)))
def test_spans_say_which_buckets(counts: dict[int, int]) -> None:
    spans, deltas = _spans(counts)
    found, index, count, left = {}, 0, 0, iter(deltas)
    for gap, length in spans:
        index += gap
        for _ in range(length):
            count += next(left)
            if count:
                found[index] = count
            index += 1
    assert found == counts
    assert next(left, None) is None
    assert all(gap > exposition_proto.GAP_MAX for gap, _ in spans[1:])


def test_exemplars_and_own_metrics() -> None:
    (histogram,) = histograms([0.5])
    bucket = [decoded(one) for one in histogram[3] if isinstance(one, bytes)][1]
    exemplar = inside(bucket, 3)
    labels = [decoded(one) for one in exemplar[1] if isinstance(one, bytes)]
    assert [(one[1], one[2]) for one in labels] == [
        ([b"trace_id"], [b"74" * 16]), ([b"span_id"], [b"73" * 8])
    ]  # fmt: skip
    assert real(exemplar, 2) == 0.5
    assert inside(exemplar, 3)[1] == [1]
    family = Family("lost", Kind.COUNTER, "Lost.", lambda: [({"reason": "x"}, 3)])
    (message,) = delimited(family_message(family))
    assert (message[1], message[3]) == ([b"lost_total"], [0])
    assert real(inside(inside(message, 4), 3), 1) == 3.0
    assert family_message(Family("none", Kind.GAUGE, "None.", list)) == b""
