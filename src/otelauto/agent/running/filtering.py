# SPDX-License-Identifier: Apache-2.0
"""``otelcol.processor.filter``: what meets one of the conditions is left out.

Source: opentelemetry-collector-contrib, processor/filterprocessor, and pkg/ottl/contexts for what
each path means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from otelauto.agent.pipeline import Context, Metrics, Payload, Refused, Running, Traces
from otelauto.agent.river.values import Value
from otelauto.agent.running.attributes import points
from otelauto.agent.running.conditions import (
    ENUMS,
    ConditionError,
    Function,
    Getter,
    condition,
)
from otelauto.agent.running.outputs import Outputs, as_input, only
from otelauto.agent.running.values import kind_text, value_of
from otelauto.agent.schema import Decoded
from otelauto.counters import Meaning
from otelauto.errors import ConfigError

ITEMS_FILTERED = Meaning(
    "agent_items_filtered",
    "Spans, span events and data points that a filter left out, as its conditions say.",
    "kind",
)
CONDITIONS_FAILED = Meaning(
    "agent_conditions_failed",
    "Conditions of a filter that did not fit an item (error_mode ignore or silent kept it).",
)


@dataclass(slots=True)
class _Item:
    """What conditions are asked about, with what it is in. ``own`` is the innermost."""

    own: Any
    scope: Any
    resource: Any
    parent: Any = None  # an event's span, a data point's metric


def _attributes(found: Any) -> dict[str, Any]:
    return {each.key: value_of(each.value) for each in found}


def _of(name: str) -> Getter:
    return lambda item: getattr(item.own, name)


def _hex(name: str) -> Getter:
    return lambda item: getattr(item.own, name).hex()


def _metric_type(metric: Any) -> int:
    which = metric.WhichOneof("data")
    return ENUMS[f"METRIC_DATA_TYPE_{which.upper() if which else 'NONE'}"]


def _data(name: str) -> Callable[[Any], Any]:
    """A field of a metric's data; nil where that kind has none."""

    def get(metric: Any) -> Any:
        which = metric.WhichOneof("data")
        return getattr(getattr(metric, which), name, None) if which else None

    return get


_AROUND: dict[str, Getter] = {
    "resource.attributes": lambda item: _attributes(item.resource.attributes),
    "instrumentation_scope.name": lambda item: item.scope.name,
    "instrumentation_scope.version": lambda item: item.scope.version,
    "instrumentation_scope.attributes": lambda item: _attributes(item.scope.attributes),
}
_SPAN: dict[str, Callable[[Any], Any]] = {
    "name": lambda span: span.name,
    "kind": lambda span: span.kind,
    "kind.string": lambda span: kind_text(span.kind).removeprefix("SPAN_KIND_").title(),
    "attributes": lambda span: _attributes(span.attributes),
    "trace_id": lambda span: span.trace_id,
    "trace_id.string": lambda span: span.trace_id.hex(),
    "span_id": lambda span: span.span_id,
    "span_id.string": lambda span: span.span_id.hex(),
    "parent_span_id": lambda span: span.parent_span_id,
    "parent_span_id.string": lambda span: span.parent_span_id.hex(),
    "trace_state": lambda span: span.trace_state,
    "start_time_unix_nano": lambda span: span.start_time_unix_nano,
    "end_time_unix_nano": lambda span: span.end_time_unix_nano,
    "status.code": lambda span: span.status.code,
    "status.message": lambda span: span.status.message,
    "dropped_attributes_count": lambda span: span.dropped_attributes_count,
}
_METRIC: dict[str, Callable[[Any], Any]] = {
    "name": lambda metric: metric.name,
    "description": lambda metric: metric.description,
    "unit": lambda metric: metric.unit,
    "type": _metric_type,
    "aggregation_temporality": _data("aggregation_temporality"),
    "is_monotonic": _data("is_monotonic"),
}


def _on_own(paths: Mapping[str, Callable[[Any], Any]]) -> dict[str, Getter]:
    return {name: partial(_get_of_own, get) for name, get in paths.items()}


def _on_parent(prefix: str, paths: Mapping[str, Callable[[Any], Any]]) -> dict[str, Getter]:
    return {f"{prefix}.{name}": partial(_get_of_parent, get) for name, get in paths.items()}


def _get_of_own(get: Callable[[Any], Any], item: Any) -> Any:
    return get(item.own)


def _get_of_parent(get: Callable[[Any], Any], item: Any) -> Any:
    return get(item.parent)


def _number(name: str) -> Getter:
    def get(item: Any) -> Any:
        if not hasattr(item.own, "as_int"):
            return None
        return getattr(item.own, name) if item.own.WhichOneof("value") == name else None

    return get


SPAN_PATHS = {**_on_own(_SPAN), **_AROUND}
EVENT_PATHS = {
    "name": _of("name"),
    "attributes": lambda item: _attributes(item.own.attributes),
    "time_unix_nano": _of("time_unix_nano"),
    "dropped_attributes_count": _of("dropped_attributes_count"),
    **_on_parent("span", _SPAN),
    **_AROUND,
}
METRIC_PATHS = {**_on_own(_METRIC), **_AROUND}
POINT_PATHS = {
    "attributes": lambda item: _attributes(item.own.attributes),
    "time_unix_nano": _of("time_unix_nano"),
    "start_time_unix_nano": _of("start_time_unix_nano"),
    "flags": _of("flags"),
    "value_int": _number("as_int"),
    "value_double": _number("as_double"),
    "count": lambda item: getattr(item.own, "count", None),
    "sum": lambda item: getattr(item.own, "sum", None),
    **_on_parent("metric", _METRIC),
    **_AROUND,
}
SPAN_FUNCTIONS = {"IsRootSpan": Function(0, lambda item: not any(item.own.parent_span_id))}
METRIC_FUNCTIONS = {
    "HasAttrKeyOnDatapoint": Function(
        1, lambda item, key: any(key in _attributes(p.attributes) for p in points(item.own))
    ),
    "HasAttrOnDatapoint": Function(
        2,
        lambda item, key, value: any(
            _attributes(p.attributes).get(key) == value for p in points(item.own)
        ),
    ),
}


class Filter(Running):
    """Raises :class:`ConfigError` for a condition that is not understood."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        self._outputs = Outputs(content, context.counters)
        self._mode = content["error_mode"]
        traces, metrics = only(content, "traces"), only(content, "metrics")
        logs = only(content, "logs")
        if logs is not None and logs["log_record"]:
            raise ConfigError("otelcol.processor.filter: there are no logs here.", "Remove them.")
        self._spans = _conditions(traces, "span", SPAN_PATHS, SPAN_FUNCTIONS)
        self._events = _conditions(traces, "spanevent", EVENT_PATHS, {})
        self._metrics = _conditions(metrics, "metric", METRIC_PATHS, METRIC_FUNCTIONS)
        self._points = _conditions(metrics, "datapoint", POINT_PATHS, {})

    @property
    def exports(self) -> Mapping[str, Value]:
        return as_input(self)

    def traces(self, payload: Traces) -> None:
        """Pass on the spans that are left; raises :class:`Refused`."""
        if not self._spans and not self._events:
            self._outputs.traces(payload)
            return
        message = TracesData.FromString(payload.encoded)  # others have the payload, too
        items = 0
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self._keep(
                    scope, "spans", self._spans, "span",
                    partial(_Item, scope=scope.scope, resource=resource.resource),
                )  # fmt: skip
                items += len(scope.spans)
                for span in scope.spans if self._events else ():
                    self._keep(
                        span, "events", self._events, "spanevent",
                        partial(_Item, scope=scope.scope, resource=resource.resource, parent=span),
                    )  # fmt: skip
            _keep_if(resource, "scope_spans", lambda scope: bool(scope.spans))
        _keep_if(message, "resource_spans", lambda resource: bool(resource.scope_spans))
        if items:
            self._outputs.traces(Payload(TracesData, items, message, fields=payload.fields))

    def metrics(self, payload: Metrics) -> None:
        """Pass on the data points that are left; raises :class:`Refused`."""
        if not self._metrics and not self._points:
            self._outputs.metrics(payload)
            return
        message = MetricsData.FromString(payload.encoded)
        items = 0
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                self._keep(
                    scope, "metrics", self._metrics, "metric",
                    partial(_Item, scope=scope.scope, resource=resource.resource),
                    lambda metric: len(list(points(metric))),
                )  # fmt: skip
                for metric in scope.metrics if self._points else ():
                    which = metric.WhichOneof("data")
                    around = partial(_Item, scope=scope.scope, resource=resource.resource)
                    if which is not None:
                        data = getattr(metric, which)
                        item_of = partial(around, parent=metric)
                        self._keep(data, "data_points", self._points, "datapoint", item_of)
                _keep_if(scope, "metrics", lambda metric: bool(list(points(metric))))
                items += sum(len(list(points(metric))) for metric in scope.metrics)
            _keep_if(resource, "scope_metrics", lambda scope: bool(scope.metrics))
        _keep_if(message, "resource_metrics", lambda resource: bool(resource.scope_metrics))
        if items:
            self._outputs.metrics(Payload(MetricsData, items, message, fields=payload.fields))

    def _keep(
        self,
        parent: Any,
        name: str,
        conditions: list[Callable[[Any], bool]],
        kind: str,
        item_of: Callable[[Any], _Item],
        weight: Callable[[Any], int] = lambda _: 1,
    ) -> None:
        if not conditions:
            return
        gone = _keep_if(parent, name, lambda own: not self._meets(conditions, item_of(own)), weight)
        if gone:
            self.context.counters.add(ITEMS_FILTERED, gone, kind)

    def _meets(self, conditions: list[Callable[[Any], bool]], item: _Item) -> bool:
        """Whether one of the conditions holds. What fails is no reason to leave something out,
        unless the mode is ``propagate``: then all that came with it is refused.
        """
        for each in conditions:
            try:
                if each(item):
                    return True
            except ConditionError as error:
                if self._mode == "propagate":
                    raise Refused(str(error), permanent=True) from error
                self.context.counters.add(CONDITIONS_FAILED)
                if self._mode == "ignore":
                    self.last_error = str(error)
        return False


def _keep_if(
    parent: Any,
    name: str,
    wanted: Callable[[Any], bool],
    weight: Callable[[Any], int] = lambda _: 1,
) -> int:
    """Leave only what is wanted in a repeated field; gives the weight of the rest."""
    found = list(getattr(parent, name))
    kept = [each for each in found if wanted(each)]
    if len(kept) == len(found):
        return 0
    whole = sum(map(weight, found)) - sum(map(weight, kept))
    copy = type(parent)(**{name: kept})
    parent.ClearField(name)
    getattr(parent, name).extend(getattr(copy, name))
    return whole


def _conditions(
    block: Decoded | None,
    name: str,
    paths: Mapping[str, Getter],
    functions: Mapping[str, Function],
) -> list[Callable[[Any], bool]]:
    try:
        return [condition(text, paths, functions) for text in (block[name] if block else ())]
    except ConditionError as error:
        raise ConfigError(
            f"otelcol.processor.filter: {error}", "docs/agent-components.md has what is known."
        ) from error
