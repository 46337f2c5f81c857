# SPDX-License-Identifier: Apache-2.0
"""Rate, errors and duration of the last seconds, from spans."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from tally import Span

WINDOW_S = 15.0
LAST_SPANS = 8
MAX_SAMPLES = 2000


@dataclass(frozen=True)
class Line:
    """One row of the table; durations are milliseconds of the spans within the window."""

    service: str
    kind: str
    name: str
    total: int
    per_second: float
    errors: float  # share of the spans within the window, 0 to 1
    p50: float
    p95: float


@dataclass
class _Series:
    total: int = 0
    # (monotonic time it was read, duration in ms, whether it is an error)
    samples: deque[tuple[float, float, bool]] = field(
        default_factory=lambda: deque(maxlen=MAX_SAMPLES)
    )


class Red:
    """Takes spans from one thread and gives tables to another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._last: deque[Span] = deque(maxlen=LAST_SPANS)
        self.total = 0

    def take(self, span: Span) -> None:
        """Count a span."""
        key = (span["service"]["name"], span["kind"], span["name"])
        sample = (time.monotonic(), span["duration_ns"] / 1e6, bool(span["error"]))
        with self._lock:
            series = self._series.setdefault(key, _Series())
            series.total += 1
            series.samples.append(sample)
            self._last.append(span)
            self.total += 1

    def last(self) -> list[Span]:
        """The newest spans, newest last."""
        with self._lock:
            return list(self._last)

    def lines(self, services: list[str]) -> list[Line]:
        """All rows, in the order of ``services``, servers before clients."""
        with self._lock:
            held = [(key, each.total, list(each.samples)) for key, each in self._series.items()]
        now = time.monotonic()
        window = min(WINDOW_S, max(now - self._started, 1.0))
        order = {name: place for place, name in enumerate(services)}
        rows = []
        for (service, kind, name), total, samples in held:
            recent = [sample for sample in samples if sample[0] >= now - window]
            took = sorted(sample[1] for sample in recent)
            failed = sum(sample[2] for sample in recent)
            share = failed / len(recent) if recent else 0.0
            half, most = quantile(took, 0.50), quantile(took, 0.95)
            per_second = len(recent) / window
            rows.append(Line(service, kind, name, total, per_second, share, half, most))
        rows.sort(
            key=lambda row: (order.get(row.service, 99), row.kind != "server", -row.total, row.name)
        )
        return rows


def quantile(ordered: list[float], share: float) -> float:
    """The smallest value that ``share`` of ``ordered`` do not exceed; NaN of nothing."""
    if not ordered:
        return float("nan")
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
