# SPDX-License-Identifier: Apache-2.0
"""``otelcol.connector.spanmetrics``: calls and durations of spans as metrics.

Names, attributes and buckets are those of the OpenTelemetry Collector's connector of this name.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    MetricsData,
    ResourceMetrics,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelauto.agent.pipeline import Context, Metrics, Payload, Refused, Running, Traces
from otelauto.agent.river.values import Value
from otelauto.agent.running.buckets import Explicit, Exponential
from otelauto.agent.running.flusher import Flusher
from otelauto.agent.running.outputs import Outputs, as_input, hand_on, only, seconds
from otelauto.agent.running.values import (
    find,
    kind_text,
    same_attributes,
    set_value,
    status_text,
    text_of,
    value_of,
)
from otelauto.agent.schema import Decoded
from otelauto.counters import Meaning

SPANS_NAMELESS = Meaning(
    "agent_spans_nameless",
    "Spans that a connector left out because their resource has no service.name.",
)
SERIES_EVICTED = Meaning(
    "agent_series_evicted",
    "Series that a connector forgot to make room for others: their sums begin anew.",
)
SCOPE = "spanmetricsconnector"
_UNIT_NS = {"ms": 1_000_000, "s": 1_000_000_000}
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_BASIC = ("service.name", "span.name", "span.kind", "status.code")
Key = tuple[str, ...]


@dataclass(slots=True)
class _Series:
    """Of one set of attributes. ``examples`` are of the time since the last message."""

    attributes: list[KeyValue]
    started_ns: int
    calls: int = 0
    durations: Explicit | Exponential | None = None
    examples: list[tuple[bytes, bytes, float]] = field(default_factory=list)
    events: dict[Key, tuple[list[KeyValue], int]] = field(default_factory=dict)
    touched_s: float = 0.0


@dataclass(slots=True)
class _Group:
    """The series of one resource."""

    resource: Resource
    series: dict[Key, _Series] = field(default_factory=dict)


class SpanMetrics(Running):
    """Emits ``calls`` and ``duration`` at each ``metrics_flush_interval``."""

    def __init__(
        self, context: Context, content: Decoded, clock: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(context, content)
        self._outputs = Outputs(content, context.counters)
        self._settings = _Settings.of(content)
        self._clock = clock
        self._lock = threading.Lock()
        self._groups: OrderedDict[Any, _Group] = OrderedDict()
        self._recent: OrderedDict[tuple[Any, Key], None] = OrderedDict()
        interval = seconds(content["metrics_flush_interval"])
        self._flusher = Flusher(context.id, interval, self.flush)

    @property
    def exports(self) -> Mapping[str, Value]:
        return as_input(self)

    def start(self) -> None:
        self._flusher.start()

    def stop(self, deadline_s: float) -> None:
        self._flusher.stop(deadline_s)
        self.flush()

    def traces(self, payload: Traces) -> None:
        """Count the spans; it never refuses."""
        with self._lock:
            for resource in payload.message.resource_spans:
                self._resource(resource)

    def metrics(self, payload: Metrics) -> None:
        """It is of spans only; raises :class:`Refused`."""
        raise Refused(f"{self.context.id} takes spans only", permanent=True)

    def status(self) -> Mapping[str, str | int | float]:
        return {"series": len(self._recent), "resources": len(self._groups)}

    def flush(self) -> None:
        """Send what there is."""
        with self._lock:
            payload = self._built()
        hand_on(self, self._outputs, payload)

    def _resource(self, found: Any) -> None:
        attributes = found.resource.attributes
        service = find(attributes, "service.name")
        if service is None:
            spans = sum(len(scope.spans) for scope in found.scope_spans)
            self.context.counters.add(SPANS_NAMELESS, spans)
            return
        wanted = self._settings.resource_keys
        known = {each.key: value_of(each.value) for each in attributes}
        if wanted:
            known = {key: known[key] for key in wanted if key in known}
        group_key = same_attributes(known)
        if group_key not in self._groups:
            self._groups[group_key] = _Group(Resource(attributes=list(attributes)))
        self._groups.move_to_end(group_key)
        if len(self._groups) > self._settings.most_resources:
            self._forget_resource()
        name = text_of(value_of(service))
        for scope in found.scope_spans:
            for span in scope.spans:
                self._span(group_key, span, name, attributes)

    def _span(self, group_key: Any, span: Span, service: str, resource: Iterable[KeyValue]) -> None:
        settings = self._settings
        found = [
            (name, value)
            for name, default in settings.dimensions
            if (value := _dimension(name, default, span.attributes, resource)) is not None
        ]
        basic = (service, span.name, kind_text(span.kind),
                 status_text(span.status.code))  # fmt: skip
        key = (*basic, *(text_of(value_of(value)) for _, value in found))
        group = self._groups[group_key]
        series = group.series.get(key)
        now = self._clock()
        if series is None:
            series = _Series(settings.attributes(basic, found), now)
            if not settings.disabled:
                series.durations = settings.histogram()
            group.series[key] = series
            self._make_room()
        self._recent[group_key, key] = None
        self._recent.move_to_end((group_key, key))
        series.touched_s = now / 1e9
        series.calls += 1
        duration = max(0, span.end_time_unix_nano - span.start_time_unix_nano) / settings.unit_ns
        if series.durations is not None:
            series.durations.observe(duration)
            self._example(series, span, duration)
        if settings.events:
            self._events(series, span, resource)

    def _example(self, series: _Series, span: Span, duration: float) -> None:
        most = self._settings.examples
        if span.trace_id and (most is None or len(series.examples) < most):
            series.examples.append((span.trace_id, span.span_id, duration))

    def _events(self, series: _Series, span: Span, resource: Iterable[KeyValue]) -> None:
        for event in span.events:
            found = [
                (name, value)
                for name, default in self._settings.event_dimensions
                if (value := _dimension(name, default, event.attributes, resource)) is not None
            ]
            key = tuple(text_of(value_of(value)) for _, value in found)
            more = [KeyValue(key=name, value=value) for name, value in found]
            attributes, count = series.events.get(key, ([*series.attributes, *more], 0))
            series.events[key] = (attributes, count + 1)

    def _make_room(self) -> None:
        """Forget the series that were touched longest ago, beyond the size of the cache."""
        while len(self._recent) >= self._settings.most_series:
            (group_key, key), _ = self._recent.popitem(last=False)
            self._forget(group_key, key)
            self.context.counters.add(SERIES_EVICTED)

    def _forget_resource(self) -> None:
        """That which was seen longest ago."""
        group_key, group = self._groups.popitem(last=False)
        for key in group.series:
            del self._recent[group_key, key]
        self.context.counters.add(SERIES_EVICTED, len(group.series))

    def _forget(self, group_key: Any, key: Key) -> None:
        group = self._groups[group_key]
        del group.series[key]
        if not group.series:
            del self._groups[group_key]

    def _expire(self) -> None:
        limit = self._settings.expiry_s
        if not limit:
            return
        oldest = self._clock() / 1e9 - limit
        for group_key, group in list(self._groups.items()):
            for key in [key for key, each in group.series.items() if each.touched_s < oldest]:
                del self._recent[group_key, key]
                self._forget(group_key, key)

    def _built(self) -> Payload[MetricsData] | None:
        """All metrics; ``None`` if there are none."""
        self._expire()
        message, now, points = MetricsData(), self._clock(), 0
        for group in self._groups.values():
            target = message.resource_metrics.add()
            target.resource.CopyFrom(group.resource)
            points += self._settings.write(target, list(group.series.values()), now)
        if self._settings.delta:
            self._groups.clear()
            self._recent.clear()
        for group in self._groups.values():
            for series in group.series.values():
                series.examples.clear()
        return Payload(MetricsData, points, message) if points else None


@dataclass(frozen=True, slots=True)
class _Settings:
    """The block, as it is asked for each span."""

    dimensions: tuple[tuple[str, AnyValue | None], ...]
    event_dimensions: tuple[tuple[str, AnyValue | None], ...]
    excluded: frozenset[str]
    resource_keys: tuple[str, ...]
    namespace: str
    unit: str
    disabled: bool
    bounds: tuple[float, ...] | None
    max_size: int
    delta: bool
    events: bool
    examples: int | None  # most of a point; ``None`` is no limit
    most_series: int
    most_resources: int
    expiry_s: float

    @classmethod
    def of(cls, content: Decoded) -> _Settings:
        (histogram,) = content.blocks["histogram"]
        explicit, exponential = only(histogram, "explicit"), only(histogram, "exponential")
        exemplars, events = only(content, "exemplars"), only(content, "events")
        with_examples = exemplars is not None and exemplars["enabled"]
        most = exemplars["max_per_data_point"] if exemplars is not None else None
        unit_ns = _UNIT_NS[histogram["unit"]]
        return cls(
            dimensions=_dimensions(content),
            event_dimensions=_dimensions(events) if events is not None else (),
            excluded=frozenset(content["exclude_dimensions"]),
            resource_keys=tuple(content["resource_metrics_key_attributes"]),
            namespace=content["namespace"],
            unit=histogram["unit"],
            disabled=histogram["disable"],
            bounds=tuple(each / unit_ns for each in explicit["buckets"]) if explicit else None,
            max_size=int(exponential["max_size"]) if exponential else 0,
            delta=content["aggregation_temporality"] == "DELTA",
            events=events is not None and events["enabled"],
            examples=(None if most is None else int(most)) if with_examples else 0,
            most_series=int(content["dimensions_cache_size"]),
            most_resources=max(1, int(content["resource_metrics_cache_size"])),
            expiry_s=seconds(content["metrics_expiration"]),
        )

    @property
    def unit_ns(self) -> int:
        return _UNIT_NS[self.unit]

    def histogram(self) -> Explicit | Exponential:
        return Explicit(self.bounds) if self.bounds is not None else Exponential(self.max_size)

    def attributes(
        self, basic: Sequence[str], found: Iterable[tuple[str, AnyValue]]
    ) -> list[KeyValue]:
        """Of a series, without those that are excluded."""
        made = [
            KeyValue(key=name, value=AnyValue(string_value=value))
            for name, value in zip(_BASIC, basic, strict=True)
        ]
        made += [KeyValue(key=name, value=value) for name, value in found]
        return [each for each in made if each.key not in self.excluded]

    def write(self, target: ResourceMetrics, series: Sequence[_Series], now: int) -> int:
        """The metrics of one resource; gives how many data points they have."""
        scope = target.scope_metrics.add()
        scope.scope.name = SCOPE
        temporality = _DELTA if self.delta else _CUMULATIVE
        calls = [(each.attributes, each.calls, each.started_ns) for each in series]
        points = self._sums(scope, "calls", calls, now, temporality)
        if not self.disabled:
            points += self._durations(scope, series, now, temporality)
        if self.events:
            rows = [
                (attributes, count, each.started_ns)
                for each in series
                for attributes, count in each.events.values()
            ]
            points += self._sums(scope, "events", rows, now, temporality)
        return points

    def _name(self, name: str) -> str:
        return f"{self.namespace}.{name}" if self.namespace else name

    def _sums(
        self,
        scope: Any,
        name: str,
        rows: Iterable[tuple[list[KeyValue], int, int]],
        now: int,
        temporality: Any,
    ) -> int:
        metric = scope.metrics.add(name=self._name(name))
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = temporality
        for attributes, count, started in rows:
            metric.sum.data_points.add(
                attributes=attributes, start_time_unix_nano=started, time_unix_nano=now,
                as_int=count,
            )  # fmt: skip
        return len(metric.sum.data_points)

    def _durations(self, scope: Any, series: Sequence[_Series], now: int, temporality: Any) -> int:
        metric = scope.metrics.add(name=self._name("duration"), unit=self.unit)
        data = metric.histogram if self.bounds is not None else metric.exponential_histogram
        data.aggregation_temporality = temporality
        for each in series:
            point = data.data_points.add(
                attributes=each.attributes, start_time_unix_nano=each.started_ns, time_unix_nano=now
            )
            if each.durations is not None:
                each.durations.write(point)
            for trace_id, span_id, value in each.examples:
                point.exemplars.add(
                    trace_id=trace_id, span_id=span_id, as_double=value, time_unix_nano=now
                )
        return len(data.data_points)


def _dimensions(block: Decoded) -> tuple[tuple[str, AnyValue | None], ...]:
    found = []
    for each in block.blocks.get("dimension", []):
        default: AnyValue | None = None
        if each["default"] is not None:
            default = AnyValue()
            set_value(default, each["default"])
        found.append((each["name"], default))
    return tuple(found)


def _dimension(
    name: str, default: AnyValue | None, first: Iterable[KeyValue], second: Iterable[KeyValue]
) -> AnyValue | None:
    """The attribute of what is nearer, else of the resource, else the default."""
    value = find(first, name)
    if value is None:
        value = find(second, name)
    return default if value is None else value
