# SPDX-License-Identifier: Apache-2.0
"""Exponential histograms of OpenTelemetry as native histograms of Prometheus, and their encoding.

Sources: the OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility", "Exponential
Histograms"; prompb/types.proto of Prometheus for the message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint

from otelauto.agent.pipeline import STALE, NativeHistogram
from otelauto.export.protobuf import double, integer, sized, varint, zigzag

SCHEMA_MIN, SCHEMA_MAX = -4, 8  # what Prometheus knows
ZERO_THRESHOLD = 1e-128  # what OTLP's "zero or nearly" is, where a point does not say it
GAP_MAX = 2  # empty buckets that are cheaper written down than a further span
STALE_COUNT = struct.unpack("<Q", struct.pack("<d", STALE))[0]
Spans = tuple[tuple[int, int], ...]


def native_histogram(
    point: ExponentialHistogramDataPoint, *, stale: bool
) -> NativeHistogram | None:
    """The same histogram; ``None``: its scale is too coarse for Prometheus. A finer one than
    Prometheus has is made coarser by adding neighbours up.
    """
    if point.scale < SCHEMA_MIN:
        return None
    if stale:
        return NativeHistogram(0, STALE, 0, ZERO_THRESHOLD, 0)
    finer = max(0, point.scale - SCHEMA_MAX)
    spans, deltas = _layout(point.positive.bucket_counts, point.positive.offset, finer)
    below_spans, below_deltas = _layout(point.negative.bucket_counts, point.negative.offset, finer)
    return NativeHistogram(
        point.count,
        point.sum if point.HasField("sum") else 0.0,
        point.scale - finer,
        point.zero_threshold or ZERO_THRESHOLD,
        point.zero_count,
        spans,
        deltas,
        below_spans,
        below_deltas,
    )


def _layout(counts: Sequence[int], offset: int, finer: int) -> tuple[Spans, tuple[int, ...]]:
    """Spans and deltas of dense buckets, of which ``2**finer`` become one.

    OTLP's bucket 0 begins at 1, that of Prometheus ends there.
    """
    merged: dict[int, int] = {}
    for number, count in enumerate(counts, offset):
        if count:
            index = (number >> finer) + 1
            merged[index] = merged.get(index, 0) + count
    spans: list[tuple[int, int]] = []
    deltas: list[int] = []
    before = end = 0  # the count of the last bucket, and the index behind it
    for index, count in merged.items():
        gap = index - end
        if not spans or gap > GAP_MAX:
            spans.append((gap, 1))
        else:
            for _ in range(gap):
                deltas.append(-before)
                before = 0
            spans[-1] = (spans[-1][0], spans[-1][1] + gap + 1)
        deltas.append(count - before)
        before, end = count, index + 1
    return tuple(spans), tuple(deltas)


def encoded_histogram(histogram: NativeHistogram, timestamp_ms: int) -> bytes:
    """The message ``Histogram``; the same in remote write 1.0 and 2.0."""
    stale = histogram.sum != histogram.sum
    return b"".join(
        (
            integer(1, STALE_COUNT if stale else histogram.count),
            double(3, histogram.sum),
            integer(4, zigzag(histogram.schema)),
            double(5, histogram.zero_threshold),
            integer(6, histogram.zero_count),
            *(sized(8, _span(*span)) for span in histogram.negative_spans),
            _packed(9, histogram.negative_deltas),
            *(sized(11, _span(*span)) for span in histogram.positive_spans),
            _packed(12, histogram.positive_deltas),
            integer(15, timestamp_ms),
        )
    )


def _span(offset: int, length: int) -> bytes:
    return integer(1, zigzag(offset)) + integer(2, length)


def _packed(field: int, values: Iterable[int]) -> bytes:
    data = b"".join(varint(zigzag(value)) for value in values)
    return sized(field, data) if data else b""
