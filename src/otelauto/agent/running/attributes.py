# SPDX-License-Identifier: Apache-2.0
"""``otelcol.processor.attributes``: attributes of spans and data points changed by a list."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from otelauto.agent.pipeline import Context, Fields, Metrics, Payload, Running, Traces
from otelauto.agent.river.values import OptionalSecret, Secret, Value
from otelauto.agent.running.outputs import Outputs, as_input, only
from otelauto.agent.running.values import Attribute, find, kind_text, set_value, text_of, value_of
from otelauto.agent.schema import Decoded
from otelauto.errors import ConfigError

_OF_LOGS = ("log_bodies", "log_severity_texts")
# Changes a repeated field of KeyValue, with what came with the request.
Action = Callable[[Any, Fields], None]


class Attributes(Running):
    """Raises :class:`ConfigError` for an action that lacks something, or a bad pattern."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        self._outputs = Outputs(content, context.counters)
        self._actions = [_action(each) for each in content.blocks.get("action", [])]
        if not self._actions:
            raise ConfigError(
                "otelcol.processor.attributes has no action.", "Give at least one action block."
            )
        self._include = _Match.of(only(content, "include"))
        self._exclude = _Match.of(only(content, "exclude"))

    @property
    def exports(self) -> Mapping[str, Value]:
        return as_input(self)

    def traces(self, payload: Traces) -> None:
        """Pass the spans on, changed; raises :class:`Refused`."""
        message = TracesData.FromString(payload.encoded)  # others have the payload, too
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    if self._concerns(span, scope.scope, resource.resource):
                        self._change(span.attributes, payload.fields)
        self._outputs.traces(Payload(TracesData, payload.items, message, fields=payload.fields))

    def metrics(self, payload: Metrics) -> None:
        """Pass the data points on, changed; raises :class:`Refused`."""
        message = MetricsData.FromString(payload.encoded)
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if self._concerns(metric, scope.scope, resource.resource):
                        for point in points(metric):
                            self._change(point.attributes, payload.fields)
        self._outputs.metrics(Payload(MetricsData, payload.items, message, fields=payload.fields))

    def _concerns(self, item: Span | Metric, scope: Any, resource: Any) -> bool:
        if self._include is not None and not self._include.holds(item, scope, resource):
            return False
        return self._exclude is None or not self._exclude.holds(item, scope, resource)

    def _change(self, attributes: Any, fields: Fields) -> None:
        for action in self._actions:
            action(attributes, fields)


def points(metric: Metric) -> Iterable[Any]:
    """The data points of a metric, of whatever kind."""
    which = metric.WhichOneof("data")
    return getattr(metric, which).data_points if which else ()


def _plain(value: Value) -> Attribute:
    """A value of the configuration as one of an attribute."""
    return value.text if isinstance(value, Secret | OptionalSecret) else value


def _bad(block: Decoded, what: str) -> ConfigError:
    return ConfigError(f'otelcol.processor.attributes: action "{block["action"]}" {what}.')


def _action(block: Decoded) -> Action:
    """What an action block does; raises :class:`ConfigError`."""
    kind, key = block["action"], block["key"] or ""
    if not key and not (block["pattern"] and kind in ("delete", "hash")):
        raise _bad(block, "needs a key")
    if kind in ("insert", "update", "upsert"):
        return _setting(block, kind, key)
    if kind == "convert":
        if not block["converted_type"]:
            raise _bad(block, "needs converted_type")
        return lambda attributes, _: _convert(attributes, key, block["converted_type"])
    if kind == "extract":
        return _extracting(block, key)
    return _removing(kind, key, block["pattern"])


def _removing(kind: str, key: str, pattern: str | None) -> Action:
    """Delete or hash those of that key, and those whose keys match."""
    matching = _pattern(pattern) if pattern else None

    def each(attributes: Any) -> Iterator[KeyValue]:
        for attribute in list(attributes):
            if attribute.key == key or (matching is not None and matching.search(attribute.key)):
                yield attribute

    def act(attributes: Any, _: Fields) -> None:
        for found in each(attributes):
            if kind == "hash":
                _hash(found)
            else:
                attributes.remove(found)

    return act


def _setting(block: Decoded, kind: str, key: str) -> Action:
    given = _source(block)

    def act(attributes: Any, fields: Fields) -> None:
        there, value = find(attributes, key), given(attributes, fields)
        if value is None:
            return
        if there is None and kind != "update":
            attributes.add(key=key).value.CopyFrom(value)
        elif there is not None and kind != "insert":
            there.CopyFrom(value)

    return act


def _source(block: Decoded) -> Callable[[Any, Fields], AnyValue | None]:
    """Where the new value comes from; ``None`` if it is not there."""
    source, value, name = block["from_attribute"], _plain(block["value"]), block["from_context"]
    if source:
        return lambda attributes, _: find(attributes, source)
    if name:
        field = _field(block, name)

        def came(_: Any, fields: Fields) -> AnyValue | None:
            return AnyValue(string_value=fields[field]) if field in fields else None

        return came
    if value is None:
        raise _bad(block, "needs value, from_attribute or from_context")
    constant = AnyValue()
    try:
        set_value(constant, value)
    except ValueError as error:
        raise _bad(block, "needs a number of 64 bits with a sign") from error
    return lambda *_: constant


def _field(block: Decoded, name: str) -> str:
    """The header, or metadata of gRPC, that ``from_context`` means."""
    if name == "client.address" or name.startswith("auth."):
        raise _bad(block, f'cannot use from_context = "{name}": only metadata.* is kept')
    return str(name).removeprefix("metadata.").lower()


def _extracting(block: Decoded, key: str) -> Action:
    if not block["pattern"]:
        raise _bad(block, "needs a pattern")
    pattern = _pattern(block["pattern"])
    if not pattern.groupindex or len(pattern.groupindex) != pattern.groups:
        raise _bad(block, "needs a pattern in which every group has a name")

    def act(attributes: Any, _: Fields) -> None:
        source = find(attributes, key)
        if source is None or source.WhichOneof("value") != "string_value":
            return
        match = pattern.search(source.string_value)
        if match is None:
            return
        for name, text in match.groupdict().items():
            target = find(attributes, name)
            set_value(target if target is not None else attributes.add(key=name).value, text or "")

    return act


def _hash(attribute: KeyValue) -> None:
    """SHA-256 in hex, of the value's text; of a number or bool of its bytes, as the Collector."""
    value = value_of(attribute.value)
    if isinstance(value, bool):
        data = bytes((value,))
    elif isinstance(value, int):
        data = struct.pack("<q", value)
    elif isinstance(value, float):
        data = struct.pack("<d", value)
    else:
        data = text_of(value).encode()
    attribute.value.Clear()
    attribute.value.string_value = hashlib.sha256(data).hexdigest() if data else ""


def _convert(attributes: Any, key: str, kind: str) -> None:
    """To ``string``, ``int`` or ``double``; what is none stays as it is."""
    found = find(attributes, key)
    if found is None:
        return
    value = value_of(found)
    if kind == "string":
        set_value(found, text_of(value))
        return
    if not isinstance(value, str | bool | int | float):
        return
    try:
        if kind == "double":
            set_value(found, float(value))
        elif isinstance(value, str):
            set_value(found, int(value))
        else:
            set_value(found, int(value))
    except (ValueError, OverflowError):
        return


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(
            f'otelcol.processor.attributes: "{text}" is no pattern: {error}'
        ) from error


class _Match:
    """An ``include`` or ``exclude`` block: all that it names must hold, of each list one."""

    def __init__(self, block: Decoded) -> None:
        unusable = [name for name in _OF_LOGS if block[name]]
        if unusable or only(block, "log_severity") is not None:
            raise ConfigError(
                "otelcol.processor.attributes: there are no logs here to be matched.",
                f"Remove {', '.join(unusable) or 'log_severity'}.",
            )
        regexp = block["match_type"] == "regexp"
        self._services = _texts(block["services"], regexp)
        self._names = _texts(block["span_names"], regexp)
        self._kinds = _texts(block["span_kinds"], regexp)
        self._metrics = _texts(block["metric_names"], regexp)
        self._attributes = _pairs(block, "attribute", regexp)
        self._resources = _pairs(block, "resource", regexp)
        self._libraries = [
            (_texts([each["name"]], regexp), _texts([each["version"]], regexp)
             if each["version"] is not None else None)
            for each in block.blocks.get("library", [])
        ]  # fmt: skip
        if not any((self._services, self._names, self._kinds, self._metrics, self._attributes,
                    self._resources, self._libraries)):  # fmt: skip
            raise ConfigError(
                "otelcol.processor.attributes: include and exclude have to name something.",
                "Give services, span_names, metric_names, attribute, resource or library.",
            )

    @classmethod
    def of(cls, block: Decoded | None) -> _Match | None:
        return cls(block) if block is not None else None

    def holds(self, item: Span | Metric, scope: Any, resource: Any) -> bool:
        """Whether the span or metric is one of those that are named."""
        if self._services is not None:
            service = find(resource.attributes, "service.name")
            if service is None or not self._services(text_of(value_of(service))):
                return False
        if not all(_has(resource.attributes, *pair) for pair in self._resources):
            return False
        if self._libraries and not any(
            name is not None and name(scope.name) and (version is None or version(scope.version))
            for name, version in self._libraries
        ):
            return False
        return self._of_span(item) if isinstance(item, Span) else self._of_metric(item)

    def _of_span(self, span: Span) -> bool:
        if self._names is not None and not self._names(span.name):
            return False
        if self._kinds is not None and not self._kinds(kind_text(span.kind)):
            return False
        return all(_has(span.attributes, *pair) for pair in self._attributes)

    def _of_metric(self, metric: Metric) -> bool:
        return self._metrics is None or self._metrics(metric.name)


Test = Callable[[str], bool]


def _texts(given: list[str], regexp: bool) -> Test | None:
    """Whether a text is one of those given; ``None`` if none is."""
    if not given:
        return None
    if not regexp:
        return frozenset(given).__contains__
    patterns = [_pattern(each) for each in given]
    return lambda text: any(each.search(text) for each in patterns)


def _pairs(block: Decoded, name: str, regexp: bool) -> list[tuple[str, Attribute, Test | None]]:
    found = []
    for each in block.blocks.get(name, []):
        value = _plain(each["value"])
        test = _texts([value], True) if regexp and isinstance(value, str) else None
        found.append((each["key"], value, test))
    return found


def _has(attributes: Any, key: str, value: Attribute, test: Test | None) -> bool:
    found = find(attributes, key)
    if found is None:
        return False
    if value is None:
        return True
    actual = value_of(found)
    return test(text_of(actual)) if test is not None else actual == value
