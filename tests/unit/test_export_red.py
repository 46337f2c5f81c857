# SPDX-License-Identifier: Apache-2.0
"""The aggregator against a naive reference, its caps, and what it forgets."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.points import Point, point_of

from otelauto.counters import Counters
from otelauto.export.red import NOT_MEASURABLE, SERIES_OVERFLOWED, Red
from otelauto.flows.vocabulary import Attributes, Instrument, Side
from otelauto.spans.span import Service, Span

DURATION = Instrument("took", "s", "Time.", (0.005, 0.1, 1.0), ("method", "status"))
SIZE = Instrument("size", "By", "Size.", (0.0, 100.0), ("method",), "bytes")
SHOP = Service("shop", "", "1")


def span(
    attributes: Attributes,
    took_ns: int = 1_000_000,
    service: Service = SHOP,
    incomplete: str | None = None,
    start_ns: int = 100,
    instruments: tuple[Instrument, ...] = (DURATION, SIZE),
) -> Span:
    return Span(
        service, "GET", Side.SERVER, b"t" * 16, b"s" * 8, b"", 1, start_ns, start_ns + took_ns,
        attributes, False, incomplete, instruments,
    )  # fmt: skip


def points(red: Red, service: str = "shop", instrument: str = "took") -> list[Point]:
    return [
        point_of(series)
        for one in red.collect()
        if one.service.name == service
        for described, every in one.series
        if described.name == instrument
        for series in every
    ]


def naive(spans: Sequence[Span]) -> dict[tuple[object, ...], tuple[object, ...]]:
    """One list of values a series, worked out from scratch: the obvious way."""
    values: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for one in spans:
        if one.incomplete is not None:
            continue
        for instrument in one.instruments:
            if instrument.measures is None:
                value: float = (one.end_ns - one.start_ns) / 1e9
            elif instrument.measures in one.attributes:
                value = float(one.attributes[instrument.measures])
            else:
                continue
            labels = frozenset((k, one.attributes[k]) for k in instrument.attributes
                               if k in one.attributes)  # fmt: skip
            values[one.service.name, instrument.name, labels, instrument.buckets].append(value)
    result: dict[tuple[object, ...], tuple[object, ...]] = {}
    for (service, name, labels, bounds), seen in values.items():
        assert isinstance(bounds, tuple)
        edges = [float("-inf"), *bounds, float("inf")]
        buckets = [
            sum(low < v <= high for v in seen)
            for low, high in pairwise(edges)
        ]  # fmt: skip
        result[service, name, labels] = (len(seen), sum(seen), min(seen), max(seen), buckets)
    return result


SPANS = st.builds(
    span,
    st.fixed_dictionaries(
        {"method": st.sampled_from(["GET", "PUT"])},
        optional={
            "status": st.sampled_from([200, 404, 500]),
            "bytes": st.integers(0, 10**6) | st.sampled_from([0, 100, 101]),
        },
    ),
    st.integers(0, 2 * 10**9) | st.sampled_from([5_000_000, 5_000_001, 100_000_000]),
    st.sampled_from([SHOP, Service("cart", "eu", "2")]),
    st.sampled_from([None, None, None, "aborted"]),
)


@given(st.lists(SPANS, max_size=80), st.integers(1, 7))
def test_aggregation_is_exact(spans: list[Span], step: int) -> None:
    red = Red(Counters())
    for first in range(0, len(spans), step):
        red.add(spans[first : first + step])
    found = {
        (one.service.name, instrument.name, frozenset(p.series.attributes.items())): (
            p.count, p.sum, p.minimum, p.maximum, p.buckets
        )
        for one in red.collect()
        for instrument, every in one.series
        for p in map(point_of, every)
    }  # fmt: skip
    assert found == naive(spans)


def test_equal_instruments_are_one_series() -> None:
    red = Red(Counters())
    for _ in range(600):
        copy = Instrument(DURATION.name, "s", "Time.", DURATION.buckets, DURATION.attributes)
        red.add([span({"method": "GET"}, instruments=(copy,))])
    (point,) = points(red)
    assert point.count == 600


def test_what_is_not_a_number_is_counted() -> None:
    counters = Counters()
    red = Red(counters)
    for value in ("12", True, float("nan"), float("inf"), 10**400):
        red.add([span({"method": "GET", "bytes": value})])
    assert counters.get(NOT_MEASURABLE) == 5
    assert points(red, instrument="size") == []
    assert points(red)[0].count == 5


def test_time_never_runs_backwards() -> None:
    red = Red(Counters())
    red.add([span({"method": "GET"}, took_ns=-50)])
    assert points(red)[0].sum == 0


def test_series_start_with_their_first_span() -> None:
    red = Red(Counters())
    red.add([span({"method": "GET"}, start_ns=700), span({"method": "GET"}, start_ns=900)])
    assert points(red)[0].series.start_ns == 700


def test_a_service_has_a_cap_and_totals_stay_exact() -> None:
    counters = Counters()
    red = Red(counters, max_series_per_service=3)
    other = Service("cart", "", "1")
    red.add([span({"status": n}, instruments=(DURATION,)) for n in range(10)])
    red.add([span({"status": n}, instruments=(DURATION,)) for n in range(10)])
    red.add([span({"status": 1}, service=other, instruments=(DURATION,))])
    found = points(red)
    assert [p.series.attributes for p in found] == [
        {"status": 0}, {"status": 1}, {"status": 2}, {"otel.metric.overflow": True},
    ]  # fmt: skip
    assert [p.count for p in found] == [2, 2, 2, 14]
    assert counters.get(SERIES_OVERFLOWED, "service") == 14
    assert points(red, "cart")[0].series.attributes == {"status": 1}
    assert red.size() == 4


def test_all_services_together_have_a_cap() -> None:
    counters = Counters()
    red = Red(counters, max_series=2)
    services = [Service(f"s{n}", "", "") for n in range(4)]
    red.add([span({}, service=one, instruments=(DURATION,)) for one in services])
    assert [points(red, f"s{n}")[0].series.attributes for n in range(4)] == [
        {}, {}, {"otel.metric.overflow": True}, {"otel.metric.overflow": True},
    ]  # fmt: skip
    assert counters.get(SERIES_OVERFLOWED, "total") == 2


def test_a_forgotten_service_ends_after_its_time() -> None:
    now = [0]
    red = Red(Counters(), ttl_s=300, now_ns=lambda: now[0])
    red.add([span({"method": "GET"})])
    now[0] = 10**9
    red.forget(SHOP)
    now[0] += 299 * 10**9
    assert len(points(red)) == 1
    now[0] += 10**9
    assert red.collect() == []
    assert red.size() == 0


def test_overflow_series_end_with_their_service() -> None:
    now = [0]
    counters = Counters()
    red = Red(counters, max_series_per_service=1, ttl_s=1, now_ns=lambda: now[0])
    red.add([span({"status": n}) for n in range(3)])
    assert len(points(red)) == 2
    red.forget(SHOP)
    now[0] += 10**9
    red.expire()
    assert (red.size(), red._states, red._by_service) == (0, {}, {})
    red.add([span({"status": 1}, service=Service("shop", "", "1"))])
    assert [p.count for p in points(red)] == [1]


def test_a_span_from_before_the_end_does_not_revive_the_service() -> None:
    now = [1000]
    red = Red(Counters(), ttl_s=1, now_ns=lambda: now[0])
    red.add([span({"method": "GET"}, took_ns=10)])
    red.forget(SHOP)
    red.add([span({"method": "GET"}, took_ns=10)])
    assert points(red)[0].count == 2
    now[0] += 10**9
    assert red.collect() == []


def test_a_service_that_comes_back_goes_on() -> None:
    now = [1000]
    red = Red(Counters(), ttl_s=1, now_ns=lambda: now[0])
    red.add([span({"method": "GET"}, took_ns=10)])
    red.forget(SHOP)
    again = Service("shop", "", "1")
    red.add([span({"method": "GET"}, took_ns=10, service=again)])
    red.forget(SHOP)  # late news of the first
    now[0] += 10**10
    (point,) = points(red)
    assert point.count == 2
    red.forget(again)
    red.add([span({"method": "GET"}, took_ns=10, service=again, start_ns=now[0] + 5)])
    now[0] += 10**10
    assert points(red)[0].count == 3


def test_collecting_while_adding_loses_nothing() -> None:
    red = Red(Counters())
    stop = threading.Event()
    bad: list[Point] = []

    def collect() -> None:
        while not stop.is_set():
            bad.extend(p for p in points(red) if sum(p.buckets) != p.count)

    reader = threading.Thread(target=collect)
    reader.start()
    for n in range(3000):
        red.add([span({"status": n % 50}), span({"status": 1})])
    stop.set()
    reader.join()
    assert bad == []
    assert sum(p.count for p in points(red)) == 6000
