# SPDX-License-Identifier: Apache-2.0
"""A histogram of one moment, and what came between two moments of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from otelauto.flows.vocabulary import Instrument
from otelauto.hot.cells import Series
from otelauto.spans.span import Service

# Of exponential buckets: scale, count of zeros, index of the first bucket, counts.
Exponential = tuple[int, int, int, list[int]]
# Bucket, value, boot-clock time, trace id, span id.
Exemplar = tuple[int, float, int, bytes, bytes]


@dataclass(slots=True)  # not frozen: to make one takes half as long, and thousands are made at once
class Point:
    """A series as it was at one moment. ``buckets`` are not cumulated.

    ``minimum`` and ``maximum`` are NaN where they are not known. ``since_ns`` is the wall time from
    which on it counts, 0: from the start of the series. ``stale``: the series is no more.
    """

    series: Series
    count: int
    sum: float
    minimum: float
    maximum: float
    buckets: list[int]
    exponential: Exponential | None = None
    exemplars: tuple[Exemplar, ...] = ()
    since_ns: int = 0
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What an endpoint is told of one service: series as they are, or points made of them."""

    service: Service
    series: Sequence[tuple[Instrument, Sequence[Series | Point]]]


def point_of(series: Series) -> Point:
    """The series as it is now."""
    return Point(series, *series.copied())


def stale_point(instrument: Instrument, series: Series) -> Point:
    """What says that there is no such series any more."""
    empty = [0] * (len(instrument.buckets) + 1)
    return Point(series, 0, 0.0, math.nan, math.nan, empty, (0, 0, 0, []), stale=True)


def difference(now: Point, then: Point, then_ns: int) -> Point | None:
    """What came since ``then``, which was at the wall time ``then_ns``; ``None``: nothing."""
    if now.count == then.count:
        return None
    return Point(
        now.series,
        now.count - then.count,
        now.sum - then.sum,
        math.nan,  # of the time since nobody knows
        math.nan,
        [new - old for new, old in zip(now.buckets, then.buckets, strict=True)],
        _exponential_difference(now.exponential, then.exponential),
        now.exemplars,
        since_ns=then_ns,
    )


def _exponential_difference(
    now: Exponential | None, then: Exponential | None
) -> Exponential | None:
    """In the buckets of the later moment, which are as wide as the earlier ones or wider."""
    if now is None or then is None:
        return now
    scale, zeros, first, counts = now
    old_scale, old_zeros, old_first, old_counts = then
    left = list(counts)
    for offset, count in enumerate(old_counts):
        left[((old_first + offset) >> (old_scale - scale)) - first] -= count
    used = [index for index, count in enumerate(left) if count]
    if not used:
        return scale, zeros - old_zeros, 0, []
    return scale, zeros - old_zeros, first + used[0], left[used[0] : used[-1] + 1]
