# SPDX-License-Identifier: Apache-2.0
"""How long a scrape of many series takes, and what memory it needs for that."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benches.harness import OTHER_CPU, ROOT, SERVICE_CPU, Bench, BenchError, memory_bytes, pinned
from benches.report import Budget, Figure, Section
from benches.scrape_server import PATH, filled
from otelauto.export.otlp_encode import MetricEncoder
from otelauto.spans.clock import WallClock, boot_now_ns

SERVICES, SERIES = 10, 1000
BUCKET_LINE = b"http_server_request_duration_seconds_bucket{"
SCRAPES_PER_TURN = 3
TITLE = "Scrape of 10,000 histogram series"
HOW = (
    f"{SERVICES} services with {SERIES:,} series of request durations each, served by the product's"
    " aggregator and exporter in a process of their own (CPU 1), fetched by curl (CPU 0). The first"
    " scrape also makes the texts that later ones use again. Memory is what the peak (`VmHWM`) grew"
    " by, from before the first scrape and from before a later one."
)
ENCODE_TITLE = "OTLP message of 10,000 histogram series"
ENCODE_HOW = (
    "The same series as the body of one OTLP export: CPU time of the thread that encodes it,"
    " sending left out. The first export also encodes the attributes that later ones use again."
)
FORMATS = {
    "text": (),
    "text, gzip": ("--compressed",),
    "OpenMetrics, gzip": ("--compressed", "-H", "Accept: application/openmetrics-text"),
}


@contextlib.contextmanager
def scrape_server() -> Iterator[tuple[int, int]]:
    """Process id and port of a page with all the series."""
    words = [sys.executable, "-m", "benches.scrape_server", str(SERVICES), str(SERIES)]
    server = subprocess.Popen(
        pinned(OTHER_CPU, words), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline()
            if not port:
                raise BenchError("the page of series is not served")
            yield server.pid, int(port)
        finally:
            server.terminate()


def scrape(port: int, page: Path, arguments: tuple[str, ...]) -> tuple[float, int]:
    """Milliseconds, and bytes that passed, for one scrape by curl into ``page``."""
    told = "%{time_total} %{size_download}"
    words: list[str | Path] = ["curl", "-sSf", "-o", page, "-w", told, *arguments]
    words.append(f"http://127.0.0.1:{port}{PATH}")
    said = subprocess.run(pinned(SERVICE_CPU, words), capture_output=True, text=True, check=True)
    seconds, size = said.stdout.split()
    return float(seconds) * 1000, int(size)


def check(page: Path) -> None:
    """All series must be on the page."""
    lines = page.read_bytes().splitlines()
    ends = sum(1 for line in lines if line.startswith(BUCKET_LINE) and b'le="+Inf"' in line)
    if ends != SERVICES * SERIES:
        raise BenchError(f"{ends} series on the page instead of {SERVICES * SERIES}")


def growth(pid: int, port: int, page: Path, arguments: tuple[str, ...]) -> tuple[float, float]:
    """Milliseconds of one scrape, and MB that the peak of the memory grew by."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew: proc(5)
    before = memory_bytes(pid)
    took, _ = scrape(port, page, arguments)
    return took, max(0, memory_bytes(pid, "VmHWM") - before) / 1e6


def encode(bench: Bench) -> Section:
    """The OTLP metrics message of as many series."""
    red, encoder = filled(SERVICES, SERIES), MetricEncoder("0", WallClock())
    times: list[float] = []
    for _ in range(1 + SCRAPES_PER_TURN * bench.settings.pairs):
        began = time.thread_time()
        body = encoder.encode(red.collect(), boot_now_ns())
        times.append((time.thread_time() - began) * 1000)
    later = Figure(times[1:], "ms", 1)
    row = (f"{len(body):,}", str(Figure([times[0]], digits=1)), str(later))
    return Section(ENCODE_TITLE, ENCODE_HOW, ("bytes", "first, ms", "later, ms"), [row])


def scrapes(bench: Bench) -> Section:
    """First and later scrapes in each format."""
    header = ("format", "bytes", "first, ms", "later, ms", "peak growth, first, MB", "later, MB")
    section = Section(TITLE, HOW, header)
    page = bench.directory / "page"
    for name, arguments in FORMATS.items():
        with scrape_server() as (pid, port):
            first, grown = growth(pid, port, page, arguments)
            check(page)
            _, grown_later = growth(pid, port, page, arguments)
            turns = SCRAPES_PER_TURN * bench.settings.pairs
            measured = [scrape(port, page, arguments) for _ in range(turns)]
        later = Figure([took for took, _ in measured], "ms", 1)
        section.rows.append(
            (
                name,
                f"{measured[0][1]:,}",
                str(Figure([first], digits=1)),
                str(later),
                str(Figure([grown], digits=1)),
                str(Figure([grown_later], digits=1)),
            )
        )
        section.budgets.append(Budget(f"scrape of 10,000 histogram series, {name}", later, 100))
    return section
