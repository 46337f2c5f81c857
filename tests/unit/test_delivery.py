# SPDX-License-Identifier: Apache-2.0
"""Spans on their way out past endpoints that fail: each arrives, waits, or is counted."""

from __future__ import annotations

import datetime
import socket
import struct
import threading
from collections.abc import Callable
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from tests.unit.exporters import Make, settled
from tests.unit.grpc_receiver import Code, GrpcReceiver, Refusal
from tests.unit.test_otlp_grpc import retry_info
from tests.unit.test_otlp_http import Receiver, spans, totals, transport, wait_for

from otelauto.export import outbox
from otelauto.export.otlp_grpc import OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.transport import Verdict


def test_nothing_is_stored_while_all_goes_well(
    receiver: Receiver, make: Make, tmp_path: Path
) -> None:
    exporter, counters = make(transport(receiver.port))
    for first in range(0, 1000, 10):
        exporter.offer(spans(10, first))
    wait_for(lambda: totals(counters) == (1000, {}))
    assert receiver.span_numbers() == list(range(1000))
    assert list((tmp_path / "spool").glob("*.spool")) == []


# ---- faults: what the endpoint does to the first requests, and the class that it is ----

PARTIAL = ExportTraceServiceResponse()
PARTIAL.partial_success.rejected_spans = 2


def after_a_second() -> str:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    return format_datetime(at, usegmt=True)


HTTP_FAULTS: dict[str, tuple[int, Callable[[], dict[str, str]], bytes, dict[str, int]]] = {
    "429, seconds": (429, lambda: {"Retry-After": "1"}, b"", {}),
    "429, date": (429, lambda: {"Retry-After": after_a_second()}, b"", {}),
    "503, seconds": (503, lambda: {"Retry-After": "1"}, b"", {}),
    "503, date": (503, lambda: {"Retry-After": after_a_second()}, b"", {}),
    "502": (502, dict, b"", {}),
    "504": (504, dict, b"", {}),
    "400": (400, dict, b"", {"refused": 5}),
    "401": (401, dict, b"", {"refused": 5}),
    "413": (413, dict, b"", {"refused": 5}),
    "partial": (200, dict, PARTIAL.SerializeToString(), {"rejected": 2}),
}


@pytest.mark.parametrize("fault", HTTP_FAULTS)
def test_http_answers(receiver: Receiver, make: Make, fault: str) -> None:
    status, headers, body, lost = HTTP_FAULTS[fault]
    asked = headers()
    receiver.replies = [(status, asked, body)]
    exporter, counters = make(transport(receiver.port))
    exporter.offer(spans(5))
    wait_for(lambda: len(receiver.requests) >= (1 if lost else 2))
    exporter.offer(spans(3, 5))
    wait_for(lambda: totals(counters) == (8 - sum(lost.values()), lost))
    retried = [] if lost else [0, 1, 2, 3, 4]
    assert receiver.span_numbers() == [*retried, *range(8)]
    wait_for(lambda: settled(exporter))
    after = asked.get("Retry-After")
    if after == "1":
        assert receiver.times[1] - receiver.times[0] > 0.95
    elif after is not None:
        assert receiver.times[1] > parsedate_to_datetime(after).timestamp() - 0.05


@pytest.mark.parametrize(
    ("code", "details", "lost"),
    [
        (Code.UNAVAILABLE, None, {}),
        (Code.RESOURCE_EXHAUSTED, retry_info(0, 500_000_000), {}),
        (Code.RESOURCE_EXHAUSTED, None, {"refused": 5}),
        (Code.INVALID_ARGUMENT, None, {"refused": 5}),
        (Code.UNAUTHENTICATED, None, {"refused": 5}),
    ],
)
def test_grpc_answers(make: Make, code: Any, details: bytes | None, lost: dict[str, int]) -> None:
    receiver = GrpcReceiver()
    try:
        receiver.answers = [Refusal(code, "no", details)]
        to = OtlpGrpc("http", "127.0.0.1", receiver.port, "traces", version="1")
        exporter, counters = make(to)
        exporter.offer(spans(5))
        wait_for(lambda: len(receiver.exports) >= (1 if lost else 2))
        exporter.offer(spans(3, 5))
        wait_for(lambda: totals(counters) == (8 - sum(lost.values()), lost))
        assert receiver.span_numbers()[-3:] == [5, 6, 7]
        wait_for(lambda: settled(exporter))
        exporter.close(5)
    finally:
        receiver.close()


class Broken:
    """A server whose first connections are treated by ``faults``; the others are answered well."""

    def __init__(self, faults: list[Callable[[socket.socket], None]]) -> None:
        self.faults = faults
        self.bodies: list[bytes] = []
        self.held: list[socket.socket] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while True:
            connection, _ = self.server.accept()
            self.held.append(connection)
            if self.faults:
                self.faults.pop(0)(connection)
                continue
            while (request := read_request(connection)) is not None:
                if request == b"end":
                    return
                self.bodies.append(request)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as end:
            end.sendall(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nend")
            self.thread.join(20)
        for connection in (*self.held, self.server):
            connection.close()


def read_request(connection: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return body


def hang(connection: socket.socket) -> None:
    read_request(connection)


def deaf(connection: socket.socket) -> None:
    """Half-open: what is sent to it is not even read."""


def reset(connection: socket.socket) -> None:
    """In the middle of the body."""
    connection.recv(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def half_an_answer(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    connection.close()


def trickle(connection: socket.socket) -> None:
    """An answer that never ends, a byte now and then, each well within a timeout of its own."""
    read_request(connection)
    try:
        for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000:
            connection.sendall(bytes((byte,)))
            threading.Event().wait(0.02)
    except OSError:
        return  # given up on, as it should be


def slow(connection: socket.socket) -> None:
    read_request(connection)
    threading.Event().wait(3 * outbox.SPILL_AFTER_S)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    connection.close()


@pytest.mark.parametrize("fault", [hang, deaf, reset, half_an_answer, trickle])
def test_connections_that_break_are_tried_again(
    make: Make, fault: Callable[[socket.socket], None]
) -> None:
    server = Broken([fault, fault])
    try:
        to = transport(server.port, timeout_ms=300)
        exporter, counters = make(to)
        exporter.offer(spans(5))
        exporter.offer(spans(300, 5))
        wait_for(lambda: totals(counters) == (305, {}))
        wait_for(lambda: settled(exporter))
        assert exporter.status()["last_error"] is not None
        exporter.close(5)
    finally:
        server.close()


def test_a_slow_endpoint_gets_everything_once(make: Make, tmp_path: Path) -> None:
    """What waits for the answer is on disk meanwhile: a kill would not lose it."""
    server = Broken([slow])
    try:
        to = transport(server.port)
        exporter, counters = make(to)
        exporter.offer(spans(5))
        wait_for(lambda: exporter.status()["spooled"] == 5)
        assert list((tmp_path / "spool").glob("*.spool")) != []
        wait_for(lambda: totals(counters) == (5, {}))
        exporter.offer(spans(5, 5))
        wait_for(lambda: totals(counters) == (10, {}))
        assert len(server.bodies) == 1  # beside the slow one
        assert list((tmp_path / "spool").glob("*.spool")) == []
        exporter.close(5)
    finally:
        server.close()


def test_a_name_that_is_not_known(make: Make) -> None:
    exporter, counters = make(OtlpHttp("http://no-such-host.invalid:4318/", version="1"))
    exporter.offer(spans(5))
    wait_for(lambda: exporter.status()["spooled"] == 5)
    wait_for(lambda: exporter.status()["last_error"] is not None)
    assert totals(counters) == (0, {})


def test_a_look_up_that_hangs_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    real = socket.getaddrinfo
    looked_up = []

    def hanging(host: str, *args: Any, **options: Any) -> Any:
        if options.get("flags"):  # numeric?
            return real(host, *args, **options)
        looked_up.append(host)
        free.wait(20)
        return real("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    receiver = Receiver()
    try:
        to = OtlpHttp(f"http://collector.example:{receiver.port}/", version="1", timeout_ms=100)
        assert to.post(b"").error == "no answer in time"
        assert to.post(b"").error == "no answer in time"
        assert looked_up == ["collector.example"]  # the second try waits for the first one's
        free.set()
        wait_for(lambda: to.post(b"").verdict is Verdict.ACCEPTED)
        to.close()
    finally:
        receiver.close()
