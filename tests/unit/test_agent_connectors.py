# SPDX-License-Identifier: Apache-2.0
"""Spans as metrics: ``otelcol.connector.spanmetrics`` and ``otelcol.connector.servicegraph``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.e2e.harness.process import wait_until
from tests.unit.agent_parts import (
    SECOND,
    TRACE,
    Agent,
    agent,
    attributes,
    named,
    span,
    spans,
    sums,
    traces,
)

from otelauto.agent.pipeline import Refused
from otelauto.agent.running.buckets import Explicit, Exponential, bucket_index
from otelauto.agent.running.servicegraph import SPANS_UNPAIRED, SPANS_WITHOUT_ROOM
from otelauto.agent.running.spanmetrics import SERIES_EVICTED, SPANS_NAMELESS

SPANMETRICS = "otelcol.connector.spanmetrics.c"
GRAPH = "otelcol.connector.servicegraph.c"
TO_SINK = "output { metrics = [otelcol.exporter.debug.sink.input] }"
ERROR = Status(code=Status.STATUS_CODE_ERROR)
CLIENT, SERVER = Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER
PRODUCER, CONSUMER = Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER


def spanmetrics(more: str = "", histogram: str = "explicit {}") -> str:
    return f"""otelcol.connector.spanmetrics "c" {{
  metrics_flush_interval = "1h"
  histogram {{
    {histogram}
  }}
  {more}
  {TO_SINK}
}}"""


def took(number: int, milliseconds: float, **fields: Any) -> Span:
    end = SECOND + round(milliseconds * 1e6)
    return span(number, start_time_unix_nano=SECOND, end_time_unix_nano=end, **fields)


def flushed(made: Agent, name: str = SPANMETRICS) -> dict[str, list[Any]]:
    made[name].flush()
    return made.sink.points()


def test_calls_and_durations(tmp_path: Path) -> None:
    with agent(spanmetrics(), tmp_path) as made:
        for each in ([took(1, 2), took(2, 2.001), took(3, 20_000)], [took(4, 7, status=ERROR)]):
            made[SPANMETRICS].traces(traces(each, zone="eu"))
        points = flushed(made)
        (payload,) = made.sink.payloads
        (resource,) = payload.message.resource_metrics
        assert named(resource.resource) == {"service.name": "shop", "zone": "eu"}
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "spanmetricsconnector"
        assert [(each.name, each.unit) for each in scope.metrics] == [
            ("calls", ""),
            ("duration", "ms"),
        ]
        calls, duration = (each for each in scope.metrics)
        assert calls.sum.is_monotonic
        assert calls.sum.aggregation_temporality == duration.histogram.aggregation_temporality == 2
        good, bad = points["calls"]
        assert named(good) == {
            "service.name": "shop", "span.name": "GET", "span.kind": "SPAN_KIND_SERVER",
            "status.code": "STATUS_CODE_UNSET",
        }  # fmt: skip
        assert named(bad)["status.code"] == "STATUS_CODE_ERROR"
        assert (good.as_int, bad.as_int) == (3, 1)
        assert 0 < good.start_time_unix_nano <= good.time_unix_nano
        first, second = points["duration"]
        assert list(first.explicit_bounds) == [
            2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000,
        ]  # fmt: skip
        assert list(first.bucket_counts) == [1, 1, *[0] * 14, 1]
        assert (first.count, first.sum) == (3, pytest.approx(20_004.001))
        assert list(second.bucket_counts) == [0, 0, 0, 1, *[0] * 13]
        assert len(first.exemplars) == 0
        assert payload.items == 4


def test_sums_go_on(tmp_path: Path) -> None:
    with agent(spanmetrics(), tmp_path) as made:
        started = set()
        for number in (1, 2, 3):
            made[SPANMETRICS].traces(traces(spans(5)))
            (point,) = flushed(made)["calls"]
            assert point.as_int == 5 * number
            started.add(point.start_time_unix_nano)
        assert len(started) == 1


def test_deltas_begin_anew(tmp_path: Path) -> None:
    with agent(spanmetrics('aggregation_temporality = "DELTA"'), tmp_path) as made:
        for number in (5, 3):
            made[SPANMETRICS].traces(traces(spans(number)))
            (point,) = flushed(made)["calls"]
            assert point.as_int == number
        made[SPANMETRICS].flush()
        assert len(made.sink.payloads) == 2


def test_kinds_and_statuses_that_nobody_knows(tmp_path: Path) -> None:
    with agent(spanmetrics(), tmp_path) as made:
        odd = span(kind=77, status=Status(code=99))  # type: ignore[arg-type]
        made[SPANMETRICS].traces(traces([odd]))
        labels = named(flushed(made)["calls"][0])
        assert labels["span.kind"] == "SPAN_KIND_UNSPECIFIED"
        assert labels["status.code"] == "STATUS_CODE_UNSET"


def test_an_end_before_the_start_is_no_time(tmp_path: Path) -> None:
    with agent(spanmetrics(), tmp_path) as made:
        made[SPANMETRICS].traces(traces([took(1, -5)]))
        (point,) = flushed(made)["duration"]
        assert (point.sum, point.bucket_counts[0]) == (0, 1)


def test_spans_without_a_service_are_left_out(tmp_path: Path) -> None:
    with agent(spanmetrics(), tmp_path) as made:
        made[SPANMETRICS].traces(traces(spans(4), None))
        made[SPANMETRICS].flush()
        assert made.sink.payloads == []
        assert made.count(SPANMETRICS, SPANS_NAMELESS) == 4


def test_dimensions(tmp_path: Path) -> None:
    more = """dimension { name = "http.method" }
  dimension {
    name = "zone"
    default = "nowhere"
  }
  exclude_dimensions = ["span.kind", "status.code"]
  namespace = "traces.spanmetrics"
"""
    with agent(
        spanmetrics(more, 'unit = "s"\n explicit { buckets = ["10ms", "1s"] }'), tmp_path
    ) as made:
        made[SPANMETRICS].traces(traces([took(1, 10, attributes=attributes(http_method="GET"))]))
        made[SPANMETRICS].traces(traces([took(2, 20)], zone="eu"))
        made[SPANMETRICS].traces(traces([took(3, 20, attributes=attributes(zone="us"))], zone="eu"))
        points = flushed(made)
        assert [named(each) for each in points["traces.spanmetrics.calls"]] == [
            {"service.name": "shop", "span.name": "GET", "http.method": "GET", "zone": "nowhere"},
            {"service.name": "shop", "span.name": "GET", "zone": "eu"},
            {"service.name": "shop", "span.name": "GET", "zone": "us"},
        ]
        first = points["traces.spanmetrics.duration"][0]
        assert list(first.explicit_bounds) == [0.01, 1]
        assert (list(first.bucket_counts), first.sum) == ([1, 0, 0], 0.01)


def test_no_durations_if_none_are_wanted(tmp_path: Path) -> None:
    with agent(spanmetrics("", "disable = true\n explicit {}"), tmp_path) as made:
        made[SPANMETRICS].traces(traces(spans(1)))
        assert set(flushed(made)) == {"calls"}


def test_examples_are_of_the_time_since(tmp_path: Path) -> None:
    more = "exemplars {\n enabled = true\n max_per_data_point = 2\n }"
    with agent(spanmetrics(more), tmp_path) as made:
        made[SPANMETRICS].traces(traces([took(n, n) for n in (1, 2, 3)]))
        (point,) = flushed(made)["duration"]
        assert [(e.trace_id, e.span_id[-1], e.as_double) for e in point.exemplars] == [
            (TRACE, 1, 1.0), (TRACE, 2, 2.0),
        ]  # fmt: skip
        assert len(flushed(made)["duration"][0].exemplars) == 0


def test_events_are_counted(tmp_path: Path) -> None:
    more = 'events {\n enabled = true\n dimension { name = "exception.type" }\n }'
    with agent(spanmetrics(more), tmp_path) as made:
        failing = span()
        for kind in ("A", "B", "A"):
            failing.events.add(name="exception", attributes=attributes(exception_type=kind))
        made[SPANMETRICS].traces(traces([failing]))
        points = flushed(made)["events"]
        assert [(named(each)["exception.type"], each.as_int) for each in points] == [
            ("A", 2),
            ("B", 1),
        ]


def test_the_series_are_bounded(tmp_path: Path) -> None:
    more = "dimensions_cache_size = 10\n resource_metrics_cache_size = 3"
    with agent(spanmetrics(more), tmp_path) as made:
        for number in range(25):
            made[SPANMETRICS].traces(traces([span(name=str(number)), span(name="often")]))
        points = {named(each)["span.name"]: each.as_int for each in flushed(made)["calls"]}
        assert len(points) == 10
        assert points["often"] == 25
        assert made.count(SPANMETRICS, SERIES_EVICTED) == 16
        for number in range(9):
            made[SPANMETRICS].traces(traces([span()], pod=str(number)))
        made[SPANMETRICS].flush()
        assert len(made.sink.payloads[-1].message.resource_metrics) == 3


def test_old_series_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with agent(spanmetrics('metrics_expiration = "10s"'), tmp_path) as made:
        now = [100 * SECOND]
        monkeypatch.setattr(made[SPANMETRICS], "_clock", lambda: now[0])
        made[SPANMETRICS].traces(traces([span(name="old")]))
        now[0] += 6 * SECOND
        made[SPANMETRICS].traces(traces([span(name="new")]))
        assert len(flushed(made)["calls"]) == 2
        now[0] += 6 * SECOND
        (point,) = flushed(made)["calls"]
        assert named(point)["span.name"] == "new"


def test_resources_that_differ_in_nothing_that_counts_are_one(tmp_path: Path) -> None:
    more = 'resource_metrics_key_attributes = ["service.name"]'
    with agent(spanmetrics(more), tmp_path) as made:
        for pod in ("a", "b"):
            made[SPANMETRICS].traces(traces([span()], pod=pod))
        (point,) = flushed(made)["calls"]
        assert point.as_int == 2


def test_metrics_are_sent_at_intervals_and_at_the_end(tmp_path: Path) -> None:
    text = spanmetrics().replace('"1h"', '"20ms"')
    with agent(text, tmp_path) as made:
        made.sink.refusals = [Refused("full")]
        made[SPANMETRICS].traces(traces(spans(2)))
        wait_until(lambda: len(made.sink.payloads) >= 2, "again and again, the first was refused")
        with pytest.raises(Refused):
            made[SPANMETRICS].metrics(sums(1))
        sink = made.sink
        made[SPANMETRICS].traces(traces(spans(2)))
    assert sink.points()["calls"][0].as_int == 4


# ---- histograms ----


def test_exponential_histograms(tmp_path: Path) -> None:
    with agent(spanmetrics("", "exponential { max_size = 4 }"), tmp_path) as made:
        made[SPANMETRICS].traces(traces([took(n, ms) for n, ms in enumerate((1, 2, 4, 0))]))
        (point,) = flushed(made)["duration"]
        assert (point.count, point.sum, point.zero_count) == (4, 7, 1)
        assert (point.min, point.max) == (0, 4)
        # (0.5, 1], (1, 2], (2, 4]
        assert (point.scale, point.positive.offset) == (0, -1)
        assert list(point.positive.bucket_counts) == [1, 1, 1]


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=60), st.integers(2, 160))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_every_value_is_in_its_bucket(values: list[float], most: int) -> None:
    histogram, point = Exponential(most), ExponentialHistogramDataPoint()
    for value in values:
        histogram.observe(value)
    histogram.write(point)
    assert len(point.positive.bucket_counts) <= most
    assert sum(point.positive.bucket_counts) == point.count == len(values)
    base = 2.0 ** (2.0**-point.scale)
    expected: dict[int, int] = {}
    for value in values:
        index = bucket_index(value, point.scale)
        expected[index] = expected.get(index, 0) + 1
        if point.scale <= 6:  # beyond that the bounds are nearer to each other than pow is right
            assert base**index < value * (1 + 1e-9)
            assert value <= base ** (index + 1) * (1 + 1e-9)
    got = {point.positive.offset + n: c for n, c in enumerate(point.positive.bucket_counts) if c}
    assert got == expected


@pytest.mark.parametrize("scale", [-3, -1, 0, 1, 5, 20])
def test_powers_of_two_are_upper_bounds(scale: int) -> None:
    for power in (-10, -1, 0, 1, 7, 64):
        upper = (bucket_index(2.0**power, scale) + 1) * 2.0**-scale
        assert upper >= power
        assert upper - 2.0**-scale < power


def test_explicit_bounds_belong_to_what_is_below() -> None:
    histogram, point = Explicit((1.0, 2.0)), None
    for value in (0.5, 1.0, 1.5, 2.0, math.nextafter(2, 3)):
        histogram.observe(value)
    from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint  # noqa: PLC0415

    point = HistogramDataPoint()
    histogram.write(point)
    assert list(point.bucket_counts) == [2, 2, 1]


# ---- servicegraph ----


def graph(more: str = "", ttl: str = "1h") -> str:
    return f"""otelcol.connector.servicegraph "c" {{
  {more}
  store {{
    ttl = "{ttl}"
    max_items = 10
  }}
  {TO_SINK}
}}"""


def edge(
    made: Agent, name: str = "traces_service_graph_request_total"
) -> dict[tuple[Any, ...], Any]:
    """Values of the last message's points by client, server, connection type and failed."""
    found = {}
    for point in made.sink.points().get(name, []):
        labels = named(point)
        key = tuple(labels[n] for n in ("client", "server", "connection_type", "failed"))
        found[key] = point
    return found


def pair(
    number: int, kinds: tuple[int, int] = (CLIENT, SERVER), **fields: Any
) -> tuple[Span, Span]:
    client = took(number, 200, kind=kinds[0], name="call", **fields)
    server = took(100 + number, 100, kind=kinds[1], parent_span_id=client.span_id)
    return client, server


def test_a_request_is_an_edge(tmp_path: Path) -> None:
    with agent(graph(), tmp_path) as made:
        client, server = pair(1)
        made[GRAPH].traces(traces([client], "web"))
        assert made.sink.payloads == []
        made[GRAPH].traces(traces([server], "shop"))
        points = made.sink.points()
        assert set(points) == {
            "traces_service_graph_request_total",
            "traces_service_graph_request_server_seconds",
            "traces_service_graph_request_client_seconds",
        }
        scope = made.sink.payloads[-1].message.resource_metrics[0].scope_metrics[0]
        assert scope.scope.name == "traces_service_graph"
        (point,) = points["traces_service_graph_request_total"]
        assert named(point) == {
            "client": "web", "server": "shop", "connection_type": "", "failed": False,
        }  # fmt: skip
        assert point.as_int == 1
        for side, value in (("server", 0.1), ("client", 0.2)):
            (point,) = points[f"traces_service_graph_request_{side}_seconds"]
            assert (point.count, point.sum) == (1, pytest.approx(value))
            assert list(point.explicit_bounds) == [
                0.002, 0.004, 0.006, 0.008, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1, 1.4, 2, 5, 10, 15,
            ]  # fmt: skip
            assert point.bucket_counts[6 if side == "server" else 7] == 1
        assert made[GRAPH].status() == {"waiting": 0, "series": 1}


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("failing", ["client", "server", ""])
def test_either_side_may_come_first_or_fail(tmp_path: Path, first: str, failing: str) -> None:
    with agent(graph(), tmp_path) as made:
        client, server = pair(1)
        if failing:
            {"client": client, "server": server}[failing].status.CopyFrom(ERROR)
        both = [traces([client], "web"), traces([server], "shop")]
        for each in both if first == "client" else both[::-1]:
            made[GRAPH].traces(each)
        assert list(edge(made)) == [("web", "shop", "", bool(failing))]
        failed = edge(made, "traces_service_graph_request_failed_total")
        assert [each.as_int for each in failed.values()] == ([1] if failing else [])


def test_messages_and_databases(tmp_path: Path) -> None:
    with agent(graph(), tmp_path) as made:
        client, server = pair(1, (PRODUCER, CONSUMER))
        made[GRAPH].traces(traces([client], "web"))
        made[GRAPH].traces(traces([server], "shop"))
        query = took(7, 30, kind=CLIENT, attributes=attributes(db_name="orders"))
        made[GRAPH].traces(traces([query], "shop"))
        assert set(edge(made)) == {
            ("web", "shop", "messaging_system", False), ("shop", "orders", "database", False),
        }  # fmt: skip
        for side in ("client", "server"):
            points = edge(made, f"traces_service_graph_request_{side}_seconds")
            assert points["shop", "orders", "database", False].sum == pytest.approx(0.03)


def test_which_attribute_names_a_database_can_be_said(tmp_path: Path) -> None:
    with agent(graph('database_name_attributes = ["db.namespace"]'), tmp_path) as made:
        query = took(7, 30, kind=CLIENT, attributes=attributes(db_namespace="orders"))
        made[GRAPH].traces(traces([query], "shop"))
        assert set(edge(made)) == {("shop", "orders", "database", False)}


def test_virtual_nodes(tmp_path: Path) -> None:
    more = 'virtual_node_extra_label = true\n store_expiration_loop = "1h"'
    with agent(graph(more, "1ns"), tmp_path) as made:
        root = took(1, 5)
        peer = took(2, 5, kind=CLIENT, attributes=attributes(peer_service="bank"))
        unknown = took(3, 5, kind=CLIENT)
        half = took(4, 5, parent_span_id=b"elsewher")
        made[GRAPH].traces(traces([root, peer, unknown, half], "shop"))
        assert made.sink.payloads == []
        made[GRAPH].expire()
        made[GRAPH].flush()
        assert set(edge(made)) == {
            ("user", "shop", "virtual_node", False),
            ("shop", "bank", "virtual_node", False),
            ("shop", "unknown", "virtual_node", False),
        }
        labels = {
            named(each)["server"]: named(each)["virtual_node"] for each in edge(made).values()
        }
        assert labels == {"shop": "client", "bank": "server", "unknown": "server"}
        (unpaired,) = made.sink.points()["traces_service_graph_unpaired_spans_total"]
        assert unpaired.as_int == 1
        assert made.count(GRAPH, SPANS_UNPAIRED) == 4


def test_without_peer_attributes_nobody_is_made_up(tmp_path: Path) -> None:
    with agent(graph("virtual_node_peer_attributes = []", "1ns"), tmp_path) as made:
        made[GRAPH].traces(traces([took(1, 5)], "shop"))
        made[GRAPH].expire()
        made[GRAPH].flush()
        assert edge(made) == {}


def test_dimensions_of_both_sides(tmp_path: Path) -> None:
    with agent(graph('dimensions = ["zone", "tier"]'), tmp_path) as made:
        client, server = pair(1, attributes=attributes(tier="front"))
        made[GRAPH].traces(traces([client], "web", zone="eu"))
        made[GRAPH].traces(traces([server], "shop", zone="us"))
        (point,) = edge(made).values()
        labels = named(point)
        assert (labels["client_zone"], labels["server_zone"]) == ("eu", "us")
        assert labels["client_tier"] == "front"
        assert "server_tier" not in labels


def test_the_store_is_bounded(tmp_path: Path) -> None:
    with agent(graph(), tmp_path) as made:
        made[GRAPH].traces(traces([took(n, 5, kind=CLIENT) for n in range(13)], "web"))
        made[GRAPH].traces(traces(spans(2), None))
        assert made[GRAPH].status()["waiting"] == 10
        assert made.count(GRAPH, SPANS_WITHOUT_ROOM) == 3
        assert made.count(GRAPH, SPANS_NAMELESS) == 2
        (point,) = made.sink.points()["traces_service_graph_dropped_spans_total"]
        assert point.as_int == 3


def test_spans_inside_a_service_are_no_edges(tmp_path: Path) -> None:
    with agent(graph(), tmp_path) as made:
        made[GRAPH].traces(traces([span(kind=Span.SPAN_KIND_INTERNAL), span(kind=0)]))
        assert made[GRAPH].status()["waiting"] == 0


def test_series_that_rest_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with agent(graph('cache_loop = "10ms"'), tmp_path) as made:
        now = [0.0]
        monkeypatch.setattr(made[GRAPH], "_clock", lambda: now[0])
        for each, service in zip(pair(1), ("web", "shop"), strict=True):
            made[GRAPH].traces(traces([each], service))
        assert made[GRAPH].status()["series"] == 1
        now[0] = 15 * 60 + 1
        wait_until(lambda: made[GRAPH].status()["series"] == 0, "the series is gone")


def test_metrics_can_be_sent_at_intervals(tmp_path: Path) -> None:
    with agent(graph('metrics_flush_interval = "20ms"'), tmp_path) as made:
        for each, service in zip(pair(1), ("web", "shop"), strict=True):
            made[GRAPH].traces(traces([each], service))
        wait_until(lambda: len(made.sink.payloads) >= 2, "metrics, again and again")
