# SPDX-License-Identifier: Apache-2.0
"""A real OpenTelemetry Collector takes what the OTLP exporters send, and passes it on to us.

Not part of ``make test``, because building the collector takes minutes: ``make interop``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.certificates import expired, self_signed
from tests.e2e.harness.process import Process, accepts, free_port
from tests.unit.test_otlp_http import CLOCK, Receiver, spans, totals

from otelauto.config.otlp import basic_authorization
from otelauto.counters import Counters
from otelauto.export.exporter import METRIC_EXPORTS
from otelauto.export.otlp_export import OtlpMetrics, OtlpTraces
from otelauto.export.otlp_grpc import OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.otlp_json import Json
from otelauto.export.red import Red
from otelauto.export.tls import Tls
from otelauto.export.transport import Compression, Transport, Verdict

pytestmark = pytest.mark.interop

PROGRAM = Path(__file__).resolve().parents[2] / ".build" / "interop" / "otelcol"
PROTOCOLS = ("grpc", "http")  # that it listens for; JSON comes to the port of HTTP
CLIENTS = (*PROTOCOLS, "json")
DOORS = ("plain", "mutual", "expired")
LOGIN = ("4711", "glc_a+b/c=")
Pair = tuple[str, str]


@dataclass(frozen=True)
class Collector:
    """Ports by (protocol, door), and the certificates."""

    ports: dict[tuple[str, str], int]
    server: Pair
    client: Pair
    expired: Pair
    sink: Receiver

    def connect(
        self, protocol: str, signal: str = "traces", *, door: str = "", tls: Tls | None = None,
        compression: Compression = Compression.NONE, headers: dict[str, str] | None = None,
        host: str = "localhost",
    ) -> Transport:  # fmt: skip
        """A transport to it; with ``tls``, unless ``door`` says otherwise, to the mutual door."""
        door = door or ("mutual" if tls is not None else "plain")
        port = self.ports["grpc" if protocol == "grpc" else "http", door]
        scheme = "https" if tls is not None else "http"
        given = {"version": "1", "tls": tls, "compression": compression}
        if protocol == "grpc":
            return OtlpGrpc(scheme, host, port, signal, headers=lambda: headers or {}, **given)  # type: ignore[arg-type]
        url = f"{scheme}://{host}:{port}/v1/{signal}"
        json = Json(signal) if protocol == "json" else None
        return OtlpHttp(url, json=json, headers=lambda: headers or {}, **given)  # type: ignore[arg-type]


def configuration(collector: Collector) -> str:
    """A receiver for each door; no queue, so that an answer is the sink's."""
    mutual = dict(zip(("cert_file", "key_file"), collector.server, strict=True))
    mutual["client_ca_file"] = collector.client[0]
    settings: dict[str, dict[str, object]] = {
        "plain": {},
        "mutual": {"tls": mutual},
        "expired": {"tls": dict(zip(("cert_file", "key_file"), collector.expired, strict=True))},
    }
    receivers = {
        f"otlp/{door}": {
            "protocols": {
                protocol: {"endpoint": f"127.0.0.1:{collector.ports[protocol, door]}", **more}
                for protocol in PROTOCOLS
            }
        }
        for door, more in settings.items()
    }
    pipeline = {"receivers": list(receivers), "exporters": ["otlphttp"]}
    return json.dumps(
        {
            "receivers": receivers,
            "exporters": {
                "otlphttp": {
                    "endpoint": f"http://127.0.0.1:{collector.sink.port}",
                    "compression": "none",
                    "sending_queue": {"enabled": False},
                    "retry_on_failure": {"enabled": False},
                },
            },
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": pipeline, "metrics": pipeline},
            },
        }
    )


NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  ssl_certificate {cert}; ssl_certificate_key {key};
  auth_basic tenants; auth_basic_user_file {directory}/users;
  server {{ listen 127.0.0.1:{http} ssl; location / {{ proxy_pass http://127.0.0.1:{to_http}; }} }}
  server {{
    listen 127.0.0.1:{grpc} ssl http2; location / {{ grpc_pass grpc://127.0.0.1:{to_grpc}; }}
  }}
}}
"""


def gate(directory: Path, collector: Collector) -> str:
    """nginx as hosted backends have something in front: TLS and basic authentication."""
    digest = base64.b64encode(hashlib.sha1(LOGIN[1].encode()).digest()).decode()
    (directory / "users").write_text(f"{LOGIN[0]}:{{SHA}}{digest}\n")
    return NGINX.format(
        directory=directory,
        cert=collector.server[0],
        key=collector.server[1],
        **{protocol: collector.ports[protocol, "login"] for protocol in PROTOCOLS},
        **{f"to_{protocol}": collector.ports[protocol, "plain"] for protocol in PROTOCOLS},
    )


@pytest.fixture(scope="module", name="running")
def fixture_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    directory = tmp_path_factory.mktemp("collector")
    server, client = self_signed(directory, "server"), self_signed(directory, "client")
    doors = (*DOORS, "login")
    ports = {(protocol, door): free_port() for protocol in PROTOCOLS for door in doors}
    made = Collector(ports, server, client, expired(directory), Receiver())
    config = directory / "collector.yaml"
    config.write_text(configuration(made))
    nginx = directory / "nginx.conf"
    nginx.write_text(gate(directory, made))
    listens = lambda: all(accepts(port) for port in ports.values())  # noqa: E731
    try:
        with (
            Process([PROGRAM, "--config", config], directory / "stderr") as process,
            Process(["nginx", "-c", nginx], directory / "nginx.err") as front,
        ):
            alive = lambda: front.popen.poll() is None and listens()  # noqa: E731
            process.wait_for(alive, "the collector listens, and nginx before it", 60)
            yield made
    finally:
        made.sink.close()


@pytest.fixture
def collector(running: Collector) -> Collector:
    running.sink.requests.clear()
    running.sink.statuses.clear()
    running.sink.replies.clear()
    return running


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("protocol", CLIENTS)
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
    collector.sink.statuses.clear()
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


@pytest.mark.parametrize("protocol", CLIENTS)
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


@pytest.mark.parametrize("protocol", CLIENTS)
def test_basic_authentication(collector: Collector, protocol: str) -> None:
    """As hosted backends want it: an instance id is the user, an API key the password."""
    tls = Tls(collector.server[0])
    words = "UNAUTHENTICATED" if protocol == "grpc" else "HTTP 401"
    stranger = {"authorization": basic_authorization(LOGIN[0], "wrong")}
    known = {"authorization": basic_authorization(*LOGIN)}
    for headers, verdict in ((None, Verdict.REFUSED), (stranger, Verdict.REFUSED),
                             (known, Verdict.ACCEPTED)):  # fmt: skip
        to = collector.connect(protocol, door="login", tls=tls, headers=headers)
        answer = to.post(spans_message())
        to.close()
        assert answer.verdict is verdict
        assert (words in answer.error) is (verdict is Verdict.REFUSED)
    assert collector.sink.span_numbers() == [0, 1, 2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("bad", ["self-signed", "host", "expired", "client"])
def test_bad_certificates_are_refused(
    collector: Collector, protocol: str, bad: str, tmp_path: Path
) -> None:
    other = self_signed(tmp_path, "other")
    good = Tls(collector.server[0], *collector.client)
    tls, door, host, words = {
        "self-signed": (Tls(other[0], *collector.client), "mutual", "localhost", "not trusted"),
        "host": (good, "mutual", "127.0.0.1", "certificate is not|Hostname"),
        "expired": (Tls(collector.expired[0]), "expired", "localhost", "expired"),
        "client": (Tls(collector.server[0], *other), "mutual", "localhost", "."),
    }[bad]
    to = collector.connect(protocol, door=door, tls=tls, host=host)
    answer = to.post(b"")
    to.close()
    assert answer.verdict is Verdict.RETRY
    assert re.search(words, answer.error), answer.error
    assert collector.sink.requests == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_and_encrypted_do_not_mix(collector: Collector, protocol: str) -> None:
    tls = Tls(collector.server[0], *collector.client)
    for door, given in (("mutual", None), ("plain", tls)):
        to = collector.connect(protocol, door=door, tls=given)
        answer = to.post(b"")
        to.close()
        assert answer.verdict is not Verdict.ACCEPTED
        assert answer.error
