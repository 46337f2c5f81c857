# SPDX-License-Identifier: Apache-2.0
"""What one run of each BPF program takes, as the kernel counts it. For information."""

from __future__ import annotations

from typing import Any

from benches.harness import Bench, BenchError, metrics_only, otelauto, wrk
from benches.report import Figure, Section
from benches.services import ITEM, SERVICES, running
from otelauto.kernel.statistics import run_time_statistics

TITLE = "BPF programs"
HOW = (
    "The kernel's own count (`BPF_ENABLE_STATS`) while wrk asks the C server for all it can give."
    " Counting itself takes tens of ns a run, and is on for this table only. The programs of"
    " socket events run for wrk's end of each connection too, where they end at once; those of"
    " process events run for every process of the machine."
)


def programs(bench: Bench) -> Section:
    """Runs per request and time per run."""
    with (
        running(SERVICES["epoll"].command, bench.directory, "programs") as service,
        otelauto(bench.directory, [service.port], metrics_only()) as agent,
    ):
        before = agent.status()["programs"]
        with run_time_statistics():
            load = wrk(service.port, ITEM, bench.settings.seconds)
        after = agent.status()["programs"]
    section = Section(TITLE, HOW, ("program", "runs per request", "ns per run", "instructions"))
    for first, last in zip(before, after, strict=True):
        section.rows.append(_row(first, last, load.requests))
    if all(row[2] == "-" for row in section.rows):
        raise BenchError("the kernel counted no BPF program")
    return section


def _row(first: dict[str, Any], last: dict[str, Any], requests: int) -> tuple[str, ...]:
    runs = last["runs"] - first["runs"]
    taken = last["run_time_ns"] - first["run_time_ns"]
    return (
        f"`{last['name']}`",
        str(Figure([runs / requests], digits=3)),
        str(Figure([taken / runs], digits=0)) if runs else "-",
        f"{last['verified_instructions']:,}",
    )
