# SPDX-License-Identifier: Apache-2.0
"""What a series holds, read from what is exported of it."""

from __future__ import annotations

from typing import NamedTuple

from opentelemetry.proto.metrics.v1.metrics_pb2 import Histogram

from otelauto.hot.cells import Series


class Point(NamedTuple):
    """One moment of a series. ``buckets`` are not cumulated."""

    series: Series
    count: int
    sum: float
    minimum: float
    maximum: float
    buckets: list[int]


def point_of(series: Series) -> Point:
    (found,) = Histogram.FromString(series.point(0, 0, b"", b"")).data_points
    buckets = list(found.bucket_counts)
    return Point(series, found.count, found.sum, found.min, found.max, buckets)
