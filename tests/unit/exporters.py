# SPDX-License-Identifier: Apache-2.0
"""Exporters of spans with a spool, for the tests of delivery."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.unit.test_otlp_http import CLOCK

from otelauto.counters import Counters
from otelauto.export.otlp_export import OtlpTraces
from otelauto.export.spool import DiskSpool, Found, Lost, MemorySpool, Spool
from otelauto.export.transport import Transport

Make = Callable[..., tuple[OtlpTraces, Counters]]


def disk(directory: Path, max_bytes: int = 1 << 20) -> Callable[[Lost, Found], Spool]:
    return lambda lost, found: DiskSpool(directory / "spool", max_bytes, lost, found)


def memory(max_bytes: int = 1 << 20) -> Callable[[Lost, Found], Spool]:
    return lambda lost, _: MemorySpool(max_bytes, lost)


@contextlib.contextmanager
def exporters(directory: Path) -> Iterator[Make]:
    """What makes exporters that run, with a spool on disk unless told otherwise."""
    made: list[OtlpTraces] = []

    def make(to: Transport, **settings: Any) -> tuple[OtlpTraces, Counters]:
        counters = Counters()
        given = {"batch_timeout_s": 0.0, "first_pause_s": 0.01, "spool": disk(directory)}
        exporter = OtlpTraces(to, CLOCK, counters, version="1", **{**given, **settings})
        exporter.start()
        made.append(exporter)
        return exporter, counters

    yield make
    for exporter in made:
        exporter.close(0.1)


def settled(exporter: OtlpTraces) -> bool:
    status = exporter.status()
    return status["queued"] == 0 and status["spooled"] == 0
