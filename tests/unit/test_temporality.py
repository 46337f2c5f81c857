# SPDX-License-Identifier: Apache-2.0
"""Temporality, exponential histograms and exemplars, against the OpenTelemetry SDK's."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otelauto.counters import Counters
from otelauto.export import temporality
from otelauto.export.otlp_encode import MetricEncoder
from otelauto.export.red import Red
from otelauto.export.temporality import SERIES_LOST, Cumulative, Delta
from otelauto.flows.vocabulary import Instrument, Side
from otelauto.hot.cells import Series
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Service, Span

SHOP, CART = Service("shop", "", "1"), Service("cart", "", "2")
BOUNDS = (0.005, 0.1, 1.0, 5.0)
TOOK = Instrument("took", "s", "Time.", BOUNDS, ("method",), "value")
WALL = 1_700_000_000_000_000_000
VALUES = st.one_of(
    st.floats(1e-9, 1e12),
    st.integers(0, 60).map(lambda n: 2.0**n),
    st.sampled_from((0.0, 1.0, 5.0)),
)


def span(value: float, service: Service = SHOP, end_ns: int = 1000, number: int = 1) -> Span:
    attributes = {"method": "GET", "value": value}
    return Span(
        service, "GET", Side.SERVER, number.to_bytes(16), number.to_bytes(8), b"", 1, 500, end_ns,
        attributes, False, None, (TOOK,),
    )  # fmt: skip


class Reference:
    """A histogram of the OpenTelemetry SDK."""

    def __init__(self, exponential: bool, delta: bool) -> None:
        wanted = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        self.reader = InMemoryMetricReader(preferred_temporality={Histogram: wanted})
        view = View(
            instrument_name="took",
            aggregation=ExponentialBucketHistogramAggregation(max_size=160, max_scale=20),
        )
        self.provider = MeterProvider(
            metric_readers=[self.reader],
            views=[view] if exponential else [],
            shutdown_on_exit=False,
        )
        meter = self.provider.get_meter("reference")
        self.histogram = meter.create_histogram("took", explicit_bucket_boundaries_advisory=BOUNDS)

    def record(self, values: Sequence[float]) -> None:
        for value in values:
            self.histogram.record(value)

    def point(self) -> Any:
        data = self.reader.get_metrics_data()
        if data is None:
            return None
        (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
        return point


class Endpoint:
    """An endpoint of otelauto's that takes what arrives, with its reader and encoder."""

    def __init__(self, delta: bool, exponential: bool, red: Red | None = None) -> None:
        self.counters = Counters()
        self.now = 10_000
        self.exemplars_from = 0
        self.red = red or Red(
            Counters(), exponential=exponential, exemplars=True, now_ns=lambda: self.now
        )
        self.reader = Delta(self.counters) if delta else Cumulative()
        self.clock_offset, self.boot = WALL, 0
        clock = WallClock(boot=lambda: self.boot, wall=lambda: self.boot + self.clock_offset)
        self.clock = clock
        self.encoder = MetricEncoder("1", clock, delta=delta, exponential=exponential)
        self.field = "exponential_histogram" if exponential else "histogram"

    def push(self, arrives: bool = True) -> list[Any]:
        """The data points of one export."""
        self.now += 1000
        collected = self.reader.read(self.red.collect(), self.clock.wall_ns(self.now))
        body = self.encoder.encode(collected, self.now, self.exemplars_from)
        request = ExportMetricsServiceRequest.FromString(body)
        if arrives:
            self.reader.delivered()
            self.exemplars_from = self.encoder.exemplars_to
        return [
            point
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in getattr(metric, self.field).data_points
        ]


def buckets(scale: int, zeros: int, offset: int, counts: Sequence[int], to: int) -> Counter[Any]:
    """Counts by index of the buckets at the coarser scale ``to``."""
    found: Counter[Any] = Counter({"zero": zeros}) if zeros else Counter()
    for number, count in enumerate(counts):
        if count:
            found[(offset + number) >> (scale - to)] += count
    return found


def of_point(point: Any, to: int) -> Counter[Any]:
    positive = point.positive
    return buckets(point.scale, point.zero_count, positive.offset, list(positive.bucket_counts), to)


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=60))
def test_exponential_histograms_are_the_sdks(values: list[float]) -> None:
    reference, endpoint = Reference(True, False), Endpoint(False, True)
    reference.record(values)
    endpoint.red.add([span(value) for value in values])
    (found,) = endpoint.push()
    expected = reference.point()
    assert (found.count, found.zero_count) == (expected.count, expected.zero_count)
    assert found.sum == pytest.approx(expected.sum)
    assert (found.min, found.max) == (expected.min, expected.max)
    # Where no value is above 0, neither scale nor offset say anything.
    if expected.count > expected.zero_count:
        assert found.scale == expected.scale
        assert of_point(found, found.scale) == of_point(expected, expected.scale)


def test_exponential_quantiles_are_within_the_promised_error() -> None:
    """160 buckets over a factor of 10^4 are at scale 3: no value is off by more than 2**(1/16)."""
    choice = random.Random(5)
    values = [10 ** choice.uniform(-4, 0) for _ in range(20_000)]
    endpoint = Endpoint(False, True)
    endpoint.red.add([span(value) for value in values])
    (found,) = endpoint.push()
    assert found.scale == 3
    values.sort()
    ranked = []
    for number, count in enumerate(found.positive.bucket_counts):
        middle = 2.0 ** ((found.positive.offset + number + 0.5) / 2**found.scale)
        ranked += [middle] * count
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        at = int(share * len(values))
        assert 2 ** (-1 / 16) <= ranked[at] / values[at] <= 2 ** (1 / 16)


def batches(seed: int) -> Iterator[list[float]]:
    choice = random.Random(seed)
    for spread in (1, 3, 0, 6, 9):
        yield [10 ** choice.uniform(-spread, spread) for _ in range(choice.randint(1, 50) * spread)]


@pytest.mark.parametrize("exponential", [False, True])
def test_deltas_are_the_sdks(exponential: bool) -> None:
    reference, endpoint = Reference(exponential, True), Endpoint(True, exponential)
    end = WALL + 500
    for values in batches(1):
        reference.record(values)
        endpoint.red.add([span(value) for value in values])
        found, expected = endpoint.push(), reference.point()
        if not values:
            assert found == []
            end = WALL + endpoint.now
            continue
        (point,) = found
        assert point.start_time_unix_nano == end  # no gap and no overlap
        end = WALL + endpoint.now
        assert point.count == expected.count == len(values)
        assert point.sum == pytest.approx(expected.sum)
        if exponential:
            coarse = min(point.scale, expected.scale)
            assert of_point(point, coarse) == of_point(expected, coarse)
        else:
            assert list(point.bucket_counts) == list(expected.bucket_counts)


@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_lost_deltas_lose_nothing(exponential: bool, seed: int) -> None:
    choice, endpoint, whole = (
        random.Random(seed),
        Endpoint(True, exponential),
        Reference(exponential, False),
    )
    arrived = []
    end = WALL + 500
    for values in [*batches(seed), *batches(seed + 100)]:
        endpoint.red.add([span(value) for value in values])
        whole.record(values)
        arrives = choice.random() < 0.4
        for point in endpoint.push(arrives):
            assert point.start_time_unix_nano == end
            if arrives:
                arrived.append(point)
        if arrives:
            end = WALL + endpoint.now
    arrived += endpoint.push()
    expected = whole.point()
    assert sum(point.count for point in arrived) == expected.count
    assert sum(point.sum for point in arrived) == pytest.approx(expected.sum)
    if exponential:
        coarse = min(*(point.scale for point in arrived), expected.scale)
        total: Counter[Any] = sum((of_point(point, coarse) for point in arrived), Counter())
        assert total == of_point(expected, coarse)
    else:
        summed = [sum(each) for each in zip(*(p.bucket_counts for p in arrived), strict=True)]
        assert summed == list(expected.bucket_counts)


def test_deltas_of_services_that_went_meanwhile_are_told_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = Endpoint(True, False)
    for service in (SHOP, CART):
        endpoint.red.add([span(1.0, service), span(2.0, service)])
    endpoint.push(arrives=False)
    endpoint.red.forget(CART)
    endpoint.now += 400 * 10**9
    assert len(endpoint.push(arrives=False)) == 2
    assert endpoint.red.size() == 1
    points = endpoint.push()
    assert [(point.count, point.sum) for point in points] == [(2, 3.0), (2, 3.0)]
    assert endpoint.push() == []
    monkeypatch.setattr(temporality, "MOST_CARRIED", 0)
    endpoint.red.add([span(1.0)])
    endpoint.push(arrives=False)
    endpoint.red.forget(SHOP)
    endpoint.now += 400 * 10**9
    assert endpoint.push() == []
    assert endpoint.counters.get(SERIES_LOST) == 1


def test_cumulative_starts_stay_where_they_were() -> None:
    endpoint = Endpoint(False, False)
    starts = set()
    for arrives in (True, False, False, True):
        endpoint.red.add([span(1.0)])
        (point,) = endpoint.push(arrives)
        starts.add(point.start_time_unix_nano)
        endpoint.clock_offset += 7_000_000_000  # the wall clock is set
        endpoint.boot += 2_000_000_000
        endpoint.clock.track()
    assert point.count == 4
    assert starts == {WALL + 500}
    assert point.time_unix_nano > WALL + 7_000_000_000


def test_gone_series_are_marked_stale_once_it_arrives() -> None:
    endpoint = Endpoint(False, False)
    for service in (SHOP, CART):
        endpoint.red.add([span(1.0, service)])
    assert [point.flags for point in endpoint.push()] == [0, 0]
    endpoint.red.forget(CART)
    endpoint.now += 400 * 10**9
    for arrives in (False, False, True):
        shop, cart = endpoint.push(arrives)
        assert (shop.flags, cart.flags) == (0, 1)
        assert (cart.count, cart.HasField("min")) == (0, False)
        assert cart.attributes[0].value.string_value == "GET"
        assert cart.start_time_unix_nano == WALL + 500
    assert [point.flags for point in endpoint.push()] == [0]


@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("delta", [False, True])
def test_exemplars_name_the_last_span_of_a_bucket_once(delta: bool, exponential: bool) -> None:
    endpoint = Endpoint(delta, exponential)
    for number, value in enumerate((0.001, 0.002, 0.05, 9.0), 1):
        endpoint.red.add([span(value, end_ns=1000 * number, number=number)])
    lost, (point,) = endpoint.push(arrives=False), endpoint.push()
    assert lost[0].exemplars == point.exemplars
    found = [
        (
            e.as_double,
            e.time_unix_nano - WALL,
            int.from_bytes(e.trace_id),
            int.from_bytes(e.span_id),
        )
        for e in point.exemplars
    ]
    assert found == [(0.002, 2000, 2, 2), (0.05, 3000, 3, 3), (9.0, 4000, 4, 4)]
    endpoint.red.add([span(0.06, end_ns=5000, number=7), span(0.07, end_ns=4000, number=8)])
    (point,) = endpoint.push()
    assert [int.from_bytes(e.trace_id) for e in point.exemplars] == [7]


def test_a_series_takes_ids_of_the_right_size_only() -> None:
    with pytest.raises(ValueError, match="24 bytes"):
        Series({}, BOUNDS, 0).exemplify(1.0, 1, b"short")
