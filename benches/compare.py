# SPDX-License-Identifier: Apache-2.0
"""Pairs of measurements of a service: without, and with something that watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from benches.harness import (
    Bench,
    BenchError,
    Load,
    cpu_ns,
    dropped,
    given_up,
    otelauto,
    paced,
    uncounted,
)
from benches.report import Figure
from benches.services import ITEM, Running

WARM_UP_RATE, WARM_UP_SECONDS = 1000, 0.2


@dataclass(frozen=True)
class Cell:
    """One measurement: with or without."""

    load: Load
    service_us: float  # CPU time per request
    agent_us: float = 0.0
    spans: float = 0.0  # per request
    given_up: int = 0  # spans for which an exporter had no room
    dropped: int = 0  # records for which the kernel's ring had no room
    uncounted: int = 0  # records that are neither delivered nor dropped


MakeLoad = Callable[[], Load]
Measure = Callable[[], Cell]


def warm_up(service: Running, path: str = ITEM) -> Load:
    """Some requests, so that nothing is done for the first time in a measurement."""
    return paced(WARM_UP_RATE, WARM_UP_SECONDS, path, [service.port])


def by_itself(service: Running, make_load: MakeLoad) -> Cell:
    """The service as it is, under load."""
    pids = service.process.pids()
    before = cpu_ns(pids)
    load = make_load()
    return Cell(load, (cpu_ns(pids) - before) / load.requests / 1000)


def watched(
    bench: Bench,
    service: Running,
    settings: Mapping[str, str],
    make_load: MakeLoad,
    first_load: MakeLoad | None = None,
) -> Cell:
    """The service under load while otelauto watches it, and what that cost otelauto.

    ``first_load`` comes before what is measured, instead of :func:`warm_up`. BenchError if there
    were no spans.
    """
    with otelauto(bench.directory, [service.port], settings) as agent:
        first = first_load() if first_load else warm_up(service)
        agent.settle()
        before = cpu_ns([agent.pid])
        cell = by_itself(service, make_load)
        report = agent.settle()
        agent_us = (cpu_ns([agent.pid]) - before) / cell.load.requests / 1000
        spans = report["spans"] - first.requests
        if spans <= 0:
            raise BenchError(f"otelauto saw nothing: {agent.process.stderr()}")
        share = spans / cell.load.requests
        return replace(
            cell,
            agent_us=agent_us,
            spans=share,
            given_up=given_up(report),
            dropped=dropped(report),
            uncounted=uncounted(report),
        )


@dataclass(frozen=True)
class Compared:
    """Pairs of (without, with). ``label`` says with what."""

    title: str
    label: str
    pairs: list[tuple[Cell, Cell]]

    @classmethod
    def alternating(
        cls, title: str, label: str, count: int, without: Measure, with_: Measure
    ) -> Compared:
        """Without, with, without, with, ..."""
        return cls(title, label, [(without(), with_()) for _ in range(count)])

    @property
    def added(self) -> Figure:
        """CPU time added to the service's request."""
        return Figure(
            [with_.service_us - without.service_us for without, with_ in self.pairs], "us"
        )

    @property
    def ratio(self) -> Figure:
        """Requests per second with to those without."""
        return Figure([with_.load.rate / without.load.rate for without, with_ in self.pairs])

    @property
    def cpu_ratio(self) -> Figure:
        """CPU time per request without to that with: the throughput that the CPU allows."""
        return Figure([without.service_us / with_.service_us for without, with_ in self.pairs])

    @property
    def uncounted(self) -> Figure:
        """Records that were lost without being counted."""
        return Figure([cell.uncounted for _, cell in self.pairs], digits=0)

    def without(self, value: Callable[[Cell], float], digits: int = 2) -> str:
        """A figure of the measurements without."""
        return str(Figure([value(cell) for cell, _ in self.pairs], digits=digits))

    def with_(self, value: Callable[[Cell], float], digits: int = 2) -> str:
        """A figure of the measurements with."""
        return str(Figure([value(cell) for _, cell in self.pairs], digits=digits))
