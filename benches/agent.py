# SPDX-License-Identifier: Apache-2.0
"""What otelauto itself needs at a given rate of requests, and at rest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from statistics import median

from tests.e2e.harness.process import wait_until

from benches.compare import warm_up
from benches.harness import (
    Bench,
    BenchError,
    cpu_ns,
    dropped,
    given_up,
    memory_bytes,
    metrics_and_traces,
    metrics_only,
    otelauto,
    paced,
    sink,
    waiting,
)
from benches.report import Budget, Figure, Section
from benches.services import SERVICES, logging_epoll, running, served

MB = 1e6
MIB = 2**20
PATH = "/items/#"


# ---- CPU per request ----

RATE_TITLE = "Agent at a given rate"
RATE_HOW = (
    "A paced client asks the C server, both on CPU 0; otelauto and the discarding receiver are on"
    " CPU 1. After some requests to learn from, CPU time is that of all threads of otelauto from"
    " before the first request until a second after the last, when its queues are empty, divided by"
    " the requests; it is asked for its report after that, as a report costs as much as thousands"
    " of requests. `served` counts the lines of the server's own log; `not reported` is what no"
    " span came for, `records dropped` what the kernel's ring had no room for, `given up` what an"
    " exporter had none for. `backlog` is the most that waited in the ring. *metrics*: a Prometheus"
    " page; *metrics + traces*: both by OTLP/HTTP without compression."
)
RATE_HEADER = (
    "rate", "exports", "requests/s", "agent CPU, us/request", "RSS, MB", "kernel memory, MiB",
    "backlog, KiB", "served", "not reported", "records dropped", "given up",
)  # fmt: skip
# rate, whether traces are exported, budget of CPU per request in us
RATES = (
    (1_000, False, None),
    (1_000, True, None),
    (10_000, False, 0.5),
    (10_000, True, 2.0),
    (20_000, False, None),
    (20_000, True, None),
)
LOSSLESS_RATE = 20_000
AFTERWARDS_SECONDS = 1.0  # longer than a turn and the wait of a batch


@dataclass(frozen=True)
class Run:
    """One run at a rate."""

    rate: float
    agent_us: float
    rss: int
    kernel: int
    backlog: int
    served: int
    spans: int
    dropped: int
    given_up: int


def _run_at(bench: Bench, rate: int, settings: Mapping[str, str]) -> Run:
    with (
        running(logging_epoll, bench.directory, "rate") as service,
        otelauto(bench.directory, [service.port], settings) as agent,
    ):
        first = warm_up(service).requests
        agent.settle()
        before = cpu_ns([agent.pid])
        load = paced(rate, bench.settings.seconds, PATH, [service.port])
        time.sleep(AFTERWARDS_SECONDS)
        used = cpu_ns([agent.pid]) - before
        report = agent.status()
        if waiting(report) or report["ring_fill"]:
            raise BenchError("otelauto has not worked off what it took")
        wait_until(lambda: served(service) >= first + load.requests, "the server's log is written")
        return Run(
            load.rate,
            used / load.requests / 1000,
            memory_bytes(agent.pid),
            report["kernel_memory_bytes"],
            report["largest_backlog_bytes"],
            served(service),
            report["spans"],
            dropped(report),
            given_up(report),
        )


def _figure(runs: list[Run], field: str, scale: float = 1, digits: int = 0) -> Figure:
    return Figure([getattr(run, field) / scale for run in runs], digits=digits)


def _rate_row(rate: int, label: str, runs: list[Run], cost: Figure) -> tuple[str, ...]:
    return (
        f"{rate:,}",
        label,
        str(_figure(runs, "rate")),
        str(cost),
        str(_figure(runs, "rss", MB, 1)),
        str(_figure(runs, "kernel", MIB, 1)),
        str(_figure(runs, "backlog", 1024)),
        f"{sum(run.served for run in runs):,}",
        f"{sum(run.served - run.spans for run in runs):,}",
        f"{sum(run.dropped for run in runs):,}",
        f"{sum(run.given_up for run in runs):,}",
    )


def at_rates(bench: Bench) -> Section:
    """CPU per request, memory and losses, with metrics only and with every span exported."""
    section = Section(RATE_TITLE, RATE_HOW, RATE_HEADER)
    rates = RATES[:2] if bench.settings.only_shows else RATES
    with sink(bench.directory) as receiver:
        for rate, traces, limit in rates:
            label = "metrics + traces" if traces else "metrics"
            runs = []
            for _ in range(bench.settings.pairs):
                settings = metrics_and_traces(receiver) if traces else metrics_only()
                runs.append(_run_at(bench, rate, settings))
            cost = Figure([run.agent_us for run in runs], "us")
            section.rows.append(_rate_row(rate, label, runs, cost))
            if limit is not None:
                what = f"agent CPU per request, {label}, {rate:,} requests/s"
                section.budgets.append(Budget(what, cost, limit))
            if rate == LOSSLESS_RATE:
                # Lost and invented requests both count.
                wrong = Figure([abs(run.served - run.spans) for run in runs], digits=0)
                what = f"requests lost or invented, {label}, {rate:,} requests/s"
                section.budgets.append(Budget(what, wrong, 0))
    return section


# ---- memory ----

SERVICE_COUNT, STATUS_COUNT = 10, 50
MEMORY_TITLE = "Memory of the agent"
MEMORY_HOW = (
    f"{SERVICE_COUNT} C servers, each with its own service name, answer {STATUS_COUNT} different"
    " status codes: a series of durations and one of response sizes for each. Then a paced client"
    " asks all of them, 1,000 requests per second together. Metrics and traces go to the discarding"
    " receiver by OTLP/HTTP. The peak is `VmHWM`. Kernel memory is that of all BPF maps."
)


def _make_series(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    for code in range(205, 205 + STATUS_COUNT):
        connection.request("GET", f"/status/{code}/1")
        connection.getresponse().read()
    connection.close()


def memory(bench: Bench) -> Section:
    """RSS with ten services, 1,000 series and traces."""
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(sink(bench.directory))
        ports = []
        for number in range(SERVICE_COUNT):
            env = {"OTEL_SERVICE_NAME": f"service-{number}"}
            service = running(logging_epoll, bench.directory, "memory", env)
            ports.append(stack.enter_context(service).port)
        settings = metrics_and_traces(receiver)
        agent = stack.enter_context(otelauto(bench.directory, ports, settings))
        for port in ports:
            _make_series(port)
        paced(1_000, bench.settings.seconds, PATH, ports)
        report = agent.settle()
        rss, peak = (memory_bytes(agent.pid, field) / MB for field in ("VmRSS", "VmHWM"))
    if len(report["targets"]) != SERVICE_COUNT:
        raise BenchError(f"not all of the {SERVICE_COUNT} services are watched")
    kernel = Figure([report["kernel_memory_bytes"] / MIB], "MiB", 1)
    row = (
        str(len(report["targets"])),
        f"{report['series']:,}",
        str(Figure([rss], digits=1)),
        str(Figure([peak], digits=1)),
        str(kernel),
    )
    budgets = [
        Budget("agent memory (RSS), 10 services, traces by OTLP/HTTP", Figure([rss], "MB", 1), 50),
        Budget("kernel memory, 10 targets", kernel, 16),
    ]
    header = ("services", "series", "RSS, MB", "peak RSS, MB", "kernel memory, MiB")
    return Section(MEMORY_TITLE, MEMORY_HOW, header, [row], budgets)


# ---- memory as time goes by ----

GROWTH_RATE, GROWTH_SAMPLES = 5_000, 6
GROWTH_TITLE = "Memory of the agent as time goes by"
GROWTH_HOW = (
    f"One C server under {GROWTH_RATE:,} requests per second, metrics and traces to the discarding"
    f" receiver by OTLP/HTTP, for {GROWTH_SAMPLES} times as long as other measurements"
    " (`make soak` makes that half an hour). Growth is from the median RSS of the first half of the"
    " samples, but for the very first one, to that of the second half."
)


def growth(bench: Bench) -> Section:
    """RSS under steady traffic."""
    samples = []
    with (
        sink(bench.directory) as receiver,
        running(logging_epoll, bench.directory, "growth") as service,
        otelauto(bench.directory, [service.port], metrics_and_traces(receiver)) as agent,
    ):
        for _ in range(GROWTH_SAMPLES):
            paced(GROWTH_RATE, bench.settings.seconds, PATH, [service.port])
            samples.append(memory_bytes(agent.pid) / MIB)
        dropped_spans = given_up(agent.settle())
    half = GROWTH_SAMPLES // 2
    grown = Figure([median(samples[half:]) - median(samples[1:half])], "MiB")
    seconds = GROWTH_SAMPLES * bench.settings.seconds
    row = (f"{seconds:,} s", str(Figure(samples, digits=1)), str(grown), f"{dropped_spans:,}")
    budgets = [Budget(f"growth of the agent's memory in {seconds:,} s", grown, 1)]
    header = ("measured for", "RSS, MiB", "growth", "spans given up")
    return Section(GROWTH_TITLE, GROWTH_HOW, header, [row], budgets)


# ---- at rest ----

REST_TITLE = "Agent at rest"
REST_HOW = (
    "One C server is watched and nobody asks it anything; metrics on a Prometheus page that nobody"
    " scrapes. The first second after the start does not count."
)


def rest(bench: Bench) -> Section:
    """CPU and memory when nothing happens."""
    seconds = bench.settings.rest_seconds
    with (
        running(SERVICES["epoll"].command, bench.directory, "rest") as service,
        otelauto(bench.directory, [service.port], metrics_only()) as agent,
    ):
        time.sleep(1)
        started, before = time.monotonic(), cpu_ns([agent.pid])
        time.sleep(seconds)
        used = cpu_ns([agent.pid]) - before
        percent = Figure([used / 1e7 / (time.monotonic() - started)], "% of a core", 3)
        rss = memory_bytes(agent.pid) / MB
        kernel = Figure([agent.status()["kernel_memory_bytes"] / MIB], "MiB", 1)
    row = (f"{seconds} s", str(percent), str(Figure([rss], digits=1)), str(kernel))
    budgets = [
        Budget("agent at rest", percent, 0.05),
        Budget("kernel memory, idle", kernel, 16),
    ]
    header = ("measured for", "CPU", "RSS, MB", "kernel memory, MiB")
    return Section(REST_TITLE, REST_HOW, header, [row], budgets)
