# SPDX-License-Identifier: Apache-2.0
"""From a request to a decoded OTLP message, however otelauto was configured."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.certificates import self_signed
from tests.e2e.harness import servers
from tests.e2e.harness.otelauto import Otelauto
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.e2e.harness.receiver import GrpcReceiver, Receiver, attributes
from tests.e2e.harness.rig import Rig, run
from tests.e2e.test_attach import BY_NAME

pytestmark = pytest.mark.e2e
REQUESTS = 37
DURATION = "http.server.request.duration"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
# What the document on agent mode and direct mode tells a user to write.
DOCUMENT = """
ebpf:
  open_port: 443
otel_metrics_export:
  endpoint: http://localhost:4318
otel_traces_export:
  endpoint: http://localhost:4318
"""
VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "OPEN_PORT")
CLEAR = dict.fromkeys(VARIABLES, "")


def ask(port: int, count: int) -> None:
    """``count`` requests on one kept connection; every third says whose child it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for number in range(count):
        headers = {"Traceparent": f"00-{TRACE}-{PARENT}-01"} if number % 3 == 0 else {}
        connection.request("GET", f"/items/{number}", headers=headers)
        assert connection.getresponse().read()
    connection.request("GET", "/status/500")
    assert connection.getresponse().read()
    connection.close()


def settled(receiver: Receiver, otelauto: Otelauto) -> None:
    """Wait for all spans and for a metrics export that holds all requests."""

    def enough() -> bool:
        counted = sum(point.count for point in receiver.points(DURATION))
        return len(receiver.spans()) >= REQUESTS + 1 and counted >= REQUESTS + 1

    otelauto.process.wait_for(enough, "everything was received", 30)


def check(receiver: Receiver, service: str) -> None:
    """Every request is a span and counted once; errors, parents and resources are right."""
    spans = [(attributes(resource.attributes), span) for resource, span in receiver.spans()]
    by_path = {attributes(span.attributes)["url.path"]: span for _, span in spans}
    expected = {f"/items/{number}" for number in range(REQUESTS)} | {"/status/500"}
    assert set(by_path) == expected
    assert len(spans) == len(expected)
    for number in range(REQUESTS):
        span = by_path[f"/items/{number}"]
        parent = (span.trace_id.hex(), span.parent_span_id.hex())
        assert (parent == (TRACE, PARENT)) is (number % 3 == 0)
        assert span.kind == span.SPAN_KIND_SERVER
        assert span.end_time_unix_nano >= span.start_time_unix_nano > 10**18
    assert by_path["/status/500"].status.code == 2
    assert len({span.span_id for _, span in spans}) == len(spans)
    for resource, _ in spans:
        assert resource["service.name"] == service
        assert resource["service.instance.id"]
        assert resource["telemetry.sdk.name"]
        assert resource["host.name"] == socket.gethostname()
    points = receiver.points(DURATION)
    statuses: dict[int, int] = {}
    for point in points:
        status = attributes(point.attributes)["http.response.status_code"]
        statuses[status] = statuses.get(status, 0) + point.count
        assert sum(point.bucket_counts) == point.count
    assert statuses == {200: REQUESTS, 500: 1}


def test_traces_and_metrics_of_a_known_number_of_requests(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        running = stack.enter_context(servers.running(BY_NAME["c-epoll"], tmp_path))
        endpoint = {"endpoint": f"http://127.0.0.1:{receiver.port}"}
        rig = stack.enter_context(
            Rig(
                tmp_path, {"open_port": running.port}, otel_traces_export=endpoint,
                otel_metrics_export={**endpoint, "interval": "200ms"},
            )
        )  # fmt: skip
        ask(running.port, REQUESTS)
        settled(receiver, rig)
        # The receiver knows of the spans before otelauto has its answer.
        wait_until(lambda: rig.total("otlp_traces_spans_sent") == REQUESTS + 1, "all are counted")
        rig.stop()
        check(receiver, "epoll")
        assert sorted(span["span_id"] for span in rig.spans) == sorted(
            span.span_id.hex() for _, span in receiver.spans()
        )


def test_what_is_queued_at_the_end_is_sent(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        running = stack.enter_context(servers.running(BY_NAME["c-epoll"], tmp_path))
        endpoint = {"endpoint": f"http://127.0.0.1:{receiver.port}"}
        rig = stack.enter_context(
            Rig(
                tmp_path, {"open_port": running.port},
                otel_traces_export={**endpoint, "batch_timeout": "1h"},
                otel_metrics_export={**endpoint, "interval": "1h"},
            )
        )  # fmt: skip
        ask(running.port, REQUESTS)
        rig.wait_for_spans(REQUESTS + 1)
        assert receiver.spans() == []
        assert rig.stop() == 0
        check(receiver, "epoll")


def run_document(
    directory: Path, receiver: Receiver, port: int, yaml: str, variables: Mapping[str, str]
) -> None:
    with Otelauto(directory, yaml, {**CLEAR, **variables}) as otelauto:
        ask(port, REQUESTS)
        settled(receiver, otelauto)
        otelauto.stop()
        assert "ERROR" not in otelauto.process.stderr()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_environment_variables_alone(tmp_path: Path, protocol: str) -> None:
    over = GrpcReceiver if protocol == "grpc" else Receiver
    with over() as receiver, servers.running(BY_NAME["c-epoll"], tmp_path) as running:
        variables = {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.port}",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20c2VjcmV0,x-scope=tenant",
            "OPEN_PORT": str(running.port),
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_SERVICE_NAME": "from-the-environment",
        }
        run_document(tmp_path, receiver, running.port, "", variables)
        check(receiver, "from-the-environment")
        for _, headers, _ in receiver.exports:
            assert headers["authorization"] == "Basic c2VjcmV0"
            assert headers["x-scope"] == "tenant"
        assert {path for path, _, _ in receiver.exports} == {"/v1/traces", "/v1/metrics"}


def test_the_documents_own_configuration(tmp_path: Path) -> None:
    with Receiver() as receiver, servers.running(BY_NAME["go-net/http"], tmp_path) as running:
        yaml = DOCUMENT.replace("443", str(running.port), 1).replace("4318", str(receiver.port))
        run_document(tmp_path, receiver, running.port, yaml, {})
        check(receiver, "nethttp")


def test_ciphertext_is_said_not_to_be_read(tmp_path: Path) -> None:
    (cert, key), port = self_signed(tmp_path, "server"), free_port()
    words = ["openssl", "s_server", "-quiet", "-www", "-accept", str(port), "-key", key]
    with contextlib.ExitStack() as stack:
        server = Process([*words, "-cert", cert], tmp_path / "server.err")
        stack.enter_context(server)
        server.wait_for(lambda: accepts(port), "it listens")
        rig = stack.enter_context(Rig(tmp_path, {"open_port": port, "tls_plaintext": False}))
        unchecked = ssl._create_unverified_context()
        for _ in range(3):
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=unchecked)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            connection.close()
        wait_until(lambda: bool(rig.report()["unread"]), "it has noticed")
        shown = run("status", "--config", tmp_path / "otelauto.yml")
        assert shown.code == 0, shown.errors
        assert f":{port}" in shown.output
        assert "TLS: ciphertext is not read" in shown.output
        wait_until(lambda: "it carries tls" in rig.process.stderr(), "the log says so too")
        rig.stop()
    assert rig.spans == []
