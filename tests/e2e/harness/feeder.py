# SPDX-License-Identifier: Apache-2.0
"""A process that offers numbered spans at a steady rate to an OTLP exporter with a spool.

``python -m tests.e2e.harness.feeder URL DIRECTORY RATE FIRST [SPOOL_BYTES]``. Twenty times a second
it offers what is due and writes a line of JSON: how many were offered, the monotonic time of that,
the exporter's totals and the memory in use. It ends with SIGTERM, and closes the exporter then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from otelauto.counters import Counters
from otelauto.export.exporter import OTLP_TRACES, SPANS_RECOVERED, Reason
from otelauto.export.otlp_export import OtlpTraces
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.spool import DiskSpool
from otelauto.flows.vocabulary import Side
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Service, Span

TICK_S = 0.05
CLOSE_S = 5.0
SHOP = Service("shop", "eu", "4711", {"host.name": "web-1", "telemetry.sdk.name": "otelauto"})


def span(number: int) -> Span:
    """As large as those of real HTTP requests; ``n`` is its number."""
    attributes: dict[str, Any] = {
        "n": number,
        "http.request.method": "GET",
        "url.path": f"/items/{number % 9973}",
        "url.scheme": "http",
        "http.route": "/items/{id}",
        "http.response.status_code": 200,
        "server.address": "shop.example",
        "server.port": 8080,
        "client.address": "10.1.2.3",
        "client.port": 1024 + number % 60_000,
        "network.protocol.version": "1.1",
        "http.response.body.size": number % 4096,
        "user_agent.original": "load/1.0 (linux)",
    }
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Span(
        SHOP, "GET /items/{id}", Side.SERVER, os.urandom(16), os.urandom(8), b"", 1,
        now - 1_000_000, now, attributes, False, None, (),
    )  # fmt: skip


def resident() -> int:
    """Bytes of memory in use (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(
    url: str, directory: str, rate: str, first: str, spool_bytes: str = str(256 << 20)
) -> None:
    counters = Counters()
    place = Path(directory)
    exporter = OtlpTraces(
        OtlpHttp(url, version="1"),
        WallClock(),
        counters,
        version="1",
        queue_size=16384,
        spool=lambda lost, found: DiskSpool(place, int(spool_bytes), lost, found),
    )
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    exporter.start()
    began, offered = time.monotonic(), 0

    def tell() -> None:
        drops = {reason: counters.get(OTLP_TRACES.dropped, reason) for reason in Reason}
        report = {
            "last": int(first) + offered - 1,
            "at": time.monotonic(),
            "sent": counters.get(OTLP_TRACES.sent),
            "recovered": counters.get(SPANS_RECOVERED),
            "dropped": {reason: count for reason, count in drops.items() if count},
            "spooled": exporter.status()["spooled"],
            "spool_bytes": exporter.status()["spool_bytes"],
            "queued": exporter.status()["queued"],
            "rss": resident(),
        }
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()

    while not stop:
        due = int((time.monotonic() - began) * float(rate)) - offered
        # What the machine could not do in time is not made up for at once.
        exporter.offer([span(int(first) + offered + n) for n in range(min(due, 1000))])
        offered += min(due, 1000)
        tell()
        time.sleep(TICK_S)
    exporter.close(CLOSE_S)
    tell()


if __name__ == "__main__":
    main(*sys.argv[1:])
