# SPDX-License-Identifier: Apache-2.0
"""Data points of OTLP histograms, explicit and exponential (opentelemetry-proto, metrics/v1)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from otelauto.export.points import Exemplar, Point
from otelauto.export.protobuf import fixed64, integer, sized, varint, zigzag

# Both kinds: start, time, count = 2, 3, 4 (fixed64), sum = 5 (double).
_POINT = struct.Struct("<BQBQBQBd")
_EXTREMES = struct.Struct("<BdBd")
# Exemplar: time = 2 (fixed64), as_double = 3, span_id = 4, trace_id = 5.
_EXEMPLAR = struct.Struct("<BQBd2s8s2s16s")
NO_RECORDED_VALUE = integer(10, 1)  # flags: the series is no more
# Fields of HistogramDataPoint and ExponentialHistogramDataPoint.
ATTRIBUTES, EXPONENTIAL_ATTRIBUTES = 9, 1
EXEMPLARS, EXPONENTIAL_EXEMPLARS = 8, 11
WallNs = Callable[[int], int]


def encode_exemplars(field: int, exemplars: Iterable[Exemplar], wall_ns: WallNs) -> bytes:
    """The repeated field ``field`` of a data point."""
    return b"".join(
        sized(
            field,
            _EXEMPLAR.pack(
                0x11, wall_ns(time_ns), 0x19, value, b"\x22\x08", span_id, b"\x2a\x10", trace_id
            ),
        )
        for _, value, time_ns, trace_id, span_id in exemplars
    )


def encode_point(point: Point, start_ns: int, now_ns: int, rest: bytes) -> bytes:
    """A HistogramDataPoint as ``Histogram.data_points`` (1).

    min = 11, max = 12, bucket_counts = 6. Times are wall time; ``rest`` are bounds, attributes and
    exemplars, encoded.
    """
    counts = sized(6, struct.pack(f"<{len(point.buckets)}Q", *point.buckets))
    return sized(1, _common(point, start_ns, now_ns, (0x59, 0x61)) + counts + rest)


def encode_exponential(point: Point, start_ns: int, now_ns: int, rest: bytes) -> bytes:
    """An ExponentialHistogramDataPoint as ``ExponentialHistogram.data_points`` (1).

    scale = 6 (sint32), zero_count = 7 (fixed64), min = 12, max = 13, and positive = 8 with
    offset = 1 (sint32) and bucket_counts = 2. ``rest`` as for :func:`encode_point`, without bounds.
    """
    scale, zeros, first, counts = point.exponential or (0, 0, 0, [])
    packed = sized(2, b"".join(map(varint, counts))) if counts else b""
    positive = sized(8, integer(1, zigzag(first)) + packed)
    common = _common(point, start_ns, now_ns, (0x61, 0x69))
    return sized(1, common + integer(6, zigzag(scale)) + fixed64(7, zeros) + positive + rest)


def _common(point: Point, start_ns: int, now_ns: int, extremes: tuple[int, int]) -> bytes:
    body = _POINT.pack(0x11, start_ns, 0x19, now_ns, 0x21, point.count, 0x29, point.sum)
    if point.minimum == point.minimum:  # not NaN
        body += _EXTREMES.pack(extremes[0], point.minimum, extremes[1], point.maximum)
    return body + NO_RECORDED_VALUE if point.stale else body
