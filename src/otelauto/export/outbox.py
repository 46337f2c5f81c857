# SPDX-License-Identifier: Apache-2.0
"""From encoded messages to a transport, in order; what cannot go at once waits in a spool.

While all goes well nothing is stored: the thread that brings a message waits for its answer. When
none came in ``SPILL_AFTER_S`` the message is stored, and those that follow it behind it, until all
are delivered.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from otelauto.counters import Counters
from otelauto.export.exporter import Ledger, Reason, Trouble
from otelauto.export.retry import FIRST_PAUSE_S, Retry
from otelauto.export.spool import Entry, Loss, Spool
from otelauto.export.transport import REST_AFTER_S, Answer, Body, Transport, Verdict, pieces_of

SPILL_AFTER_S = 0.25
STORE_AGAIN_S = 1.0  # after a message could not be stored
STORED_CLOSE_S = 3.0  # longest wait for an answer at the end, if what waits is safe anyway
GRACE_S = 0.5  # for an aborted request to be counted

REASONS = {Loss.FULL: Reason.SPOOL_FULL, Loss.CORRUPT: Reason.CORRUPT}


@dataclass(slots=True, eq=False)
class _Message:
    """``entry`` is set once it is stored."""

    body: Body
    items: int
    entry: Entry | None = None
    settled: bool = False


class Outbox:
    """Delivers messages to ``transport``; counts their items in ``ledger``.

    Each message is tried until there is an answer that counts (:mod:`otelauto.export.retry`).
    :meth:`put` is called by one thread. The spool is the outbox's own from now on.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        spool: Spool,
        ledger: Ledger,
        counters: Counters,
        trouble: Trouble,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._transport = transport
        self._spool = spool
        self._ledger = ledger
        self._counters = counters
        self._trouble = trouble
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._give_up_at: float | None = None
        self._slot: _Message | None = None  # brought, and not yet taken by the sender
        self._current: _Message | None = None  # what the sender has in hand
        self._failing = False  # the last request was not answered in a way that counts
        self._complete = False  # nothing more will be put
        self._ended = False  # the sender takes nothing more
        self._abandoned = False  # what the sender says later counts no more
        self._retry = Retry(
            self._post,
            self._report,
            self._closing,
            self._seconds_left,
            first_pause_s=first_pause_s,
            limit_s=0.0,
        )
        self._thread = threading.Thread(target=self._run, name=f"otelauto-{name}-send", daemon=True)

    def start(self) -> None:
        """Start the sender; what the spool holds already is delivered first."""
        self._thread.start()

    def put(self, body: Body, items: int) -> bool:
        """Deliver or store a message; waits while neither can be done.

        False if the end came first: its items are the caller's to count.
        """
        message: _Message | None = None
        with self._changed:
            while True:
                if message is None and self._is_idle():
                    message = self._hand_over(body, items)
                if message is not None and (message.settled or self._found_others()):
                    return True  # or in hand, behind nothing: the sender counts
                if self._store(body, items):
                    if message is not None:
                        message.entry = self._spool.head()
                    self._changed.notify_all()
                    return True
                left = self._time_left()
                if left <= 0:
                    return message is not None
                self._changed.wait(min(left, STORE_AGAIN_S))

    def closing(self, deadline_s: float) -> None:
        """The end has begun: try what can be tried soon, in at most ``deadline_s``."""
        if self._spool.durable:
            deadline_s = min(deadline_s, STORED_CLOSE_S)
        self._give_up_at = time.monotonic() + deadline_s
        self._closing.set()
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """After :meth:`closing`, when nothing more will be put: deliver the rest and stop.

        What still waits then stays in a durable spool, and is counted as lost in another.
        """
        with self._changed:
            self._complete = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, self._time_left()))
            if self._thread.is_alive():
                self._transport.abort()
                self._thread.join(GRACE_S)
        with self._changed:
            self._ended = self._abandoned = True
            for message in (self._slot, self._current):
                self._leave(message)
            if not self._spool.durable:
                self._drop(self._spool.items, Reason.SHUTDOWN)
            self._spool.close()

    # ---- the bringing thread; with the lock ----

    def _is_idle(self) -> bool:
        busy = self._slot or self._current or self._spool.items or self._ended
        return not busy and self._thread.is_alive()

    def _hand_over(self, body: Body, items: int) -> _Message:
        message = self._slot = _Message(body, items)
        self._changed.notify_all()
        self._changed.wait_for(lambda: message.settled, SPILL_AFTER_S)
        return message

    def _found_others(self) -> bool:
        """Whether the spool could be opened only now, and holds what an earlier process left.

        What is in hand would not be at its head then; it stays in hand.
        """
        try:
            self._spool.open()
        except OSError:
            return False
        return self._spool.items > 0

    def _store(self, body: Body, items: int) -> bool:
        try:
            self._spool.append(b"".join(pieces_of(body)), items)
        except OSError as error:
            self._report(f"the spool takes nothing: {error.strerror or error}")
            return False
        return True

    # ---- the sender ----

    def _run(self) -> None:
        while self._deliver_next():
            pass

    def _deliver_next(self) -> bool:
        """False when nothing more is to be delivered. Afterwards the message is held no more."""
        message = self._next()
        if message is None:
            return False
        try:  # the thread must outlive a defect
            answer = self._retry.send(message.body)
        except Exception as error:
            self._report(f"internal error, {message.items} items lost: {error!r}")
            answer = None
        with self._changed:
            self._current = None
            if not self._abandoned:
                self._settle(message, answer)
            self._changed.notify_all()
        return True

    def _next(self) -> _Message | None:
        idle_s: float | None = REST_AFTER_S
        with self._changed:
            while not self._is_over():
                if self._slot is not None:
                    self._current, self._slot = self._slot, None
                elif (entry := self._spool.head()) is not None:
                    self._current = _Message(entry.data, entry.items, entry)
                if self._current is not None:
                    return self._current
                if self._complete:
                    break
                if not self._changed.wait(idle_s):
                    idle_s = None
                    self._transport.rest()
            self._ended = True
            self._changed.notify_all()
            return None

    def _post(self, body: Body, seconds_left: float | None) -> Answer:
        answer = self._transport.post(body, seconds_left)
        self._failing = answer.verdict is Verdict.RETRY
        return answer

    def _time_left(self) -> float:
        return math.inf if self._give_up_at is None else self._give_up_at - time.monotonic()

    def _is_over(self) -> bool:
        """Whether to try nothing more: the end has begun, and no time or no use is left."""
        closing = self._closing.is_set()
        return closing and (self._time_left() <= 0 or (self._failing and self._spool.durable))

    def _seconds_left(self) -> float | None:
        """``None`` while the end has not begun; nothing if what waits is safe and cannot go."""
        if self._give_up_at is None:
            return None
        current = self._current
        if self._failing and self._spool.durable and current is not None and current.entry:
            return 0.0
        return self._time_left()

    def _settle(self, message: _Message, answer: Answer | None) -> None:
        """Count what became of ``message``; ``None`` is a defect. With the lock."""
        if answer is not None and answer.verdict is Verdict.RETRY:
            self._leave(message)
            return
        if answer is None:
            self._drop(message.items, Reason.INTERNAL)
        elif answer.verdict is Verdict.ACCEPTED:
            rejected = min(max(answer.rejected, 0), message.items)
            self._counters.add(self._ledger.sent, message.items - rejected)
            self._drop(rejected, Reason.REJECTED)
            if rejected or answer.error:
                self._report(f"{rejected} items rejected: {answer.error or 'no reason given'}")
        else:
            self._drop(message.items, Reason.REFUSED)
            self._report(f"{message.items} items given up: {answer.error}")
        message.settled = True
        if message.entry is not None:
            self._spool.acknowledge(message.entry)

    def _leave(self, message: _Message | None) -> None:
        """Nobody tries ``message`` any more: store it if it is not. With the lock."""
        if message is None or message.settled:
            return
        message.settled = True
        if message.entry is None:
            if not self._store(message.body, message.items):
                self._drop(message.items, Reason.UNWRITABLE)
        elif not self._spool.keeps(message.entry):
            self._drop(message.items, Reason.SPOOL_FULL)

    def _drop(self, items: int, reason: Reason) -> None:
        if items:
            self._counters.add(self._ledger.dropped, items, reason)

    def _report(self, error: str) -> None:
        self._trouble.report(f"{self._transport.url}: {error}")
