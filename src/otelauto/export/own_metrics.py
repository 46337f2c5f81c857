# SPDX-License-Identifier: Apache-2.0
"""otelauto's metrics about itself, for the Prometheus page."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

from otelauto.counters import Counters, Meaning
from otelauto.export.exposition import Family, Kind, Sample

PREFIX = "otelauto_"


def counter_families(counters: Counters) -> list[Family]:
    """Each counter that was ever counted, as ``otelauto_<name>_total``."""
    grouped: dict[Meaning, list[Sample]] = {}
    for meaning, label, total in counters.items():
        attributes = {meaning.label: label} if meaning.label else {}
        grouped.setdefault(meaning, []).append((dict(attributes), total))
    return [_counter(meaning, samples) for meaning, samples in grouped.items()]


def _counter(meaning: Meaning, samples: list[Sample]) -> Family:
    return Family(f"{PREFIX}{meaning.name}", Kind.COUNTER, meaning.help, lambda: samples)


def gauge(name: str, help_: str, value: float) -> Family:
    """A gauge ``otelauto_<name>`` of one sample."""
    return Family(f"{PREFIX}{name}", Kind.GAUGE, help_, lambda: [({}, value)])


def process_families(version: str, proc: Path = Path("/proc/self")) -> list[Family]:
    """``otelauto_build_info``, CPU time, memory and open files of this process."""
    return [
        Family(
            f"{PREFIX}build_info",
            Kind.GAUGE,
            "Constant 1, labelled with the version.",
            lambda: [({"version": version}, 1)],
        ),
        Family(
            f"{PREFIX}process_cpu_seconds",
            Kind.COUNTER,
            "User and system CPU time of otelauto.",
            _cpu_seconds,
            unit="seconds",
        ),
        Family(
            f"{PREFIX}process_resident_memory_bytes",
            Kind.GAUGE,
            "Resident memory of otelauto.",
            lambda: _resident_bytes(proc),
            unit="bytes",
        ),
        Family(
            f"{PREFIX}process_open_fds",
            Kind.GAUGE,
            "Open file descriptors of otelauto.",
            lambda: _open_files(proc),
        ),
    ]


def _cpu_seconds() -> Iterable[Sample]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return [({}, usage.ru_utime + usage.ru_stime)]


def _resident_bytes(proc: Path) -> Iterable[Sample]:
    """proc(5), ``statm``: the second field, in pages."""
    try:
        pages = int((proc / "statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return []
    return [({}, pages * os.sysconf("SC_PAGE_SIZE"))]


def _open_files(proc: Path) -> Iterable[Sample]:
    try:
        return [({}, len(os.listdir(proc / "fd")))]  # noqa: PTH208 - a count, no paths
    except OSError:
        return []
