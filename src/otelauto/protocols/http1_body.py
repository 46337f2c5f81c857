# SPDX-License-Identifier: Apache-2.0
"""Bodies of HTTP/1.x messages (RFC 9112, sections 6 to 8): how long they are and where they end."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from otelauto.flows.vocabulary import Role, Stream
from otelauto.protocols.grpc import Call
from otelauto.protocols.http1_head import CONFLICT, Fields
from otelauto.protocols.http_message import HttpMessage

_TERMINATOR = b"\r\n0\r\n\r\n"  # the end of a chunked body without trailers
_CHUNK_LINE_MAX = 4096
_TRAILER_LINE_MAX = 16 * 1024
_SIZE_DIGITS_MAX = 15
_HEX = frozenset(b"0123456789abcdefABCDEF")


class Framing(enum.Enum):
    """What ends a body."""

    NONE = "none"  # there is no body
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    UNKNOWN = "unknown"  # conflicting lengths, or the head was cut


class Chunk(enum.Enum):
    """Where in a chunked body the stream's position is."""

    SIZE = "size"
    DATA = "data"  # on its way to the sink
    DATA_END = "data end"  # at the line end behind a chunk's data
    TRAILER = "trailer"


class Sink(Protocol):
    """Who wants to see a body."""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        ...

    def skip(self, count: int) -> None:
        """The next bytes are not known."""
        ...


@dataclass(slots=True)
class Http1Message(HttpMessage):
    """A message with its framing."""

    role: Role = Role.REQUEST
    expects_continue: bool = False
    framing: Framing = Framing.NONE
    declared: int | None = None  # Content-Length, where it frames a body
    body_start: int = 0
    decoded: int = 0  # sum of the chunk sizes so far
    chunk: Chunk = Chunk.SIZE
    sink: Sink | None = None
    left: int = 0  # bytes of the body, or of the chunk, that the sink is still to see
    upgrade: bytes = b""  # what the protocol is after a response with status 101, lower case
    call: Call | None = None  # of the request: the remote procedure call that it carries

    def body_size(self) -> int | None:
        """The exact size of the body; ``None`` where it is not known or there is none."""
        if not self.complete or self.open_ended or self.inexact:
            return None
        if self.framing is Framing.CHUNKED:
            return self.decoded
        if self.framing is Framing.CLOSE:
            return self.wire_size
        return self.declared


def frame(message: Http1Message, fields: Fields) -> None:
    """Set the framing of a message that can have a body. Transfer-Encoding beats Content-Length."""
    codings, length = fields.codings, fields.length
    if codings:
        if codings[-1] == b"chunked":
            message.framing = Framing.CHUNKED
        elif message.role is Role.RESPONSE:
            _run_to_close(message)
        else:
            leave_open(message)
    elif length == CONFLICT:
        leave_open(message)
    elif length is not None:
        message.framing, message.declared = Framing.LENGTH, length
    elif message.role is Role.RESPONSE:
        _run_to_close(message)


def _run_to_close(message: Http1Message) -> None:
    message.framing = Framing.CLOSE
    message.endless = True


def leave_open(message: Http1Message) -> None:
    """The head does not tell where the message ends; any silence may be its end."""
    message.framing = Framing.UNKNOWN
    message.open_ended = message.may_be_over = True


def begin_body(message: Http1Message, stream: Stream) -> None:
    """The stream stands behind the head: go into the body, as far as bytes have passed."""
    message.body_start = stream.position
    if message.framing is Framing.LENGTH and message.declared:
        if message.sink is None:
            stream.skip(message.declared)
        else:
            message.left = message.declared
    advance(message, stream)


def advance(message: Http1Message, stream: Stream) -> None:
    """Follow the body as far as bytes have passed; completes the message at its end."""
    if message.open_ended:
        _advance_open(message, stream)
    elif message.framing is Framing.CHUNKED:
        _advance_chunked(message, stream)
    elif message.framing is Framing.CLOSE:
        _swallow(message, stream)
        if stream.ended:
            complete(message, stream)
    else:
        _tell(message, stream)
        message.wire_size = min(stream.end, stream.position) - message.body_start
        if stream.end >= stream.position and not message.left:
            complete(message, stream)


def complete(message: Http1Message, stream: Stream) -> None:
    """The byte before the stream's position was the last of the message."""
    message.complete = True
    message.end_ns = stream.time_at(stream.position - 1)


def _tell(message: Http1Message, stream: Stream) -> None:
    """Show the sink what has passed of the bytes that are ``left``."""
    sink = message.sink
    while sink is not None and message.left and stream.end > stream.position:
        data = stream.window()[: message.left]
        count = len(data) or min(message.left, stream.end - stream.position)
        if data:
            sink.feed(data)
        else:
            sink.skip(count)
        message.left -= count
        stream.skip(count)


def _swallow(message: Http1Message, stream: Stream) -> None:
    if message.sink is not None:
        message.left = max(stream.end - stream.position, 0)
        _tell(message, stream)
    if stream.end > stream.position:
        stream.skip(stream.end - stream.position)
    message.wire_size = stream.position - message.body_start


def _advance_open(message: Http1Message, stream: Stream) -> None:
    _swallow(message, stream)
    if message.framing is Framing.CHUNKED:
        message.may_be_over = stream.last_bytes().endswith(_TERMINATOR)


def _advance_chunked(message: Http1Message, stream: Stream) -> None:
    while stream.end > stream.position and not message.complete:
        if message.chunk is Chunk.DATA:
            _tell(message, stream)
            moved = not message.left
            if moved:
                message.chunk = Chunk.DATA_END
        elif message.chunk is Chunk.DATA_END:
            moved = _skip_data_end(message, stream)
        else:
            moved = _read_line(message, stream)
        if message.open_ended:
            _advance_open(message, stream)
            return
        if not moved:
            break
    message.wire_size = min(stream.end, stream.position) - message.body_start


def _skip_data_end(message: Http1Message, stream: Stream) -> bool:
    """Pass the CRLF behind a chunk's data; in a hole it is taken to be there."""
    data = stream.window()[:2]
    if data == b"\r\n" or (len(data) < 2 and stream.hole() and b"\r\n".startswith(data)):
        stream.skip(2)
    elif data[:1] == b"\n":
        stream.skip(1)
    elif data == b"\r":
        return False
    else:
        message.open_ended = True
    message.chunk = Chunk.SIZE
    return True


def _read_line(message: Http1Message, stream: Stream) -> bool:
    """Read a chunk-size line or a trailer line; lost framing leaves the message open-ended."""
    data = stream.window()
    in_trailer = message.chunk is Chunk.TRAILER
    limit = _TRAILER_LINE_MAX if in_trailer else _CHUNK_LINE_MAX
    newline = data.find(b"\n", 0, limit)
    if newline < 0:
        if stream.hole() or len(data) >= limit:
            message.open_ended = True
        return False
    line = data[:newline].rstrip(b"\r")
    stream.skip(newline + 1)
    if in_trailer:
        if not line:
            complete(message, stream)
        return True
    size = chunk_size(line)
    if size is None:
        message.open_ended = True
    elif size == 0:
        message.chunk = Chunk.TRAILER
    else:
        message.decoded += size
        if message.sink is None:
            message.chunk = Chunk.DATA_END
            stream.skip(size)
        else:
            message.chunk, message.left = Chunk.DATA, size
    return True


def chunk_size(line: bytes) -> int | None:
    """The size on a chunk-size line, its extensions ignored; ``None`` if there is none."""
    digits = line.partition(b";")[0].strip(b" \t")
    if not digits or len(digits) > _SIZE_DIGITS_MAX or not _HEX.issuperset(digits):
        return None
    return int(digits, 16)
