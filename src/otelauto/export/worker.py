# SPDX-License-Identifier: Apache-2.0
"""One thread that takes batches from a bounded queue and gives them to an exporter's function."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from otelauto.counters import Counters, Meaning
from otelauto.export.encoded import spans_of
from otelauto.export.exporter import Ledger, Reason, Trouble
from otelauto.export.queue import BoundedQueue
from otelauto.export.transport import REST_AFTER_S

T = TypeVar("T")


class Worker(Generic[T]):
    """The queue, the thread and the book-keeping that exporters of spans share.

    ``handle`` publishes one batch and counts each of its spans as sent or dropped, or hands it on;
    an exception out of it is a defect: what it left uncounted is ``internal`` and the thread goes
    on. ``abort`` is called from the closing thread when the deadline has come while ``handle``
    still runs. ``rest`` is called, once, when nothing came for ``REST_AFTER_S``.
    """

    GRACE_S = 0.5  # for an aborted ``handle`` to count what it gave up

    def __init__(
        self,
        name: str,
        handle: Callable[[list[T]], None],
        ledger: Ledger,
        counters: Counters,
        trouble: Trouble,
        *,
        queue_size: int,
        batch_size: int,
        batch_timeout_s: float,
        abort: Callable[[], None] = lambda: None,
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        self._queue: BoundedQueue[T] = BoundedQueue(queue_size)
        self._handle = handle
        self._ledger = ledger
        self._counters = counters
        self._trouble = trouble
        self._batch_size = batch_size
        self._batch_timeout_s = batch_timeout_s
        self._abort = abort
        self._rest = rest
        self._thread = threading.Thread(target=self._run, name=f"otelauto-{name}", daemon=True)
        self._give_up_at: float | None = None
        self._lock = threading.Lock()
        self._in_hand = 0  # spans of the current batch that are not counted yet
        self._abandoned = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, spans: Sequence[T]) -> None:
        """Queue ``spans``; those beyond the room are counted. Never blocks."""
        lost = sum(map(spans_of, spans)) - self._queue.put(spans)
        if lost:
            self._counters.add(self._ledger.dropped, lost, Reason.QUEUE_FULL)

    def queued(self) -> int:
        """Spans that wait, those of the batch in hand among them."""
        with self._lock:
            return len(self._queue) + self._in_hand

    def sent(self, count: int) -> None:
        """For ``handle``: count ``count`` spans of its batch as published."""
        self._settle(self._ledger.sent, count)

    def drop(self, count: int, reason: Reason) -> None:
        """For ``handle``: count ``count`` spans of its batch as given up."""
        self._settle(self._ledger.dropped, count, reason)

    def hand_on(self, count: int) -> None:
        """For ``handle``: somebody else counts ``count`` spans of its batch from now on."""
        with self._lock:
            self._in_hand -= count

    def seconds_left(self) -> float | None:
        """How long ``handle`` may still take; ``None`` unless the exporter is being closed."""
        give_up_at = self._give_up_at
        return None if give_up_at is None else give_up_at - time.monotonic()

    def close(self, deadline_s: float) -> None:
        """Let the thread publish what is queued; after ``deadline_s`` count the rest and abort."""
        self._give_up_at = time.monotonic() + deadline_s
        self._queue.close()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        left = self._queue.clear()
        if left:
            self._counters.add(self._ledger.dropped, left, Reason.SHUTDOWN)
        if self._thread.is_alive():
            self._abort()
            self._thread.join(self.GRACE_S)
            self._abandon()

    def _abandon(self) -> None:
        """Count what ``handle`` still has in hand as lost; what it says later counts no more."""
        with self._lock:
            if self._in_hand:
                self._counters.add(self._ledger.dropped, self._in_hand, Reason.SHUTDOWN)
            self._abandoned = True

    def _settle(self, meaning: Meaning, count: int, label: str = "") -> None:
        with self._lock:
            if not self._abandoned:
                self._in_hand -= count
                self._counters.add(meaning, count, label)

    def _run(self) -> None:
        size, linger_s = self._batch_size, self._batch_timeout_s
        idle_s = None
        while (batch := self._queue.take(size, linger_s, idle_s)) is not None:
            idle_s = REST_AFTER_S if batch else None
            if batch:
                self._publish(batch)
                del batch  # what it holds is used again, not kept until the next one comes
            else:
                self._rest()

    def _publish(self, batch: list[T]) -> None:
        with self._lock:
            self._in_hand = sum(map(spans_of, batch))
        try:  # the thread must outlive a defect
            self._handle(batch)
        except Exception as error:
            lost = self._in_hand
            self.drop(lost, Reason.INTERNAL)
            self._trouble.report(f"internal error, {lost} spans lost: {error!r}")
