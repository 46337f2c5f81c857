# SPDX-License-Identifier: Apache-2.0
"""Exporters on disks that fail: run in a mount namespace of its own, ``unshare --mount``."""

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


def exporter(port: int, directory: Path, queue_size: int = 2000) -> tuple[OtlpTraces, Counters]:
    counters = Counters()
    made = OtlpTraces(
        transport(port),
        CLOCK,
        counters,
        version="1",
        queue_size=queue_size,
        batch_size=100,
        batch_timeout_s=0.0,
        first_pause_s=0.01,
        spool=lambda lost, found: DiskSpool(directory / "spool", 1 << 30, lost, found),
    )
    made.start()
    return made, counters


def mount(directory: Path, *options: str) -> None:
    subprocess.run(["mount", *options, "none", str(directory)], check=True)


def full(directory: Path) -> dict[str, Any]:
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


def error(made: OtlpTraces) -> str:
    return str(made.status()["last_error"])


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps({"full": full, "read_only": read_only}[sys.argv[1]](Path(sys.argv[2])))
    )
