# SPDX-License-Identifier: Apache-2.0
"""The same metrics and spans through an agent and a real OpenTelemetry Collector, to Prometheus:
the same series with the same values, also those that the two connectors make of spans.

What is different is in ``unlike``, and in docs/agent-components.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData
from tests.e2e.harness.process import free_port, wait_until
from tests.interop.collector import running_collector
from tests.interop.pipelines import kinds
from tests.unit.agent_parts import SECOND, attributes, message, running, span
from tests.unit.prometheus_parts import Web, decoded_request, web

from otelauto.agent.pipeline import Labels
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.transport import Verdict

pytestmark = pytest.mark.interop

Value = float | str
FLUSH = "200ms"
RIVER = """
otelcol.receiver.otlp "in" {{
  http {{ endpoint = "127.0.0.1:{http}" }}
  output {{
    metrics = [otelcol.exporter.prometheus.out.input]
    traces  = [otelcol.connector.spanmetrics.c.input, otelcol.connector.servicegraph.c.input]
  }}
}}
otelcol.connector.spanmetrics "c" {{
  namespace              = "traces.span.metrics"
  metrics_flush_interval = "{flush}"
  dimension {{ name = "route" }}
  histogram {{
    explicit {{ buckets = ["5ms", "100ms", "1s"] }}
  }}
  output {{ metrics = [otelcol.exporter.prometheus.out.input] }}
}}
otelcol.connector.servicegraph "c" {{
  metrics_flush_interval = "{flush}"
  store_expiration_loop  = "{flush}"
  dimensions             = ["zone"]
  store {{ ttl = "1s" }}
  output {{ metrics = [otelcol.exporter.prometheus.out.input] }}
}}
otelcol.exporter.prometheus "out" {{
  forward_to = [prometheus.remote_write.out.receiver]
}}
prometheus.remote_write "out" {{
  endpoint {{
    url                    = "{sink}"
    send_native_histograms = true
    queue_config {{ batch_send_deadline = "20ms" }}
  }}
}}
"""


def collector_settings(http: int, sink: str) -> str:
    """The same in the Collector's words."""
    to_store = {"exporters": ["prometheusremotewrite"]}
    return json.dumps({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{http}"}}}},
        "connectors": {
            "spanmetrics": {
                "metrics_flush_interval": FLUSH,
                "dimensions": [{"name": "route"}],
                "histogram": {"explicit": {"buckets": ["5ms", "100ms", "1s"]}},
                "add_resource_attributes": True,
                "exclude_dimensions": ["collector.instance.id"],
            },
            "servicegraph": {
                "metrics_flush_interval": FLUSH,
                "store_expiration_loop": FLUSH,
                "dimensions": ["zone"],
                "store": {"ttl": "1s", "max_items": 1000},
            },
        },
        "exporters": {"prometheusremotewrite": {"endpoint": sink}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {
                "metrics": {"receivers": ["otlp"], **to_store},
                "traces": {"receivers": ["otlp"], "exporters": ["spanmetrics", "servicegraph"]},
                "metrics/made": {"receivers": ["spanmetrics", "servicegraph"], **to_store},
            },
        },
    })  # fmt: skip


@dataclass
class Side:
    """One of the two, and the store behind it."""

    port: int
    store: Web

    def send(self, signal: str, sent: Any) -> None:
        to = OtlpHttp(f"http://127.0.0.1:{self.port}/v1/{signal}", version="1")
        try:
            assert to.post(sent.SerializeToString()).verdict is Verdict.ACCEPTED
        finally:
            to.close()

    def series(self) -> dict[Labels, tuple[int, Value]]:
        """The newest time and value of each; a native histogram as text."""
        found: dict[Labels, tuple[int, Value]] = {}
        for request in list(self.store.requests):
            for series in decoded_request(request.body).timeseries:
                labels = tuple((each.name, each.value) for each in series.labels)
                assert list(labels) == sorted(labels)
                samples = [(each.timestamp, each.value) for each in series.samples]
                samples += [(each.timestamp, str(each)) for each in series.histograms]
                found[labels] = max([*samples, *([found[labels]] if labels in found else [])])
        return found

    def values(self, *beginnings: str) -> dict[Labels, Value]:
        """Values of the series whose names begin so."""
        return {
            labels: value
            for labels, (_, value) in self.series().items()
            if dict(labels)["__name__"].startswith(beginnings)
        }


@pytest.fixture(name="both")
def fixture_both(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    accepted = lambda _: (204, {}, b"")  # noqa: E731
    with web(accepted) as our_store, web(accepted) as their_store:
        ours, theirs = Side(free_port(), our_store), Side(free_port(), their_store)
        config = collector_settings(theirs.port, f"{their_store.url}/push")
        river = RIVER.format(http=ours.port, sink=f"{our_store.url}/push", flush=FLUSH)
        graph = running(river, tmp_path)
        try:
            with running_collector(tmp_path, config, [theirs.port]):
                yield ours, theirs
        finally:
            graph.stop(5)


def cumulative() -> MetricsData:
    """Points of every kind of metric that Prometheus has, of now."""
    found = kinds()
    found.resource_metrics[0].resource.attributes.extend(
        attributes(service_namespace="eu", service_instance_id="7", host_name="h")
    )
    for metric in found.resource_metrics[0].scope_metrics[0].metrics:
        data = getattr(metric, metric.WhichOneof("data"))
        for field in data.DESCRIPTOR.fields:
            if field.name == "aggregation_temporality":
                data.aggregation_temporality = 2
        for number, point in enumerate(data.data_points, 1):
            point.time_unix_nano = 1_700_000_000 * SECOND + number * 1_000_000
    return found


def test_metrics_are_the_same_series(both: tuple[Side, Side]) -> None:
    sent = cumulative()
    found = []
    for side in both:
        side.send("metrics", sent)
        # 120 sums, a gauge, 3 of a summary, 4 of a histogram, a native one, target_info.
        wait_until(lambda side=side: len(side.series()) >= 130, "all series have come")
        found.append(side.series())
    ours, theirs = found
    info = {each for each in ours if dict(each)["__name__"] == "target_info"}
    assert set(ours) == set(theirs)
    for labels in set(ours) - info:
        assert ours[labels] == theirs[labels], labels


CLIENT, SERVER = Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER
PRODUCER, CONSUMER = Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER


def took(number: int, milliseconds: int, parent: int = 0, **fields: Any) -> Span:
    """A span of so many milliseconds, which 7 does not divide: no bound is met by accident."""
    return span(
        number,
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        end_time_unix_nano=SECOND + milliseconds * 1_000_000,
        **fields,
    )


def shop() -> TracesData:
    """Requests of every kind of edge, failed ones and those whose other side is not heard of."""
    error = Status(code=Status.STATUS_CODE_ERROR)
    web_spans = [
        took(1, 1200, name="GET /", kind=SERVER, attributes=attributes(route="/")),
        *[took(10 + n, 3 + 40 * n, 1, name="GET", kind=CLIENT) for n in range(5)],
        took(30, 70, 1, name="SELECT", kind=CLIENT, attributes=attributes(db_name="orders")),
        took(31, 2, 1, name="send", kind=PRODUCER),
        took(32, 9, 1, name="GET", kind=CLIENT, attributes=attributes(peer_service="mail")),
        took(33, 9, 1, name="GET", kind=CLIENT),
    ]
    api_spans = [
        took(50 + n, 2 + 30 * n, 10 + n, name="GET /a", kind=SERVER,
             status=error if n == 4 else None, attributes=attributes(route="/a"))
        for n in range(5)
    ]  # fmt: skip
    worker = [took(70, 5, 31, name="receive", kind=CONSUMER)]
    found = message(web_spans, "web", zone="eu")
    found.MergeFrom(message(api_spans, "api", zone="us"))
    found.MergeFrom(message(worker, "worker"))
    return found


def unlike(labels: Labels) -> bool:
    """What only one of them has. The Collector counts its unpaired spans among its own metrics."""
    return dict(labels)["__name__"] == "traces_service_graph_unpaired_spans_total"


def test_spans_become_the_same_series(both: tuple[Side, Side]) -> None:
    made = ("traces_span_metrics_", "traces_service_graph_")
    whole = ("traces_service_graph_request_total",)
    found = []
    for side in both:
        side.send("traces", shop())
        # Nine edges with the virtual nodes: those that wait longest come last.
        wait_until(lambda side=side: sum(side.values(*whole).values()) >= 10, "all edges")
        wait_until(lambda side=side: sum(
            value for labels, value in side.values("traces_span_metrics_calls_total").items()
        ) >= 16, "all calls")  # fmt: skip
        found.append({k: v for k, v in side.values(*made).items() if not unlike(k)})
    ours, theirs = found
    assert set(ours) == set(theirs)
    assert ours == pytest.approx(theirs)
