# SPDX-License-Identifier: Apache-2.0
"""``otelcol.processor.batch``: many small messages become few large ones.

It is a queue: what it has taken it keeps until somebody behind it takes it, and what it has no
room for goes back to the sender.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from otelauto.agent.pipeline import Context, Fields, Metrics, Payload, Refused, Running, Traces
from otelauto.agent.river.values import Value
from otelauto.agent.running.otlp_intake import KINDS
from otelauto.agent.running.outputs import Outputs, as_input, seconds
from otelauto.agent.running.split import split
from otelauto.agent.schema import Decoded
from otelauto.counters import Counters, Meaning

BATCHES_SENT = Meaning(
    "agent_batches_sent",
    "Batches that a batch processor made and somebody took, by signal. Not a loss.",
    "signal",
)
ITEMS_GIVEN_UP = Meaning(
    "agent_items_given_up",
    "Spans and data points that a component had taken and could not pass on.",
    "reason",
)
MAX_HELD = 32 * 1024 * 1024  # bytes of each signal, one message if it is larger
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
FULL_RETRY_S = 1.0
STOPPED = "the agent is being stopped"
LAST_S = 0.5  # that the end of a batch in progress may take beyond the deadline


class Batch(Running):
    """With ``metadata_keys`` what came with different values of these fields is not mixed: each
    combination has a queue and a thread of its own, and the batches carry those fields on. The
    bytes that may be held are for all of them together.
    """

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        outputs = Outputs(content, context.counters)
        self._send: dict[str, Callable[[Any], None]] = {
            "traces": outputs.traces,
            "metrics": outputs.metrics,
        }
        self._held = {signal: _Held() for signal in self._send}
        self._keys = sorted({each.lower() for each in content["metadata_keys"]})
        self._most = int(content["metadata_cardinality_limit"])
        self._lock = threading.Lock()
        self._stopping = False
        self._queues: dict[tuple[str, tuple[str | None, ...]], _Queue] = {}

    @property
    def exports(self) -> Mapping[str, Value]:
        return as_input(self)

    def stop(self, deadline_s: float) -> None:
        until = time.monotonic() + deadline_s
        with self._lock:
            self._stopping = True
        for queue in self._queues.values():
            queue.close(until)
        for queue in self._queues.values():
            queue.join()

    def traces(self, payload: Traces) -> None:
        """Take the spans, or raise :class:`Refused` if it holds too many."""
        self._queue("traces", payload.fields).put(payload)

    def metrics(self, payload: Metrics) -> None:
        """Take the data points, or raise :class:`Refused` if it holds too many."""
        self._queue("metrics", payload.fields).put(payload)

    def status(self) -> Mapping[str, str | int | float]:
        with self._lock:
            queues = dict(self._queues)
        found: dict[str, str | int | float] = {
            f"{signal} held": sum(q.items for (of, _), q in queues.items() if of == signal)
            for signal in self._send
        }
        if self._keys:
            found["combinations of metadata"] = len({values for _, values in queues})
        return found

    def _queue(self, signal: str, fields: Fields) -> _Queue:
        """That of the fields' values; raises :class:`Refused` if there are too many already."""
        values = tuple(fields.get(key) for key in self._keys)
        with self._lock:
            found = self._queues.get((signal, values))
            if found is not None:
                return found
            if self._stopping:
                raise Refused(STOPPED)
            if self._keys and 0 < self._most <= sum(of == signal for of, _ in self._queues):
                raise Refused(
                    f"more than {self._most} combinations of metadata (metadata_cardinality_limit)",
                    permanent=True,
                )
            kept = {key: fields[key] for key in self._keys if key in fields}
            found = _Queue(signal, self._send[signal], self, kept, self._held[signal])
            self._queues[signal, values] = found
            found.start()
            return found

    def say(self, error: str) -> None:
        """The last thing that went wrong; empty when it went well again."""
        self.last_error = error


class _Held:
    """Bytes that are held of a signal. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0

    def take(self, size: int) -> bool:
        """Whether there is room for ``size`` bytes; for one message there always is."""
        with self._lock:
            if self._bytes and self._bytes + size > MAX_HELD:
                return False
            self._bytes += size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._bytes -= size


class _Queue:
    """What is held of one signal, and the thread that sends it, with ``fields``."""

    def __init__(
        self,
        signal: str,
        send: Callable[[Any], None],
        batch: Batch,
        fields: Fields,
        held: _Held,
    ) -> None:
        content, context = batch.content, batch.context
        self._signal = signal
        self._kind: Any = KINDS[signal]
        self._send = send
        self._say = batch.say
        self._fields = fields
        self._room = held
        self._counters: Counters = context.counters
        self._log = context.log
        self._timeout_s = seconds(content["timeout"])
        # Without a timeout everything is sent at once.
        self._enough = int(content["send_batch_size"]) if self._timeout_s else 1
        self._most = int(content["send_batch_max_size"])
        self._changed = threading.Condition()
        # Items, the message as bytes, and when it came.
        self._held: deque[tuple[int, bytes, float]] = deque()
        self.items = 0  # held, or being sent
        self._until: float | None = None  # when the end is, once it is known
        self._thread = threading.Thread(
            target=self._run, name=f"{context.id}-{signal}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def close(self, until: float) -> None:
        """Take nothing any more, and send what is held until then."""
        with self._changed:
            self._until = until
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the end that ``close`` set; whoever does not let go of a batch then keeps it."""
        if self._thread.is_alive() and self._until is not None:
            self._thread.join(max(0.0, self._until - time.monotonic()) + LAST_S)
        if self._thread.is_alive():
            self._counters.add(ITEMS_GIVEN_UP, self.items, "shutdown")
            self._log.warning("%d items of %s were given up", self.items, self._signal)

    def put(self, payload: Payload[Any]) -> None:
        encoded = payload.encoded
        size = len(encoded)
        with self._changed:
            if self._until is not None:
                raise Refused(STOPPED)
            if not self._room.take(size):
                raise Refused("the batch processor is full", retry_after_s=FULL_RETRY_S)
            self._held.append((payload.items, encoded, time.monotonic()))
            self.items += payload.items
            # The sender sleeps until the timeout; it is woken for the first, and for enough.
            if len(self._held) == 1 or self.items >= self._enough:
                self._changed.notify()

    def _run(self) -> None:
        while (whole := self._next()) is not None:
            items, size = whole.items, len(whole.encoded)
            for batch in self._parts(whole):
                self._deliver(batch)
            del whole
            self._room.give(size)
            with self._changed:
                self.items -= items

    def _next(self) -> Payload[Any] | None:
        """What is to be sent now; ``None`` at the end. It waits for it."""
        with self._changed:
            while True:
                closing = self._until is not None
                if not self._held:
                    if closing:
                        return None
                    self._changed.wait()
                    continue
                wait = self._held[0][2] + self._timeout_s - time.monotonic()
                if closing or wait <= 0 or self.items >= self._enough:
                    return self._taken()
                self._changed.wait(wait)

    def _taken(self) -> Payload[Any]:
        """The oldest messages, as many as are enough: what piled up is no batch for anybody."""
        items, parts = 0, []
        while self._held and items < self._enough:
            count, encoded, _ = self._held.popleft()
            items += count
            parts.append(encoded)
        return Payload(self._kind, items, parts, fields=self._fields)

    def _parts(self, whole: Payload[Any]) -> Iterator[Payload[Any]]:
        """Batches of no more than the largest size."""
        if not self._most or whole.items <= self._most:
            yield whole
            return
        try:
            yield from split(whole, self._most)
        except DecodeError:
            self._give_up(whole, "malformed", "it is no message")

    def _deliver(self, batch: Payload[Any]) -> None:
        """Send until somebody has it, or nobody ever will, or time is up."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                self._send(batch)
            except Refused as refused:
                if refused.permanent:
                    return self._give_up(batch, "refused", str(refused))
                self._say(str(refused))
                if not self._wait(refused.retry_after_s or pause):
                    return self._give_up(batch, "shutdown", str(refused))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except Exception:
                self._log.exception("a batch failed")
                return self._give_up(batch, "fault", "an internal error; it is in the log")
            else:
                self._counters.add(BATCHES_SENT, 1, self._signal)
                self._say("")
                return None

    def _give_up(self, batch: Payload[Any], reason: str, error: str) -> None:
        self._counters.add(ITEMS_GIVEN_UP, batch.items, reason)
        self._say(f"{batch.items} {self._signal} items were given up: {error}")
        self._log.warning("%d items of %s were given up: %s", batch.items, self._signal, error)

    def _wait(self, pause_s: float) -> bool:
        """Wait before another try; false when there is no time for one."""
        end = time.monotonic() + pause_s
        with self._changed:
            while (left := end - time.monotonic()) > 0:
                if self._until is not None:
                    if self._until <= time.monotonic():
                        return False
                    left = min(left, self._until - time.monotonic(), FIRST_PAUSE_S)
                    self._changed.wait(left)
                    return True  # closing: a try soon is worth more than a pause
                self._changed.wait(left)
        return True
