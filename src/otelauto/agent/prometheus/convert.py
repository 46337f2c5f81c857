# SPDX-License-Identifier: Apache-2.0
"""OTLP metrics as Prometheus samples.

Source: the OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility". Cumulative
metrics are converted, delta ones dropped and counted: adding them up needs all of them, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp

from otelauto.agent.pipeline import STALE, Exemplar, Labels, Metadata, Sample
from otelauto.agent.prometheus.names import (
    NAME,
    attribute_labels,
    attribute_pairs,
    metric_name,
    plain_text,
    sorted_labels,
)
from otelauto.agent.prometheus.native import native_histogram
from otelauto.counters import Counters, Meaning

POINTS_CONVERTED = Meaning(
    "agent_prometheus_points_converted", "Data points that became Prometheus samples."
)
POINTS_DROPPED = Meaning(
    "agent_prometheus_points_dropped", "Data points that cannot be Prometheus samples.", "reason"
)

CUMULATIVE: Final = otlp.AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
NO_VALUE: Final = otlp.DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
IDENTITY = frozenset({"service.name", "service.namespace", "service.instance.id"})
NS_PER_MS = 1_000_000
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of ``otelcol.exporter.prometheus``."""

    target_info: bool = True
    scope_info: bool = False
    scope_labels: bool = True
    suffixes: bool = True
    resource_labels: bool = False


@dataclass(slots=True)
class _Point:
    """The series that the data points of one set of attributes become. ``latest_ns`` is the time of
    the newest data point, ``exemplar_ms`` that of the newest exemplar.
    """

    series: tuple[Labels, ...]
    bounds: tuple[float, ...] = ()
    latest_ns: int = 0
    exemplar_ms: int = 0
    seen_ms: int = 0


@dataclass(slots=True)
class _Family:
    """A metric of a resource and scope; ``base`` are the labels that all its points have."""

    name: str
    base: dict[str, str]
    points: dict[Pairs, _Point] = field(default_factory=dict)


class Converter:
    """Turns messages into samples, and remembers what it made of which data point.

    Not thread-safe. ``collect`` forgets what was not seen for a while.
    """

    def __init__(self, options: Options, counters: Counters) -> None:
        self._options = options
        self._counters = counters
        self._families: dict[tuple[object, ...], _Family] = {}
        self._metadata: dict[str, Metadata] = {}
        self._samples: list[Sample] = []
        self._changed: list[Metadata] = []
        self._now_ms = 0
        self._dropped: dict[str, int] = {}
        self._converted = 0

    @property
    def series(self) -> int:
        """How many series are remembered."""
        families = self._families.values()
        return sum(len(p.series) for family in families for p in family.points.values())

    def convert(
        self, message: otlp.MetricsData, now_ms: int
    ) -> tuple[list[Sample], list[Metadata]]:
        """The samples of all data points, and the metadata that is new or has changed."""
        self._samples, self._changed, self._now_ms = [], [], now_ms
        self._dropped, self._converted = {}, 0
        infos: dict[Labels, None] = {}
        for resource_metrics in message.resource_metrics:
            self._resource(resource_metrics, infos)
        for labels in infos:
            self._samples.append(Sample(labels, 1.0, now_ms))
        self._counters.add(POINTS_CONVERTED, self._converted)
        for reason, count in self._dropped.items():
            self._counters.add(POINTS_DROPPED, count, reason)
        return self._samples, self._changed

    def forget(self, metadata: Iterable[Metadata]) -> None:
        """These were not taken: they are given out again."""
        for each in metadata:
            self._metadata.pop(each.family, None)

    def collect(self, before_ms: int) -> None:
        """Forget the series that had no data point since ``before_ms``."""
        for key, family in list(self._families.items()):
            for pairs, point in list(family.points.items()):
                if point.seen_ms < before_ms:
                    del family.points[pairs]
            if not family.points:
                del self._families[key]

    # ---- what the labels are made of ----

    def _resource(self, found: otlp.ResourceMetrics, infos: dict[Labels, None]) -> None:
        pairs = attribute_pairs(found.resource.attributes)
        identity = dict(pairs)
        job = identity.get("service.name", "")
        if job and identity.get("service.namespace"):
            job = f"{identity['service.namespace']}/{job}"
        base = {"job": job, "instance": identity.get("service.instance.id", "")}
        if self._options.target_info:
            rest = attribute_labels(pair for pair in pairs if pair[0] not in IDENTITY)
            infos[sorted_labels({**rest, **base, NAME: "target_info"})] = None
            self._describe(Metadata("target_info", "gauge", "Target metadata", ""))
        for scope_metrics in found.scope_metrics:
            scope = scope_metrics.scope
            named = {"otel_scope_name": scope.name, "otel_scope_version": scope.version}
            if self._options.scope_info:
                about = attribute_labels(attribute_pairs(scope.attributes))
                labels = {**about, **base, **named, NAME: "otel_scope_info"}
                infos[sorted_labels(labels)] = None
                self._describe(Metadata("otel_scope_info", "gauge", "", ""))
            outer = {**base, **named} if self._options.scope_labels else base
            resource = pairs if self._options.resource_labels else ()
            key = (tuple(outer.items()), resource)
            for metric in scope_metrics.metrics:
                self._metric(metric, key, outer, resource)

    def _family(
        self, metric: otlp.Metric, key: tuple[object, ...], outer: dict[str, str], **kind: bool
    ) -> _Family:
        whole = (metric.name, metric.unit, *kind.items(), *key)
        family = self._families.get(whole)
        if family is None:
            name = metric_name(metric.name, metric.unit, suffixes=self._options.suffixes, **kind)
            family = self._families[whole] = _Family(name, outer)
        return family

    def _point(
        self,
        family: _Family,
        attributes: Any,
        resource: Pairs,
        time_ns: int,
        bounds: tuple[float, ...] = (),
        extra: Callable[[Sequence[float]], Sequence[tuple[str, str, str]]] | None = None,
    ) -> _Point | None:
        """The series of a data point, in the order of ``extra``: suffix of the name, name and value
        of a further label. ``None``: it is older than what was converted already.
        """
        pairs = attribute_pairs(attributes)
        point = family.points.get(pairs)
        if point is None or point.bounds != bounds:
            labels = {
                **attribute_labels({**dict(pairs), **dict(resource)}.items()),
                **_given(family.base),
            }
            parts = extra(bounds) if extra is not None else [("", "", "")]
            point = family.points[pairs] = _Point(
                tuple(
                    sorted_labels({**labels, name: value, NAME: family.name + suffix})
                    for suffix, name, value in parts
                ),
                bounds,
                point.latest_ns if point is not None else 0,
            )
        if time_ns < point.latest_ns:
            self._drop("out_of_order")
            return None
        point.latest_ns, point.seen_ms = time_ns, self._now_ms
        self._converted += 1
        return point

    def _describe(self, metadata: Metadata) -> None:
        if self._metadata.get(metadata.family) != metadata:
            self._metadata[metadata.family] = metadata
            self._changed.append(metadata)

    def _drop(self, reason: str, count: int = 1) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + count

    # ---- the kinds of metrics ----

    def _metric(
        self, metric: otlp.Metric, key: tuple[object, ...], outer: dict[str, str], resource: Pairs
    ) -> None:
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data = getattr(metric, kind)
        points = data.data_points
        if kind not in ("gauge", "summary") and data.aggregation_temporality != CUMULATIVE:
            self._drop("delta", len(points))
            return
        counter = kind == "sum" and data.is_monotonic
        family = self._family(metric, key, outer, counter=counter, gauge=kind == "gauge")
        if not family.name:
            self._drop("no_name", len(points))
            return
        shown = {"sum": "gauge", "exponential_histogram": "histogram"}.get(kind, kind)
        self._describe(
            Metadata(family.name, "counter" if counter else shown, metric.description, metric.unit)
        )
        if kind in ("gauge", "sum"):
            self._numbers(family, points, resource, exemplars=counter)
        elif kind == "histogram":
            self._histograms(family, points, resource)
        elif kind == "exponential_histogram":
            self._exponential(family, points, resource)
        else:
            self._summaries(family, points, resource)

    def _numbers(self, family: _Family, points: Any, resource: Pairs, *, exemplars: bool) -> None:
        samples = self._samples
        for data in points:
            point = self._point(family, data.attributes, resource, data.time_unix_nano)
            if point is None:
                continue
            if data.flags & NO_VALUE:
                value = STALE
            elif data.HasField("as_int"):
                value = float(data.as_int)
            else:
                value = data.as_double
            found = self._exemplars(point, data.exemplars) if exemplars and data.exemplars else ()
            time_ms = data.time_unix_nano // NS_PER_MS
            samples.append(Sample(point.series[0], value, time_ms, tuple(found)))

    def _histograms(self, family: _Family, points: Any, resource: Pairs) -> None:
        for data in points:
            # A sound point has one count more than bounds; as many as both have are used.
            counted = sorted(zip(data.explicit_bounds, data.bucket_counts, strict=False))
            bounds = tuple(bound for bound, _ in counted)
            time_ns = data.time_unix_nano
            point = self._point(family, data.attributes, resource, time_ns, bounds, _classic)
            if point is None:
                continue
            stale = data.flags & NO_VALUE
            time_ms = time_ns // NS_PER_MS
            sum_labels, count_labels, *buckets = point.series
            if data.HasField("sum"):
                self._samples.append(Sample(sum_labels, STALE if stale else data.sum, time_ms))
            count = STALE if stale else float(data.count)
            self._samples.append(Sample(count_labels, count, time_ms))
            exemplars = self._exemplars(point, data.exemplars) if data.exemplars else []
            exemplars.sort(key=lambda exemplar: exemplar.value)
            total = 0
            for labels, (bound, number) in zip(buckets, counted, strict=False):
                total += number
                within = 0
                while within < len(exemplars) and exemplars[within].value < bound:
                    within += 1
                value = STALE if stale else float(total)
                inside = sorted(exemplars[:within], key=lambda exemplar: exemplar.timestamp_ms)
                self._samples.append(Sample(labels, value, time_ms, tuple(inside)))
                del exemplars[:within]
            exemplars.sort(key=lambda exemplar: exemplar.timestamp_ms)
            self._samples.append(Sample(buckets[-1], count, time_ms, tuple(exemplars)))

    def _exponential(self, family: _Family, points: Any, resource: Pairs) -> None:
        for data in points:
            histogram = native_histogram(data, stale=bool(data.flags & NO_VALUE))
            if histogram is None:
                self._drop("scale")
                continue
            point = self._point(family, data.attributes, resource, data.time_unix_nano)
            if point is not None:
                exemplars = tuple(self._exemplars(point, data.exemplars))
                time_ms = data.time_unix_nano // NS_PER_MS
                self._samples.append(Sample(point.series[0], 0.0, time_ms, exemplars, histogram))

    def _summaries(self, family: _Family, points: Any, resource: Pairs) -> None:
        for data in points:
            quantiles = tuple(each.quantile for each in data.quantile_values)
            time_ns = data.time_unix_nano
            point = self._point(
                family, data.attributes, resource, time_ns, quantiles,
                _summary,
            )  # fmt: skip
            if point is None:
                continue
            values = [data.sum, float(data.count), *(each.value for each in data.quantile_values)]
            if data.flags & NO_VALUE:
                values = [STALE] * len(values)
            time_ms = time_ns // NS_PER_MS
            for labels, value in zip(point.series, values, strict=True):
                self._samples.append(Sample(labels, value, time_ms))

    def _exemplars(self, point: _Point, found: Iterable[Any]) -> list[Exemplar]:
        """Those that are newer than what was given out; by time, as a store wants them."""
        kept = []
        for each in sorted(found, key=lambda each: each.time_unix_nano):
            time_ms = each.time_unix_nano // NS_PER_MS
            if time_ms <= point.exemplar_ms:
                continue
            labels = {"trace_id": each.trace_id.hex(), "span_id": each.span_id.hex()}
            value = float(each.as_int) if each.HasField("as_int") else each.as_double
            kept.append(Exemplar(sorted_labels(labels), value, time_ms))
        if kept:
            point.exemplar_ms = kept[-1].timestamp_ms
        return kept


def _given(base: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in base.items() if text}


def _classic(bounds: Sequence[float]) -> list[tuple[str, str, str]]:
    buckets = [("_bucket", "le", plain_text(bound)) for bound in bounds]
    return [("_sum", "", ""), ("_count", "", ""), *buckets, ("_bucket", "le", "+Inf")]


def _summary(quantiles: Sequence[float]) -> list[tuple[str, str, str]]:
    each = [("", "quantile", plain_text(quantile)) for quantile in quantiles]
    return [("_sum", "", ""), ("_count", "", ""), *each]
