# SPDX-License-Identifier: Apache-2.0
"""What every exporter is, and the names of what exporters count."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from otelauto.counters import Counters, Meaning
from otelauto.spans.span import Span

Status = dict[str, str | int | float | None]


class Exporter(Protocol):
    """Something that publishes, on a thread of its own."""

    name: str

    def start(self) -> None:
        """Begin; raises :class:`otelauto.errors.OtelautoError` if it cannot."""

    def close(self, deadline_s: float) -> None:
        """Publish what is queued and stop, within ``deadline_s`` seconds."""

    def status(self) -> Status:
        """For ``status`` and ``doctor``: last error, totals."""


class SpanExporter(Exporter, Protocol):
    """An exporter of spans."""

    def offer(self, spans: Sequence[Span]) -> None:
        """Take what there is room for, at once; count the rest as given up."""


class Reason(enum.StrEnum):
    """Why an exporter gave spans up (the label of its ``dropped`` counter)."""

    QUEUE_FULL = "queue_full"  # the endpoint is slower than the traffic
    REFUSED = "refused"  # an answer that must not be retried (HTTP 400, 401, 404, ...)
    REJECTED = "rejected"  # an OTLP partial success said so
    UNREACHABLE = "unreachable"  # no useful answer in all tries
    SPOOL_FULL = "spool_full"  # the oldest in the spool, for which there was no room any more
    CORRUPT = "corrupt"  # stored in the spool, and read back different
    SHUTDOWN = "shutdown"  # still queued when the deadline of the shutdown came
    PIPE_CLOSED = "pipe_closed"  # nobody reads standard output any more
    UNWRITABLE = "unwritable"  # standard output or the spool reports an error (a full disk, ...)
    INTERNAL = "internal"  # a defect of otelauto; see the log


@dataclass(frozen=True, slots=True)
class Ledger:
    """The two counters of an exporter of spans: offered = sent + dropped + still waiting."""

    sent: Meaning
    dropped: Meaning


def _ledger(prefix: str, where: str) -> Ledger:
    return Ledger(
        sent=Meaning(f"{prefix}_spans_sent", f"Spans {where}."),
        dropped=Meaning(
            f"{prefix}_spans_dropped", f"Spans given up instead of being {where}.", "reason"
        ),
    )


PRINTER = _ledger("printer", "written to standard output")
OTLP_TRACES = _ledger("otlp_traces", "accepted by the OTLP traces endpoint")

SPANS_RECOVERED = Meaning(
    "otlp_traces_spans_recovered", "Spans that an earlier otelauto had left in the spool."
)
METRIC_EXPORTS = Meaning("otlp_metrics_exports", "Exports accepted by the OTLP metrics endpoint.")
METRIC_EXPORT_FAILURES = Meaning(
    "otlp_metrics_export_failures",
    "Exports that the OTLP metrics endpoint did not take; the next export that succeeds carries"
    " their data.",
    "reason",
)
METRIC_POINTS_REJECTED = Meaning(
    "otlp_metrics_points_rejected",
    "Data points that the OTLP metrics endpoint rejected in a partial success.",
)


class Trouble:
    """An exporter's last error, and a log that speaks of it at most once a minute."""

    LOG_EVERY_S = 60.0

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self.last_error: str | None = None
        self._log = logging.getLogger(f"otelauto.export.{name}")
        self._name = name
        self._now = now
        self._lock = threading.Lock()
        self._logged_at: float | None = None
        self._unsaid = 0

    def report(self, error: str) -> None:
        """Remember ``error`` and log it, unless the last minute has heard of trouble already."""
        with self._lock:
            self.last_error = error
            now = self._now()
            if self._logged_at is not None and now - self._logged_at < self.LOG_EVERY_S:
                self._unsaid += 1
                return
            self._logged_at = now
            more, self._unsaid = self._unsaid, 0
        suffix = f" ({more} more since the last message)" if more else ""
        self._log.warning("%s: %s%s", self._name, error, suffix)


def dropped(counters: Counters, ledger: Ledger) -> int:
    """All spans that an exporter gave up."""
    return sum(counters.get(ledger.dropped, reason) for reason in Reason)
