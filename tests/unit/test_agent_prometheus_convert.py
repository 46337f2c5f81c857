# SPDX-License-Identifier: Apache-2.0
"""OTLP metrics as samples: what each kind becomes, and what is dropped and counted."""

from __future__ import annotations

import pytest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from tests.unit.prometheus_parts import Store, bits, content_of, context_of, labels

from otelauto.agent.pipeline import STALE, Metadata, NativeHistogram, Payload, Refused
from otelauto.agent.prometheus.convert import (
    POINTS_CONVERTED,
    POINTS_DROPPED,
    Converter,
    Options,
)
from otelauto.agent.running.exporter_prometheus import ExporterPrometheus
from otelauto.counters import Counters

DELTA, CUMULATIVE = 1, 2
TIME_NS = 1_700_000_000_123_456_789
TIME_MS = 1_700_000_000_123
NOW_MS = 1_800_000_000_000
NO_VALUE = 1


def message(*metrics: otlp.Metric, **resource: str) -> otlp.MetricsData:
    data = otlp.MetricsData()
    found = data.resource_metrics.add()
    names = {"service.namespace": "eu", "service.name": "shop", "service.instance.id": "7"}
    for name, value in (resource or names).items():
        found.resource.attributes.add(key=name.replace("__", ".")).value.string_value = value
    scope = found.scope_metrics.add()
    scope.scope.name, scope.scope.version = "lib", "1.2"
    scope.metrics.extend(metrics)
    return data


def point(kind, *, time_ns=TIME_NS, flags=0, attributes=(), **fields):
    made = kind(time_unix_nano=time_ns, flags=flags, **fields)
    for name, value in attributes:
        made.attributes.add(key=name).value.string_value = value
    return made


def number(value, **more):
    return point(otlp.NumberDataPoint, as_double=value, **more)


def gauge(name, *points, unit=""):
    return otlp.Metric(name=name, unit=unit, gauge=otlp.Gauge(data_points=points))


def total(name, *points, temporality=CUMULATIVE, monotonic=True, unit=""):
    found = otlp.Sum(
        data_points=points, aggregation_temporality=temporality, is_monotonic=monotonic
    )
    return otlp.Metric(name=name, unit=unit, description="About.", sum=found)


def histogram(name, *points, temporality=CUMULATIVE):
    found = otlp.Histogram(data_points=points, aggregation_temporality=temporality)
    return otlp.Metric(name=name, unit="s", histogram=found)


def exponential(name, *points):
    found = otlp.ExponentialHistogram(data_points=points, aggregation_temporality=CUMULATIVE)
    return otlp.Metric(name=name, unit="s", exponential_histogram=found)


PLAIN = Options(target_info=False, scope_labels=False)


def converted(data, options=PLAIN, counters=None):
    converter = Converter(options, counters or Counters())
    samples, metadata = converter.convert(data, NOW_MS)
    return {sample.labels: sample for sample in samples}, metadata


JOB = {"job": "eu/shop", "instance": "7"}


def test_numbers() -> None:
    found, metadata = converted(
        message(
            gauge("cpu", number(0.5, attributes=[("core", "1")]), unit="1"),
            total("calls", point(otlp.NumberDataPoint, as_int=3)),
            total("active", number(2.0), monotonic=False),
        )
    )
    assert {k: (s.value, s.timestamp_ms) for k, s in found.items()} == {
        labels("cpu_ratio", core="1", **JOB): (0.5, TIME_MS),
        labels("calls_total", **JOB): (3.0, TIME_MS),
        labels("active", **JOB): (2.0, TIME_MS),
    }
    assert metadata == [
        Metadata("cpu_ratio", "gauge", "", "1"),
        Metadata("calls_total", "counter", "About.", ""),
        Metadata("active", "gauge", "About.", ""),
    ]


def test_a_classic_histogram() -> None:
    data = point(
        otlp.HistogramDataPoint, count=10, sum=4.5, explicit_bounds=[0.005, 1.0, 10.0],
        bucket_counts=[1, 2, 3, 4], attributes=[("route", "/a")],
    )  # fmt: skip
    found, _ = converted(message(histogram("d", data)))
    own = {"route": "/a", **JOB}
    assert {k: s.value for k, s in found.items()} == {
        labels("d_seconds_sum", **own): 4.5,
        labels("d_seconds_count", **own): 10.0,
        labels("d_seconds_bucket", le="0.005", **own): 1.0,
        labels("d_seconds_bucket", le="1", **own): 3.0,
        labels("d_seconds_bucket", le="10", **own): 6.0,
        labels("d_seconds_bucket", le="+Inf", **own): 10.0,
    }


def test_a_histogram_without_sum_and_with_unsorted_bounds() -> None:
    data = point(otlp.HistogramDataPoint, count=6, explicit_bounds=[2.0, 1.0], bucket_counts=[2, 1])
    found, _ = converted(message(histogram("d", data)))
    assert {k: s.value for k, s in found.items()} == {
        labels("d_seconds_count", **JOB): 6.0,
        labels("d_seconds_bucket", le="1", **JOB): 1.0,
        labels("d_seconds_bucket", le="2", **JOB): 3.0,
        labels("d_seconds_bucket", le="+Inf", **JOB): 6.0,
    }


def test_a_summary() -> None:
    quantiles = [
        otlp.SummaryDataPoint.ValueAtQuantile(quantile=0.5, value=1.5),
        otlp.SummaryDataPoint.ValueAtQuantile(quantile=1.0, value=9.0),
    ]
    data = point(otlp.SummaryDataPoint, count=3, sum=12.0, quantile_values=quantiles)
    metric = otlp.Metric(name="s", summary=otlp.Summary(data_points=[data]))
    found, metadata = converted(message(metric))
    assert {k: s.value for k, s in found.items()} == {
        labels("s_sum", **JOB): 12.0,
        labels("s_count", **JOB): 3.0,
        labels("s", quantile="0.5", **JOB): 1.5,
        labels("s", quantile="1", **JOB): 9.0,
    }
    assert metadata == [Metadata("s", "summary", "", "")]


def test_an_exponential_histogram() -> None:
    positive = otlp.ExponentialHistogramDataPoint.Buckets(offset=-1, bucket_counts=[1, 0, 2, 3])
    negative = otlp.ExponentialHistogramDataPoint.Buckets(
        offset=2, bucket_counts=[4, 0, 0, 0, 0, 1]
    )
    data = point(
        otlp.ExponentialHistogramDataPoint, count=13, sum=1.5, scale=3, zero_count=2,
        positive=positive, negative=negative,
    )  # fmt: skip
    found, metadata = converted(message(exponential("d", data)))
    sample = found[labels("d_seconds", **JOB)]
    assert sample.histogram == NativeHistogram(
        13, 1.5, 3, 1e-128, 2, ((0, 4),), (1, -1, 2, 1), ((3, 1), (4, 1)), (4, -3)
    )
    assert metadata == [Metadata("d_seconds", "histogram", "", "s")]


def test_a_finer_scale_is_merged_and_a_coarser_one_dropped() -> None:
    buckets = otlp.ExponentialHistogramDataPoint.Buckets(offset=-3, bucket_counts=[1, 1, 1, 1, 1])
    kind = otlp.ExponentialHistogramDataPoint
    counters = Counters()
    found, _ = converted(
        message(
            exponential("fine", point(kind, count=5, scale=10, positive=buckets)),
            exponential("coarse", point(kind, count=5, scale=-5, positive=buckets)),
        ),
        counters=counters,
    )
    # Buckets -3 .. 1 at scale 10 are -1 (4 wide: -4 .. -1) and 0 at scale 8.
    assert [s.histogram for s in found.values()] == [
        NativeHistogram(5, 0.0, 8, 1e-128, 0, ((0, 2),), (3, -1))
    ]
    assert counters.get(POINTS_DROPPED, "scale") == 1


def test_no_recorded_value_ends_the_series() -> None:
    data = [
        gauge("g", number(1.0, flags=NO_VALUE)),
        histogram(
            "h",
            point(
                otlp.HistogramDataPoint, flags=NO_VALUE, explicit_bounds=[1.0],
                bucket_counts=[0, 0],
            ),
        ),
        exponential("e", point(otlp.ExponentialHistogramDataPoint, flags=NO_VALUE)),
    ]  # fmt: skip
    found, _ = converted(message(*data))
    stale = [bits(s.histogram.sum if s.histogram else s.value) for s in found.values()]
    assert stale == [bits(STALE)] * 5
    assert bits(STALE) == 0x7FF0000000000002


def test_what_is_not_cumulative_is_dropped_and_counted() -> None:
    counters = Counters()
    kind = otlp.HistogramDataPoint
    found, _ = converted(
        message(
            total("a", number(1.0), number(2.0, attributes=[("x", "y")]), temporality=DELTA),
            total("b", number(1.0), temporality=0),
            histogram("c", point(kind, count=1), temporality=DELTA),
            gauge("$", number(1.0)),
            gauge("kept", number(1.0)),
        ),
        counters=counters,
    )
    assert list(found) == [labels("kept", **JOB)]
    assert counters.get(POINTS_DROPPED, "delta") == 4
    assert counters.get(POINTS_DROPPED, "no_name") == 1
    assert counters.get(POINTS_CONVERTED) == 1


def test_target_info_and_scopes() -> None:
    data = message(
        gauge("g", number(1.0)),
        service__name="shop",
        host__name="web",
        telemetry__sdk="x",
    )
    found, _ = converted(data, Options(scope_info=True))
    assert {k: (s.value, s.timestamp_ms) for k, s in found.items()} == {
        labels("g", job="shop", otel_scope_name="lib", otel_scope_version="1.2"): (1.0, TIME_MS),
        labels("target_info", job="shop", host_name="web", telemetry_sdk="x"): (1.0, NOW_MS),
        labels("otel_scope_info", job="shop", otel_scope_name="lib", otel_scope_version="1.2"):
            (1.0, NOW_MS),
    }  # fmt: skip


def test_one_target_info_for_a_resource_that_comes_twice() -> None:
    data = message(gauge("g", number(1.0)))
    data.resource_metrics.append(data.resource_metrics[0])
    samples, _ = Converter(Options(), Counters()).convert(data, NOW_MS)
    assert [s.labels for s in samples].count(labels("target_info", **JOB)) == 1


def test_resource_attributes_as_labels() -> None:
    data = message(
        gauge("g", number(1.0, attributes=[("env", "own"), ("x", "y")])), env="prod", zone="a"
    )
    found, _ = converted(data, Options(target_info=False, scope_labels=False, resource_labels=True))
    assert list(found) == [labels("g", env="prod", x="y", zone="a")]


def test_an_older_data_point_is_left_out() -> None:
    counters = Counters()
    converter = Converter(Options(target_info=False), counters)
    kept = []
    for time_ns in (TIME_NS, TIME_NS - 1_000_000, TIME_NS, TIME_NS + 1_000_000):
        kept += converter.convert(message(gauge("g", number(1.0, time_ns=time_ns))), NOW_MS)[0]
    assert [sample.timestamp_ms - TIME_MS for sample in kept] == [0, 0, 1]
    assert counters.get(POINTS_DROPPED, "out_of_order") == 1


def test_changed_bounds_are_other_series() -> None:
    converter = Converter(Options(target_info=False, scope_labels=False), Counters())
    for bounds in ([1.0], [1.0, 2.0]):
        counts = [1] * (len(bounds) + 1)
        data = point(otlp.HistogramDataPoint, explicit_bounds=bounds, bucket_counts=counts, count=9)
        samples, _ = converter.convert(message(histogram("h", data)), NOW_MS)
        les = [dict(s.labels)["le"] for s in samples if "le" in dict(s.labels)]
        assert les == [*(str(int(bound)) for bound in bounds), "+Inf"]


def test_exemplars_go_to_the_first_bucket_above_them_once() -> None:
    exemplars = [
        otlp.Exemplar(as_double=value, time_unix_nano=TIME_NS + n, trace_id=bytes([n]) * 16,
                      span_id=bytes([n]) * 8)
        for n, value in enumerate((0.5, 1.0, 5.0), 1)
    ]  # fmt: skip
    for number_, each in enumerate(exemplars):
        each.time_unix_nano = TIME_NS - 1_000_000_000 + number_ * 1_000_000
    data = point(
        otlp.HistogramDataPoint, count=3, explicit_bounds=[1.0, 2.0], bucket_counts=[1, 1, 1],
        exemplars=exemplars,
    )  # fmt: skip
    converter = Converter(Options(target_info=False), Counters())
    samples, _ = converter.convert(message(histogram("h", data)), NOW_MS)
    found = {
        dict(s.labels).get("le"): [(dict(e.labels)["trace_id"], e.value) for e in s.exemplars]
        for s in samples
        if s.exemplars
    }
    assert found == {"1": [("01" * 16, 0.5)], "2": [("02" * 16, 1.0)], "+Inf": [("03" * 16, 5.0)]}
    again, _ = converter.convert(message(histogram("h", data)), NOW_MS)
    assert not any(sample.exemplars for sample in again)


def test_series_that_get_nothing_are_forgotten() -> None:
    converter = Converter(Options(target_info=False), Counters())
    converter.convert(message(gauge("a", number(1.0))), NOW_MS)
    converter.convert(message(gauge("b", number(1.0))), NOW_MS + 1000)
    assert converter.series == 2
    converter.collect(NOW_MS + 1000)
    assert converter.series == 1
    converter.collect(NOW_MS + 1001)
    assert converter.series == 0


EXPORTER = 'otelcol.exporter.prometheus "x" { forward_to = [STORE] }'


def test_the_component_passes_on_and_says_what_is_refused(tmp_path) -> None:
    store = Store()
    exporter = ExporterPrometheus(context_of(tmp_path), content_of(EXPORTER, STORE=store))
    exporter.start()
    payload = Payload(otlp.MetricsData, 1, message(gauge("g", number(1.0))))
    store.refusing = "full"
    with pytest.raises(Refused, match="full"):
        exporter.metrics(payload)
    assert exporter.health()[1] == "full"
    store.refusing = ""
    exporter.metrics(payload)
    assert [each.family for each in store.metadata] == ["target_info", "g"]  # again
    assert [sample.value for sample in store.samples] == [1.0, 1.0]
    exporter.metrics(payload)
    assert len(store.metadata) == 2
    assert exporter.health()[1] == ""
    exporter.stop(1)


@pytest.mark.parametrize("kind", ["spans", "garbage"])
def test_the_component_refuses_for_good_what_it_cannot_read(tmp_path, kind: str) -> None:
    exporter = ExporterPrometheus(context_of(tmp_path), content_of(EXPORTER, STORE=Store()))
    take = exporter.traces if kind == "spans" else exporter.metrics
    with pytest.raises(Refused) as refused:
        take(Payload(otlp.MetricsData, 1, b"\xff"))
    assert refused.value.permanent
