# SPDX-License-Identifier: Apache-2.0
"""Spans on their way out past everything that goes wrong: each arrives, waits, or is counted."""

from __future__ import annotations

import datetime
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from tests.house.scan import ROOT
from tests.unit.grpc_receiver import Code, GrpcReceiver, Refusal
from tests.unit.test_otlp_grpc import retry_info
from tests.unit.test_otlp_http import CLOCK, Receiver, dead_port, spans, totals, transport, wait_for

from otelauto.counters import Counters
from otelauto.export import outbox
from otelauto.export.exporter import SPANS_RECOVERED
from otelauto.export.otlp_export import OtlpTraces
from otelauto.export.otlp_grpc import OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.spool import DiskSpool, Found, Lost, MemorySpool, Spool
from otelauto.export.transport import Answer, Transport, Verdict

Make = Callable[..., tuple[OtlpTraces, Counters]]


def disk(directory: Path, max_bytes: int = 1 << 20) -> Callable[[Lost, Found], Spool]:
    return lambda lost, found: DiskSpool(directory / "spool", max_bytes, lost, found)


def memory(max_bytes: int = 1 << 20) -> Callable[[Lost, Found], Spool]:
    return lambda lost, _: MemorySpool(max_bytes, lost)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Exporters with a spool on disk, closed at the end."""
    made: list[OtlpTraces] = []

    def make(to: Transport, **settings: Any) -> tuple[OtlpTraces, Counters]:
        counters = Counters()
        given = {"batch_timeout_s": 0.0, "first_pause_s": 0.01, "spool": disk(tmp_path)}
        exporter = OtlpTraces(to, CLOCK, counters, version="1", **{**given, **settings})
        exporter.start()
        made.append(exporter)
        return exporter, counters

    yield make
    for exporter in made:
        exporter.close(0.1)


def settled(exporter: OtlpTraces) -> bool:
    status = exporter.status()
    return status["queued"] == 0 and status["spooled"] == 0


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


# ---- the spool ----


def test_what_waits_is_sent_first_after_a_restart(make: Make) -> None:
    port = dead_port()
    exporter, counters = make(transport(port), first_pause_s=0.01)
    for first in range(0, 500, 5):
        exporter.offer(spans(5, first))
    wait_for(lambda: exporter.status()["spooled"] == 500)
    exporter.close(5)
    assert totals(counters) == (0, {})
    assert exporter.status()["spooled"] == 500

    receiver = Receiver(port=port)
    try:
        again, counters = make(transport(port))
        again.offer(spans(5, 500))
        wait_for(lambda: totals(counters) == (505, {}))
        assert counters.get(SPANS_RECOVERED) == 500
        assert receiver.span_numbers() == list(range(505))
        again.close(5)
    finally:
        receiver.close()


def test_a_spool_that_can_be_opened_only_later(make: Make, tmp_path: Path) -> None:
    """What was left there goes first of what is stored; nothing is counted twice."""
    left = DiskSpool(tmp_path / "spool", 1 << 20, lambda *_: None, lambda _: None)
    port = dead_port()
    earlier, _ = make(transport(port))
    earlier.offer(spans(5))
    wait_for(lambda: earlier.status()["spooled"] == 5)
    earlier.close(5)
    left.open()  # as another process would

    exporter, counters = make(transport(port))
    exporter.offer(spans(5, 5))
    wait_for(lambda: "another otelauto" in str(exporter.status()["last_error"]))
    left.close()
    wait_for(lambda: exporter.status()["spooled"] == 5)
    exporter.offer(spans(5, 10))
    wait_for(lambda: exporter.status()["spooled"] == 10)
    receiver = Receiver(port=port)
    try:
        wait_for(lambda: totals(counters) == (15, {}))
        assert receiver.span_numbers() == [*range(5, 10), *range(5), *range(10, 15)]
        assert counters.get(SPANS_RECOVERED) == 5
        exporter.close(5)
    finally:
        receiver.close()


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_beyond_the_cap_the_oldest_are_counted(make: Make, tmp_path: Path, kind: str) -> None:
    """produced = delivered + counted, exactly."""
    port = dead_port()
    spool = disk(tmp_path, 8 << 10) if kind == "disk" else memory(8 << 10)
    exporter, counters = make(transport(port), spool=spool, batch_size=50)
    produced = 0
    while totals(counters)[1].get("spool_full", 0) < 1000:
        exporter.offer(spans(50, produced))
        produced += 50
        wait_for(lambda: exporter.status()["queued"] == 0)
    assert int(exporter.status()["spool_bytes"] or 0) <= 8 << 10
    receiver = Receiver(port=port)
    try:
        wait_for(lambda: settled(exporter))
        sent, lost = totals(counters)
        assert sent + lost["spool_full"] == produced
        assert set(lost) == {"spool_full"}
        numbers = receiver.span_numbers()
        assert len(numbers) == len(set(numbers)) == sent
        # Of the oldest only what was being tried all the time has arrived.
        assert numbers[50:] == list(range(produced - sent + 50, produced)) or numbers == list(
            range(produced - sent, produced)
        )
        exporter.close(5)
    finally:
        receiver.close()


def test_in_memory_what_waits_at_the_end_is_counted(make: Make) -> None:
    exporter, counters = make(transport(dead_port()), spool=memory())
    exporter.offer(spans(7))
    exporter.offer(spans(5))
    wait_for(lambda: exporter.status()["spooled"] == 12)
    exporter.close(0.2)
    assert totals(counters) == (0, {"shutdown": 12})


@pytest.mark.parametrize("silent", [False, True])
def test_the_end_is_soon_and_keeps_everything(make: Make, tmp_path: Path, silent: bool) -> None:
    """Whatever the endpoint does: what was offered before is delivered or on disk."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if silent else dead_port()
        exporter, counters = make(transport(port, timeout_ms=0), queue_size=100_000)
        exporter.offer(spans(3000))
        wait_for(lambda: int(exporter.status()["spooled"] or 0) > 0)
        exporter.offer(spans(40_000, 3000))
        began = time.monotonic()
        exporter.close(5)
        took = time.monotonic() - began
    assert totals(counters) == (0, {})
    assert exporter.status()["spooled"] == 43_000
    assert took < 20  # and not until an answer comes, which is never


def test_a_defect_costs_one_message(make: Make, receiver: Receiver) -> None:
    class Defective(OtlpHttp):
        failures = 1

        def post(self, body: bytes, seconds_left: float | None = None) -> Answer:
            if self.failures:
                self.failures = 0
                raise KeyError("a defect")
            return super().post(body, seconds_left)

    to = Defective(f"http://127.0.0.1:{receiver.port}/", version="1")
    exporter, counters = make(to)
    exporter.offer(spans(5))
    wait_for(lambda: totals(counters) == (0, {"internal": 5}))
    exporter.offer(spans(3))
    wait_for(lambda: totals(counters) == (3, {"internal": 5}))
    assert "KeyError" in str(exporter.status()["last_error"])


class Recorded:
    """A transport that accepts all and says when it may rest."""

    url = "recorded"

    def __init__(self) -> None:
        self.rested = threading.Event()

    def post(self, body: bytes, seconds_left: float | None = None) -> Answer:
        return Answer(Verdict.ACCEPTED)

    def rest(self) -> None:
        self.rested.set()

    def abort(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("spooled", [False, True])
def test_a_silent_exporter_rests(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spooled: bool
) -> None:
    monkeypatch.setattr("otelauto.export.worker.REST_AFTER_S", 0.05)
    monkeypatch.setattr("otelauto.export.outbox.REST_AFTER_S", 0.05)
    to = Recorded()
    exporter, counters = make(to, spool=disk(tmp_path) if spooled else None)
    for expected in (1, 2):
        exporter.offer(spans(1))
        wait_for(lambda count=expected: totals(counters)[0] == count)
        wait_for(to.rested.is_set)
        to.rested.clear()


def test_a_grpc_channel_is_closed_at_rest_and_opened_again() -> None:
    receiver = GrpcReceiver()
    to = OtlpGrpc("http", "127.0.0.1", receiver.port, "traces", version="1")
    try:
        assert to.post(b"").verdict is Verdict.ACCEPTED
        to.rest()
        assert to._channel is None
        to.rest()
        assert to.post(b"").verdict is Verdict.ACCEPTED
        assert len(set(receiver.peers)) == 2
    finally:
        to.close()
        receiver.close()


# ---- disks and networks, in namespaces of their own ----


def in_own_namespaces(test: str, *arguments: str) -> dict[str, Any]:
    """What a function of tests/unit/trouble.py returns, run where it may mount and cut links."""
    own = ["unshare", "--mount", "--net"]
    command = [*own, sys.executable, "-m", "tests.unit.trouble", test]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_full_disk_loses_nothing_until_the_queue_is_full(tmp_path: Path) -> None:
    found = in_own_namespaces("full", str(tmp_path))
    assert "No space left" in found["error"]
    assert found["spooled"] > 0
    assert found["dropped"] == {"queue_full": found["produced"] - found["kept"]}
    assert found["sent"] == found["kept"]  # when there was an endpoint again
    assert found["delivered_once"]


def test_a_read_only_directory_is_said_and_leaves_the_queue(tmp_path: Path) -> None:
    found = in_own_namespaces("read_only", str(tmp_path))
    assert "Read-only file system" in found["error"]
    assert "the spool cannot be used" in found["log"]
    assert found["sent"] == 5
    assert found["dropped"] == {"unwritable": 7}  # still waiting at the end, and nowhere to keep it


def test_an_end_that_is_out_of_reach_is_left_and_found_again(tmp_path: Path) -> None:
    found = in_own_namespaces("half_open", str(tmp_path))
    assert found["numbers"] in ([*range(12)], [*range(12), *range(5, 12)])
    assert found["connections"] >= 2
