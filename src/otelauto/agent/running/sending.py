# SPDX-License-Identifier: Apache-2.0
"""The sending queue of an exporter: bounded, retried as specified, kept over a restart.

Whoever brings a request is told at once whether it is taken; from then on the queue answers for it:
it is delivered, waits (at the end in a spool), or is counted as given up with the reason.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from otelauto.agent.pipeline import Context, Metrics, Refused, Traces
from otelauto.agent.schema import Decoded
from otelauto.counters import Meaning
from otelauto.errors import OtelautoError
from otelauto.export.exporter import Reason, Trouble
from otelauto.export.outbox import REASONS
from otelauto.export.retry import Retry
from otelauto.export.spool import DiskSpool, Entry, Loss
from otelauto.export.transport import REST_AFTER_S, Answer, Body, Transport, Verdict

NS: Final = 1e9
SPOOL_BYTES: Final = 1 << 30
GRACE_S: Final = 0.5  # for an aborted request to end
FULL_AGAIN_S: Final = 1.0  # when a sender may try a full queue again
SIGNALS: Final = {b"t": "traces", b"m": "metrics"}  # the first byte of a stored request
KINDS: Final = {"traces": "spans", "metrics": "points"}

SENT = Meaning("agent_exporter_items_sent", "Spans and data points that an endpoint took.", "kind")
DROPPED = Meaning(
    "agent_exporter_items_dropped", "Spans and data points that an exporter gave up.", "reason"
)
RECOVERED = Meaning(
    "agent_exporter_items_recovered",
    "Spans and data points that an earlier run of an exporter had left in its spool.",
)
ATTEMPTS_FAILED = Meaning(
    "agent_exporter_attempts_failed", "Requests that an endpoint did not take.", "reason"
)

Request = Traces | Metrics
Connect = Callable[[str], Transport]  # a new connection for a signal, traces or metrics


@dataclass(slots=True, eq=False)
class _Entry:
    """A request in the queue; ``stored`` if it waits in the spool."""

    signal: str
    items: int
    request: Request | None = None
    stored: Entry | None = None
    settled: bool = False

    @property
    def body(self) -> bytes:
        if self.stored is not None:
            return self.stored.data[1:]
        assert self.request is not None  # noqa: S101 - it is one or the other
        return self.request.encoded


Take = Callable[[Callable[[], None]], _Entry | None]


class SendingQueue:
    """Delivers requests by up to ``num_consumers`` threads, started as they are needed; with a
    ``storage`` by one, in order, from there.

    A wrong credential is tried again like an endpoint that is not there, which the OTLP
    specification does not ask for: it is put right more often than not.
    """

    def __init__(
        self,
        context: Context,
        connect: Connect,
        queue: Decoded,
        retry: Decoded,
        failed: Callable[[str], None],
    ) -> None:
        self._context = context
        self._connect = connect
        self._failed = failed
        self._waits = bool(queue["block_on_overflow"])
        self._size = int(queue["queue_size"])
        self._most = int(queue["num_consumers"]) if queue["enabled"] else 0
        self._retry_config = retry
        self._counters = context.counters
        self._trouble = Trouble(context.id)
        storage = queue["storage"]
        self._store_first = storage is not None
        self._directory = storage.inner / context.id if storage else context.directory / "queue"
        self._spool = DiskSpool(self._directory, SPOOL_BYTES, self._lost, self._found)
        self._changed = threading.Condition()
        self._entries: deque[_Entry] = deque()
        self._in_hand: set[_Entry] = set()
        self._lines: list[_Line] = []
        self._consumers = 0  # threads that take from the queue
        self._idle = 0  # those of them that wait
        self._closing = threading.Event()
        self._give_up_at = math.inf
        self._failing = False

    def start(self) -> None:
        """Deliver first what an earlier run left."""
        try:
            if self._store_first or self._directory.exists():
                self._spool.open()
        except OSError as error:
            why = f"{self._directory} cannot be used: {error.strerror}"
            if self._store_first:
                raise OtelautoError(why, "Give another directory.") from error
            self._context.log.warning("what an earlier run left is not sent: %s", why)
        with self._changed:
            if self._spool.items or self._store_first:
                self._begin(self._take_stored)

    def put(self, signal: str, request: Request) -> None:
        """Take a request.

        Raises:
            Refused: the queue is full, or the exporter stops; with the queue disabled, the
                endpoint did not take it.
        """
        entry = _Entry(signal, request.items, request)
        if not self._most:
            self._send_now(entry)
            return
        with self._changed:
            if self._store_first:
                self._store_now(entry)
                return
            while not self._closing.is_set() and len(self._entries) >= self._size:
                if not self._waits:
                    raise Refused(
                        f"the queue of {self._context.id} is full", retry_after_s=FULL_AGAIN_S
                    )
                self._changed.wait()
            self._refuse_if_closing()
            self._entries.append(entry)
            if len(self._entries) > self._idle and self._consumers < self._most:
                self._consumers += 1
                self._begin(self._take)
            self._changed.notify_all()

    def queued(self) -> tuple[int, int]:
        """Requests that wait or are being sent, and items in the spool."""
        with self._changed:
            return len(self._entries) + len(self._in_hand), self._spool.items

    def stop(self, deadline_s: float) -> None:
        """Deliver what can be delivered in ``deadline_s``; the rest waits in the spool."""
        with self._changed:
            self._give_up_at = time.monotonic() + deadline_s
            self._closing.set()
            self._changed.notify_all()
        for line in self._lines:
            if line.thread.ident is not None:
                line.thread.join(max(0.0, self._give_up_at - time.monotonic()))
        late = [line for line in self._lines if line.thread.is_alive() or line.lent_to]
        for line in late:
            line.abort()
        until = time.monotonic() + GRACE_S
        for line in late:
            if line.thread.is_alive():
                line.thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            left = [*self._in_hand, *self._entries]
            self._entries.clear()
            self._in_hand.clear()
            for entry in left:
                self._leave(entry)
            self._spool.close()

    # ---- delivery ----

    def _begin(self, take: Take) -> None:
        line = _Line(self, take)
        self._lines.append(line)
        line.thread.start()

    def _take(self, rest: Callable[[], None]) -> _Entry | None:
        """The next request; ``None`` at the end. ``rest`` is called once if there is none for
        ``REST_AFTER_S``.
        """
        patience: float | None = REST_AFTER_S
        while True:
            with self._changed:
                self._idle += 1
                came = self._changed.wait_for(
                    lambda: self._entries or self._closing.is_set(), patience
                )
                self._idle -= 1
                if came:
                    if not self._entries or self._is_over():
                        return None
                    entry = self._entries.popleft()
                    self._in_hand.add(entry)
                    self._changed.notify_all()
                    return entry
            rest()
            patience = None

    def _take_stored(self, rest: Callable[[], None]) -> _Entry | None:
        """The same, of the spool; without a ``storage`` an empty one is the end."""
        with self._changed:
            found = None if self._is_over() else self._spool.head()
            while found is None and self._store_first and not self._closing.is_set():
                if not self._changed.wait(REST_AFTER_S):
                    rest()
                found = self._spool.head()
            if found is None:
                return None
            entry = _Entry(SIGNALS.get(found.data[:1], "traces"), found.items, stored=found)
            self._in_hand.add(entry)
            return entry

    def _is_over(self) -> bool:
        """Whether nothing more is to be tried: the end has begun, with no time or no use left."""
        return self._closing.is_set() and (self._failing or time.monotonic() >= self._give_up_at)

    def seconds_left(self) -> float | None:
        """For one request at the end; ``None`` before that, nothing if it would be in vain."""
        if not self._closing.is_set():
            return None
        return 0.0 if self._failing else max(0.0, self._give_up_at - time.monotonic())

    def attempted(self, answer: Answer) -> Answer:
        """Remember how an attempt ended; says what is to be done now."""
        if answer.verdict is Verdict.ACCEPTED:
            if self._failing:
                self._context.log.info("delivers again")
            self._failing = False
            self._failed("")
            return answer
        reason = "unauthorized" if answer.unauthorized else answer.verdict.value
        self._counters.add(ATTEMPTS_FAILED, 1, reason)
        self._failed(answer.error)
        if answer.unauthorized:
            answer = Answer(Verdict.RETRY, answer.error, unauthorized=True)
        self._failing = answer.verdict is Verdict.RETRY
        return answer

    def settle(self, entry: _Entry, answer: Answer | None) -> None:
        """Count what became of ``entry``; ``None`` is a defect."""
        with self._changed:
            if entry not in self._in_hand:
                return  # too late: it was stored
            self._in_hand.discard(entry)
            if answer is not None and answer.verdict is Verdict.RETRY and self._closing.is_set():
                self._leave(entry)
            else:
                self._count(entry, answer)
                if entry.stored is not None:
                    self._spool.acknowledge(entry.stored)
            self._changed.notify_all()

    def _count(self, entry: _Entry, answer: Answer | None) -> None:
        if answer is None:
            self._drop(entry.items, Reason.INTERNAL)
        elif answer.verdict is Verdict.ACCEPTED:
            rejected = min(max(answer.rejected, 0), entry.items)
            self._counters.add(SENT, entry.items - rejected, KINDS[entry.signal])
            self._drop(rejected, Reason.REJECTED)
            if rejected or answer.error:
                self.report(f"{rejected} items rejected: {answer.error or 'no reason given'}")
        else:
            given_up = answer.verdict is Verdict.RETRY
            self._drop(entry.items, Reason.UNREACHABLE if given_up else Reason.REFUSED)
            self.report(f"{entry.items} items given up: {answer.error}")

    def _leave(self, entry: _Entry) -> None:
        """The end came first: ``entry`` waits in the spool for the next run."""
        if entry.stored is not None:
            if not self._spool.keeps(entry.stored):
                self._drop(entry.items, Reason.SPOOL_FULL)
            return
        try:
            self._append(entry)
        except OSError as error:
            self.report(f"the spool takes nothing: {error.strerror or error}")
            self._drop(entry.items, Reason.SHUTDOWN)

    def _append(self, entry: _Entry) -> None:
        mark = next(mark for mark, signal in SIGNALS.items() if signal == entry.signal)
        self._spool.append(mark + entry.body, entry.items)

    def _store_now(self, entry: _Entry) -> None:
        """With a queue on disk: what is taken is there, also after the end of this process."""
        self._refuse_if_closing()
        full = self._spool.size + len(entry.body) > SPOOL_BYTES
        why = f"the queue of {self._context.id} is full"
        try:
            if not full:
                self._append(entry)
                self._changed.notify_all()
        except OSError as error:
            full, why = True, f"the queue takes nothing: {error.strerror or error}"
            self.report(why)
        if full:
            raise Refused(why, retry_after_s=FULL_AGAIN_S)

    def _send_now(self, entry: _Entry) -> None:
        """Without a queue: the sender waits, and is told."""
        with self._changed:
            self._refuse_if_closing()
            mine = (each for each in self._lines if each.thread.ident is None)
            line = next((each for each in mine if each.lent_to is None), None)
            if line is None:
                line = _Line(self, self._take)
                self._lines.append(line)
            line.lent_to = entry
        answer = line.send(entry)
        with self._changed:
            line.lent_to = None
            if answer is not None and answer.verdict is Verdict.ACCEPTED:
                self._count(entry, answer)
                return
        said = answer.error if answer is not None else "internal error"
        permanent = answer is None or answer.verdict is Verdict.REFUSED
        after = answer.retry_after_s if answer is not None else None
        raise Refused(said, retry_after_s=after, permanent=permanent)

    def _refuse_if_closing(self) -> None:
        if self._closing.is_set():
            raise Refused(f"{self._context.id} stops", retry_after_s=FULL_AGAIN_S)

    def _drop(self, items: int, reason: Reason) -> None:
        if items:
            self._counters.add(DROPPED, items, reason)

    def _lost(self, items: int, loss: Loss) -> None:
        self._drop(items, REASONS[loss])

    def _found(self, items: int) -> None:
        self._counters.add(RECOVERED, items)
        self._context.log.info("%d items of an earlier run are sent now", items)

    def report(self, error: str) -> None:
        """Log trouble, at most once a minute."""
        self._trouble.report(error)

    def sender(self, transport: Transport) -> Callable[[Body], Answer]:
        """What delivers by one connection, as ``retry_on_failure`` says."""
        config, spread = self._retry_config, float(self._retry_config["randomization_factor"])

        def post(body: Body, seconds_left: float | None) -> Answer:
            return self.attempted(transport.post(body, seconds_left))

        if not config["enabled"]:
            return lambda body: post(body, self.seconds_left())
        return Retry(
            post,
            lambda error: self.report(f"{transport.url}: {error}"),
            self._closing,
            self.seconds_left,
            first_pause_s=config["initial_interval"] / NS,
            longest_pause_s=config["max_interval"] / NS,
            growth=float(config["multiplier"]),
            jitter=(1 - spread, 1 + spread),
            limit_s=config["max_elapsed_time"] / NS,
        ).send

    def connect(self, signal: str) -> Transport:
        """A connection of one line's own."""
        return self._connect(signal)


class _Line:
    """A thread that delivers, with its connections: one for each signal, made when needed."""

    def __init__(self, queue: SendingQueue, take: Take) -> None:
        self._queue = queue
        self._take = take
        self._ways: dict[str, tuple[Transport, Callable[[Body], Answer]]] = {}
        self.lent_to: _Entry | None = None
        self.thread = threading.Thread(target=self._run, name="otelauto-agent-send", daemon=True)

    def send(self, entry: _Entry) -> Answer | None:
        """Deliver; ``None`` after a defect."""
        try:  # the thread must outlive a defect
            if entry.signal not in self._ways:
                transport = self._queue.connect(entry.signal)
                self._ways[entry.signal] = transport, self._queue.sender(transport)
            return self._ways[entry.signal][1](entry.body)
        except Exception as error:
            self._queue.report(f"internal error, {entry.items} items lost: {error!r}")
            return None

    def abort(self) -> None:
        """From another thread: make the request in progress fail now."""
        for transport, _ in list(self._ways.values()):
            transport.abort()

    def _rest(self) -> None:
        for transport, _ in self._ways.values():
            transport.rest()

    def _run(self) -> None:
        while (entry := self._take(self._rest)) is not None:
            self._queue.settle(entry, self.send(entry))
        for transport, _ in self._ways.values():
            transport.close()
