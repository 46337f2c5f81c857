# SPDX-License-Identifier: Apache-2.0
"""One direction of a connection: the bytes that are known, where the holes are, when they passed.

A stream is fed segments, each a range of offsets of which a prefix may be known. A parser reads at
``position``; what lies behind it is forgotten at once, so a stream holds little more than a message
head.
"""

from __future__ import annotations

from collections import deque

from otelauto.abi import Segment, SegmentFlag
from otelauto.flows.vocabulary import Desync

# Known bytes a stream holds for its parser at most. A parser gives up on a head long before.
HELD_MAX = 256 * 1024

_TAIL = int(SegmentFlag.FLAG_TAIL)


class ByteStream:
    """The :class:`otelauto.flows.vocabulary.Stream` that segments are appended to."""

    __slots__ = (
        "_data",
        "_held",
        "_last",
        "_later",
        "_marks",
        "_start",
        "end",
        "ended",
        "position",
    )

    def __init__(self) -> None:
        self.position = 0
        self.end = 0
        self.ended = False
        self._data = b""  # known bytes at _start
        self._start = 0
        self._later: deque[tuple[int, bytes]] = deque()  # known bytes behind a hole
        self._held = 0  # bytes in _later
        # (end offset, time, offset, TCP sequence number at offset) of segments, oldest first. The
        # first one covers position - 1, so that the end of a message can still be timed.
        self._marks: deque[tuple[int, int, int, int]] = deque()
        self._last = b""

    def append(
        self, offset: int, length: int, payload: bytes, tail: bytes, time: int, tcp_sequence: int
    ) -> None:
        """Take a segment of which ``payload`` is the known prefix, ``tail`` its last bytes if any.

        Raises:
            Desync: the offset lies before the end of what has passed, or more bytes are held than
                any parser should need.
        """
        if offset < self.end:
            raise Desync("segment overlaps")
        marks = self._marks
        marks.append((offset + length, time, offset, tcp_sequence))
        self._remember_last(offset, length, payload, tail)
        self.end = offset + length
        if payload:
            self._hold(offset, payload)
        while len(marks) > 1 and marks[0][0] < self.position:
            marks.popleft()

    def _remember_last(self, offset: int, length: int, payload: bytes, tail: bytes) -> None:
        if len(payload) == length:
            before = self._last if length < 8 and offset == self.end else b""
            self._last = (before + payload)[-8:]
        else:
            self._last = tail[-length:] if length < 8 else tail

    def _hold(self, offset: int, payload: bytes) -> None:
        if offset < self.position:
            payload = payload[self.position - offset :]
            if not payload:
                return
            offset = self.position
        if self._start != self.position:
            self._rebase()
        if offset == self._start + len(self._data) and not self._later:
            self._data += payload
        else:
            self._later.append((offset, payload))
            self._held += len(payload)
        if len(self._data) + self._held > HELD_MAX:
            raise Desync("too many bytes held")

    def _rebase(self) -> None:
        """Make the window begin at ``position``."""
        behind = self.position - self._start
        self._data = self._data[behind:]
        self._start = self.position
        later = self._later
        while later and later[0][0] <= self._start + len(self._data):
            offset, payload = later.popleft()
            self._held -= len(payload)
            self._data += payload[self._start + len(self._data) - offset :]

    def rests(self) -> bool:
        """Whether everything that passed was read, and more may come."""
        return self.position == self.end and not self.ended

    def window(self) -> bytes:
        """The known bytes from ``position`` up to the first hole or the end."""
        if self._start != self.position:
            self._rebase()
        return self._data

    def hole(self) -> bool:
        """Whether bytes that passed, but are not known, follow the window."""
        if self._start != self.position:
            self._rebase()
        return self._start + len(self._data) < self.end

    def skip(self, count: int) -> None:
        """Move ``position`` on by ``count`` bytes, known or not, passed or not."""
        self.position += count
        marks = self._marks
        while len(marks) > 1 and marks[0][0] < self.position:
            marks.popleft()

    def rewind(self) -> None:
        """Take back what was skipped beyond ``end``; no byte there can be known yet."""
        if self.position > self.end:
            self.discard()

    def skip_to(self, offset: int) -> None:
        """Move ``position`` forward to ``offset``; not back."""
        if offset > self.position:
            self.skip(offset - self.position)

    def discard(self) -> None:
        """Forget everything that has passed, and any skip ahead of it."""
        self._data = b""
        self._later.clear()
        self._held = 0
        self.position = self._start = self.end

    def restart(self, offset: int) -> None:
        """Forget everything and begin at ``offset``."""
        self.end = offset
        self._marks.clear()
        self._last = b""
        self.discard()

    def time_at(self, offset: int) -> int:
        """Boot-clock ns at which the byte at ``offset`` passed; 0 if nothing has passed.

        A byte that no segment held passed, as far as is known, with the segment after it.
        """
        marks = self._marks
        for end, time, _, _ in marks:
            if offset < end:
                return time
        return marks[-1][1] if marks else 0

    def piece_end(self, offset: int) -> int:
        """Where what passed together with the byte at ``offset``, which passed, ends."""
        return next(end for end, _, _, _ in self._marks if offset < end)

    def sequence_at(self, offset: int) -> int:
        """Raw TCP sequence number of the byte at ``offset``, 0 if not known."""
        for end, _, first, tcp_sequence in self._marks:
            if offset < end:
                return (tcp_sequence + offset - first) & 0xFFFFFFFF if tcp_sequence else 0
        return 0

    def last_bytes(self) -> bytes:
        """The last bytes that passed, up to 8, as far as they are known."""
        return self._last


def append_segment(stream: ByteStream, segment: Segment, payload: bytes) -> None:
    """Take what a record says of a direction; raises :class:`Desync` as ``append`` does."""
    tail = segment.tail if segment.flags & _TAIL else b""
    stream.append(segment.offset, segment.length, payload, tail, segment.time, segment.tcp_sequence)
