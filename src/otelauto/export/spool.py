# SPDX-License-Identifier: Apache-2.0
"""Messages that wait for their way out: a bounded first-in, first-out store, in memory or on disk.

On disk: append-only segments, each a file of records. A record is a header (its own checksum, the
payload's length, checksum and number of items) and a zlib-compressed payload; one byte of the
header, which no checksum covers, is overwritten when the record is acknowledged. So what a killed
process leaves is what it had appended and not acknowledged; at most the record being delivered is
delivered twice. Recovered segments are never appended to: a torn tail stays where it is. A thread
of its own brings what was written to the disk itself (:mod:`otelauto.export.spool_sync`).
"""

from __future__ import annotations

import enum
import errno
import fcntl
import logging
import os
import re
import stat
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from otelauto.export.spool_sync import Syncer

LOG = logging.getLogger("otelauto.export.spool")

LARGEST_SEGMENT = 4 << 20
SEGMENTS = 16  # a full spool has about so many; dropping the oldest gives up that share of it
LEVEL = 1  # of zlib

MAGIC = b"OaS1"
WAITING, DONE = 0, 1
# magic, state, number of items, length and checksum of the payload as stored; then, of these
# without the state, a checksum.
_HEADER = struct.Struct("<4sBIII")
_CHECKSUM = struct.Struct("<I")
HEADER_SIZE = _HEADER.size + _CHECKSUM.size
_STATE_AT = len(MAGIC)
_NAME = re.compile(r"[0-9]{16}\.spool\Z")
LOCK = "lock"
FOLDER = -1  # no segment has this number


class Loss(enum.Enum):
    """Why a spool gave items up."""

    FULL = enum.auto()  # the oldest made room
    CORRUPT = enum.auto()  # stored, and what is read is not what was written


Lost = Callable[[int, Loss], None]  # items
Found = Callable[[int], None]  # items that an earlier process left


@dataclass(frozen=True, slots=True)
class Entry:
    """The oldest message. ``at`` is the store's own note of where it is."""

    data: bytes
    items: int
    at: tuple[int, int] = (0, 0)


class Spool(Protocol):
    """A first-in, first-out store of messages. Thread-safe: one thread appends, one delivers.

    Each message stands for a number of items (spans, samples). All that was appended is delivered
    and acknowledged, waits, or was given up and reported to the owner's callback, once.
    """

    durable: bool  # whether what waits outlives the process

    @property
    def items(self) -> int:
        """How many items wait, those of the message at the head among them."""

    @property
    def size(self) -> int:
        """Bytes that it takes."""

    def append(self, data: bytes, items: int) -> None:
        """Store a message behind all others; the oldest make room for it.

        Raises:
            OSError: it could not be stored, and nothing was.
        """

    def head(self) -> Entry | None:
        """The oldest message; the same one until it is acknowledged. ``None``: nothing waits.

        What the head stands for is not given up to make room: its deliverer knows better.
        """

    def acknowledge(self, entry: Entry) -> None:
        """The head was dealt with: it waits no more."""

    def keeps(self, entry: Entry) -> bool:
        """Whether the head is still stored; if not, its items are the deliverer's to count."""

    def open(self) -> None:
        """Find what an earlier process left.

        Raises:
            OSError: that is not possible; ``append`` will try it again.
        """

    def close(self) -> None:
        """Let go of files. What waits in them stays there."""


class MemorySpool:
    """A :class:`Spool` of at most ``max_bytes`` bytes of memory."""

    durable = False

    def __init__(self, max_bytes: int, lost: Lost) -> None:
        self._max_bytes = max_bytes
        self._lost = lost
        self._lock = threading.Lock()
        self._entries: deque[tuple[bytes, int]] = deque()
        self._head: Entry | None = None
        self._kept = False  # whether the head is still in the deque
        self.items = 0
        self.size = 0

    def append(self, data: bytes, items: int) -> None:
        stored = zlib.compress(data, LEVEL)
        with self._lock:
            _must_fit(len(stored), self._max_bytes)
            while self.size + len(stored) > self._max_bytes:
                given_up = self._pop()
                if self._kept:
                    self._kept = False  # the head's: its deliverer counts
                else:
                    self._lost(given_up, Loss.FULL)
            self._entries.append((stored, items))
            self.items += items
            self.size += len(stored)

    def head(self) -> Entry | None:
        with self._lock:
            if self._head is None and self._entries:
                stored, items = self._entries[0]
                self._head, self._kept = Entry(zlib.decompress(stored), items), True
            return self._head

    def acknowledge(self, entry: Entry) -> None:
        with self._lock:
            if entry is self._head:
                if self._kept:
                    self._pop()
                self._head, self._kept = None, False

    def keeps(self, entry: Entry) -> bool:
        with self._lock:
            return entry is self._head and self._kept

    def open(self) -> None:
        """Nothing to find."""

    def close(self) -> None:
        """Nothing to let go of."""

    def _pop(self) -> int:
        stored, items = self._entries.popleft()
        self.items -= items
        self.size -= len(stored)
        return items


class _Record(NamedTuple):
    """Where a record of a segment is, and what its header says."""

    at: int
    state: int
    items: int
    length: int
    checksum: int

    @property
    def end(self) -> int:
        return self.at + HEADER_SIZE + self.length


@dataclass(slots=True)
class _Segment:
    """A file of records; ``items`` and ``records`` are those that wait."""

    number: int
    fd: int  # -1 once the spool is closed
    size: int = 0
    items: int = 0
    records: int = 0

    @property
    def name(self) -> str:
        return f"{self.number:016d}.spool"


class DiskSpool:
    """A :class:`Spool` in files of ``directory``, of at most ``max_bytes`` bytes in all.

    ``directory`` and what is in it is for its owner only (modes 0700 and 0600), and for one process
    at a time (flock(2) on the file ``lock``, which ends with the process). It is opened, and what
    an earlier process left is found, by :meth:`open`; until that succeeds ``append`` tries it.
    """

    durable = True

    def __init__(self, directory: Path, max_bytes: int, lost: Lost, found: Found) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = min(max(max_bytes // SEGMENTS, 1), LARGEST_SEGMENT)
        self._lost = lost
        self._lock = threading.Lock()
        self._folder = self._lock_fd = -1
        self._segments: deque[_Segment] = deque()
        self._next_number = 0
        self._may_append = False  # to the last segment: it is of this process, and whole
        self._at = 0  # where in the first segment the next record to deliver is
        self._head: Entry | None = None
        self._found = found
        self._complained = False
        self._syncer = Syncer(lambda error: self._complain("", error))

    @property
    def items(self) -> int:
        return sum(segment.items for segment in tuple(self._segments))

    @property
    def size(self) -> int:
        return sum(segment.size for segment in tuple(self._segments))

    def open(self) -> None:
        """Make or open the directory, take its lock, find what waits."""
        with self._lock:
            self._open()

    def append(self, data: bytes, items: int) -> None:
        stored = zlib.compress(data, LEVEL)
        record = _header(stored, items) + stored
        with self._lock:
            self._open()
            _must_fit(len(record), self._max_bytes)
            while self.size + len(record) > self._max_bytes:
                self._give_up_first()
            segment = self._tail(len(record))
            try:
                _write(segment.fd, record, segment.size)
            except OSError:
                self._may_append = False
                if not segment.records:
                    self._remove(segment)
                else:
                    os.ftruncate(segment.fd, segment.size)
                raise
            self._syncer.written(segment.number, segment.fd)
            segment.size += len(record)
            segment.items += items
            segment.records += 1

    def head(self) -> Entry | None:
        with self._lock:
            while self._head is None and self._segments:
                segment = self._segments[0]
                if segment.records == 0:
                    self._remove(segment)
                    continue
                self._head = self._read(segment)
            return self._head

    def acknowledge(self, entry: Entry) -> None:
        with self._lock:
            if entry is self._head:
                self._head = None
                number, at = entry.at
                if self._segments and self._segments[0].number == number:
                    self._done(self._segments[0], at, entry.items)

    def keeps(self, entry: Entry) -> bool:
        with self._lock:
            return entry is self._head and any(s.number == entry.at[0] for s in self._segments)

    def close(self) -> None:
        self._syncer.close()
        with self._lock:
            for segment in self._segments:
                if segment.fd >= 0:
                    os.close(segment.fd)
                segment.fd = -1
            for fd in (self._lock_fd, self._folder):
                if fd >= 0:
                    os.close(fd)
            self._lock_fd = self._folder = -1

    # ---- the directory ----

    def _open(self) -> None:
        if self._folder >= 0:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with ExitStack() as opened:
            folder = os.open(self._directory, flags)
            opened.callback(os.close, folder)
            _only_ours(folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(LOCK, flags, 0o600, dir_fd=folder)
            opened.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OSError(error.errno, "another otelauto uses it") from error
            self._recover(folder, opened)
            opened.pop_all()
        self._folder, self._lock_fd = folder, lock

    def _recover(self, folder: int, opened: ExitStack) -> None:
        segments: deque[_Segment] = deque()
        torn = last = 0
        for name in sorted(filter(_NAME.match, os.listdir(folder))):
            last = int(name.partition(".")[0])
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            opened.callback(os.close, fd)
            segment = _Segment(last, fd, os.fstat(fd).st_size)
            segments.append(segment)
            at = 0
            while (record := _record(fd, at, segment.size)) is not None:
                segment.items += record.items if record.state == WAITING else 0
                segment.records += record.state == WAITING
                at = record.end
            torn += segment.size - at
        self._segments, self._next_number = segments, last + 1
        if torn:
            LOG.info(
                "%s: %d bytes of records that were never whole are left out", self._directory, torn
            )
        if self.items:
            self._found(self.items)

    def _tail(self, room: int) -> _Segment:
        """The segment to append ``room`` bytes to."""
        if self._may_append and self._segments[-1].size + room <= self._segment_bytes:
            return self._segments[-1]
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        segment = _Segment(self._next_number, -1)
        segment.fd = os.open(segment.name, flags, 0o600, dir_fd=self._folder)
        self._syncer.written(FOLDER, self._folder)
        self._next_number += 1
        self._segments.append(segment)
        self._may_append = True
        return segment

    def _remove(self, segment: _Segment) -> None:
        if segment is self._segments[0]:
            self._at = 0
        if segment is self._segments[-1]:
            self._may_append = False
        self._segments.remove(segment)
        try:
            # First: what cannot be removed must not be delivered again after a restart.
            os.ftruncate(segment.fd, 0)
            os.unlink(segment.name, dir_fd=self._folder)
        except OSError as error:
            self._complain(segment.name, error)
        finally:
            os.close(segment.fd)

    def _give_up_first(self) -> None:
        """Drop the oldest segment; the head, if it is there, is its deliverer's to count."""
        segment = self._segments[0]
        items = segment.items
        if self._head is not None and self._head.at[0] == segment.number:
            items -= self._head.items
        self._lost(items, Loss.FULL)
        self._remove(segment)

    # ---- records ----

    def _read(self, segment: _Segment) -> Entry | None:
        """The next record that waits; what cannot be read of the segment is given up."""
        try:
            record = _record(segment.fd, self._at, segment.size)
            stored = b"" if record is None else _payload(segment.fd, record)
        except OSError as error:
            self._complain(segment.name, error)
            record = None
        if record is None:
            self._lost(segment.items, Loss.CORRUPT)
            self._remove(segment)
            return None
        self._at = record.end
        if record.state != WAITING:
            return None
        try:
            if zlib.crc32(stored) != record.checksum:
                raise zlib.error("another checksum")
            return Entry(zlib.decompress(stored), record.items, (segment.number, record.at))
        except zlib.error:
            self._lost(record.items, Loss.CORRUPT)
            self._done(segment, record.at, record.items)
            return None

    def _done(self, segment: _Segment, at: int, items: int) -> None:
        segment.items -= items
        segment.records -= 1
        if segment.records == 0:
            self._remove(segment)
            return
        try:
            os.pwrite(segment.fd, bytes((DONE,)), at + _STATE_AT)
        except OSError as error:
            self._complain(segment.name, error)

    def _complain(self, name: str, error: OSError) -> None:
        """Say it once: a disk that fails does so each time."""
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        LOG.log(level, "%s/%s: %s", self._directory, name, error)


def _must_fit(size: int, most: int) -> None:
    if size > most:
        raise OSError(errno.EFBIG, "the message is larger than the whole spool")


def _header(stored: bytes, items: int) -> bytes:
    header = _HEADER.pack(MAGIC, WAITING, items, len(stored), zlib.crc32(stored))
    return header + _CHECKSUM.pack(zlib.crc32(header))


def _record(fd: int, at: int, size: int) -> _Record | None:
    """The first whole record at ``at`` or behind it; ``None``: there is none.

    Where there should be a header and is none, the next one is looked for: only what is damaged is
    lost.
    """
    while at + HEADER_SIZE <= size:
        start = os.pread(fd, HEADER_SIZE, at)
        magic, state, items, length, checksum = _HEADER.unpack_from(start)
        plain = _HEADER.pack(magic, WAITING, items, length, checksum)
        whole = at + HEADER_SIZE + length <= size
        if magic == MAGIC and _CHECKSUM.unpack_from(start, _HEADER.size)[0] == zlib.crc32(plain):
            if whole:
                return _Record(at, state, items, length, checksum)
            return None
        found = _find(fd, at + 1, size)
        if found is None:
            return None
        at = found
    return None


def _find(fd: int, at: int, size: int) -> int | None:
    """Where the bytes of a header's beginning are next."""
    rest = os.pread(fd, size - at, at)
    found = rest.find(MAGIC)
    return at + found if found >= 0 else None


def _payload(fd: int, record: _Record) -> bytes:
    return os.pread(fd, record.length, record.at + HEADER_SIZE)


def _write(fd: int, data: bytes, at: int) -> None:
    """Write all of ``data``. What was written of it before an error is no matter."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, at)
        rest, at = rest[count:], at + count


def _only_ours(folder: int) -> None:
    """Raises OSError for a directory that others own or may write to."""
    status = os.fstat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "others own it or may write to it")
