# SPDX-License-Identifier: Apache-2.0
"""The hand-written OTLP bytes, decoded with opentelemetry-proto and compared field by field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from otelauto.counters import Counters
from otelauto.export import otlp_encode
from otelauto.export.otlp_encode import MetricEncoder, SpanEncoder
from otelauto.export.protobuf import MalformedError, fields, integer, sized, varint
from otelauto.export.red import Red
from otelauto.flows.vocabulary import Attributes, AttributeValue, Instrument, Side
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Service, Span

WALL = 1_700_000_000_000_000_000
CLOCK = WallClock(lambda: 0, lambda: WALL)
SHOP = Service("shop", "eu", "7", {"host.name": "web", "process.pid": 42})
CART = Service("cart", "", "", {})
DURATION = Instrument("took", "s", "Time taken.", (0.005, 0.1, 1.0), ("method", "status"))
SIZE = Instrument("size", "By", "Size.", (0.0, 100.0), ("method",), "bytes")

VALUES = (
    st.text(max_size=300) | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False) | st.sampled_from([0, 1, True, False, 1.0, "1", ""])
)  # fmt: skip
ATTRIBUTES = st.dictionaries(st.text(min_size=1, max_size=20), VALUES, max_size=6)
SPANS = st.builds(
    Span,
    service=st.sampled_from([SHOP, CART]),
    name=st.text(max_size=40),
    side=st.sampled_from(Side),
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    parent_id=st.just(b"") | st.binary(min_size=8, max_size=8),
    trace_flags=st.integers(0, 255),
    start_ns=st.integers(0, 2**62),
    end_ns=st.integers(0, 2**62),
    attributes=ATTRIBUTES,
    error=st.booleans(),
    incomplete=st.none(),
    instruments=st.just(()),
)


def python_value(value: AnyValue) -> AttributeValue:
    kind = value.WhichOneof("value")
    assert kind is not None
    found = getattr(value, kind)
    assert isinstance(found, (str, bool, int, float))
    return found


def typed(attributes: Attributes) -> dict[str, tuple[type, AttributeValue]]:
    """Types matter: 1, 1.0 and True are equal in Python."""
    return {key: (type(value), value) for key, value in attributes.items()}


def decoded(pairs: list[KeyValue]) -> dict[str, tuple[type, AttributeValue]]:
    assert len({pair.key for pair in pairs}) == len(pairs)
    return typed({pair.key: python_value(pair.value) for pair in pairs})


RESOURCES = {
    "shop": typed(
        {
            "host.name": "web", "process.pid": 42, "service.name": "shop",
            "service.namespace": "eu", "service.instance.id": "7",
        }
    ),
    "cart": typed({"service.name": "cart"}),
}  # fmt: skip


def check_span(found: trace_pb2.Span, span: Span) -> None:
    assert found.trace_id == span.trace_id
    assert found.span_id == span.span_id
    assert found.parent_span_id == span.parent_id
    assert found.flags == span.trace_flags
    assert found.name == span.name
    kinds = {Side.SERVER: trace_pb2.Span.SPAN_KIND_SERVER, Side.CLIENT: 3}
    assert found.kind == kinds[span.side]
    assert found.start_time_unix_nano == span.start_ns + WALL
    assert found.end_time_unix_nano == span.end_ns + WALL
    assert decoded(list(found.attributes)) == typed(span.attributes)
    error = trace_pb2.Status.STATUS_CODE_ERROR
    assert found.status.code == (error if span.error else trace_pb2.Status.STATUS_CODE_UNSET)
    assert found.HasField("status") == span.error


@given(st.lists(SPANS, max_size=12))
def test_spans(spans: list[Span]) -> None:
    encoder = SpanEncoder("1.2", CLOCK)
    for _ in range(2):  # the second time from the caches
        request = ExportTraceServiceRequest.FromString(b"".join(encoder.encode(spans)))
        names = []
        for resource in request.resource_spans:
            attributes = decoded(list(resource.resource.attributes))
            name = str(attributes["service.name"][1])
            names.append(name)
            assert attributes == RESOURCES[name]
            (scope,) = resource.scope_spans
            assert (scope.scope.name, scope.scope.version) == ("otelauto", "1.2")
            mine = [span for span in spans if span.service.name == name]
            for found, span in zip(scope.spans, mine, strict=True):
                check_span(found, span)
        assert names == list(dict.fromkeys(span.service.name for span in spans))


def one_span(attributes: Attributes, name: str = "GET") -> Span:
    return Span(
        SHOP, name, Side.SERVER, b"t" * 16, b"s" * 8, b"", 1, 5, 9, attributes, False, None, ()
    )


def test_odd_values() -> None:
    attributes: Attributes = {"big": 2**80, "broken": "a\udcffb", "nul": "\0", "neg": -1}
    body = b"".join(SpanEncoder("1", CLOCK).encode([one_span(attributes, "x\ud800")]))
    (span,) = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    assert span.name == "x?"
    assert decoded(list(span.attributes)) == typed(
        {"big": str(2**80), "broken": "a?b", "nul": "\0", "neg": -1}
    )


def test_caches_are_bounded_and_stay_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_encode, "MAX_CACHED", 10)
    encoder = SpanEncoder("1", CLOCK)
    spans = [one_span({"n": n % 37, "long": "x" * (200 + n)}, f"name {n % 23}") for n in range(200)]
    request = ExportTraceServiceRequest.FromString(b"".join(encoder.encode(spans)))
    found = request.resource_spans[0].scope_spans[0].spans
    for one, span in zip(found, spans, strict=True):
        check_span(one, span)
    assert len(encoder._attributes) <= 10
    assert len(encoder._names) <= 10


def measured(attributes: Attributes, took_ns: int, service: Service) -> Span:
    return Span(
        service, "GET", Side.SERVER, b"t" * 16, b"s" * 8, b"", 1, 1000, 1000 + took_ns,
        attributes, False, None, (DURATION, SIZE),
    )  # fmt: skip


MEASURED = st.builds(
    measured,
    st.fixed_dictionaries(
        {}, optional={"method": st.sampled_from(["GET", "\u00fc"]),
                      "status": st.sampled_from([200, 500]), "bytes": st.integers(0, 2**40)}
    ),
    st.integers(0, 2 * 10**9),
    st.sampled_from([SHOP, CART]),
)  # fmt: skip


@given(st.lists(MEASURED, max_size=40))
def test_metrics(spans: list[Span]) -> None:
    red = Red(Counters())
    red.add(spans)
    encoder = MetricEncoder("1.2", CLOCK)
    for _ in range(2):
        collected = red.collect()
        request = ExportMetricsServiceRequest.FromString(encoder.encode(collected, 5000))
        assert len(request.resource_metrics) == len(collected)
        for resource, one in zip(request.resource_metrics, collected, strict=True):
            assert decoded(list(resource.resource.attributes)) == RESOURCES[one.service.name]
            (scope,) = resource.scope_metrics
            assert (scope.scope.name, scope.scope.version) == ("otelauto", "1.2")
            expected = [(i, every) for i, every in one.series if every]
            for metric, (instrument, every) in zip(scope.metrics, expected, strict=True):
                assert (metric.name, metric.unit, metric.description) == (
                    instrument.name, instrument.unit, instrument.description
                )  # fmt: skip
                assert metric.WhichOneof("data") == "histogram"
                assert metric.histogram.aggregation_temporality == 2
                for found, series in zip(metric.histogram.data_points, every, strict=True):
                    assert decoded(list(found.attributes)) == typed(series.attributes)
                    assert found.start_time_unix_nano == WALL + 1000
                    assert found.time_unix_nano == WALL + 5000
                    assert (found.count, found.sum) == (series.count, series.sum)
                    assert (found.min, found.max) == (series.minimum, series.maximum)
                    assert sum(found.bucket_counts) == series.count
                    assert tuple(found.explicit_bounds) == instrument.buckets


def test_overflow_and_nothing() -> None:
    red = Red(Counters(), max_series_per_service=1)
    encoder = MetricEncoder("1", CLOCK)
    assert encoder.encode(red.collect(), 1) == b""
    red.add([measured({"status": n}, 10, SHOP) for n in range(3)])
    request = ExportMetricsServiceRequest.FromString(encoder.encode(red.collect(), 1))
    points = request.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points
    assert decoded(list(points[1].attributes)) == typed({"otel.metric.overflow": True})
    assert [p.count for p in points] == [1, 2]


@given(st.binary(max_size=200))
def test_reading_noise_never_raises_anything_else(data: bytes) -> None:
    try:
        list(fields(data))
    except MalformedError:
        return


def test_reading_what_was_written() -> None:
    data = integer(1, 300) + sized(2, b"abc") + b"\x19" + bytes(8) + b"\x25" + bytes(4)
    assert list(fields(data)) == [(1, 300), (2, b"abc"), (3, bytes(8)), (4, bytes(4))]
    assert varint(-1) == b"\xff" * 9 + b"\x01"
    for cut in (1, 2, 4, 7, len(data) - 1):
        with pytest.raises(MalformedError):
            list(fields(data[:cut]))
