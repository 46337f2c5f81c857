# SPDX-License-Identifier: Apache-2.0
"""OTLP in JSON against protobuf's own reader of JSON; and over HTTP."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cramjam
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.unit.test_otlp_http import CLOCK, Receiver, metrics, spans, totals, traces, wait_for

from otelauto.counters import Counters
from otelauto.export import otlp_json
from otelauto.export.exporter import METRIC_EXPORTS, METRIC_POINTS_REJECTED
from otelauto.export.otlp_encode import MetricEncoder, SpanEncoder
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.otlp_json import Json, accepted
from otelauto.export.protobuf import MalformedError
from otelauto.export.red import Red
from otelauto.export.transport import Compression, Verdict

REQUESTS = {"traces": ExportTraceServiceRequest, "metrics": ExportMetricsServiceRequest}
UNPACK: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.GZIP: gzip.decompress,
    Compression.DEFLATE: zlib.decompress,
    Compression.ZLIB: zlib.decompress,
    Compression.ZSTD: lambda body: bytes(cramjam.zstd.decompress(body)),
    Compression.SNAPPY: lambda body: bytes(cramjam.snappy.decompress_raw(body)),
}
IDS = ("traceId", "spanId", "parentSpanId")
# Of experiments (profiles' string table); nothing that is sent has them.
NOT_SENT = {"string_value_strindex", "key_strindex", "entity_refs", "key_ref", "string_value_ref"}
KINDS = FieldDescriptor
INTEGERS = {
    KINDS.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    KINDS.TYPE_UINT64: (0, (1 << 64) - 1),
    KINDS.TYPE_FIXED64: (0, (1 << 64) - 1),
    KINDS.TYPE_SFIXED64: (-(1 << 63), (1 << 63) - 1),
    KINDS.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    KINDS.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    KINDS.TYPE_UINT32: (0, (1 << 32) - 1),
    KINDS.TYPE_FIXED32: (0, (1 << 32) - 1),
}


def scalar(field: FieldDescriptor, rng: random.Random) -> Any:
    kind = field.type
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        return rng.choice([low, high, 1, rng.randint(low, high)])
    if kind == KINDS.TYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind == KINDS.TYPE_BOOL:
        return rng.random() < 0.5
    if kind == KINDS.TYPE_DOUBLE:
        special = [float("inf"), -float("inf"), 0.1, -1e300, 5e-324, 3.0]
        return rng.choice([*special, rng.random()])
    if kind == KINDS.TYPE_BYTES:
        return rng.randbytes(rng.choice([0, 8, 16]))
    assert kind == KINDS.TYPE_STRING
    return "".join(rng.choices('aZ"\\\n\u00e9\u20ac\U0001f600 \x7f', k=rng.randrange(9)))


def fill(message: Message, rng: random.Random, depth: int = 0) -> None:
    """Any of the fields of ``message``, with anything in them."""
    for field in message.DESCRIPTOR.fields:
        if field.name in NOT_SENT or (depth > 2 and rng.random() < 0.2):
            continue
        if field.type == KINDS.TYPE_MESSAGE:
            if depth > 11:
                continue
            if field.is_repeated:
                for _ in range(rng.randrange(1, 3)):
                    fill(getattr(message, field.name).add(), rng, depth + 1)
            elif field.containing_oneof is None or rng.random() < 0.5:
                getattr(message, field.name).SetInParent()
                fill(getattr(message, field.name), rng, depth + 1)
        elif field.is_repeated:
            values = [scalar(field, rng) for _ in range(rng.randrange(4))]
            getattr(message, field.name).extend(values)
        elif field.containing_oneof is None or rng.random() < 0.5:
            setattr(message, field.name, scalar(field, rng))


def for_protobuf(value: Any) -> Any:
    """OTLP's ids are hex where protobuf's JSON has base64."""
    if isinstance(value, list):
        return [for_protobuf(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.b64encode(bytes.fromhex(inner)).decode()
        if name in IDS
        else for_protobuf(inner)
        for name, inner in value.items()
    }


def read(signal: str, body: bytes) -> Message:
    return json_format.ParseDict(for_protobuf(json.loads(body)), REQUESTS[signal]())


@pytest.mark.parametrize("signal", REQUESTS)
def test_every_field_of_every_message(signal: str) -> None:
    rng = random.Random(4318)
    for _ in range(100):
        message = REQUESTS[signal]()
        fill(message, rng)
        assert read(signal, Json(signal).encode(message.SerializeToString())) == message


@pytest.mark.parametrize("signal", REQUESTS)
def test_the_form_of_values_is_that_of_the_specification(signal: str) -> None:
    """What a lenient reader would not notice: text for 64 bits, numbers for enums, hex, names."""

    def walk(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, key)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner, name)
        else:
            yield name, value

    leaves = []
    for seed in range(20):
        message = REQUESTS[signal]()
        fill(message, random.Random(seed))
        leaves += walk(json.loads(Json(signal).encode(message.SerializeToString())))
    assert len({name for name, _ in leaves}) > 15
    for name, value in leaves:
        assert "_" not in name
        if name.endswith("UnixNano") or name in ("intValue", "asInt", "count", "zeroCount"):
            assert isinstance(value, str)
            assert int(value) is not None
        if name in ("kind", "code", "aggregationTemporality", "flags", "scale"):
            assert isinstance(value, int)
        if name in IDS:
            assert value == value.lower()
            assert bytes.fromhex(value) is not None


def test_what_is_sent_is_what_protobuf_says() -> None:
    body = b"".join(SpanEncoder("1", CLOCK).encode(spans(50)))
    assert read("traces", Json("traces").encode(body)) == ExportTraceServiceRequest.FromString(body)
    red = Red(Counters())
    red.add(spans(50))
    body = MetricEncoder("1", CLOCK).encode(red.collect(), 10)
    expected = ExportMetricsServiceRequest.FromString(body)
    assert read("metrics", Json("metrics").encode(body)) == expected


@pytest.mark.parametrize("body", [b"\x0a", b"\xff\xff", b"\x0a\x02\x0a\x05", b"\x08\x01"])
def test_what_is_no_message_is_said(body: bytes) -> None:
    with pytest.raises(MalformedError):
        Json("traces").encode(body)


@pytest.mark.parametrize(
    ("body", "rejected", "error"),
    [
        (b"", 0, ""),
        (b"{}", 0, ""),
        (b'{"partialSuccess":{}}', 0, ""),
        (b'{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}', 3, "too old"),
        (b'{"partialSuccess":{"rejectedDataPoints":4}}', 4, ""),
        (b'{"partialSuccess":{"errorMessage":"warning"}}', 0, "warning"),
        (b'{"partialSuccess":{"rejectedSpans":"-3"}}', 0, ""),
        (b'{"partialSuccess":{"rejectedSpans":"' + b"9" * 5000 + b'"}}', 0, ""),
        (b'{"partialSuccess":[]}', 0, ""),
        (b"[" * 100_000, 0, ""),
        (b"<html>", 0, ""),
        (b"\xff", 0, ""),
    ],
)
def test_answers(body: bytes, rejected: int, error: str) -> None:
    answer = accepted(body)
    assert (answer.verdict, answer.rejected, answer.error) == (Verdict.ACCEPTED, rejected, error)


def test_messages_of_refusals() -> None:
    assert otlp_json.rpc_message(b'{"code":3,"message":"no\\nsuch"}') == "no such"
    assert otlp_json.rpc_message(b"busy") == "busy"


def over_json(receiver: Receiver, signal: str, **settings: Any) -> OtlpHttp:
    url = f"http://127.0.0.1:{receiver.port}/v1/{signal}"
    return OtlpHttp(url, version="1", json=Json(signal), **settings)


@pytest.mark.parametrize("compression", list(Compression))
def test_spans_over_http(receiver: Receiver, compression: Compression) -> None:
    partial = b'{"partialSuccess":{"rejectedSpans":"2"}}'
    receiver.replies = [
        (503, {"Content-Type": "application/json"}, b'{"message":"later"}'),
        (200, {"Content-Type": "application/json"}, partial),
    ]
    counters = Counters()
    exporter = traces(over_json(receiver, "traces", compression=compression), counters)
    exporter.offer(spans(7))
    wait_for(lambda: totals(counters) == (5, {"rejected": 2}))
    exporter.close(20)
    (_, headers, body), (_, _, again) = receiver.requests
    assert body == again
    assert headers["content-type"] == "application/json"
    message = read("traces", UNPACK[compression](body))
    found = [
        span.attributes[0].value.int_value
        for resource in message.resource_spans  # type: ignore[attr-defined]
        for span in resource.scope_spans[0].spans
    ]
    assert found == list(range(7))


def test_metrics_over_http(receiver: Receiver) -> None:
    receiver.default = (200, {}, b'{"partialSuccess":{"rejectedDataPoints":"1"}}')
    red, counters = Red(Counters()), Counters()
    red.add(spans(3))
    exporter = metrics(over_json(receiver, "metrics"), red, counters, 3600)
    exporter.close(20)
    assert counters.get(METRIC_EXPORTS) == 1
    assert counters.get(METRIC_POINTS_REJECTED) == 1
    assert read("metrics", receiver.requests[0][2]).ByteSize() > 0


def test_the_message_of_a_refusal_is_said(receiver: Receiver) -> None:
    receiver.default = (400, {"Content-Type": "application/json"}, b'{"message":"bad span"}')
    to = over_json(receiver, "traces")
    answer = to.post(b"")
    to.close()
    assert (answer.verdict, answer.error) == (Verdict.REFUSED, "HTTP 400 Bad Request: bad span")
