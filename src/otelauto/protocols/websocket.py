# SPDX-License-Identifier: Apache-2.0
"""WebSocket (RFC 6455): what passes behind the handshake belongs to the exchange that it is.

Frames are followed for their ends: the first Close frame ends the exchange, which is published
with the second one, or the end of the connection. One that ends without any was broken off.
Only the beginnings of segments are copied. A frame header that is missing is not looked for; the
place is found again at a segment that is frames from its first to its last byte, as those are that
end a conversation. Payloads are passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from otelauto.flows.vocabulary import (
    Address,
    Description,
    Desync,
    Entry,
    Role,
    Segment,
    Side,
    Stream,
)
from otelauto.protocols.http1_body import Http1Message

NAME = "websocket"
WANT = 1024  # bytes of each segment: short frames may follow one another
_FINAL, _RESERVED, _OPCODE = 0x80, 0x30, 0x0F  # section 5.2
_MASKED, _LENGTH = 0x80, 0x7F
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_DATA = (_CONTINUATION, _TEXT, _BINARY)
_KNOWN = (*_DATA, _CLOSE, _PING, _PONG)
_CONTROL_MAX = 125
_HANDSHAKE = "otelauto.http.upgrade.duration"

Describe = Callable[[Side, tuple[Address, Address], Http1Message, Http1Message | None], Description]


class _Half:
    """One direction. ``left`` bytes of a payload are still to pass."""

    __slots__ = ("closed", "is_data", "left", "lost", "messages", "role", "size", "whole")

    def __init__(self, role: Role) -> None:
        self.role = role
        self.closed = False
        self.left = 0
        self.is_data = False  # the payload at hand is a message's
        self.lost = False
        self.whole = True  # no frame was missed
        self.messages = 0
        self.size = 0  # bytes of their payloads, as on the wire


class WebSocketParser:
    """A connection behind its handshake, which is the one exchange on it."""

    __slots__ = ("_closed", "_code", "_describe", "_entry", "_halves", "_opened_ns", "finished",
                 "unmatched",
                 "upgraded")  # fmt: skip

    def __init__(self, entry: Entry, describe: Describe) -> None:
        """``entry`` is the handshake, which ``describe`` describes."""
        self.finished: list[Entry] = []
        self.unmatched = 0
        self.upgraded = False
        self._entry: Entry | None = entry
        self._describe = describe
        self._halves = {role: _Half(role) for role in Role}
        self._opened_ns: int = entry.response.end_ns
        self._closed = False
        self._code = 0

    def begin(self, whole: tuple[bool, bool]) -> None:
        """Both streams stand behind the handshake."""

    def read(self, role: Role, stream: Stream, segment: Segment) -> None:
        """Pass all frames that are there."""
        half = self._halves[role]
        if half.lost:
            self._look_for_place(half, stream, segment)
        while stream.position < stream.end:
            if half.left:
                self._pass_payload(half, stream)
                continue
            data = stream.window()
            try:
                frame = _header(data, role)
            except Desync:
                frame, missed = None, True
            else:
                missed = frame is None and stream.hole()
            if missed:
                self._miss(half)
                self._look_for_place(half, stream, segment)
                continue
            if frame is None:
                return
            opcode, is_final, header, length = frame
            if opcode == _CLOSE and len(data) < header + length and not stream.hole():
                return
            if opcode == _CLOSE:
                self._close(half, data, header, header + length, stream)
            stream.skip(header)
            half.left, half.is_data = length, opcode in _DATA
            half.messages += is_final and half.is_data

    def _pass_payload(self, half: _Half, stream: Stream) -> None:
        count = min(half.left, stream.end - stream.position)
        half.left -= count
        half.size += count if half.is_data else 0
        stream.skip(count)

    def _look_for_place(self, half: _Half, stream: Stream, segment: Segment) -> None:
        at_beginning = stream.position <= segment.offset
        stream.skip(max(segment.offset - stream.position, 0))
        if at_beginning and _is_frames(stream.window(), half.role) and not stream.hole():
            half.lost = False
        else:
            stream.skip(stream.end - stream.position)

    def _miss(self, half: _Half) -> None:
        half.lost, half.whole, half.left = True, False, 0

    def lose(self, role: Role, stream: Stream) -> None:
        """Frames may be missing."""
        self._miss(self._halves[role])
        stream.skip(stream.end - stream.position)

    def _close(self, half: _Half, frame: bytes, header: int, size: int, stream: Stream) -> None:
        """A Close frame of ``size`` bytes: the first of two is the end of the exchange."""
        entry, half.closed = self._entry, True
        if entry is None:
            return
        if not self._closed:
            self._closed = True
            code = frame[header : min(header + 2, size)]
            if frame[1] & _MASKED:
                code = bytes(byte ^ key for byte, key in zip(code, frame[2:4], strict=False))
            self._code = int.from_bytes(code) if len(code) == 2 else 0
            last = min(stream.position + size, stream.end) - 1
            entry.response.end_ns = stream.time_at(last)
        if all(each.closed for each in self._halves.values()):
            self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        self._entry = None
        self.finished.append(entry)

    def settle(self) -> None:
        """A Close frame ends it whatever was lost: :meth:`abandon` looks for that."""

    def compiled(self) -> None:
        """No compiled code reads this."""

    def abandon(self) -> list[Entry]:
        """The exchange, if no Close frame has passed; with one it is over."""
        entry = self._entry
        if entry is None:
            return []
        if self._closed:
            self._finish(entry)
            return []
        self._entry = None
        return [entry]

    def describe(
        self,
        side: Side,
        ends: tuple[Address, Address],
        request: Http1Message,
        response: Http1Message | None,
    ) -> Description:
        """The handshake, what passed behind it, and how it ended.

        Its histogram measures how long the handshake took: how long people stay says nothing of
        the service.
        """
        said = self._describe(side, ends, request, response)
        attributes = said.attributes
        # The call that sent the 101 may have returned after the end was read in another thread.
        opened_ns = min(self._opened_ns, response.end_ns) if response is not None else 0
        attributes[_HANDSHAKE] = max(opened_ns - request.start_ns, 0) / 1e9
        for word, half in zip(("request", "response"), self._halves.values(), strict=True):
            if half.whole:
                attributes[f"otelauto.websocket.{word}.messages"] = half.messages
                attributes[f"otelauto.websocket.{word}.size"] = half.size
        if self._code:
            attributes["otelauto.websocket.close_code"] = self._code
        said.instruments = tuple(
            replace(each, measures=_HANDSHAKE) if each.measures is None else each
            for each in said.instruments
        )
        return said


def _header(data: bytes, role: Role) -> tuple[int, bool, int, int] | None:
    """(opcode, is the last of its message, bytes of header, bytes of payload) of a frame.

    ``None``: more bytes are needed. Raises Desync if this is no frame of who sends in ``role``.
    """
    if not data:
        return None
    opcode, is_final = data[0] & _OPCODE, data[0] & _FINAL != 0
    if data[0] & _RESERVED or opcode not in _KNOWN or (opcode >= _CLOSE and not is_final):
        raise Desync("not a frame")
    if len(data) < 2:
        return None
    masked, length, size = data[1] & _MASKED != 0, data[1] & _LENGTH, 2
    if masked is not (role is Role.REQUEST) or (opcode >= _CLOSE and length > _CONTROL_MAX):
        raise Desync("not a frame")
    if length > _CONTROL_MAX:
        width = 2 if length == 126 else 8
        size += width
        length = int.from_bytes(data[2:size])
    size += 4 if masked else 0
    if len(data) < size:
        return None
    if length >> 63:
        raise Desync("not a frame")
    return opcode, is_final, size, length


def _is_frames(data: bytes, role: Role) -> bool:
    """Whether ``data`` is whole frames, and nothing else."""
    at = 0
    while at < len(data):
        try:
            frame = _header(data[at : at + 14], role)
        except Desync:
            return False
        if frame is None:
            return False
        at += frame[2] + frame[3]
    return at == len(data) and at > 0
