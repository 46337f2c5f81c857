# SPDX-License-Identifier: Apache-2.0
"""Hiding what people say in the records of a recording, also where a message comes in pieces.

Which bytes of a head may be shown is known when it is whole. A segment that ends within one waits
for the next of its direction, and whatever comes meanwhile waits behind it: the order stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from otelauto import abi
from otelauto.errors import OtelautoError

HEAD_BYTES: Final = 64 * 1024  # of one direction, whose head is not whole
HELD_BYTES: Final = 16 << 20  # of all that waits
HELD_NS: Final = 5_000_000_000  # what a slow client begins does not hold up the others for ever
RECORD_BYTES: Final = 512  # beside its own

_TAIL_BYTES: Final = 8
_TAIL_OFFSET: Final = abi.SEGMENT.size - _TAIL_BYTES  # the last field before the payload
_FRAMING: Final = frozenset(b"\r\n0")

Hide = Callable[[bytes], bytes]
Emit = Callable[[bytes], None]
Direction = tuple[int, int]  # connection, direction


@dataclass(slots=True, eq=False)
class _Run:
    """Payloads of one direction that follow one another, hidden together when it is settled."""

    end: int  # the offset behind the last
    data: bytearray
    settled: bool = False


@dataclass(slots=True, eq=False)
class _Held:
    """A record: what precedes the payload, and which part of which run the payload is."""

    time: int
    fixed: bytes
    run: _Run | None = None
    begin: int = 0
    end: int = 0


@dataclass(slots=True)
class Redaction:
    """Gives each record to ``emit``, in order, with what ``hide`` makes of its payload.

    ``hide`` returns bytes of the same length; ``unfinished`` says whether a payload ends within
    something of which more must be seen. Records are of the sizes that the contract gives.
    """

    hide: Hide
    unfinished: Callable[[bytes], bool]
    emit: Emit
    _open: dict[Direction, _Run] = field(default_factory=dict)
    _held: deque[_Held] = field(default_factory=deque)
    _size: int = 0  # bytes of what is held, about

    def take(self, record: bytes) -> None:
        """The next record.

        Raises:
            OtelautoError: ``hide`` changed a length.
        """
        kind = record[0]
        self._size += len(record) + RECORD_BYTES
        if kind == abi.RecordKind.RECORD_OPENING:
            opening = abi.Opening._make(abi.OPENING.unpack_from(record))
            self._close(opening.connection)
            self._held.append(_Held(opening.time, record))
        else:
            segment = abi.Segment._make(abi.SEGMENT.unpack_from(record))
            self._held.append(self._joined(segment, record))
            if kind == abi.RecordKind.RECORD_ENDING:
                self._close(segment.connection)
        self._let_go(self._held[-1].time)

    def finish(self) -> None:
        """There are no more records: nothing waits any longer."""
        for run in self._open.values():
            self._settle(run)
        self._open.clear()
        self._let_go(0)

    def _joined(self, segment: abi.Segment, record: bytes) -> _Held:
        """The record, its payload put to what of its direction waits, if it follows that."""
        payload = record[abi.SEGMENT.size :]
        where = (segment.connection, segment.direction)
        run = self._open.pop(where, None)
        if run is not None and (run.end != segment.offset or not payload):
            self._settle(run)
            run = None
        if run is None:
            run = _Run(segment.offset, bytearray())
        begin = len(run.data)
        run.data += payload
        run.end = segment.offset + segment.length
        whole = segment.captured == segment.length
        if whole and len(run.data) <= HEAD_BYTES and self.unfinished(bytes(run.data)):
            self._open[where] = run
        else:
            self._settle(run)
        fixed = record[:_TAIL_OFFSET] + _tail(segment)
        return _Held(segment.time, fixed, run, begin, len(run.data))

    def _close(self, connection: int) -> None:
        for direction in (0, 1):
            run = self._open.pop((connection, direction), None)
            if run is not None:
                self._settle(run)

    def _settle(self, run: _Run) -> None:
        hidden = self.hide(bytes(run.data)) if run.data else b""
        if len(hidden) != len(run.data):
            raise OtelautoError(
                f"redaction changed the length of a payload from {len(run.data)} to {len(hidden)}.",
                "Report it; the recording ends before that record.",
            )
        run.data[:] = hidden
        run.settled = True

    def _let_go(self, now: int) -> None:
        """Emit the first records, up to one that has to wait; none waits for too long."""
        held = self._held
        while held:
            first = held[0]
            run = first.run
            if run is not None and not run.settled:
                if self._size <= HELD_BYTES and now - first.time <= HELD_NS:
                    return
                self._open = {where: each for where, each in self._open.items() if each is not run}
                self._settle(run)
            held.popleft()
            hidden = run.data[first.begin : first.end] if run is not None else b""
            record = first.fixed + hidden
            self._size -= len(record) + RECORD_BYTES
            self.emit(record)


def _tail(segment: abi.Segment) -> bytes:
    """The last bytes of a segment whose payload was cut: of them only framing is kept."""
    if not segment.flags & abi.SegmentFlag.FLAG_TAIL:
        return bytes(_TAIL_BYTES)
    return bytes(byte if byte in _FRAMING else ord("x") for byte in segment.tail)
