# SPDX-License-Identifier: Apache-2.0
"""OTLP messages by hand: ExportTraceServiceRequest and ExportMetricsServiceRequest.

Field numbers are those of opentelemetry-proto 1.x (trace/v1, metrics/v1, common/v1, resource/v1).
Bytes that repeat (a resource, an attribute, a span's name and kind) are encoded once and kept; the
caches are bounded. Tests decode the output with opentelemetry-proto and compare every field.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from otelauto.export.encoded import EncodedSpans, Item
from otelauto.export.otlp_points import (
    ATTRIBUTES,
    EXEMPLARS,
    EXPONENTIAL_ATTRIBUTES,
    EXPONENTIAL_EXEMPLARS,
    encode_exemplars,
    encode_exponential,
    encode_point,
)
from otelauto.export.points import Exemplar, Point, Told, point_of
from otelauto.export.protobuf import double, head, integer, sized, text, varint
from otelauto.export.red import Collected
from otelauto.export.transport import Piece
from otelauto.flows.vocabulary import (
    AttributeValue,
    Instrument,
    ResourceValue,
    Side,
)
from otelauto.hot.cells import Series
from otelauto.spans.clock import WallClock
from otelauto.spans.service import identity_attributes
from otelauto.spans.span import Service, Span

SCOPE = "otelauto"
MAX_CACHED = 8192
MAX_CACHED_VALUE = 256  # characters; longer attribute values are not worth keeping

KIND = {Side.SERVER: 2, Side.CLIENT: 3}  # trace.v1 SpanKind
STATUS_ERROR = 2  # trace.v1 Status.StatusCode
DELTA, CUMULATIVE = 1, 2  # metrics.v1 AggregationTemporality

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

# Span: trace_id = 1, span_id = 2, parent_span_id = 4, start and end = 7 and 8 (fixed64),
# flags = 16 (fixed32).
_IDS = struct.Struct("<2s16s2s8s")
_TIMES = struct.Struct("<BQBQ")
_FLAGS = struct.Struct("<2sI")
STATUS = sized(15, integer(3, STATUS_ERROR))


def any_value(value: ResourceValue) -> bytes:
    """A common.v1 AnyValue message. An integer beyond 64 bits is written as a string."""
    if isinstance(value, tuple):
        return sized(5, b"".join(sized(1, any_value(each)) for each in value))
    if isinstance(value, str):
        return text(1, value)
    if isinstance(value, bool):
        return integer(2, value)
    if isinstance(value, int):
        return integer(3, value) if INT64_MIN <= value <= INT64_MAX else text(1, str(value))
    return double(4, value)


def key_value(field: int, name: str, value: ResourceValue) -> bytes:
    """A common.v1 KeyValue as the repeated field ``field`` of its parent."""
    return sized(field, text(1, name) + sized(2, any_value(value)))


def key_values(field: int, attributes: Mapping[str, ResourceValue]) -> bytes:
    """Attributes as the repeated field ``field`` of their parent."""
    return b"".join(key_value(field, name, value) for name, value in attributes.items())


def encode_resource(service: Service) -> bytes:
    """The ``resource`` field (1) of ResourceSpans and ResourceMetrics."""
    return sized(1, key_values(1, {**service.attributes, **identity_attributes(service)}))


def encode_scope(version: str) -> bytes:
    """The ``scope`` field (1) of ScopeSpans and ScopeMetrics."""
    return sized(1, text(1, SCOPE) + text(2, version))


class _Resources:
    """Encoded resources by service, bounded."""

    MAX_SERVICES = 1024

    def __init__(self) -> None:
        self._known: dict[Service, bytes] = {}

    def get(self, service: Service) -> bytes:
        encoded = self._known.get(service)
        if encoded is None:
            if len(self._known) >= self.MAX_SERVICES:
                self._known.clear()
            encoded = self._known[service] = encode_resource(service)
        return encoded


class SpanEncoder:
    """Encodes batches of spans. Used by one thread."""

    def __init__(self, version: str, clock: WallClock) -> None:
        self._clock = clock
        self._scope = encode_scope(version)
        self._resources = _Resources()
        self._attributes: dict[tuple[str, type, AttributeValue], bytes] = {}
        self._names: dict[tuple[str, Side], bytes] = {}
        self._keys: dict[str, bytes] = {}

    def encode(self, spans: Sequence[Item]) -> list[Piece]:
        """An ExportTraceServiceRequest, spans grouped by service in order of appearance.

        What was encoded before stays where it is: a copy of megabytes costs more than all the rest.
        """
        grouped: dict[Service, list[bytes]] = {}
        blocks: dict[Service, list[memoryview]] = {}
        for span in spans:
            group = grouped.setdefault(span.service, [self._scope])
            if isinstance(span, EncodedSpans):
                blocks.setdefault(span.service, []).append(span.data)
                continue
            encoded = self._span(span)
            group.append(b"\x12%b%b" % (varint(len(encoded)), encoded))  # ScopeSpans.spans = 2
        message: list[Piece] = []
        for service, group in grouped.items():
            resource, first = self._resources.get(service), b"".join(group)
            there = blocks.get(service, [])
            size = len(first) + sum(map(len, there))
            scope_spans = head(2, size)
            resource_spans = head(1, len(resource) + len(scope_spans) + size)
            message += [resource_spans + resource + scope_spans + first, *there]
        return message

    def _span(self, span: Span) -> bytes:
        wall_ns = self._clock.wall_ns
        parts = [
            _IDS.pack(b"\x0a\x10", span.trace_id, b"\x12\x08", span.span_id),
            self._names.get((span.name, span.side)) or self._name(span.name, span.side),
            _TIMES.pack(0x39, wall_ns(span.start_ns), 0x41, wall_ns(span.end_ns)),
        ]
        if span.parent_id:
            parts.append(b"\x22\x08" + span.parent_id)
        known = self._attributes
        for name, value in span.attributes.items():
            encoded = known.get((name, value.__class__, value))
            parts.append(encoded or self._attribute(name, value))
        if span.error:
            parts.append(STATUS)
        if span.trace_flags:
            parts.append(_FLAGS.pack(b"\x85\x01", span.trace_flags))
        return b"".join(parts)

    def _name(self, name: str, side: Side) -> bytes:
        if len(self._names) >= MAX_CACHED:
            self._names.clear()
        encoded = self._names[name, side] = text(5, name) + integer(6, KIND[side])
        return encoded

    def _key(self, name: str) -> bytes:
        if len(self._keys) >= MAX_CACHED:
            self._keys.clear()
        encoded = self._keys[name] = text(1, name)
        return encoded

    def _attribute(self, name: str, value: AttributeValue) -> bytes:
        key = self._keys.get(name) or self._key(name)
        content = any_value(value)
        # Span.attributes = 9, KeyValue.value = 2
        rest = b"\x12%b%b" % (varint(len(content)), content)
        encoded = b"\x4a%b%b%b" % (varint(len(key) + len(rest)), key, rest)
        if not isinstance(value, str) or len(value) <= MAX_CACHED_VALUE:
            if len(self._attributes) >= MAX_CACHED:
                self._attributes.clear()
            self._attributes[name, value.__class__, value] = encoded
        return encoded


class MetricEncoder:
    """Encodes collected RED metrics as histograms. Used by one thread."""

    def __init__(
        self, version: str, clock: WallClock, *, delta: bool = False, exponential: bool = False
    ) -> None:
        self._clock = clock
        self._temporality = integer(2, DELTA if delta else CUMULATIVE)
        self._exponential = exponential
        self._scope = encode_scope(version)
        self._resources = _Resources()
        # Encoded attributes, and the start in wall time, which must not move with the clock.
        self._series: dict[Series, tuple[bytes, int]] = {}
        self._exemplars_from = 0
        self.exemplars_to = 0  # boot-clock time of the latest exemplar in the last message

    def encode(
        self, collected: Sequence[Collected | Told], now_ns: int, exemplars_from: int = 0
    ) -> bytes:
        """An ExportMetricsServiceRequest; ``now_ns`` is the boot-clock time of the collection.

        It has the exemplars that are later than ``exemplars_from`` (boot-clock time).
        """
        now = self._clock.wall_ns(now_ns)
        self._exemplars_from = self.exemplars_to = exemplars_from
        kept: dict[Series, tuple[bytes, int]] = {}
        resources = []
        for one in collected:
            metrics = [
                sized(2, self._metric(instrument, series, now, kept))
                for instrument, series in one.series
                if series
            ]
            if metrics:
                scope_metrics = sized(2, b"".join((self._scope, *metrics)))
                resources.append(sized(1, self._resources.get(one.service) + scope_metrics))
        self._series = kept
        return b"".join(resources)

    def _metric(
        self,
        instrument: Instrument,
        every: Sequence[Series | Point],
        now: int,
        kept: dict[Series, tuple[bytes, int]],
    ) -> bytes:
        """metrics.v1 Metric: name = 1, description = 2, unit = 3, then the histogram."""
        bounds = sized(7, struct.pack(f"<{len(instrument.buckets)}d", *instrument.buckets))
        write, field = encode_point, 9
        if self._exponential:
            bounds, write, field = b"", encode_exponential, 10
        points = []
        for one in every:
            series = one if isinstance(one, Series) else one.series
            attributes, start = kept[series] = self._known(series)
            if isinstance(one, Series) and not self._exponential:
                rest = attributes + self._exemplars(series.copied_exemplars())
                points.append(series.point(start, now, bounds, rest))
                continue
            point = point_of(one) if isinstance(one, Series) else one
            rest = bounds + attributes + self._exemplars(point.exemplars)
            points.append(write(point, point.since_ns or start, now, rest))
        histogram = b"".join(points) + self._temporality
        return (
            text(1, instrument.name)
            + text(2, instrument.description)
            + text(3, instrument.unit)
            + sized(field, histogram)
        )

    def _known(self, series: Series) -> tuple[bytes, int]:
        known = self._series.get(series)
        if known is None:
            field = EXPONENTIAL_ATTRIBUTES if self._exponential else ATTRIBUTES
            attributes = key_values(field, series.attributes)
            known = attributes, self._clock.wall_ns(series.start_ns)
        return known

    def _exemplars(self, exemplars: Sequence[Exemplar]) -> bytes:
        news = [each for each in exemplars if each[2] > self._exemplars_from]
        if not news:
            return b""
        self.exemplars_to = max(self.exemplars_to, *(each[2] for each in news))
        field = EXPONENTIAL_EXEMPLARS if self._exponential else EXEMPLARS
        return encode_exemplars(field, news, self._clock.wall_ns)
