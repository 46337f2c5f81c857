# SPDX-License-Identifier: Apache-2.0
"""OTLP over gRPC against a real server of the OpenTelemetry project's services."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from tests.certificates import self_signed
from tests.unit.grpc_receiver import Code, GrpcReceiver, Refusal
from tests.unit.test_otlp_http import CLOCK, dead_port, spans, totals, wait_for

from otelauto.counters import Counters
from otelauto.errors import ConfigError
from otelauto.export.exporter import METRIC_EXPORTS
from otelauto.export.otlp_export import OtlpMetrics, OtlpTraces
from otelauto.export.otlp_grpc import COMPRESSIONS, RETRYABLE, OtlpGrpc
from otelauto.export.own_traffic import OwnTraffic
from otelauto.export.protobuf import integer, sized
from otelauto.export.red import Red
from otelauto.export.tls import Tls
from otelauto.export.transport import MAX_ANSWER, MAX_REQUEST, Verdict
from otelauto.flows.vocabulary import Address, Family

Pair = tuple[str, str]


@pytest.fixture
def receiver() -> Iterator[GrpcReceiver]:
    receiver = GrpcReceiver()
    yield receiver
    receiver.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., OtlpGrpc]]:
    made: list[OtlpGrpc] = []

    def connect(port: int, scheme: str = "http", **settings: object) -> OtlpGrpc:
        host = "localhost" if scheme == "https" else "127.0.0.1"
        given: dict[str, object] = {"version": "1.2", **settings}
        made.append(OtlpGrpc(scheme, host, port, "traces", **given))  # type: ignore[arg-type]
        return made[-1]

    yield connect
    for transport in made:
        transport.close()


def retry_info(seconds: int, nanos: int = 0, kind: bytes = b"google.rpc.RetryInfo") -> bytes:
    """A google.rpc.Status with one detail, built by hand."""
    duration = (integer(1, seconds) if seconds else b"") + (integer(2, nanos) if nanos else b"")
    detail = sized(1, b"type.googleapis.com/" + kind) + sized(2, sized(1, duration))
    return (
        integer(1, 8) + sized(2, b"slow down") + sized(3, sized(1, b"x/Other")) + sized(3, detail)
    )


def test_spans_arrive_in_batches(receiver: GrpcReceiver, connect: Callable[..., OtlpGrpc]) -> None:
    counters = Counters()
    to = connect(receiver.port, headers=lambda: {"authorization": "Basic abc=="})
    exporter = OtlpTraces(to, CLOCK, counters, version="1.2", batch_timeout_s=0.0, batch_size=40)
    exporter.start()
    for first in range(0, 100, 10):
        exporter.offer(spans(10, first))
    exporter.close(20)
    assert receiver.span_numbers() == list(range(100))
    assert totals(counters) == (100, {})
    assert len(set(receiver.peers)) == 1
    for metadata, _ in receiver.exports:
        assert metadata["authorization"] == "Basic abc=="
        assert metadata["user-agent"].startswith("OTel-OTLP-Exporter-otelauto/1.2 ")
    assert exporter.status()["endpoint"] == f"http://127.0.0.1:{receiver.port}"


def test_metrics_have_their_own_method(receiver: GrpcReceiver) -> None:
    red, counters = Red(Counters()), Counters()
    to = OtlpGrpc("http", "127.0.0.1", receiver.port, "metrics", version="1")
    exporter = OtlpMetrics(to, red, CLOCK, counters, version="1.2", interval_s=3600)
    exporter.start()
    red.add(spans(3))
    exporter.close(20)
    assert counters.get(METRIC_EXPORTS) == 1
    ((_, request),) = receiver.exports
    points = request.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points
    assert sum(point.count for point in points) == 3


def test_compression(receiver: GrpcReceiver, connect: Callable[..., OtlpGrpc]) -> None:
    """The server sees the message as it was; the way is a proxy's own count of bytes."""
    body = sized(1, b"") * 100_000
    sizes = []
    for compression in COMPRESSIONS:
        with Relay(receiver.port) as relay:
            to = connect(relay.port, compression=compression)
            assert to.post(body).verdict is Verdict.ACCEPTED
            to.close()
            sizes.append(relay.received)
    assert [len(request.resource_spans) for _, request in receiver.exports] == [100_000] * len(
        sizes
    )
    assert sizes[0] > len(body) > 20 * max(sizes[1:])


@pytest.mark.parametrize("code", list(Code))
def test_each_code_is_judged(
    receiver: GrpcReceiver, connect: Callable[..., OtlpGrpc], code: grpc.StatusCode
) -> None:
    to = connect(receiver.port)
    if code is not Code.OK:
        receiver.answers = [Refusal(code, "because")]
    answer = to.post(b"")
    expected = Verdict.RETRY if code in RETRYABLE else Verdict.REFUSED
    assert answer.verdict is (Verdict.ACCEPTED if code is Code.OK else expected)
    assert answer.retry_after_s is None
    if code not in {Code.OK, Code.DEADLINE_EXCEEDED}:
        assert answer.error == f"gRPC {code.name}: because"
    assert to.post(b"").verdict is Verdict.ACCEPTED


def test_the_retryable_codes_are_those_of_the_specification() -> None:
    names = {code.name for code in RETRYABLE}
    assert names == {
        "CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "details", "verdict", "delay"),
    [
        (Code.RESOURCE_EXHAUSTED, retry_info(2), Verdict.RETRY, 2.0),
        (Code.RESOURCE_EXHAUSTED, retry_info(1, 500_000_000), Verdict.RETRY, 1.5),
        (Code.RESOURCE_EXHAUSTED, retry_info(0), Verdict.RETRY, 0.0),
        (Code.RESOURCE_EXHAUSTED, retry_info((1 << 64) - 5), Verdict.RETRY, 0.0),
        (Code.RESOURCE_EXHAUSTED, retry_info(2, kind=b"google.rpc.Help"), Verdict.REFUSED, None),
        (Code.RESOURCE_EXHAUSTED, None, Verdict.REFUSED, None),
        (Code.RESOURCE_EXHAUSTED, b"\xff\xff\xff", Verdict.REFUSED, None),
        (Code.UNAVAILABLE, retry_info(7), Verdict.RETRY, 7.0),
        (Code.INVALID_ARGUMENT, retry_info(7), Verdict.REFUSED, None),
    ],
)
def test_retry_info(
    receiver: GrpcReceiver,
    connect: Callable[..., OtlpGrpc],
    code: grpc.StatusCode,
    details: bytes | None,
    verdict: Verdict,
    delay: float | None,
) -> None:
    receiver.answers = [Refusal(code, "no", details)]
    answer = connect(receiver.port).post(b"")
    assert (answer.verdict, answer.retry_after_s) == (verdict, delay)


def test_a_passing_trouble_is_retried_and_a_refusal_is_not(
    receiver: GrpcReceiver, connect: Callable[..., OtlpGrpc]
) -> None:
    counters = Counters()
    receiver.answers = [
        Refusal(Code.UNAVAILABLE),
        Refusal(Code.RESOURCE_EXHAUSTED, "", retry_info(0)),
        ExportTraceServiceResponse(),
        Refusal(Code.RESOURCE_EXHAUSTED, "full"),
    ]
    to = connect(receiver.port)
    exporter = OtlpTraces(to, CLOCK, counters, version="1", batch_timeout_s=0.0, first_pause_s=0.01)
    exporter.start()
    exporter.offer(spans(3))
    wait_for(lambda: totals(counters) == (3, {}))
    exporter.offer(spans(2))
    wait_for(lambda: totals(counters) == (3, {"refused": 2}))
    exporter.close(20)
    assert receiver.span_numbers() == [0, 1, 2] * 3 + [0, 1]
    assert "RESOURCE_EXHAUSTED: full" in str(exporter.status()["last_error"])


def test_a_partial_success_is_counted_and_never_retried(
    receiver: GrpcReceiver, connect: Callable[..., OtlpGrpc]
) -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 2
    response.partial_success.error_message = "too old"
    receiver.answers = [response]
    answer = connect(receiver.port).post(b"")
    assert (answer.verdict, answer.rejected, answer.error) == (Verdict.ACCEPTED, 2, "too old")
    assert len(receiver.exports) == 1


def test_a_dead_endpoint_comes_back(connect: Callable[..., OtlpGrpc]) -> None:
    port = dead_port()
    to = connect(port)
    answer = to.post(b"")
    assert answer.verdict is Verdict.RETRY
    assert "refused" in answer.error
    late = GrpcReceiver(port=port)
    try:
        wait_for(lambda: to.post(b"").verdict is Verdict.ACCEPTED)
    finally:
        late.close()


def test_a_hanging_server_times_out_and_the_connection_is_given_up(
    receiver: GrpcReceiver, connect: Callable[..., OtlpGrpc]
) -> None:
    receiver.hold.clear()
    to = connect(receiver.port, timeout_ms=200)
    answer = to.post(b"")
    assert (answer.verdict, answer.error) == (Verdict.RETRY, "no answer in time")
    receiver.hold.set()
    wait_for(lambda: to.post(b"").verdict is Verdict.ACCEPTED)
    assert len(set(receiver.peers)) >= 2


def test_what_is_half_open_is_found_by_the_timeout(connect: Callable[..., OtlpGrpc]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = connect(silent.getsockname()[1], timeout_ms=200)
        assert to.post(b"").verdict is Verdict.RETRY


def test_a_call_can_be_aborted(receiver: GrpcReceiver, connect: Callable[..., OtlpGrpc]) -> None:
    receiver.hold.clear()
    to = connect(receiver.port, timeout_ms=0)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(to.post(b"")))
    thread.start()
    wait_for(lambda: bool(receiver.exports))
    to.abort()
    thread.join(20)
    assert [(a.verdict, a.error) for a in answers] == [(Verdict.RETRY, "the exporter was stopped")]
    assert to.post(b"").error == "the exporter was stopped"


def test_a_deadline_of_the_caller_counts(connect: Callable[..., OtlpGrpc]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = connect(silent.getsockname()[1], timeout_ms=0)
        assert to.post(b"", 0.1).error == "no answer in time"
        assert to.post(b"", 0.0).error == "no time left"


def test_messages_beyond_the_limits_are_refused(
    receiver: GrpcReceiver, connect: Callable[..., OtlpGrpc]
) -> None:
    to = connect(receiver.port)
    assert to.post(bytes(MAX_REQUEST + 1)).verdict is Verdict.REFUSED
    assert receiver.exports == []
    huge = ExportTraceServiceResponse()
    huge.partial_success.error_message = "x" * (MAX_ANSWER + 1)
    receiver.answers = [huge]
    assert to.post(b"").verdict is Verdict.REFUSED


def test_its_connections_are_own_traffic(
    receiver: GrpcReceiver, connect: Callable[..., OtlpGrpc]
) -> None:
    now = [1000.0]
    own = OwnTraffic(lambda: now[0])
    to = connect(receiver.port, own_traffic=own)
    to.post(b"")
    host, _, port = receiver.peers[0].removeprefix("ipv4:").rpartition(":")
    here = Address(Family.INET, host, int(port))
    there = Address(Family.INET, "127.0.0.1", receiver.port)
    assert own.owns(there, here)
    to.close()

    def forgotten() -> bool:
        """The library closes its sockets a little later."""
        own.observe()
        now[0] += OwnTraffic.LINGER_S + 1
        own.observe()
        return not own.owns(there, here)

    wait_for(forgotten)


def server_credentials(pair: Pair, clients: str) -> grpc.ServerCredentials:
    cert, key = (Path(name).read_bytes() for name in pair)
    return grpc.ssl_server_credentials([(key, cert)], Path(clients).read_bytes(), True)


def test_mutual_tls_and_files_that_are_replaced(
    tmp_path: Path, connect: Callable[..., OtlpGrpc]
) -> None:
    server, client = self_signed(tmp_path, "server"), self_signed(tmp_path, "client")
    other = self_signed(tmp_path, "other")
    receiver = GrpcReceiver(server_credentials(server, client[0]))
    try:
        used = tmp_path / "ca.pem"
        used.write_bytes(Path(other[0]).read_bytes())
        to = connect(receiver.port, "https", tls=Tls(str(used), *client))
        wrong = to.post(b"")
        assert wrong.verdict is Verdict.RETRY
        assert "the server's certificate is not trusted" in wrong.error
        used.write_text("rubbish")
        assert "cannot be used" in to.post(b"").error
        used.write_bytes(Path(server[0]).read_bytes())
        wait_for(lambda: to.post(b"").verdict is Verdict.ACCEPTED)
        stranger = connect(receiver.port, "https", tls=Tls(server[0], *other)).post(b"")
        assert stranger.verdict is Verdict.RETRY
        alias = OtlpGrpc("https", "127.0.0.1", receiver.port, "traces", version="1",
                         tls=Tls(server[0], *client))  # fmt: skip
        assert alias.post(b"").verdict is Verdict.RETRY
        alias.close()
    finally:
        receiver.close()


def test_bad_tls_files_are_said_at_once() -> None:
    with pytest.raises(ConfigError):
        OtlpGrpc("https", "h", 1, "traces", version="1", tls=Tls(certificate="/nonexistent"))


@pytest.mark.parametrize("header", [("a!", "s3cret"), ("x-bin", "s3cret"), ("grpc-x", "s3cret"),
                                    ("a", "s3cret\u00e9")])  # fmt: skip
def test_headers_that_grpc_cannot_send(header: Pair) -> None:
    with pytest.raises(ConfigError) as caught:
        OtlpGrpc("http", "h", 1, "traces", version="1", headers=lambda: dict([header]))
    assert "s3cret" not in str(caught.value)


class Relay:
    """Passes one connection on to ``port`` and counts what the client sent."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.received = 0

    def __enter__(self) -> Relay:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in list(self.threads):
            thread.join(20)
        self.server.close()

    def _accept(self) -> None:
        client, _ = self.server.accept()
        server = socket.create_connection(("127.0.0.1", self.target))
        back = threading.Thread(target=self._copy, args=(server, client, False), daemon=True)
        self.threads.append(back)
        back.start()
        self._copy(client, server, True)
        back.join(20)
        client.close()
        server.close()

    def _copy(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(65536):
                self.received += len(data) if counted else 0
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return  # a reset ends the connection too
