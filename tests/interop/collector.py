# SPDX-License-Identifier: Apache-2.0
"""A real OpenTelemetry Collector takes what the OTLP exporters send, and passes it on to us.

Not part of ``make test``, because building the collector takes minutes: ``make interop``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.certificates import self_signed
from tests.e2e.harness.process import Process, accepts, free_port
from tests.unit.test_otlp_http import CLOCK, Receiver, spans, totals

from otelauto.counters import Counters
from otelauto.export.exporter import METRIC_EXPORTS
from otelauto.export.otlp_export import OtlpMetrics, OtlpTraces
from otelauto.export.otlp_grpc import OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.red import Red
from otelauto.export.tls import Tls
from otelauto.export.transport import Compression, Transport, Verdict

pytestmark = pytest.mark.interop

PROGRAM = Path(__file__).resolve().parents[2] / ".build" / "interop" / "otelcol"
PROTOCOLS = ("grpc", "http")
Pair = tuple[str, str]


@dataclass(frozen=True)
class Collector:
    """Ports by (protocol, whether it wants mutual TLS), and the certificates."""

    ports: dict[tuple[str, bool], int]
    server: Pair
    client: Pair
    sink: Receiver

    def connect(
        self, protocol: str, signal: str = "traces", *, tls: Tls | None = None,
        compression: Compression = Compression.NONE,
    ) -> Transport:  # fmt: skip
        """A transport to it; with ``tls`` to the port that wants it."""
        port = self.ports[protocol, tls is not None]
        scheme = "https" if tls is not None else "http"
        if protocol == "grpc":
            return OtlpGrpc(
                scheme, "localhost", port, signal, version="1", tls=tls, compression=compression
            )
        url = f"{scheme}://localhost:{port}/v1/{signal}"
        return OtlpHttp(url, version="1", tls=tls, compression=compression)


def configuration(ports: dict[tuple[str, bool], int], files: dict[str, str], sink: int) -> str:
    """Two receivers, plain and with mutual TLS; no queue, so that an answer is the sink's."""

    def receiver(encrypted: bool) -> dict[str, object]:
        tls = {"tls": files} if encrypted else {}
        each = {p: {"endpoint": f"127.0.0.1:{ports[p, encrypted]}", **tls} for p in PROTOCOLS}
        return {"protocols": each}

    pipeline = {"receivers": ["otlp", "otlp/tls"], "exporters": ["otlphttp"]}
    return json.dumps(
        {
            "receivers": {"otlp": receiver(False), "otlp/tls": receiver(True)},
            "exporters": {
                "otlphttp": {
                    "endpoint": f"http://127.0.0.1:{sink}",
                    "compression": "none",
                    "sending_queue": {"enabled": False},
                    "retry_on_failure": {"enabled": False},
                }
            },
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": pipeline, "metrics": pipeline},
            },
        }
    )


@pytest.fixture(scope="module", name="running")
def fixture_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    directory = tmp_path_factory.mktemp("collector")
    server, client = self_signed(directory, "server"), self_signed(directory, "client")
    sink = Receiver()
    ports = {(protocol, tls): free_port() for protocol in PROTOCOLS for tls in (False, True)}
    files = {"cert_file": server[0], "key_file": server[1], "client_ca_file": client[0]}
    config = directory / "collector.yaml"
    config.write_text(configuration(ports, files, sink.port))
    try:
        with Process([PROGRAM, "--config", config], directory / "stderr") as process:
            listens = lambda: all(accepts(port) for port in ports.values())  # noqa: E731
            process.wait_for(listens, "the collector listens", 60)
            yield Collector(ports, server, client, sink)
    finally:
        sink.close()


@pytest.fixture
def collector(running: Collector) -> Collector:
    running.sink.requests.clear()
    running.sink.replies.clear()
    return running


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_spans_and_sums(
    collector: Collector, protocol: str, encrypted: bool, compression: Compression
) -> None:
    tls = Tls(collector.server[0], *collector.client) if encrypted else None
    counters = Counters()
    to = collector.connect(protocol, tls=tls, compression=compression)
    exporter = OtlpTraces(to, CLOCK, counters, version="1", batch_size=40, batch_timeout_s=0.0)
    exporter.start()
    exporter.offer(spans(997))
    exporter.close(20)
    assert totals(counters) == (997, {})
    assert collector.sink.span_numbers() == list(range(997))
    assert {path for path, _, _ in collector.sink.requests} == {"/v1/traces"}

    collector.sink.requests.clear()
    red = Red(Counters())
    red.add(spans(97))
    to = collector.connect(protocol, "metrics", tls=tls, compression=compression)
    metrics = OtlpMetrics(to, red, CLOCK, counters, version="1", interval_s=3600)
    metrics.start()
    metrics.close(20)
    assert counters.get(METRIC_EXPORTS) == 1
    ((path, _, body),) = collector.sink.requests
    assert path == "/v1/metrics"
    points = [
        point
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for metric in resource.scope_metrics[0].metrics
        for point in metric.histogram.data_points
    ]
    assert sum(point.count for point in points) == 97
    assert sum(point.sum for point in points) == pytest.approx(97e-9)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("status", "verdict"),
    [(503, Verdict.RETRY), (429, Verdict.RETRY), (400, Verdict.REFUSED), (401, Verdict.REFUSED)],
)
def test_what_is_behind_it_decides(
    collector: Collector, protocol: str, status: int, verdict: Verdict
) -> None:
    if (protocol, status) == ("grpc", 429):
        verdict = Verdict.REFUSED  # it says RESOURCE_EXHAUSTED without the RetryInfo that allows it
    collector.sink.replies = [(status, {"Retry-After": "7"}, b"")]
    to = collector.connect(protocol)
    body = spans_message()
    try:
        answer = to.post(body)
        assert answer.verdict is verdict
        assert answer.error
        assert to.post(body).verdict is Verdict.ACCEPTED
    finally:
        to.close()


def spans_message() -> bytes:
    """A message as it is sent, from a receiver of our own."""
    receiver = Receiver()
    to = OtlpHttp(f"http://127.0.0.1:{receiver.port}/v1/traces", version="1")
    exporter = OtlpTraces(to, CLOCK, Counters(), version="1")
    exporter.start()
    exporter.offer(spans(3))
    exporter.close(20)
    receiver.close()
    return receiver.requests[0][2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_garbage_is_refused(collector: Collector, protocol: str) -> None:
    to = collector.connect(protocol)
    answer = to.post(b"\xff" * 30)
    to.close()
    assert answer.verdict is Verdict.REFUSED


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bad_certificates_are_refused(collector: Collector, protocol: str, tmp_path: Path) -> None:
    other = self_signed(tmp_path, "other")
    cases: dict[str, Tls] = {
        "the server's certificate is not trusted": Tls(other[0], *collector.client),
        "": Tls(collector.server[0], *other),
    }
    for words, tls in cases.items():
        to = collector.connect(protocol, tls=tls)
        answer = to.post(b"")
        to.close()
        assert answer.verdict is Verdict.RETRY
        assert answer.error
        assert words in answer.error


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_and_encrypted_do_not_mix(collector: Collector, protocol: str) -> None:
    swapped = {(p, not tls): port for (p, tls), port in collector.ports.items()}
    wrong = Collector(swapped, collector.server, collector.client, collector.sink)
    for tls in (None, Tls(collector.server[0], *collector.client)):
        to = wrong.connect(protocol, tls=tls)
        answer = to.post(b"")
        to.close()
        assert answer.verdict is not Verdict.ACCEPTED
        assert answer.error
