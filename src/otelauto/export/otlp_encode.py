# SPDX-License-Identifier: Apache-2.0
"""OTLP messages by hand: ExportTraceServiceRequest and ExportMetricsServiceRequest.

Field numbers are those of opentelemetry-proto 1.x (trace/v1, metrics/v1, common/v1, resource/v1).
Bytes that repeat (a resource, an attribute, a span's name and kind) are encoded once and kept; the
caches are bounded. Tests decode the output with opentelemetry-proto and compare every field.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from otelauto.export.encoded import EncodedSpans, Item
from otelauto.export.protobuf import double, fixed64, integer, sized, text, varint
from otelauto.export.red import Collected, Point
from otelauto.flows.vocabulary import Attributes, AttributeValue, Instrument, Side
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
NO_RECORDED_VALUE = integer(10, 1)  # flags of a data point: the series is no more

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

# Span: trace_id = 1, span_id = 2, parent_span_id = 4, start and end = 7 and 8 (fixed64),
# flags = 16 (fixed32).
_IDS = struct.Struct("<2s16s2s8s")
_TIMES = struct.Struct("<BQBQ")
_FLAGS = struct.Struct("<2sI")
STATUS = sized(15, integer(3, STATUS_ERROR))
# Both kinds of histogram data points: start, time, count = 2, 3, 4 (fixed64), sum = 5 (double).
_POINT = struct.Struct("<BQBQBQBd")
_EXTREMES = struct.Struct("<BdBd")
# Exemplar: time = 2 (fixed64), as_double = 3, span_id = 4, trace_id = 5.
_EXEMPLAR = struct.Struct("<BQBd2s8s2s16s")


def any_value(value: AttributeValue) -> bytes:
    """A common.v1 AnyValue message. An integer beyond 64 bits is written as a string."""
    if isinstance(value, str):
        return text(1, value)
    if isinstance(value, bool):
        return integer(2, value)
    if isinstance(value, int):
        return integer(3, value) if INT64_MIN <= value <= INT64_MAX else text(1, str(value))
    return double(4, value)


def key_value(field: int, name: str, value: AttributeValue) -> bytes:
    """A common.v1 KeyValue as the repeated field ``field`` of its parent."""
    return sized(field, text(1, name) + sized(2, any_value(value)))


def key_values(field: int, attributes: Attributes) -> bytes:
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

    def encode(self, spans: Sequence[Item]) -> bytes:
        """An ExportTraceServiceRequest, spans grouped by service in order of appearance."""
        grouped: dict[Service, list[bytes]] = {}
        for span in spans:
            if isinstance(span, EncodedSpans):
                grouped.setdefault(span.service, [self._scope]).append(span.data)
                continue
            encoded = self._span(span)
            group = grouped.setdefault(span.service, [self._scope])
            group.append(b"\x12%b%b" % (varint(len(encoded)), encoded))  # ScopeSpans.spans = 2
        return b"".join(
            sized(1, self._resources.get(service) + sized(2, b"".join(group)))
            for service, group in grouped.items()
        )

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
        # Encoded attributes and the start in wall time, which must not move with the clock.
        self._series: dict[Series, tuple[bytes, int]] = {}

    def encode(self, collected: Sequence[Collected], now_ns: int) -> bytes:
        """An ExportMetricsServiceRequest; ``now_ns`` is the boot-clock time of the collection."""
        now = self._clock.wall_ns(now_ns)
        kept: dict[Series, tuple[bytes, int]] = {}
        resources = []
        for one in collected:
            metrics = [
                sized(2, self._metric(instrument, points, now, kept))
                for instrument, points in one.points
                if points
            ]
            if metrics:
                scope_metrics = sized(2, b"".join((self._scope, *metrics)))
                resources.append(sized(1, self._resources.get(one.service) + scope_metrics))
        self._series = kept
        return b"".join(resources)

    def _metric(
        self,
        instrument: Instrument,
        points: list[Point],
        now: int,
        kept: dict[Series, tuple[bytes, int]],
    ) -> bytes:
        """metrics.v1 Metric: name = 1, description = 2, unit = 3, then the histogram."""
        bounds = sized(7, struct.pack(f"<{len(instrument.buckets)}d", *instrument.buckets))
        counts = struct.Struct(f"<{len(instrument.buckets) + 1}Q")
        encoded = []
        for point in points:
            series = point.series
            known = self._series.get(series)
            if known is None:
                known = (
                    key_values(1 if self._exponential else 9, series.attributes),
                    (self._clock.wall_ns(series.start_ns)),
                )
            kept[series] = known
            if self._exponential:
                buckets = _exponential_buckets(point)
            else:
                buckets = sized(6, counts.pack(*point.buckets)) + bounds
            body = self._common(point, point.since_ns or known[1], now)
            encoded.append(sized(1, body + buckets + known[0]))
        histogram = b"".join(encoded) + self._temporality
        return (
            text(1, instrument.name)
            + text(2, instrument.description)
            + text(3, instrument.unit)
            + sized(10 if self._exponential else 9, histogram)
        )

    def _common(self, point: Point, start: int, now: int) -> bytes:
        """What data points have in common: of the extremes and exemplars the numbers differ."""
        body = _POINT.pack(0x11, start, 0x19, now, 0x21, point.count, 0x29, point.sum)
        if point.minimum == point.minimum:  # not NaN
            tags = (0x61, 0x69) if self._exponential else (0x59, 0x61)
            body += _EXTREMES.pack(tags[0], point.minimum, tags[1], point.maximum)
        if point.stale:
            body += NO_RECORDED_VALUE
        if point.exemplars:
            field, wall_ns = 11 if self._exponential else 8, self._clock.wall_ns
            body += b"".join(
                sized(field, _EXEMPLAR.pack(
                    0x11, wall_ns(time_ns), 0x19, value, b"\x22\x08", span_id, b"\x2a\x10", trace_id
                ))
                for _, value, time_ns, trace_id, span_id in point.exemplars
            )  # fmt: skip
        return body


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else ~(value << 1)


def _exponential_buckets(point: Point) -> bytes:
    """scale = 6 (sint32), zero_count = 7 (fixed64), positive = 8: offset = 1, bucket_counts = 2."""
    scale, zeros, first, counts = point.exponential or (0, 0, 0, [])
    packed = sized(2, b"".join(map(varint, counts))) if counts else b""
    return (
        integer(6, _zigzag(scale))
        + fixed64(7, zeros)
        + sized(8, integer(1, _zigzag(first)) + packed)
    )
