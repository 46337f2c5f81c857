# SPDX-License-Identifier: Apache-2.0
"""Histograms of the connectors, as OTLP has them (opentelemetry-proto, metrics.proto)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

MAX_SCALE = 20
_MIN_NORMAL = 2.0**-1022


class Explicit:
    """Counts between bounds; a value on a bound belongs below it."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def write(self, point: Any) -> None:
        """Into a HistogramDataPoint."""
        point.explicit_bounds.extend(self._bounds)
        point.bucket_counts.extend(self._counts)
        point.count = sum(self._counts)
        point.sum = self._sum


class Exponential:
    """Counts in buckets whose bounds are powers of ``2 ** 2 ** -scale``; the scale falls so that no
    more than ``max_size`` buckets are needed. Values are not negative.

    Source: OpenTelemetry specification, metrics/data-model.md, "ExponentialHistogram".
    """

    __slots__ = ("_counts", "_least", "_max_size", "_most", "_scale", "_sum", "_total", "_zeros")

    def __init__(self, max_size: int) -> None:
        self._max_size = max(2, max_size)
        self._scale = MAX_SCALE
        self._counts: dict[int, int] = {}
        self._zeros = self._total = 0
        self._sum = 0.0
        self._least, self._most = math.inf, -math.inf

    def observe(self, value: float) -> None:
        self._total += 1
        self._sum += value
        self._least, self._most = min(self._least, value), max(self._most, value)
        if value < _MIN_NORMAL:
            self._zeros += 1
            return
        index = bucket_index(value, self._scale)
        low = min(self._counts, default=index)
        high = max(self._counts, default=index)
        shift = 0
        while (max(high, index) >> shift) - (min(low, index) >> shift) >= self._max_size:
            shift += 1
        if shift:
            self._coarsen(shift)
            index >>= shift
        self._counts[index] = self._counts.get(index, 0) + 1

    def _coarsen(self, shift: int) -> None:
        self._scale -= shift
        merged: dict[int, int] = {}
        for index, count in self._counts.items():
            merged[index >> shift] = merged.get(index >> shift, 0) + count
        self._counts = merged

    def write(self, point: Any) -> None:
        """Into an ExponentialHistogramDataPoint."""
        point.count = self._total
        point.sum = self._sum
        point.scale = self._scale
        point.zero_count = self._zeros
        if self._total:
            point.min, point.max = self._least, self._most
        if self._counts:
            low, high = min(self._counts), max(self._counts)
            point.positive.offset = low
            point.positive.bucket_counts.extend(
                self._counts.get(index, 0) for index in range(low, high + 1)
            )


def bucket_index(value: float, scale: int) -> int:
    """The ``index`` with ``base ** index < value <= base ** (index + 1)``, for a normal value."""
    fraction, exponent = math.frexp(value)  # 0.5 <= fraction < 1
    if fraction == 0.5:  # exactly a power of two: the upper bound of its bucket
        power = exponent - 1
        return (power << scale) - 1 if scale > 0 else (power - 1) >> -scale
    if scale <= 0:
        return (exponent - 1) >> -scale
    return ((exponent - 1) << scale) + math.ceil(math.ldexp(math.log2(2 * fraction), scale)) - 1
