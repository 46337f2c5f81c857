# SPDX-License-Identifier: Apache-2.0
"""One endpoint of ``prometheus.remote_write``: follows the log, and delivers what it reads there.

It reads a *window*: records of the log in which no series is twice. The window is sent in several
requests at once, and the position in the log moves behind it when all of them have an answer that
counts. So no series ever has two samples of which nobody knows whether they arrived: what is sent
again, after a lost answer or a kill, is what the server has as its newest, which it accepts
(Prometheus: an equal sample is no duplicate), and never out of order.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from otelauto.agent.pipeline import Metadata
from otelauto.agent.prometheus.counted import (
    METADATA_SENT,
    REQUESTS_FAILED,
    SAMPLES_DROPPED,
    SAMPLES_RELABELLED_AWAY,
    SAMPLES_SENT,
)
from otelauto.agent.prometheus.position import read_position, write_position
from otelauto.agent.prometheus.relabel import relabelled, rule_of
from otelauto.agent.prometheus.remote import (
    V1,
    V2,
    Entry,
    Target,
    decoded_labels,
    metadata_request,
    write_request,
    write_request_v2,
)
from otelauto.agent.prometheus.sender import Sender, Settings
from otelauto.agent.prometheus.wal import HISTOGRAM, Log, Position, Reader, Record, encoded_labels
from otelauto.agent.schema import Decoded
from otelauto.counters import Counters
from otelauto.export.protobuf import fields
from otelauto.export.transport import Answer, Verdict

GATHER_MAX: Final = 50_000  # samples of a window: memory, and what may be sent again after a kill
METADATA: Final = "metadata: "  # what an error begins with that is about no samples
AGAIN_S: Final = 1.0  # after something that should not have happened
FAILING_S: Final = 2.0  # for an endpoint that fails when the agent stops


@dataclass(slots=True)
class _Window:
    """What is sent before the position moves on to ``end``."""

    end: Position
    entries: list[Entry] = field(default_factory=list)
    refs: set[int] = field(default_factory=set)
    read: int = 0  # samples of the records, dropped ones too
    written_ms: int = 0  # when the first of them was appended, since the epoch


class Endpoint:
    """Delivers to the URL of an ``endpoint`` block. One thread of its own, and some that send.

    Raises:
        ConfigError: an argument cannot be used.
    """

    def __init__(
        self,
        block: Decoded,
        external: Mapping[str, str],
        wal: Log,
        counters: Counters,
        log: logging.Logger,
        *,
        keep_at_most_s: float,
        metadata: Callable[[], Mapping[str, Metadata]],
    ) -> None:
        self._settings = Settings(block)
        self._rules = [rule_of(each) for each in block.blocks.get("write_relabel_config", ())]
        self._external = sorted(external.items())
        self._wal = wal
        self._counters = counters
        self._log = log
        self._keep_at_most_s = keep_at_most_s
        self._metadata = metadata
        self._protocol: str = block["protobuf_message"] or V1
        self._closing = threading.Event()
        self._until = 0.0
        self._senders: list[Sender] = [self._sender()]  # the first also tells a wrong URL now
        self._free = deque(self._senders)
        self._pool: ThreadPoolExecutor | None = None
        self.name = block["name"] or self._senders[0].shown
        self.identity = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        self._targets: dict[bytes, Target | None] = {}
        self._record_targets: list[Target | None] = []
        self._record_series: list[bytes] = []
        self._reader: Reader | None = None
        self._lookahead: Record | None = None
        self._path = Path()
        self._done = 0  # of the log's total
        self._metadata_due = 0.0
        self._thread = threading.Thread(
            target=self._run, name=f"remote-write-{self.identity}", daemon=True
        )
        self.position = Position(0, 0)
        self.error = ""

    def _sender(self) -> Sender:
        return Sender(self._settings, self._closing, self._seconds_left, self._report)

    @property
    def pending(self) -> int:
        """Samples that wait in the log."""
        return max(0, self._wal.total - self._done)

    def status(self) -> dict[str, str | int | float]:
        """For the page."""
        return {"url": self._senders[0].shown, "pending": self.pending, "protocol": self._protocol}

    # ---- begin and end ----

    def open(self, directory: Path, otherwise: Position) -> None:
        """Find where an earlier process stopped; a new endpoint begins at ``otherwise``."""
        self._path = directory / f"{self.identity}.position"
        stored = read_position(self._path)
        if stored is None and self._path.exists():
            self._log.warning("%s is damaged: all of the log is sent again", self._path)
            stored = self._wal.start()
        self.position = stored or otherwise
        # A loss of power may have left less of the log than was read of it.
        self.position = max(self._wal.start(), min(self.position, self._wal.end()))
        self._done = self._wal.total - self._wal.behind(self.position)
        write_position(self._path, self.position)
        self._reader = Reader(self._wal, self.position)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def end(self, deadline_s: float) -> None:
        """Begin to end: deliver what waits, for so long at most; the rest stays in the log."""
        # What an endpoint that does not answer has not got is safe in the log.
        self._until = time.monotonic() + (min(deadline_s, FAILING_S) if self.error else deadline_s)
        self._closing.set()
        with self._wal.grown:
            self._wal.grown.notify_all()

    def join(self) -> None:
        """Wait for the end that :meth:`end` began."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, self._until - time.monotonic()))
            for sender in self._senders:
                sender.abort()
            self._thread.join()
        if self._pool is not None:
            self._pool.shutdown()
        for sender in self._senders:
            sender.close()
        if self._reader is not None:
            self._reader.close()

    def _seconds_left(self) -> float | None:
        return self._until - time.monotonic() if self._closing.is_set() else None

    def _out_of_time(self) -> bool:
        left = self._seconds_left()
        return left is not None and left <= 0

    # ---- the thread ----

    def _run(self) -> None:
        while True:
            try:
                if not self._turn():
                    return
            except Exception as error:
                self._log.exception("%s: %s", self.name, error)
                self._report(f"a window could not be sent: {error!r}")
                self._rewind()
                if self._closing.wait(AGAIN_S):
                    return

    def _rewind(self) -> None:
        """Read again from where delivery stopped; what was read of it counts as never seen."""
        if self._reader is not None:
            self._reader.close()
        self._reader, self._lookahead = Reader(self._wal, self.position), None
        self._targets, self._record_targets, self._record_series = {}, [], []

    def _turn(self) -> bool:
        """Gather and deliver one window; false when it is time to end."""
        self._send_metadata()
        window = self._gather()
        if window is not None:
            if not self._deliver(window):
                return False  # it stays in the log
            self.position = window.end
            self._done += window.read
            write_position(self._path, self.position)
        return not self._closing.is_set() or (window is not None and not self._out_of_time())

    def _gather(self) -> _Window | None:
        """The next window; ``None``: none within the time that metadata may wait."""
        full = min(GATHER_MAX, self._shards() * self._settings.batch)
        window: _Window | None = None
        until = self._metadata_due
        while True:
            seen = self._wal.total
            record = self._next_record()
            if record is None:
                if self._closing.is_set() or not self._wait(seen, until):
                    return window
                continue
            if window is None:
                window = _Window(record.end, written_ms=record.written_ms)
                until = time.monotonic() + self._settings.deadline_s
            elif not self._fits(record, window, full):
                return window
            self._lookahead = None
            self._take(record, window)
            if window.read >= full:
                return window

    def _next_record(self) -> Record | None:
        if self._lookahead is None and self._reader is not None:
            damaged = self._reader.damaged
            self._lookahead = self._reader.next()
            self._done += self._reader.damaged - damaged
        return self._lookahead

    def _wait(self, seen: int, until: float) -> bool:
        """Wait for the log to have more than ``seen`` samples; false when it did not in time."""
        with self._wal.grown:
            left = until - time.monotonic()
            if left <= 0:
                return False
            return self._wal.grown.wait_for(
                lambda: self._wal.total != seen or self._closing.is_set(), left
            )

    def _fits(self, record: Record, window: _Window, full: int) -> bool:
        """Whether no series of ``record`` is in ``window`` already, and there is room."""
        if record.at.segment != window.end.segment or window.read + record.items > full:
            return False
        refs = window.refs
        return not any(sample[0] in refs for sample in record.samples) and not any(
            each[1] in refs for each in record.attached
        )

    def _shards(self) -> int:
        """How many requests at once: one more for each ``capacity`` samples that wait."""
        wanted = self.pending // self._settings.capacity + 1
        return max(self._settings.min_shards, min(wanted, self._settings.max_shards))

    # ---- what is sent of a record ----

    def _take(self, record: Record, window: _Window) -> None:
        window.end = record.end
        window.read += record.items
        if self._expired(record.written_ms):
            self._drop("too_old", record.items)
            return
        targets = self._targets_of(record)
        oldest = self._settings.oldest_ms()
        attached = self._attached(record)
        lost: dict[str, int] = {}
        hidden = 0
        entries, refs = window.entries, window.refs
        for ref, timestamp_ms, value in record.samples:
            refs.add(ref)
            target = targets[ref]
            if target is None:
                hidden += 1
            elif timestamp_ms < oldest:
                lost["too_old"] = lost.get("too_old", 0) + 1
            elif timestamp_ms > target.latest_ms:
                target.latest_ms, target.value, target.seen = timestamp_ms, value, record.at.segment
                with_it = tuple(attached.pop(ref)) if ref in attached else ()
                entries.append(Entry(target, timestamp_ms, value, with_it))
            else:
                reason = _repeated(target, timestamp_ms, value)
                lost[reason] = lost.get(reason, 0) + 1
        for ref, rest in attached.items():
            refs.add(ref)
            hidden += self._take_attached(targets[ref], rest, entries, lost, record.at.segment)
        for reason, count in lost.items():
            self._drop(reason, count)
        if hidden:
            self._counters.add(SAMPLES_RELABELLED_AWAY, hidden)

    def _attached(self, record: Record) -> dict[int, list[tuple[int, bytes]]]:
        """Exemplars and histograms by series; only what this endpoint wants."""
        found: dict[int, list[tuple[int, bytes]]] = {}
        for kind, ref, data in record.attached:
            if kind == HISTOGRAM or self._settings.exemplars:
                found.setdefault(ref, []).append((kind, data))
        return found

    def _take_attached(
        self,
        target: Target | None,
        attached: Sequence[tuple[int, bytes]],
        entries: list[Entry],
        lost: dict[str, int],
        segment: int,
    ) -> int:
        """Of a series without a float sample here: a histogram; returns how many are hidden."""
        histograms = sum(kind == HISTOGRAM for kind, _ in attached)
        if target is None or not histograms:
            return histograms
        timestamp_ms = max(_histogram_ms(data) for kind, data in attached if kind == HISTOGRAM)
        if not self._settings.histograms:
            lost["native_histograms_off"] = lost.get("native_histograms_off", 0) + histograms
        elif timestamp_ms > target.latest_ms:
            target.latest_ms, target.seen = timestamp_ms, segment
            entries.append(Entry(target, timestamp_ms, None, tuple(attached)))
        else:
            reason = "repeated" if timestamp_ms == target.latest_ms else "out_of_order"
            lost[reason] = lost.get(reason, 0) + histograms
        return 0

    def _targets_of(self, record: Record) -> list[Target | None]:
        """The targets of the segment's series so far, by their places."""
        if record.series is not self._record_series:
            self._record_series, self._record_targets = record.series, []
            keep = record.at.segment - 1
            self._targets = {
                labels: target
                for labels, target in self._targets.items()
                if target is not None and target.seen >= keep
            }
        known = self._record_targets
        for labels in record.series[len(known) :]:
            known.append(self._target(labels, record.at.segment))
        return known

    def _target(self, labels: bytes, segment: int) -> Target | None:
        if self._external or self._rules:
            given = dict(decoded_labels(labels))
            whole = {**dict(self._external), **given}
            kept = relabelled(tuple(whole.items()), self._rules)
            if kept is None:
                return None
            labels = encoded_labels(kept)
        target = self._targets.get(labels)
        if target is None:
            target = self._targets[labels] = Target(labels, segment)
        return target

    def _expired(self, written_ms: int) -> bool:
        return time.time() - written_ms / 1000 > self._keep_at_most_s

    def _drop(self, reason: str, count: int) -> None:
        self._counters.add(SAMPLES_DROPPED, count, reason)

    # ---- sending ----

    def _deliver(self, window: _Window) -> bool:
        """Send all of it; false if there was no time for some of it."""
        size = self._settings.batch
        entries = window.entries
        batches = [entries[at : at + size] for at in range(0, len(entries), size)]
        if len(batches) <= 1:
            return all(self._send(batch, window) for batch in batches)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._settings.max_shards, self._settings.thread_name)
        done = self._pool.map(lambda batch: self._send(batch, window), batches)
        return all(list(done))

    def _send(self, batch: Sequence[Entry], window: _Window) -> bool:
        """Send a batch until it is accepted or refused; false if there was no time."""
        try:
            sender = self._free.pop()
        except IndexError:
            sender = self._new_sender()
        try:
            return self._send_with(sender, batch, window)
        finally:
            self._free.append(sender)

    def _new_sender(self) -> Sender:
        sender = self._sender()
        self._senders.append(sender)
        return sender

    def _send_with(self, sender: Sender, batch: Sequence[Entry], window: _Window) -> bool:
        items = sum(each.value is not None or bool(each.attached) for each in batch)
        protocol = self._protocol
        v2 = protocol == V2
        body = write_request_v2(batch, self._metadata()) if v2 else write_request(batch)
        newest_ms = max((each.timestamp_ms for each in batch), default=0)
        answer = sender.send(
            body,
            protocol,
            items,
            lambda: self._expired(window.written_ms) or newest_ms < self._settings.oldest_ms(),
        )
        if sender.wants_v1 and v2:
            self._fall_back()
            return self._send_with(sender, batch, window)
        if answer.verdict is Verdict.RETRY:
            return False
        self._account(answer, items)
        return True

    def _account(self, answer: Answer, items: int) -> None:
        if answer.verdict is Verdict.REFUSED:
            items_lost, reason = items - answer.rejected, "refused"
            if answer.error == Sender.EXPIRED:
                items_lost, reason = items, "too_old"
            self._drop(reason, items_lost)
            self._counters.add(SAMPLES_SENT, items - items_lost)
            self._report(f"{items_lost} samples are given up: {answer.error}")
            return
        self._counters.add(SAMPLES_SENT, items - answer.rejected)
        if answer.rejected:
            self._drop("not_written", answer.rejected)
        if self.error:
            self._log.info("%s: delivers again", self.name)
            self.error = ""

    def _fall_back(self) -> None:
        if self._protocol != V1:
            self._log.warning("%s does not know remote write 2.0; 1.0 is used", self.name)
            self._protocol = V1

    def _send_metadata(self) -> None:
        """Remote write 1.0 has it in messages of its own, from time to time."""
        if time.monotonic() < self._metadata_due:
            return
        self._metadata_due = time.monotonic() + self._settings.metadata_s
        known = list(self._metadata().values())
        if self._protocol != V1 or not self._settings.metadata or self._closing.is_set():
            return
        size = self._settings.metadata_batch
        for at in range(0, len(known), size):
            part = known[at : at + size]
            answer = self._senders[0].post_once(metadata_request(part), V1)
            if answer.verdict is not Verdict.ACCEPTED:
                self._report(METADATA + answer.error)
                return
            self._counters.add(METADATA_SENT, len(part))
        if self.error.startswith(METADATA):
            self.error = ""

    def _report(self, error: str) -> None:
        """A request failed: say it once as long as it is the same."""
        self._counters.add(REQUESTS_FAILED)
        level = logging.DEBUG if error == self.error else logging.WARNING
        self._log.log(level, "%s: %s", self.name, error)
        self.error = error


def _repeated(target: Target, timestamp_ms: int, value: float) -> str:
    """Why a sample is not sent that is not newer than the last one of its series."""
    if timestamp_ms < target.latest_ms:
        return "out_of_order"
    same = value == target.value or (value != value and target.value != target.value)
    return "repeated" if same else "duplicate_timestamp"


def _histogram_ms(data: bytes) -> int:
    """The timestamp of an encoded histogram."""
    found = next((value for number, value in fields(data) if number == 15), 0)
    return found if isinstance(found, int) else 0
