# SPDX-License-Identifier: Apache-2.0
"""What watching costs a service that is asked for all it can give, and what the OTel SDK costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from benches.compare import Cell, Compared, by_itself, watched
from benches.harness import (
    Bench,
    BenchError,
    Load,
    metrics_and_traces,
    metrics_only,
    sink,
    sink_bytes,
    wrk,
)
from benches.report import Budget, Section
from benches.services import ITEM, SERVICES, Command, Running, running, sdk_environment

HEADER = (
    "service", "with", "requests/s without", "requests/s with", "ratio",
    "service CPU, us/request", "added, us/request", "ratio of CPU", "agent CPU, us/request",
    "spans per request", "records dropped", "spans given up",
)  # fmt: skip
TITLE = "Cost added to a service at saturation"
HOW = (
    "wrk with 16 kept connections asks for all that the service gives. The service has CPU 0 for"
    " itself; wrk, otelauto and the discarding receiver share CPU 1, so the ratio of requests per"
    " second also holds what wrk lost to them, and a service that gets fewer requests at a time"
    " spends more on each. `ratio of CPU` is what the service's own CPU time allows: CPU per"
    " request without, divided by that with. *metrics*: a Prometheus page; *metrics + traces*: both"
    " by OTLP/HTTP; *OTel SDK*: `opentelemetry-instrument` for Python,"
    " `auto-instrumentations-node`, the Java agent, with metrics and traces by OTLP/HTTP and their"
    " defaults otherwise. wrk does not count the requests that it leaves unanswered at its end, so"
    " there may be a few more spans than requests; spans that are lacking lack for"
    " `records dropped`, for which the kernel's ring had no room. `spans given up`: an exporter's"
    " queue had no room for them."
)
METRICS, TRACES, SDK = "otelauto, metrics", "otelauto, metrics + traces", "OTel SDK"


def cells(compared: Compared) -> tuple[str, ...]:
    """A row of the table."""
    cells = (
        compared.title,
        compared.label,
        compared.without(lambda cell: cell.load.rate, 0),
        compared.with_(lambda cell: cell.load.rate, 0),
        str(compared.ratio),
        compared.without(lambda cell: cell.service_us),
        str(compared.added),
        str(compared.cpu_ratio),
    )
    if compared.label == SDK:
        return (*cells, "in the service", "-", "-", "-")
    return (
        *cells,
        compared.with_(lambda cell: cell.agent_us),
        compared.with_(lambda cell: cell.spans, 3),
        compared.with_(lambda cell: cell.dropped, 0),
        compared.with_(lambda cell: cell.given_up, 0),
    )


def _compare(bench: Bench, name: str, receiver: int, plain: Running) -> list[Compared]:
    title, pairs = SERVICES[name].title, bench.settings.pairs

    def load() -> Load:
        return wrk(plain.port, ITEM, bench.settings.seconds)

    def without() -> Cell:
        return by_itself(plain, load)

    def metrics() -> Cell:
        return watched(bench, plain, metrics_only(), load)

    def traces() -> Cell:
        before = sink_bytes(receiver)
        cell = watched(bench, plain, metrics_and_traces(receiver), load)
        if sink_bytes(receiver) == before:
            raise BenchError("otelauto has exported nothing")
        return cell

    if not bench.settings.only_shows:
        load()  # some runtimes compile what is used much
    compared = [Compared.alternating(title, TRACES, pairs, without, traces)]
    if SERVICES[name].with_sdk is None:  # else beside what exports both too, and nothing more
        compared.insert(0, Compared.alternating(title, METRICS, pairs, without, metrics))
    return compared


def _compare_sdk(
    bench: Bench, name: str, with_sdk: Command, receiver: int, plain: Running
) -> Compared:
    service, seconds = SERVICES[name], bench.settings.seconds
    env = sdk_environment(receiver)
    before = sink_bytes(receiver)
    with running(with_sdk, bench.directory, f"{name}-sdk", env) as instrumented:
        wrk(instrumented.port, ITEM, seconds)
        compared = Compared.alternating(
            service.title,
            SDK,
            bench.settings.pairs,
            lambda: by_itself(plain, lambda: wrk(plain.port, ITEM, seconds)),
            lambda: by_itself(instrumented, lambda: wrk(instrumented.port, ITEM, seconds)),
        )
    if sink_bytes(receiver) == before:
        raise BenchError("the instrumented service has exported nothing")
    return compared


def _budgets(rows: list[Compared]) -> list[Budget]:
    """Of the C server: the others' requests take too long to see a part of a microsecond."""
    found = []
    for row in rows:
        what = f"{row.title}, {row.label}, at saturation"
        found += [
            Budget(f"CPU added to a request: {what}", row.added, 0.7),
            Budget(f"throughput left: {what}", row.ratio, 0.95, at_least=True),
            Budget(f"throughput that the service's CPU allows: {what}", row.cpu_ratio, 0.95, True),
            Budget(f"records lost and not counted: {what}", row.uncounted, 0),
        ]
    return found


def saturation(name: str) -> Callable[[Bench], Section]:
    """The bench of one service."""

    def bench_service(bench: Bench) -> Section:
        with contextlib.ExitStack() as stack:
            receiver = stack.enter_context(sink(bench.directory))
            plain = stack.enter_context(running(SERVICES[name].command, bench.directory, name))
            rows = _compare(bench, name, receiver, plain)
            with_sdk = SERVICES[name].with_sdk
            if with_sdk is not None:
                rows.append(_compare_sdk(bench, name, with_sdk, receiver, plain))
        budgets = _budgets(rows) if name == "epoll" else []
        return Section(TITLE, HOW, HEADER, [cells(row) for row in rows], budgets)

    return bench_service
