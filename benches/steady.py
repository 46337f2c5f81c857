# SPDX-License-Identifier: Apache-2.0
"""What watching costs a service at a rate that otelauto keeps up with: all of it is captured."""

from __future__ import annotations

from benches.compare import Cell, Compared, by_itself, warm_up, watched
from benches.harness import Bench, Load, metrics_only, paced
from benches.report import Budget, Section
from benches.services import ITEM, SERVICES, running

RATE = 10_000
NAMES = ("epoll", "nginx", "go")
TITLE = "Cost added to a service at a steady rate"
HOW = (
    f"A paced client sends {RATE:,} requests per second, with and without otelauto (metrics), and"
    " shares CPU 0 with the service; otelauto has CPU 1 for itself. The service does the same work"
    " in the same portions in both cases, and every request is captured, so this is the cost of"
    " capturing and nothing else."
)
HEADER = (
    "service", "requests/s without", "requests/s with", "service CPU, us/request",
    "added, us/request", "spans per request",
)  # fmt: skip


def _compare(bench: Bench, name: str) -> Compared:
    with running(SERVICES[name].command, bench.directory, name) as service:

        def load() -> Load:
            return paced(RATE, bench.settings.seconds, ITEM, [service.port])

        def without() -> Cell:
            return by_itself(service, load)

        def with_metrics() -> Cell:
            return watched(bench, service, metrics_only(), load)

        warm_up(service)
        title, pairs = SERVICES[name].title, bench.settings.pairs
        return Compared.alternating(title, "otelauto, metrics", pairs, without, with_metrics)


def steady(bench: Bench) -> Section:
    """The compiled services: of a Python request, what is added is too small a part to be seen."""
    section = Section(TITLE, HOW, HEADER)
    for name in NAMES:
        row = _compare(bench, name)
        section.rows.append(
            (
                row.title,
                row.without(lambda cell: cell.load.rate, 0),
                row.with_(lambda cell: cell.load.rate, 0),
                row.without(lambda cell: cell.service_us),
                str(row.added),
                row.with_(lambda cell: cell.spans, 3),
            )
        )
        what = f"CPU added to a request: {row.title}, {RATE:,} requests/s"
        section.budgets.append(Budget(what, row.added, 0.7))
    return section
