# SPDX-License-Identifier: Apache-2.0
"""Spans that wait: restarts, ends, bounds, silence, and disks and networks that fail."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.house.scan import ROOT
from tests.unit.exporters import Make, disk, memory, settled
from tests.unit.grpc_receiver import GrpcReceiver
from tests.unit.test_otlp_http import Receiver, dead_port, spans, totals, transport, wait_for

from otelauto.export.exporter import SPANS_RECOVERED
from otelauto.export.otlp_grpc import OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.spool import DiskSpool
from otelauto.export.transport import Answer, Verdict


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
