# SPDX-License-Identifier: Apache-2.0
"""The write-ahead log: all samples on disk before anybody is told that they were taken.

Append-only segments, each a file of records that needs no other: a record names the series that
are new to its segment, and holds no series twice. Several readers follow, each at its own pace. A
killed process leaves whole records; a torn one at the end was never acknowledged to its sender.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from otelauto.agent.pipeline import Labels, Sample
from otelauto.agent.prometheus.native import encoded_histogram
from otelauto.export.protobuf import double, integer, sized, text

log = logging.getLogger("otelauto.agent.wal")

SEGMENT_BYTES: Final = 64 << 20
RECORD_SAMPLES: Final = 2000
LOCK: Final = "lock"
MAGIC: Final = b"OaW1"
_NAME = re.compile(r"[0-9]{16}\.wal\Z")
# magic, length of the payload, samples in it, checksum of it, milliseconds since the epoch
_HEADER: Final = struct.Struct("<4sIIIQ")
_COUNTS: Final = struct.Struct("<III")  # series, samples, attachments
_LENGTH: Final = struct.Struct("<I")
_SAMPLE: Final = struct.Struct("<Iqd")  # series, milliseconds, value
_ATTACHED: Final = struct.Struct("<BII")  # kind, series, length
EXEMPLAR, HISTOGRAM = 1, 2


class Position(NamedTuple):
    """Where a reader is: a segment's number and the offset of its next record."""

    segment: int
    offset: int


@dataclass(slots=True)
class _Segment:
    number: int
    fd: int
    size: int = 0
    samples: int = 0

    @property
    def name(self) -> str:
        return f"{self.number:016d}.wal"


@dataclass(slots=True)
class Record:
    """What was appended at once. ``series`` are those of the segment so far: encoded labels, which
    ``samples`` (series, milliseconds, value) and ``attached`` (kind, series, an encoded exemplar or
    histogram) refer to by their place. ``items`` are samples and histograms, ``written_ms`` is when
    they were appended, since the epoch.
    """

    at: Position
    end: Position
    items: int
    series: list[bytes]
    samples: list[tuple[int, int, float]]
    attached: list[tuple[int, int, bytes]]
    written_ms: int


def encoded_labels(labels: Labels) -> bytes:
    """As remote write 1.0 has them in a ``TimeSeries`` (field 1)."""
    return b"".join([sized(1, text(1, name) + text(2, value)) for name, value in labels])


class Log:
    """The log in ``directory``. Thread-safe: many append, each reader has one thread.

    ``lost`` gets the number of samples of a record that was damaged, or never whole.
    """

    def __init__(
        self, directory: Path, lost: Callable[[int], None], *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._directory = directory
        self._lost = lost
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self.grown = threading.Condition(self._lock)
        self._segments: dict[int, _Segment] = {}
        self._refs: dict[Labels, int] = {}  # of the segment that is written to
        self._writing: _Segment | None = None
        self._next_number = 1
        self._folder = self._lock_fd = -1
        self._dirty: set[int] = set()  # numbers of segments that are not on the disk
        self.total = 0  # samples that were ever in the log of this process, recovered ones too

    # ---- the directory ----

    def open(self) -> None:
        """Find what an earlier process left. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock_fd = os.open(LOCK, flags, 0o600, dir_fd=self._folder)
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OSError(error.errno, "another agent uses it") from error
            for name in sorted(filter(_NAME.match, os.listdir(self._folder))):  # noqa: PTH208
                self._recover(int(name.partition(".")[0]), name)
        except OSError:
            self.close()
            raise
        self.total = sum(each.samples for each in self._segments.values())

    def _recover(self, number: int, name: str) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        segment = _Segment(number, os.open(name, flags, dir_fd=self._folder))
        self._segments[number] = segment
        self._next_number = number + 1
        size = os.fstat(segment.fd).st_size
        while (header := _header(segment.fd, segment.size, size)) is not None:
            length, samples = header[1:3]
            if segment.size + _HEADER.size + length > size:
                log.warning("%s: a record of %d samples was never whole", name, samples)
                self._lost(samples)
                break
            segment.size += _HEADER.size + length
            segment.samples += samples
        if segment.size < size:
            log.warning("%s: %d bytes that are no record are left out", name, size - segment.size)
            os.ftruncate(segment.fd, segment.size)

    def close(self) -> None:
        """Let go of the files; what is in them stays."""
        with self._lock:
            for segment in self._segments.values():
                os.close(segment.fd)
            self._segments.clear()
            self._writing = None
            for fd in (self._lock_fd, self._folder):
                if fd >= 0:
                    os.close(fd)
            self._folder = self._lock_fd = -1

    # ---- writing ----

    def append(self, samples: Sequence[Sample]) -> None:
        """Write all ``samples``, or raise OSError (some of them may have been written then)."""
        with self._lock:
            if self._folder < 0:
                raise OSError("the log is closed")
            rest: Sequence[Sample] = samples
            while rest:
                rest = self._append_layer(rest)
            self.grown.notify_all()

    def _append_layer(self, samples: Sequence[Sample]) -> list[Sample]:
        """Write the first sample of each series; returns the others."""
        later: list[Sample] = []
        seen: set[Labels] = set()
        layer: list[Sample] = []
        for sample in samples:
            if sample.labels in seen:
                later.append(sample)
            else:
                seen.add(sample.labels)
                layer.append(sample)
        for at in range(0, len(layer), RECORD_SAMPLES):
            self._append_record(layer[at : at + RECORD_SAMPLES])
        return later

    def _append_record(self, samples: Sequence[Sample]) -> None:
        segment = self._writing
        if segment is None or segment.size >= self._segment_bytes:
            segment = self._begin()
        new: list[Labels] = []
        record = _encoded(samples, self._refs, new)
        try:
            _write(segment.fd, record, segment.size)
        except OSError:
            for labels in new:
                del self._refs[labels]
            os.ftruncate(segment.fd, segment.size)
            raise
        self._dirty.add(segment.number)
        segment.size += len(record)
        segment.samples += len(samples)
        self.total += len(samples)

    def _begin(self) -> _Segment:
        segment = _Segment(self._next_number, -1)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        segment.fd = os.open(segment.name, flags, 0o600, dir_fd=self._folder)
        os.fsync(self._folder)
        self._next_number += 1
        self._segments[segment.number] = self._writing = segment
        self._refs = {}
        return segment

    def sync(self) -> None:
        """Put onto the disk what was written, against a loss of power."""
        with self._lock:
            found = [self._segments[n] for n in self._dirty if n in self._segments]
            self._dirty.clear()
            fds = [os.dup(segment.fd) for segment in found]
        for fd in fds:
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def truncate(self, passed: int, keep_s: float, *, rotate: bool = False) -> None:
        """Remove the segments before number ``passed`` that are older than ``keep_s`` seconds.

        ``rotate``: what comes goes to a new one, so that the present one can become old.
        """
        now = time.time()
        with self._lock:
            if rotate:
                self._writing = None
            for number, segment in list(self._segments.items()):
                old = now - os.fstat(segment.fd).st_mtime >= keep_s
                if old and number < passed and segment is not self._writing:
                    os.unlink(segment.name, dir_fd=self._folder)
                    os.close(segment.fd)
                    del self._segments[number]

    # ---- reading ----

    def end(self) -> Position:
        """Behind the last record."""
        with self._lock:
            return self._end()

    def _end(self) -> Position:
        last = max(self._segments, default=None)
        if last is None:
            return Position(self._next_number, 0)
        return Position(last, self._segments[last].size)

    def start(self) -> Position:
        """Of the oldest record."""
        with self._lock:
            return Position(min(self._segments, default=self._next_number), 0)

    def behind(self, position: Position) -> int:
        """How many samples are at ``position`` or behind it."""
        with self._lock:
            count = sum(s.samples for n, s in self._segments.items() if n > position.segment)
            segment = self._segments.get(position.segment)
            at = position.offset
            while segment is not None and at < segment.size:
                header = _header(segment.fd, at, segment.size)
                if header is None:
                    break
                at += _HEADER.size + header[1]
                count += header[2]
            return count

    def locate(self, position: Position) -> tuple[int, int, int] | None:
        """Of the segment to read next at ``position``: its number, a descriptor of it (the caller
        closes it), its size. ``None``: nothing is there yet.
        """
        with self._lock:
            for number in sorted(self._segments):
                segment = self._segments[number]
                at = position.offset if number == position.segment else 0
                if number >= position.segment and at < segment.size:
                    return number, os.dup(segment.fd), segment.size
            return None

    def size_of(self, number: int) -> int:
        """Bytes of a segment that are whole records; 0 if it is gone."""
        with self._lock:
            segment = self._segments.get(number)
            return segment.size if segment is not None else 0

    def damaged(self, number: int, samples: int) -> None:
        """A reader found a record in segment ``number`` that is not what was written."""
        with self._lock:
            if self._writing is not None and self._writing.number == number:
                self._writing = None
        self._lost(samples)


class Reader:
    """Reads records from ``position`` on; used by one thread."""

    def __init__(self, wal: Log, position: Position) -> None:
        self._log = wal
        self.position = position
        self._number = self._fd = -1
        self._series: list[bytes] = []
        self._broken = False  # a record was damaged: later ones may need the series in it
        self.damaged = 0  # samples of such records so far

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def next(self) -> Record | None:
        """The next record; ``None``: there is none yet."""
        while True:
            size = self._log.size_of(self._number) if self._fd >= 0 else 0
            if self.position.segment != self._number or self.position.offset >= size:
                size = self._turn()
                if size == 0:
                    return None
            record = self._record(size)
            if record is not None:
                self.position = record.end
                return record

    def _turn(self) -> int:
        """Open the segment of the next record; returns its size, 0 if there is none."""
        found = self._log.locate(self.position)
        if found is None:
            return 0
        number, fd, size = found
        if number == self._number:
            os.close(fd)
            return size
        self.close()
        self._number, self._fd, self._series, self._broken = number, fd, [], False
        start = self.position.offset if number == self.position.segment else 0
        self.position = Position(number, 0)
        while self.position.offset < start:
            skipped = self._record(size)
            self.position = skipped.end if skipped is not None else self.position
        return size

    def _record(self, size: int) -> Record | None:
        """The record here; ``None``: it is damaged, and the position is behind it now."""
        number, at = self._number, self.position.offset
        header = _header(self._fd, at, size)
        if header is None:
            self._break("no record")
            self._log.damaged(number, 0)
            self.position = Position(number, size)
            return None
        _, length, items, checksum, written_ms = header
        end = Position(number, at + _HEADER.size + length)
        payload = os.pread(self._fd, length, at + _HEADER.size)
        if len(payload) != length or zlib.crc32(payload) != checksum:
            self._break(f"a record of {items} samples is damaged")
        if self._broken:
            self.damaged += items
            self._log.damaged(number, items)
            self.position = end
            return None
        return self._decoded(payload, Position(number, at), end, items, written_ms)

    def _break(self, problem: str) -> None:
        if not self._broken:
            at = self.position.offset
            log.warning("segment %d: %s at %d; its rest is lost", self._number, problem, at)
            self._broken = True

    def _decoded(
        self, payload: bytes, at: Position, end: Position, items: int, written_ms: int
    ) -> Record:
        series, samples, attachments = _COUNTS.unpack_from(payload)
        offset = _COUNTS.size
        for _ in range(series):
            (length,) = _LENGTH.unpack_from(payload, offset)
            offset += _LENGTH.size
            self._series.append(payload[offset : offset + length])
            offset += length
        past = offset + samples * _SAMPLE.size
        found = list(_SAMPLE.iter_unpack(memoryview(payload)[offset:past]))
        attached = []
        for _ in range(attachments):
            kind, ref, length = _ATTACHED.unpack_from(payload, past)
            past += _ATTACHED.size
            attached.append((kind, ref, payload[past : past + length]))
            past += length
        return Record(at, end, items, self._series, found, attached, written_ms)


def _header(fd: int, at: int, size: int) -> tuple[bytes, int, int, int, int] | None:
    """The header at ``at``; ``None``: there is none."""
    if at + _HEADER.size > size:
        return None
    found: tuple[bytes, int, int, int, int] = _HEADER.unpack(os.pread(fd, _HEADER.size, at))
    return found if found[0] == MAGIC else None


def _encoded(samples: Iterable[Sample], refs: dict[Labels, int], new: list[Labels]) -> bytes:
    """A record. Series that ``refs`` does not know are added to it, and to ``new``."""
    series: list[bytes] = []
    values: list[bytes] = []
    attached: list[bytes] = []
    count = 0
    pack = _SAMPLE.pack
    for sample in samples:
        labels = sample.labels
        ref = refs.get(labels)
        if ref is None:
            ref = refs[labels] = len(refs)
            new.append(labels)
            encoded = encoded_labels(labels)
            series.append(_LENGTH.pack(len(encoded)) + encoded)
        count += 1
        if sample.histogram is None:
            values.append(pack(ref, sample.timestamp_ms, sample.value))
        else:
            data = encoded_histogram(sample.histogram, sample.timestamp_ms)
            attached.append(_ATTACHED.pack(HISTOGRAM, ref, len(data)) + data)
        for each in sample.exemplars:
            data = encoded_labels(each.labels) + double(2, each.value)
            data += integer(3, each.timestamp_ms)
            attached.append(_ATTACHED.pack(EXEMPLAR, ref, len(data)) + data)
    payload = b"".join(
        (_COUNTS.pack(len(series), len(values), len(attached)), *series, *values, *attached)
    )
    now_ms = time.time_ns() // 1_000_000
    return _HEADER.pack(MAGIC, len(payload), count, zlib.crc32(payload), now_ms) + payload


def _write(fd: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, at)
        rest, at = rest[count:], at + count
