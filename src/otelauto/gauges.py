# SPDX-License-Identifier: Apache-2.0
"""Otelauto's metrics about its own state, for the Prometheus page.

The thread that owns the state takes them every few seconds; the scraping threads see what was
taken last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from otelauto.export.exposition import Family, Kind, Sample

if TYPE_CHECKING:
    from otelauto.app import App

KERNEL_MEMORY_INTERVAL_S: Final = 120.0  # it hardly moves, and asking for it takes a file a map
NS_PER_S: Final = 1_000_000_000
_STEPS: Final = (
    "What max_overhead has made it give up: 0 nothing, 1 long heads, 2 nine of ten traces, 3 all"
    " spans, 4 everything, for a while."
)
# By name without prefix: kind, help, unit.
OWN: Final[dict[str, tuple[Kind, str, str]]] = {
    "targets": (Kind.GAUGE, "Processes that match, by state: watched, refused (no room).", ""),
    "services_with_sdk": (
        Kind.GAUGE, "Watched processes whose service has an OpenTelemetry SDK of its own.", "",
    ),
    "connections": (Kind.GAUGE, "Connections that are followed.", ""),
    "ring_fill_ratio": (Kind.GAUGE, "Share of the data ring that waits.", "ratio"),
    "kernel_memory_bytes": (Kind.GAUGE, "Kernel memory of all BPF maps.", "bytes"),
    "metric_series": (Kind.GAUGE, "RED series that are held.", ""),
    "probe_attached": (Kind.GAUGE, "1 where a probe is attached to its hook, else 0.", ""),
    "program_runs": (
        Kind.COUNTER, "Runs of a BPF program, while the kernel counts them.", "",
    ),
    "program_run_seconds": (
        Kind.COUNTER,
        "Time that runs of a BPF program took from the services, while the kernel counts it.",
        "seconds",
    ),
    "overhead_step": (Kind.GAUGE, _STEPS, ""),
}  # fmt: skip


class Gauges:
    """What was taken last."""

    def __init__(self) -> None:
        self._families: Sequence[Family] = ()
        self._next_kernel_memory = 0.0
        self._kernel_memory = 0

    def families(self) -> Iterable[Family]:
        """For the page; from any thread."""
        return self._families

    def take(self, app: App, now: float) -> None:
        """Look at ``app``; ``now`` is monotonic time."""
        if now >= self._next_kernel_memory:
            self._next_kernel_memory = now + KERNEL_MEMORY_INTERVAL_S
            self._kernel_memory = app.watcher.capture.kernel_memory()
        samples = {**self._of_capture(app), **_of_publisher(app)}
        self._families = [_family(name, samples[name]) for name in OWN if samples[name]]

    def _of_capture(self, app: App) -> dict[str, list[Sample]]:
        watcher, capture = app.watcher, app.watcher.capture
        costs = [cost for cost in watcher.costs if cost.runs]
        return {
            "targets": [
                ({"state": "watched"}, len(watcher.discovery.targets()) - watcher.refused()),
                ({"state": "refused"}, watcher.refused()),
            ],
            "ring_fill_ratio": [({}, capture.ring_fill)],
            "kernel_memory_bytes": [({}, self._kernel_memory)],
            "probe_attached": [
                ({"probe": probe.name, "hook": probe.hook}, int(probe.state == "attached"))
                for probe in capture.probes
            ],
            "program_runs": [({"program": cost.name}, cost.runs) for cost in costs],
            "program_run_seconds": [
                ({"program": cost.name}, cost.run_time_ns / NS_PER_S) for cost in costs
            ],
        }


def _of_publisher(app: App) -> dict[str, list[Sample]]:
    services = app.watcher.services
    with_sdk = sum(
        bool(app.publisher.sdk_of(services.of(tgid))) for tgid in app.watcher.discovery.targets()
    )
    return {
        "services_with_sdk": [({}, with_sdk)],
        "connections": [({}, app.flows.connections().open)],
        "metric_series": [({}, app.publisher.red.size())],
        "overhead_step": [({}, app.governor.step)],
    }


def _family(name: str, samples: list[Sample]) -> Family:
    kind, help_text, unit = OWN[name]
    return Family(f"otelauto_{name}", kind, help_text, lambda: samples, unit)
