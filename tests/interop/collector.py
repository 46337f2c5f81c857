# SPDX-License-Identifier: Apache-2.0
"""A real OpenTelemetry Collector takes what the OTLP exporters send, and passes it on to us.

Not part of ``make test``, because building the collector takes minutes: ``make interop``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.certificates import expired, self_signed
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.unit.test_credentials import CLIENT_REFUSED
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
from otelauto.export.transport import (
    Answer,
    Body,
    Compression,
    Transport,
    Verdict,
    pieces_of,
)

pytestmark = pytest.mark.interop

PROGRAM = Path(__file__).resolve().parents[2] / ".build" / "interop" / "otelcol"
PROTOCOLS = ("grpc", "http")  # that it listens for; JSON comes to the port of HTTP
CLIENTS = (*PROTOCOLS, "json")
DOORS = ("plain", "mutual", "expired", "batched")
START_S = 120.0  # a first start reads 100 MB of program from the disk
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
        "batched": {},
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
    direct = [name for name in receivers if name != "otlp/batched"]
    pipeline = {"receivers": direct, "exporters": ["otlphttp"]}
    return json.dumps(
        {
            "receivers": receivers,
            "processors": {"batch": {"timeout": "100ms"}},
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
                "pipelines": {
                    "traces": pipeline,
                    "metrics": pipeline,
                    "traces/batched": {
                        "receivers": ["otlp/batched"],
                        "processors": ["batch"],
                        "exporters": ["otlphttp"],
                    },
                },
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


@contextlib.contextmanager
def running_collector(
    directory: Path, settings: str, ports: Iterable[int], variables: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """The Collector, when it listens on ``ports``; if it does not, an error with what it said."""
    config = directory / "collector.yaml"
    config.write_text(settings)
    deaf = set(ports)

    def listens() -> bool:
        deaf.difference_update({port for port in deaf if accepts(port)})
        return not deaf

    words = [PROGRAM, "--config", config]
    with Process(words, directory / "collector.err", env=variables) as process:
        try:
            process.wait_for(listens, "the Collector listens", START_S)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\nnot on {sorted(deaf)} of {directory}\n{process.stderr()}"
            ) from None
        yield process


@pytest.fixture(scope="module", name="running")
def fixture_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    directory = tmp_path_factory.mktemp("collector")
    server, client = self_signed(directory, "server"), self_signed(directory, "client")
    doors = (*DOORS, "login")
    ports = {(protocol, door): free_port() for protocol in PROTOCOLS for door in doors}
    made = Collector(ports, server, client, expired(directory), Receiver())
    nginx = directory / "nginx.conf"
    nginx.write_text(gate(directory, made))
    gates = [port for (_, door), port in ports.items() if door == "login"]
    own = [port for (_, door), port in ports.items() if door != "login"]
    try:
        with (
            running_collector(directory, configuration(made), own),
            Process(["nginx", "-c", nginx], directory / "nginx.err") as front,
        ):
            front.wait_for(lambda: all(map(accepts, gates)), "nginx listens")
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


class Noted:
    """A transport that keeps what is sent by another one."""

    def __init__(self, to: Transport) -> None:
        self._to = to
        self.url = to.url
        self.sent: list[ExportMetricsServiceRequest] = []

    def post(self, body: Body, seconds_left: float | None = None) -> Answer:
        self.sent.append(ExportMetricsServiceRequest.FromString(b"".join(pieces_of(body))))
        return self._to.post(body, seconds_left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)


@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("protocol", CLIENTS)
def test_each_kind_of_histogram_arrives_as_it_was_sent(
    collector: Collector, protocol: str, delta: bool, exponential: bool
) -> None:
    """Temporality, buckets, start times, exemplars: the collector passes on the same messages."""
    counters = Counters()
    red = Red(counters, exponential=exponential, exemplars=True)
    to = Noted(collector.connect(protocol, "metrics"))
    metrics = OtlpMetrics(
        to, red, CLOCK, counters, version="1", delta=delta, exponential=exponential
    )
    for number in (97, 50):
        red.add(spans(number, 1))
        metrics._export()
    metrics.close(5)
    assert counters.get(METRIC_EXPORTS) == 2
    passed_on = [
        ExportMetricsServiceRequest.FromString(body) for _, _, body in collector.sink.requests
    ]
    kind = "exponential_histogram" if exponential else "histogram"
    counts = []
    for message in passed_on:
        found = [
            getattr(metric, kind)
            for resource in message.resource_metrics
            for metric in resource.scope_metrics[0].metrics
        ]
        if exponential:  # it adds those that are empty
            for point in (point for one in found for point in one.data_points):
                assert not point.negative.bucket_counts
                point.ClearField("negative")
        assert {one.aggregation_temporality for one in found} == {1 if delta else 2}
        points = [point for one in found for point in one.data_points]
        assert {bool(point.exemplars) for point in points} == {not counts}, "each is sent once"
        for point in points:
            buckets = point.positive.bucket_counts if exponential else point.bucket_counts
            assert sum(buckets) + (point.zero_count if exponential else 0) == point.count
        counts.append(sum(point.count for point in points))
    assert passed_on == to.sent
    assert counts == ([97, 50] if delta else [97, 147])


@pytest.mark.parametrize("protocol", CLIENTS)
def test_what_the_collector_puts_together_anew_is_the_same(
    collector: Collector, protocol: str
) -> None:
    """Through its batches, as it is usually set up: it answers first, and sends later."""
    counters = Counters()
    to = collector.connect(protocol, door="batched", compression=Compression.GZIP)
    exporter = OtlpTraces(to, CLOCK, counters, version="1", batch_size=40, batch_timeout_s=0.0)
    exporter.start()
    exporter.offer(spans(997))
    exporter.close(20)
    assert totals(counters) == (997, {})
    wait_until(lambda: len(collector.sink.span_numbers()) >= 997, "they are passed on")
    assert sorted(collector.sink.span_numbers()) == list(range(997))


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
@pytest.mark.parametrize("bad", ["self-signed", "host", "expired", "client", "no client"])
def test_bad_certificates_are_refused(
    collector: Collector, protocol: str, bad: str, tmp_path: Path
) -> None:
    other = self_signed(tmp_path, "other")
    good = Tls(collector.server[0], *collector.client)
    tls, door, host, words = {
        "self-signed": (Tls(other[0], *collector.client), "mutual", "localhost", "not trusted"),
        "host": (good, "mutual", "127.0.0.1", "not trusted: .*(is not for|not valid for)"),
        "expired": (Tls(collector.expired[0]), "expired", "localhost", "expired"),
        "client": (Tls(collector.server[0], *other), "mutual", "localhost", CLIENT_REFUSED),
        "no client": (Tls(collector.server[0]), "mutual", "localhost", CLIENT_REFUSED),
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
