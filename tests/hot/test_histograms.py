# SPDX-License-Identifier: Apache-2.0
"""Histograms are written out as the obvious Python code would write them."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from random import Random

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Histogram

from otelauto.export.otlp_encode import key_values
from otelauto.export.protobuf import double
from otelauto.hot.cells import Lines, Series

# TEST_FUZZ_RUNS counts values.
RUNS = max(int(os.environ.get("TEST_FUZZ_RUNS", "15000")) // 50, 1)


def random_values(random: Random, bounds: Sequence[float]) -> list[float]:
    """Some of each size, and some that are exactly a bound."""
    choices = (
        lambda: random.choice(bounds) if bounds else 1.0,
        lambda: random.uniform(0, 12),
        lambda: float(random.getrandbits(random.randrange(64))),
        lambda: random.uniform(-1, 1) * 10.0 ** random.randrange(-300, 18),
    )
    return [random.choice(choices)() for _ in range(random.randrange(1, 100))]


def expected_lines(labels: str, bounds: Sequence[float], values: Sequence[float]) -> str:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    texts = [*map(str, bounds), "+Inf"]
    lines = [
        f'x_bucket{{{labels},le="{text}"}} {count}\n'
        for text, count in zip(texts, accumulate(counts), strict=True)
    ]
    total = 0.0
    for value in values:  # in this order: sum() of Python 3.12 adds more exactly
        total += value
    return f"{''.join(lines)}x_sum{{{labels}}} {total}\nx_count{{{labels}}} {len(values)}\n"


def lines_of(bounds: Sequence[float]) -> Lines:
    ends = [f',le="{text}"}} '.encode() for text in [*map(str, bounds), "+Inf"]]
    return Lines(b"x_bucket{", ends, b"x_sum{", b"x_count{")


def test_both_forms_hold_what_was_recorded() -> None:
    random = Random(8)
    for _ in range(RUNS):
        bounds = tuple(sorted(random.sample(range(-5, 20), random.randrange(0, 20))))
        floats = tuple(bound / 4 for bound in bounds)
        values = random_values(random, floats)
        attributes = {"n": random.randrange(1 << 40), "é": "x" * random.randrange(300)}
        series = Series(attributes, floats, 7)
        for value in values:
            series.record(value)
        labels = f'n="{attributes["n"]}",é="{attributes["é"]}"'
        text = lines_of(floats).written(series, labels.encode())
        assert text.decode() == expected_lines(labels, floats, values)

        packed = series.point(3, 1 << 63, double(7, 0.5), key_values(9, attributes))
        (point,) = Histogram.FromString(packed).data_points
        assert (point.start_time_unix_nano, point.time_unix_nano) == (3, 1 << 63)
        assert (point.count, point.min, point.max) == (len(values), min(values), max(values))
        assert f"x_sum{{{labels}}} {point.sum}\n" in text.decode()
        assert list(accumulate(point.bucket_counts)) == [
            sum(value <= bound for value in values) for bound in (*floats, float("inf"))
        ]
        assert list(point.explicit_bounds) == [0.5]
        assert {pair.key for pair in point.attributes} == attributes.keys()


def test_lines_of_another_instrument_are_refused() -> None:
    with pytest.raises(ValueError, match="another instrument"):
        lines_of((1.0,)).written(Series({}, (1.0, 2.0), 0), b"")
