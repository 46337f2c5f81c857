# SPDX-License-Identifier: Apache-2.0
"""The OTLP exporters: spans in batches, metrics by interval."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from otelauto.counters import Counters
from otelauto.export.encoded import Item, spans_of
from otelauto.export.exporter import (
    METRIC_EXPORT_FAILURES,
    METRIC_EXPORTS,
    METRIC_POINTS_REJECTED,
    OTLP_TRACES,
    SPANS_RECOVERED,
    Reason,
    Status,
    Trouble,
    dropped,
)
from otelauto.export.otlp_encode import MetricEncoder, SpanEncoder
from otelauto.export.outbox import REASONS, Outbox
from otelauto.export.red import Red
from otelauto.export.retry import FIRST_PAUSE_S, LIMIT_S, Retry, asked_pause_s
from otelauto.export.spool import Found, Loss, Lost, Spool
from otelauto.export.temporality import Cumulative, Delta
from otelauto.export.transport import REST_AFTER_S, Transport, Verdict
from otelauto.export.worker import Worker
from otelauto.spans.clock import WallClock, boot_now_ns

LOG = logging.getLogger("otelauto.export.otlp")

QUEUE_SIZE = 4096
BATCH_SIZE = 4096
BATCH_TIMEOUT_S = 0.25
INTERVAL_S = 5.0


class OtlpTraces:
    """Sends spans to an OTLP traces endpoint.

    Without a ``spool`` a batch is tried again for ``export_timeout_s`` while the queue takes what
    comes; when both are exhausted the loss is counted. With one it waits there until it can go.
    """

    name = "otlp_traces"

    def __init__(
        self,
        transport: Transport,
        clock: WallClock,
        counters: Counters,
        *,
        version: str,
        queue_size: int = QUEUE_SIZE,
        batch_size: int = BATCH_SIZE,
        batch_timeout_s: float = BATCH_TIMEOUT_S,
        export_timeout_s: float = LIMIT_S,
        first_pause_s: float = FIRST_PAUSE_S,
        spool: Callable[[Lost, Found], Spool] | None = None,
    ) -> None:
        self._transport = transport
        self._encoder = SpanEncoder(version, clock)
        self._counters = counters
        self._trouble = Trouble(self.name)
        self._closing = threading.Event()
        self._worker: Worker[Item] = Worker(
            self.name,
            self._export,
            OTLP_TRACES,
            counters,
            self._trouble,
            queue_size=queue_size,
            batch_size=batch_size,
            batch_timeout_s=batch_timeout_s,
            abort=transport.abort,
            rest=transport.rest if spool is None else _nothing,  # it is the outbox's to use
        )
        self._retry = Retry(
            transport.post,
            self._report,
            self._closing,
            self._worker.seconds_left,
            first_pause_s=first_pause_s,
            limit_s=export_timeout_s,
        )
        self._spool = spool(self._lost, self._found) if spool is not None else None
        self._outbox: Outbox | None = None
        if self._spool is not None:
            self._outbox = Outbox(
                self.name,
                transport,
                self._spool,
                OTLP_TRACES,
                counters,
                self._trouble,
                first_pause_s=first_pause_s,
            )

    def start(self) -> None:
        """Start the threads; the endpoint need not be there yet."""
        if self._spool is not None and self._outbox is not None:
            try:
                self._spool.open()
            except OSError as error:
                LOG.warning(
                    "what cannot be delivered waits in the queue only, because the spool cannot be"
                    " used (it will be tried again): %s",
                    error.strerror or error,
                )
            self._outbox.start()
        self._worker.start()

    def offer(self, spans: Sequence[Item]) -> None:
        """Queue ``spans``; never blocks."""
        self._worker.offer(spans)

    def close(self, deadline_s: float) -> None:
        """Send what is queued, for at most ``deadline_s``."""
        self._closing.set()
        if self._outbox is not None:
            self._outbox.closing(deadline_s)
        self._worker.close(deadline_s)
        if self._outbox is not None:
            self._outbox.close()
        if self._spool is not None and self._spool.durable and self._spool.items:
            LOG.info("%d spans wait in the spool for the next start", self._spool.items)
        self._transport.close()

    def status(self) -> Status:
        """Endpoint, totals, what waits (spans in the queue and the spool, bytes), last error."""
        return {
            "endpoint": self._transport.url,
            "sent": self._counters.get(OTLP_TRACES.sent),
            "dropped": dropped(self._counters, OTLP_TRACES),
            "queued": self._worker.queued(),
            "spooled": self._spool.items if self._spool is not None else 0,
            "spool_bytes": self._spool.size if self._spool is not None else 0,
            "last_error": self._trouble.last_error,
        }

    def _export(self, batch: list[Item]) -> None:
        count = sum(map(spans_of, batch))
        body = self._encoder.encode(batch)
        worker = self._worker
        if self._outbox is not None:
            if self._outbox.put(body, count):
                worker.hand_on(count)
            else:
                worker.drop(count, Reason.UNWRITABLE)
            return
        answer = self._retry.send(body)
        if answer.verdict is Verdict.ACCEPTED:
            rejected = min(max(answer.rejected, 0), count)
            worker.sent(count - rejected)
            if rejected:
                worker.drop(rejected, Reason.REJECTED)
            if rejected or answer.error:
                self._report(f"{rejected} spans rejected: {answer.error or 'no reason given'}")
            return
        if answer.verdict is Verdict.REFUSED:
            reason = Reason.REFUSED
        else:
            reason = Reason.SHUTDOWN if self._closing.is_set() else Reason.UNREACHABLE
        worker.drop(count, reason)
        self._report(f"{count} spans given up: {answer.error}")

    def _lost(self, count: int, loss: Loss) -> None:
        if count:
            self._counters.add(OTLP_TRACES.dropped, count, REASONS[loss])
            self._trouble.report(f"{count} spans in the spool given up: {REASONS[loss]}")

    def _found(self, count: int) -> None:
        self._counters.add(SPANS_RECOVERED, count)
        LOG.info("%d spans of an earlier run wait in the spool and are sent first", count)

    def _report(self, error: str) -> None:
        self._trouble.report(f"{self._transport.url}: {error}")


def _nothing() -> None:
    """Nothing to do."""


class OtlpMetrics:
    """Sends all RED metrics to an OTLP metrics endpoint, every ``interval_s``.

    An export that fails is not repeated, the next one carries its data: totals, or with ``delta``
    what is new since the last export that arrived.
    """

    name = "otlp_metrics"
    GRACE_S = 0.5

    def __init__(
        self,
        transport: Transport,
        red: Red,
        clock: WallClock,
        counters: Counters,
        *,
        version: str,
        interval_s: float = INTERVAL_S,
        delta: bool = False,
        exponential: bool = False,
        now_ns: Callable[[], int] = boot_now_ns,
    ) -> None:
        self._transport = transport
        self._red = red
        self._clock = clock
        self._reader = Delta(counters) if delta else Cumulative()
        self._exemplars_from = 0  # those until then have arrived
        self._encoder = MetricEncoder(version, clock, delta=delta, exponential=exponential)
        self._counters = counters
        self._interval_s = interval_s
        self._now_ns = now_ns
        self._trouble = Trouble(self.name)
        self._closing = threading.Event()
        self._give_up_at: float | None = None
        self._asked_s = 0.0  # how long the endpoint wants no export
        self._thread = threading.Thread(target=self._run, name="otelauto-otlp-metrics", daemon=True)

    def start(self) -> None:
        """Start the thread; the endpoint need not be there yet."""
        self._thread.start()

    def close(self, deadline_s: float) -> None:
        """Send the last totals, for at most ``deadline_s``."""
        self._give_up_at = time.monotonic() + deadline_s
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
            if self._thread.is_alive():
                self._transport.abort()
                self._thread.join(self.GRACE_S)
        self._transport.close()

    def status(self) -> Status:
        """Endpoint, totals and the last error."""
        failures = sum(self._counters.get(METRIC_EXPORT_FAILURES, reason) for reason in Reason)
        return {
            "endpoint": self._transport.url,
            "exports": self._counters.get(METRIC_EXPORTS),
            "failures": failures,
            "last_error": self._trouble.last_error,
        }

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(max(self._interval_s, self._asked_s))
            try:  # the thread must outlive a defect
                self._export()
            except Exception as error:
                self._counters.add(METRIC_EXPORT_FAILURES, label=Reason.INTERNAL)
                self._report(f"internal error: {error!r}")

    def _export(self) -> None:
        now_ns = self._now_ns()
        collected = self._reader.read(self._red.collect(), self._clock.wall_ns(now_ns))
        body = self._encoder.encode(collected, now_ns, self._exemplars_from)
        if not body:
            self._transport.rest()
            return
        left = None if self._give_up_at is None else self._give_up_at - time.monotonic()
        answer = self._transport.post(body, left)
        self._asked_s = asked_pause_s(answer)
        if answer.verdict is not Verdict.ACCEPTED:
            refused = answer.verdict is Verdict.REFUSED
            reason = Reason.REFUSED if refused else Reason.UNREACHABLE
            self._counters.add(METRIC_EXPORT_FAILURES, label=reason)
            self._report(answer.error)
            return
        self._counters.add(METRIC_EXPORTS)
        self._reader.delivered()
        self._exemplars_from = self._encoder.exemplars_to
        if self._interval_s >= REST_AFTER_S:
            self._transport.rest()
        if answer.rejected > 0:
            self._counters.add(METRIC_POINTS_REJECTED, answer.rejected)
        if answer.rejected > 0 or answer.error:
            self._report(f"{answer.rejected} points rejected: {answer.error or 'no reason given'}")

    def _report(self, error: str) -> None:
        self._trouble.report(f"{self._transport.url}: {error}")
