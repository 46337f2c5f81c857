# SPDX-License-Identifier: Apache-2.0
"""Exporters where disks and networks fail: run in namespaces of its own, ``unshare``."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.unit.test_otlp_http import CLOCK, Receiver, dead_port, spans, totals, transport, wait_for

from otelauto.counters import Counters
from otelauto.export.otlp_export import OtlpTraces
from otelauto.export.spool import DiskSpool


def exporter(port: int, directory: Path, timeout_ms: int = 10_000) -> tuple[OtlpTraces, Counters]:
    counters = Counters()
    made = OtlpTraces(
        transport(port, timeout_ms=timeout_ms),
        CLOCK,
        counters,
        version="1",
        queue_size=2000,
        batch_size=100,
        batch_timeout_s=0.0,
        first_pause_s=0.01,
        spool=lambda lost, found: DiskSpool(directory / "spool", 1 << 30, lost, found),
    )
    made.start()
    return made, counters


def mount(directory: Path, *options: str) -> None:
    subprocess.run(["mount", *options, "none", str(directory)], check=True)


def loopback(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def full(directory: Path) -> dict[str, Any]:
    loopback("up")
    mount(directory, "-t", "tmpfs", "-o", "size=64k")
    port = dead_port()
    made, counters = exporter(port, directory)
    produced = 0
    while not totals(counters)[1]:
        made.offer(spans(100, produced))
        produced += 100
        wait_for(lambda: int(made.status()["queued"] or 0) <= 100 or "space" in error(made))
    spooled, last = made.status()["spooled"], error(made)
    receiver = Receiver(port=port)
    try:
        wait_for(lambda: not made.status()["queued"] and not made.status()["spooled"])
        made.close(5)
        numbers = receiver.span_numbers()
    finally:
        receiver.close()
    sent, dropped = totals(counters)
    return {
        "produced": produced,
        "error": last,
        "spooled": spooled,
        "sent": sent,
        "dropped": dropped,
        "kept": produced - sum(dropped.values()),
        "delivered_once": len(numbers) == len(set(numbers)) == sent,
    }


def read_only(directory: Path) -> dict[str, Any]:
    loopback("up")
    log = io.StringIO()
    logging.basicConfig(stream=log)
    mount(directory, "-t", "tmpfs", "-o", "ro")
    receiver = Receiver()
    made, counters = exporter(receiver.port, directory)
    made.offer(spans(5))
    wait_for(lambda: totals(counters)[0] == 5)
    receiver.default = (503, {}, b"")
    made.offer(spans(7))
    wait_for(lambda: "Read-only" in error(made))
    made.close(0.5)
    receiver.close()
    sent, dropped = totals(counters)
    return {"error": error(made), "log": log.getvalue(), "sent": sent, "dropped": dropped}


def half_open(directory: Path) -> dict[str, Any]:
    """A kept connection whose other end is suddenly out of reach, without a word."""
    loopback("up")
    receiver = Receiver()
    made, counters = exporter(receiver.port, directory, timeout_ms=300)
    made.offer(spans(5))
    wait_for(lambda: totals(counters)[0] == 5)
    loopback("down")
    made.offer(spans(7, 5))
    wait_for(lambda: made.status()["spooled"] == 7 and error(made) != "None")
    loopback("up")
    wait_for(lambda: totals(counters)[0] == 12)
    made.close(5)
    numbers = receiver.span_numbers()
    receiver.close()
    return {"error": error(made), "numbers": numbers, "connections": len(receiver.peers)}


def error(made: OtlpTraces) -> str:
    return str(made.status()["last_error"])


TROUBLES = {"full": full, "read_only": read_only, "half_open": half_open}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(TROUBLES[sys.argv[1]](Path(sys.argv[2]))))
