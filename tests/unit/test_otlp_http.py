# SPDX-License-Identifier: Apache-2.0
"""OTLP over HTTP against a real receiver that can misbehave."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.certificates import self_signed

from otelauto.counters import Counters
from otelauto.errors import ConfigError
from otelauto.export.exporter import (
    METRIC_EXPORT_FAILURES,
    METRIC_EXPORTS,
    METRIC_POINTS_REJECTED,
    OTLP_TRACES,
    Reason,
    dropped,
)
from otelauto.export.otlp_export import OtlpMetrics, OtlpTraces
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.own_traffic import OwnTraffic
from otelauto.export.red import Red
from otelauto.export.tls import Tls
from otelauto.export.transport import Compression, Piece, Verdict
from otelauto.flows.vocabulary import Address, Family, Instrument, Side
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Service, Span

SHOP = Service("shop", "eu", "7")
CLOCK = WallClock()
DURATION = Instrument("took", "s", "Time.", (0.1, 1.0), ("n",))


def spans(count: int, first: int = 0) -> list[Span]:
    return [
        Span(
            SHOP, "GET", Side.SERVER, b"t" * 16, n.to_bytes(8, "big"), b"", 1, 1, 2, {"n": n},
            False, None, (DURATION,),
        )
        for n in range(first, first + count)
    ]  # fmt: skip


def wait_for(condition: Callable[[], bool], deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


Reply = tuple[int, dict[str, str], bytes]


class Receiver:
    """A real HTTP server; ``replies`` are used up first, then every answer is ``default``."""

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.replies: list[Reply] = []
        self.default: Reply = (200, {}, b"")
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int] = []  # of the answers to them
        self.times: list[float] = []  # of their arrival, seconds since 1970
        self.connections: list[socket.socket] = []
        self.peers: set[tuple[str, int]] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                receiver.connections.append(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.peers.add(self.client_address)
                reply = receiver.replies.pop(0) if receiver.replies else receiver.default
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, extra, data = reply
                receiver.times.append(time.time())
                receiver.requests.append((self.path, headers, body))
                receiver.statuses.append(status)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **extra}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def span_numbers(self, wanted: Callable[[int], bool] = bool) -> list[int]:
        """Attribute ``n`` of every span of every request, in order."""
        return [
            span.attributes[0].value.int_value
            for (_, headers, body), status in zip(self.requests, self.statuses, strict=False)
            if wanted(status)
            for resource in ExportTraceServiceRequest.FromString(
                gzip.decompress(body) if "content-encoding" in headers else body
            ).resource_spans
            for span in resource.scope_spans[0].spans
        ]

    def accepted_numbers(self) -> list[int]:
        """The same of the requests that were answered with success."""
        return self.span_numbers(lambda status: status == 200)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(20)
        self.server.server_close()
        for connection in self.connections:  # those that are kept would be served all the same
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def transport(port: int, **settings: object) -> OtlpHttp:
    return OtlpHttp(f"http://127.0.0.1:{port}/v1/traces", version="1.2", **settings)  # type: ignore[arg-type]


def traces(to: OtlpHttp, counters: Counters, **settings: object) -> OtlpTraces:
    given: dict[str, object] = {"version": "1.2", "batch_timeout_s": 0.0, "first_pause_s": 0.01}
    exporter = OtlpTraces(to, CLOCK, counters, **{**given, **settings})  # type: ignore[arg-type]
    exporter.start()
    return exporter


def totals(counters: Counters) -> tuple[int, dict[str, int]]:
    by_reason = {r.value: counters.get(OTLP_TRACES.dropped, r) for r in Reason}
    return counters.get(OTLP_TRACES.sent), {r: n for r, n in by_reason.items() if n}


def test_spans_arrive_in_batches_over_one_connection(receiver: Receiver) -> None:
    counters = Counters()
    headers = {"authorization": "Basic abc=="}
    exporter = traces(transport(receiver.port, headers=lambda: headers), counters, batch_size=40)
    for first in range(0, 100, 10):
        exporter.offer(spans(10, first))
    exporter.close(20)
    assert receiver.span_numbers() == list(range(100))
    assert totals(counters) == (100, {})
    assert len(receiver.peers) == 1
    for path, got, _ in receiver.requests:
        assert path == "/v1/traces"
        assert got["content-type"] == "application/x-protobuf"
        assert got["user-agent"] == "OTel-OTLP-Exporter-otelauto/1.2"
        assert got["authorization"] == "Basic abc=="
        assert "content-encoding" not in got
    assert exporter.status()["endpoint"] == f"http://127.0.0.1:{receiver.port}/v1/traces"


def test_gzip(receiver: Receiver) -> None:
    counters = Counters()
    exporter = traces(transport(receiver.port, compression=Compression.GZIP), counters)
    exporter.offer(spans(5))
    exporter.close(20)
    assert receiver.requests[0][1]["content-encoding"] == "gzip"
    assert receiver.span_numbers() == list(range(5))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_trouble_is_retried(receiver: Receiver, status: int) -> None:
    receiver.replies = [(status, {"Retry-After": "0"}, b""), (status, {}, b"")]
    counters = Counters()
    exporter = traces(transport(receiver.port), counters)
    exporter.offer(spans(3))
    wait_for(lambda: totals(counters) == (3, {}))
    exporter.close(20)
    assert receiver.span_numbers() == [0, 1, 2] * 3


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 301])
def test_a_refusal_is_not_retried(receiver: Receiver, status: int) -> None:
    body = b"\x08\x03\x12\x0ebad request: x"
    receiver.replies = [(status, {"Content-Type": "application/x-protobuf"}, body)]
    counters = Counters()
    exporter = traces(transport(receiver.port), counters)
    exporter.offer(spans(3))
    wait_for(lambda: totals(counters) == (0, {"refused": 3}))
    exporter.offer(spans(2))
    exporter.close(20)
    assert totals(counters) == (2, {"refused": 3})
    assert len(receiver.requests) == 2
    error = str(exporter.status()["last_error"])
    assert f"HTTP {status}" in error
    assert "bad request: x" in error


def test_the_time_for_a_batch_is_bounded(receiver: Receiver) -> None:
    receiver.default = (503, {}, b"")
    counters = Counters()
    exporter = traces(transport(receiver.port), counters, export_timeout_s=0.2)
    exporter.offer(spans(3))
    wait_for(lambda: totals(counters) == (0, {"unreachable": 3}))
    exporter.close(20)
    assert len(receiver.requests) > 1
    assert "HTTP 503" in str(exporter.status()["last_error"])


def test_a_partial_success_is_counted_and_never_retried(receiver: Receiver) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 2
    answer.partial_success.error_message = "too old"
    receiver.replies = [(200, {}, answer.SerializeToString()), (200, {}, b"\n\x00")]
    counters = Counters()
    exporter = traces(transport(receiver.port), counters)
    exporter.offer(spans(5))
    wait_for(lambda: totals(counters) == (3, {"rejected": 2}))
    assert "2 spans rejected: too old" in str(exporter.status()["last_error"])
    exporter.offer(spans(5))
    exporter.close(20)
    assert totals(counters) == (8, {"rejected": 2})
    assert len(receiver.requests) == 2


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff", b"<html>", b"\x0a\x7f\x08"])
def test_any_2xx_body_is_success(receiver: Receiver, body: bytes) -> None:
    receiver.default = (202, {}, body)
    counters = Counters()
    exporter = traces(transport(receiver.port), counters)
    exporter.offer(spans(5))
    exporter.close(20)
    assert totals(counters) == (5, {})


def test_a_kept_connection_that_the_server_closed_is_replaced(receiver: Receiver) -> None:
    to = transport(receiver.port)
    assert to.post(b"").verdict is Verdict.ACCEPTED
    assert to._connection is not None
    to._connection.sock.shutdown(socket.SHUT_RDWR)
    assert to.post(b"").verdict is Verdict.ACCEPTED
    assert len(receiver.peers) == 2
    receiver.replies = [(200, {"Connection": "close"}, b"")]
    assert [to.post(b"").verdict for _ in range(2)] == [Verdict.ACCEPTED] * 2
    to.close()


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_dead_endpoint_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    exporter = traces(
        transport(dead_port()), counters, queue_size=10, batch_size=5, export_timeout_s=0.05
    )
    exporter.offer(spans(15))
    wait_for(lambda: sum(totals(counters)[1].values()) == 15)
    exporter.close(5)
    assert totals(counters) == (0, {"queue_full": 5, "unreachable": 10})
    assert exporter.status()["last_error"]
    assert "connection refused" in caplog.text
    assert len([r for r in caplog.records if r.name == "otelauto.export.otlp_traces"]) == 1


@pytest.fixture
def silent() -> Iterator[int]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_silent_endpoint_times_out(silent: int) -> None:
    answer = transport(silent, timeout_ms=50).post(b"x")
    assert (answer.verdict, answer.error) == (Verdict.RETRY, "no answer in time")


def test_a_silent_endpoint_does_not_hold_the_shutdown(silent: int) -> None:
    counters = Counters()
    to = transport(silent, timeout_ms=0)
    exporter = traces(to, counters, queue_size=10, batch_size=4)
    exporter.offer(spans(4))
    wait_for(lambda: to._connection is not None and to._connection.sock is not None)
    exporter.offer(spans(12))
    assert exporter.status()["queued"] == 14  # those in flight are not nowhere
    exporter.close(0.2)
    wait_for(lambda: sum(totals(counters)[1].values()) == 16)
    assert totals(counters) == (0, {"queue_full": 2, "shutdown": 14})


def test_closing_sends_what_is_queued(receiver: Receiver) -> None:
    counters = Counters()
    exporter = traces(transport(receiver.port), counters, batch_timeout_s=3600.0)
    exporter.offer(spans(7))
    exporter.close(20)
    assert receiver.span_numbers() == list(range(7))
    assert dropped(counters, OTLP_TRACES) == 0


def test_export_connections_are_own_traffic(receiver: Receiver) -> None:
    own = OwnTraffic()
    to = transport(receiver.port, own_traffic=own)
    to.post(b"")
    (peer,) = receiver.peers
    here = Address(Family.INET, *peer)
    there = Address(Family.INET, "127.0.0.1", receiver.port)
    assert own.owns(there, here)
    to.close()
    assert own.owns(there, here)


def metrics(to: OtlpHttp, red: Red, counters: Counters, interval_s: float) -> OtlpMetrics:
    exporter = OtlpMetrics(to, red, CLOCK, counters, version="1.2", interval_s=interval_s)
    exporter.start()
    return exporter


def counts(receiver: Receiver) -> list[int]:
    return [
        sum(
            point.count
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for metric in resource.scope_metrics[0].metrics
            for point in metric.histogram.data_points
        )
        for _, _, body in receiver.requests
    ]


def test_metrics_are_cumulative_and_survive_failures(receiver: Receiver) -> None:
    receiver.replies = [(503, {}, b""), (400, {}, b"")]
    red, counters = Red(Counters()), Counters()
    exporter = metrics(transport(receiver.port), red, counters, 0.02)
    red.add(spans(3))
    wait_for(lambda: counters.get(METRIC_EXPORTS) > 0)
    red.add(spans(2))
    exporter.close(20)
    assert counts(receiver)[0] == 3
    assert counts(receiver)[-1] == 5
    assert counters.get(METRIC_EXPORT_FAILURES, Reason.UNREACHABLE) == 1
    assert counters.get(METRIC_EXPORT_FAILURES, Reason.REFUSED) == 1
    assert exporter.status()["failures"] == 2


def test_the_last_metrics_are_sent_at_the_end(receiver: Receiver) -> None:
    answer = b"\x0a\x02\x08\x03"
    receiver.default = (200, {}, answer)
    red, counters = Red(Counters()), Counters()
    exporter = metrics(transport(receiver.port), red, counters, 3600)
    red.add(spans(3))
    exporter.close(20)
    assert counts(receiver) == [3]
    assert counters.get(METRIC_POINTS_REJECTED) == 3


def test_no_metrics_no_request(receiver: Receiver) -> None:
    exporter = metrics(transport(receiver.port), Red(Counters()), Counters(), 3600)
    exporter.close(20)
    assert receiver.requests == []


def test_metrics_shutdown_keeps_its_deadline(silent: int) -> None:
    red, counters = Red(Counters()), Counters()
    red.add(spans(1))
    exporter = metrics(transport(silent, timeout_ms=0), red, counters, 3600)
    exporter.close(0.1)
    wait_for(lambda: counters.get(METRIC_EXPORT_FAILURES, Reason.UNREACHABLE) == 1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return self_signed(tmp_path_factory.mktemp("tls"), "server")


def test_tls(certificate: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    cert, key = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert)
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    receiver = Receiver(context)
    url = f"https://localhost:{receiver.port}/v1/traces"
    try:
        mutual = Tls(certificate=cert, client_certificate=cert, client_key=key)
        good = OtlpHttp(url, version="1", tls=mutual)
        assert good.post([b"one", memoryview(b"two" * 99_999)]).verdict is Verdict.ACCEPTED
        assert receiver.requests[-1][2] == b"one" + b"two" * 99_999
        good.close()
        untrusted = OtlpHttp(url, version="1").post(b"")
        assert untrusted.verdict is Verdict.RETRY
        assert "certificate is not trusted" in untrusted.error
        assert not caplog.records
        skipping = Tls("", cert, key, insecure_skip_verify=True)
        blind = OtlpHttp(url, version="1", tls=skipping)
        assert blind.post(b"").verdict is Verdict.ACCEPTED
        blind.close()
        assert "is not checked" in caplog.text
    finally:
        receiver.close()


@pytest.mark.parametrize(
    "url",
    ["localhost:4318", "grpc://localhost:4317", "http://", "http://h:99999", "http://u:p@h/",
     "http://[::1", ""],
)  # fmt: skip
def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OtlpHttp(url, version="1")
    assert caught.value.remedy
    assert "u:p" not in str(caught.value)


def test_the_query_of_an_endpoint_is_sent_but_not_shown(receiver: Receiver) -> None:
    to = OtlpHttp(f"http://127.0.0.1:{receiver.port}?key=secret", version="1")
    assert to.post(b"").verdict is Verdict.ACCEPTED
    to.close()
    assert receiver.requests[0][0] == "/?key=secret"
    assert "secret" not in to.url


def test_bad_tls_files() -> None:
    with pytest.raises(ConfigError):
        OtlpHttp("https://localhost/", version="1", tls=Tls(certificate="/nonexistent"))


def test_a_message_in_pieces_is_sent_as_it_lies(receiver: Receiver) -> None:
    pieces: list[Piece] = [b"%d," % n for n in range(3000)]  # more than one sendmsg(2) takes
    pieces += [b"", memoryview(bytes(range(256)) * 20_000), b"end"]  # more than a socket's buffer
    whole = b"".join(pieces)
    for settings in ({}, {"compression": Compression.GZIP}):
        to = transport(receiver.port, **settings)
        assert to.post(pieces).verdict is Verdict.ACCEPTED
        to.close()
    (_, _, plain), (_, headers, packed) = receiver.requests
    assert plain == whole
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == whole


def test_a_message_that_nobody_reads_times_out_as_a_whole(silent: int) -> None:
    """However many pieces are taken one by one."""
    to = transport(silent, timeout_ms=200)
    answer = to.post([bytes(1 << 20)] * 40)
    assert (answer.verdict, answer.error) == (Verdict.RETRY, "no answer in time")
    to.close()
