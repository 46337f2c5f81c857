# SPDX-License-Identifier: Apache-2.0
"""The same stream through an agent and through a real OpenTelemetry Collector: the same comes out,
and both say the same to what they do not take.

Not part of ``make test``, because building the Collector takes minutes: ``make interop``. The two
connectors are not in it: their modules are not to be had everywhere.
"""

from __future__ import annotations

import gzip
import http.client
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from tests.e2e.harness.process import free_port, wait_until
from tests.interop.collector import PROTOCOLS, running_collector
from tests.unit.agent_parts import attributes, message, running, span, spans, sums
from tests.unit.test_otlp_http import Receiver

from otelauto.export.otlp_grpc import METHODS, OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.otlp_json import Json
from otelauto.export.transport import Compression, Verdict

pytestmark = pytest.mark.interop

LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
LIMIT = 4 << 20  # bytes of a message, for both
BODY = message(spans(3)).SerializeToString()
RIVER = """
otelcol.receiver.otlp "in" {{
  grpc {{ endpoint = "127.0.0.1:{grpc}" }}
  http {{
    endpoint              = "127.0.0.1:{http}"
    max_request_body_size = "{limit}"
  }}
  output {{
    traces  = [otelcol.processor.batch.all.input]
    metrics = [otelcol.processor.batch.all.input]
  }}
}}
otelcol.processor.batch "all" {{
  send_batch_size     = 50
  send_batch_max_size = 50
  output {{
    traces  = [otelcol.exporter.otlphttp.out.input]
    metrics = [otelcol.exporter.otlphttp.out.input]
  }}
}}
otelcol.exporter.otlphttp "out" {{
  client {{
    endpoint    = "http://127.0.0.1:{sink}"
    compression = "none"
  }}
}}
"""


@dataclass(frozen=True)
class Side:
    """One of the two: its ports, and what came out of it."""

    ports: dict[str, int]
    sink: Receiver

    def sent(self, signal: str) -> list[bytes]:
        return [body for path, _, body in list(self.sink.requests) if path == f"/v1/{signal}"]


def collector_settings(ports: dict[str, int], sink: int) -> str:
    listen: dict[str, Any] = {p: {"endpoint": f"127.0.0.1:{ports[p]}"} for p in PROTOCOLS}
    listen["http"]["max_request_body_size"] = LIMIT
    batch = {"send_batch_size": 50, "send_batch_max_size": 50}
    out = {"endpoint": f"http://127.0.0.1:{sink}", "compression": "none"}
    pipeline = {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlphttp"]}
    return json.dumps({
        "receivers": {"otlp": {"protocols": listen}}, "processors": {"batch": batch},
        "exporters": {"otlphttp": out},
        "service": {"pipelines": {"traces": pipeline, "metrics": pipeline},
                    "telemetry": {"metrics": {"level": "none"}}},
    })  # fmt: skip


@pytest.fixture(scope="module", name="both")
def fixture_both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    directory = tmp_path_factory.mktemp("pipelines")
    made = [Side({p: free_port() for p in PROTOCOLS}, Receiver()) for _ in range(2)]
    ours, theirs = made
    river = RIVER.format(**ours.ports, sink=ours.sink.port, limit=LIMIT)
    graph = running(river, directory)
    try:
        settings = collector_settings(theirs.ports, theirs.sink.port)
        with running_collector(directory, settings, theirs.ports.values()):
            yield ours, theirs
    finally:
        graph.stop(5)
        for each in made:
            each.sink.close()


def kinds() -> MetricsData:
    """Points of every kind of metric."""
    found = sums(120).message
    scope = found.resource_metrics[0].scope_metrics[0]
    scope.scope.name, scope.scope.version = "meter", "1"
    scope.metrics.add(name="gauge", unit="By").gauge.data_points.add(as_double=-1.5)
    summary = scope.metrics.add(name="summary").summary.data_points.add(count=2, sum=3)
    summary.quantile_values.add(quantile=0.5, value=1)
    histogram = scope.metrics.add(name="histogram").histogram
    histogram.aggregation_temporality = 1
    histogram.data_points.add(
        count=3, sum=6, bucket_counts=[1, 2], explicit_bounds=[1.5], min=1, max=3
    ).exemplars.add(trace_id=b"t" * 16, span_id=b"s" * 8, as_double=1, time_unix_nano=7)
    exponential = scope.metrics.add(name="exponential").exponential_histogram
    exponential.aggregation_temporality = 2
    point = exponential.data_points.add(count=3, sum=6, scale=-2, zero_count=1)
    point.positive.offset = -3
    point.positive.bucket_counts.extend([1, 0, 1])
    return found


def stream() -> TracesData:
    """Spans with everything that a span may have, of two resources."""
    full = span(
        1, kind=Span.SPAN_KIND_CLIENT, trace_state="a=b", parent_span_id=b"p" * 8, flags=257,
        attributes=attributes(text="x", number=-7, real=1.5, yes=True), dropped_events_count=2,
    )  # fmt: skip
    full.events.add(name="e", time_unix_nano=7, attributes=attributes(a="b"))
    full.links.add(trace_id=b"l" * 16, span_id=b"k" * 8, attributes=attributes(a="b"))
    full.status.code, full.status.message = 2, "broken"
    nested = full.attributes.add(key="nested").value
    nested.array_value.values.add(bytes_value=b"\0\xff")
    nested.array_value.values.add().kvlist_value.values.add(key="k").value.int_value = 1 << 62
    found = message([full, *spans(117, 2)], zone="eu")
    found.MergeFrom(message(spans(30, 200), "web"))
    return found


def shown(found: Any) -> str:
    """A message as text. The Collector writes parts that are there and empty; they say nothing."""

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {key: without(each) for key, each in value.items() if each != {}}

    return json.dumps(without(MessageToDict(found)), sort_keys=True)


def items(bodies: list[bytes], kind: Any) -> Counter[tuple[str, ...]]:
    """Each span or point, with what it belongs to."""
    found: Counter[tuple[str, ...]] = Counter()
    for body in bodies:
        for resource in getattr(kind.FromString(body), kind.DESCRIPTOR.fields[0].name):
            scopes = resource.scope_spans if kind is TracesData else resource.scope_metrics
            for scope in scopes:
                around = (shown(resource.resource), shown(scope.scope))
                if kind is TracesData:
                    found.update((*around, shown(each)) for each in scope.spans)
                    continue
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    head = type(metric)()
                    head.CopyFrom(metric)
                    getattr(head, metric.WhichOneof("data")).ClearField("data_points")
                    about = (*around, shown(head), metric.WhichOneof("data"))
                    found.update((*about, shown(p)) for p in data.data_points)
    return found


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
@pytest.mark.parametrize("how", ["grpc", "http", "json"])
@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_the_same_comes_out(
    both: tuple[Side, Side], signal: str, how: str, compression: Compression
) -> None:
    sent = stream() if signal == "traces" else kinds()
    body, wanted = sent.SerializeToString(), items([sent.SerializeToString()], type(sent))
    results = []
    for side in both:
        side.sink.requests.clear()
        if how == "grpc":
            to: Any = OtlpGrpc("http", "127.0.0.1", side.ports["grpc"], signal, version="1",
                               compression=compression)  # fmt: skip
        else:
            url = f"http://127.0.0.1:{side.ports['http']}/v1/{signal}"
            written = Json(signal) if how == "json" else None
            to = OtlpHttp(url, json=written, version="1", compression=compression)
        assert to.post(body).verdict is Verdict.ACCEPTED
        to.close()
        arrived = lambda side=side: items(side.sent(signal), type(sent)).total() >= wanted.total()  # noqa: E731
        wait_until(arrived, "everything has arrived")
        results.append(items(side.sent(signal), type(sent)))
    ours, theirs = results
    assert ours == theirs == wanted


def http_status(port: int, method: str, path: str, body: bytes, fields: dict[str, str]) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request(method, path, body, fields)
        return client.getresponse().status
    finally:
        client.close()


PROTOBUF, JSON = {"Content-Type": "application/x-protobuf"}, {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "body", "fields"),
    [
        ("POST", "/v1/traces", BODY, PROTOBUF),
        ("POST", "/v1/traces", b"", PROTOBUF),
        ("POST", "/v1/traces", b"{}", JSON),
        ("POST", "/v1/traces", b"\xff" * 30, PROTOBUF),
        ("POST", "/v1/traces", b"{", JSON),
        ("POST", "/v1/traces", b'{"unknown": 1}', JSON),
        ("POST", "/v1/traces", BODY, {"Content-Type": "text/plain"}),
        ("POST", "/v1/traces", BODY, {}),
        ("GET", "/v1/traces", b"", {}),
        ("POST", "/v1/logs", BODY, PROTOBUF),
        ("POST", "/nothing", BODY, PROTOBUF),
        ("POST", "/v1/traces", gzip.compress(BODY), {**PROTOBUF, "Content-Encoding": "gzip"}),
        ("POST", "/v1/traces", b"\x1f\x8bx", {**PROTOBUF, "Content-Encoding": "gzip"}),
    ],
)
def test_the_same_answers(
    both: tuple[Side, Side], method: str, path: str, body: bytes, fields: dict[str, str]
) -> None:
    ours, theirs = (http_status(s.ports["http"], method, path, body, fields) for s in both)
    assert ours == theirs


@pytest.mark.parametrize(
    ("method", "body", "expected"),
    [
        (METHODS["traces"], bytes(LIMIT + 1), {grpc.StatusCode.RESOURCE_EXHAUSTED}),
        (LOGS, BODY, {grpc.StatusCode.UNIMPLEMENTED}),
        # A difference: for the Collector what is damaged is an error of its own.
        (METHODS["traces"], b"\xff" * 30,
         {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL}),
    ],
    ids=["large", "logs", "damaged"],
)  # fmt: skip
def test_codes(
    both: tuple[Side, Side], method: str, body: bytes, expected: set[grpc.StatusCode]
) -> None:
    codes = []
    for side in both:
        with grpc.insecure_channel(f"127.0.0.1:{side.ports['grpc']}") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(body, timeout=30)
            codes.append(caught.value.code())
    assert set(codes) == expected


# Where they differ: the Collector says to what is too large what it says to what is damaged.
@pytest.mark.parametrize(
    ("body", "encoding", "theirs"),
    [
        (bytes(LIMIT + 1), "", 400),
        (gzip.compress(bytes(LIMIT * 4)), "gzip", 400),
        (BODY, "br", 400),
    ],
    ids=["large", "bomb", "unknown"],
)
def test_different_answers(
    both: tuple[Side, Side], body: bytes, encoding: str, theirs: int
) -> None:
    fields = {**PROTOBUF, **({"Content-Encoding": encoding} if encoding else {})}
    got = [http_status(s.ports["http"], "POST", "/v1/traces", body, fields) for s in both]
    assert got == [415 if encoding == "br" else 413, theirs]
