# SPDX-License-Identifier: Apache-2.0
"""What hot/http2.pyx does, in Python: the reference that it is compared with.

HTTP/2 (RFC 9113): exchanges by stream, and the calls of gRPC that they carry.

Frames say where the next one begins, so payloads need not be there; bytes that are missing within
one do no harm. Where a frame's header is missing the place is lost. It is found again at a later
segment that begins like a frame, which most do. Whether header blocks were missed meanwhile (and
HPACK with them) is not assumed either way but looked at: see :meth:`Http2Parser._is_intact`.
"""

from __future__ import annotations

from typing import Any

from tests.reference import http2_frames, http2_message
from tests.reference.hpack import Block, Decoder
from tests.reference.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER,
    HEADERS,
    PADDED,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_MASK,
    Plausible,
    fragment,
    is_plausible,
    unpack_header,
)
from tests.reference.http2_message import Http2Message

from otelauto.flows.vocabulary import (
    Address,
    Description,
    Desync,
    Entry,
    Likeness,
    Role,
    Segment,
    Side,
    Stream,
)
from otelauto.protocols.http2 import Http2Parser as Checked
from otelauto.protocols.settings import ProtocolSettings

_OPEN_MAX = 4096  # streams; the oldest is given up
_BLOCK_MAX = 128 * 1024  # bytes of a header block
_DATA_FLAGS = END_STREAM | PADDED
_HEADS = (HEADERS, CONTINUATION, PUSH_PROMISE)
_PROMISED = 4  # bytes of the stream id in PUSH_PROMISE
_INTERIM = range(100, 200)
_NO_TROUBLE = (0, 5, 8)  # section 7: NO_ERROR, STREAM_CLOSED, CANCEL


class Http2:
    """The registry's entry."""

    name = "http2"
    multiplexed = True
    opaque = False
    beginning = PREFACE[:8]
    response_start = b""

    def __init__(self, settings: ProtocolSettings) -> None:
        self._settings = settings

    def recognize(self, head: bytes, at_start: bool) -> Likeness:
        """The preface; or, on a connection joined in the middle, frames with a header block.

        The server may speak first: SETTINGS alone may become HTTP/2.
        """
        if head.startswith(PREFACE):
            return Likeness.REQUEST
        if at_start and (PREFACE.startswith(head) or http2_frames.may_be_settings(head)):
            return Likeness.MAYBE
        if len(head) < HEADER:
            return Likeness.NO
        if at_start and head[3] != SETTINGS:
            return Likeness.NO
        if http2_frames.chain(head) is Plausible.NO:
            return Likeness.NO
        return http2_frames.first_block(head)

    def parser(self) -> Http2Parser:
        """A reader for a new connection."""
        return Http2Parser(self._settings)


class _Half:
    """One direction: where its reader stands. ``left`` bytes of a payload are still to pass."""

    __slots__ = (
        "block", "content", "decoder", "ends", "left", "lost", "message", "opened", "preface",
        "role", "stream", "suspects",
    )  # fmt: skip

    def __init__(self, role: Role) -> None:
        self.role = role
        self.decoder = Decoder()
        self.lost = False
        self.preface = False  # to be passed first
        self.left = 0
        self.content = 0  # of them, without padding
        self.ends = False  # the payload at hand ends its stream
        self.stream = 0  # of the payload, or of the block
        self.message: Http2Message | None = None
        self.block: bytearray | None = None  # a header block that CONTINUATION goes on with
        # Of that block: where and when it began, its TCP sequence number, its flags, its kind.
        self.opened = (0, 0, 0, 0, 0)
        self.suspects: set[int] | None = None  # streams whose header blocks may have been missed


class Http2Parser:
    """One connection."""

    __slots__ = (
        "_checked", "_halves", "_last", "_open", "_segment", "_time", "_unsure", "finished",
        "unmatched", "upgraded",
    )  # fmt: skip

    def __init__(self, settings: ProtocolSettings) -> None:
        self.finished: list[Entry] = []
        self.unmatched = 0
        self.upgraded = False
        self._halves = {role: _Half(role) for role in Role}
        self._open: dict[int, Entry] = {}
        self._time = 0  # of the last bytes
        self._last = 0  # highest stream that the client has opened
        # The server may send header blocks for streams that are not known (any more) to be open.
        self._unsure = False
        self._checked = Checked(settings)

    def begin(self, whole: tuple[bool, bool]) -> None:
        """A stream joined in the middle: requests stand at a frame, responses anywhere."""
        for half, is_whole in zip(self._halves.values(), whole, strict=True):
            if not is_whole:
                half.decoder.lose()
                half.lost = half.role is Role.RESPONSE
                self._unsure = True
        self._halves[Role.REQUEST].preface = True

    # ---- the place ----

    def read(self, role: Role, stream: Stream, segment: Segment) -> None:
        """Read all frames that are there. Raises Desync where the place is lost."""
        half = self._halves[role]
        self._segment = segment
        self._time = stream.time_at(stream.end - 1)
        if half.lost and not self._finds_place(half, stream, segment):
            raise Desync("no frame begins here")
        if half.preface and not _passes_preface(half, stream):
            return
        while True:
            stream.skip(self._walk(half, stream))
            if not stream.hole():
                return
            if half.left:
                self._pass_unseen(half, stream)
            elif not self._cut_head(half, stream):
                self._doubt(half)
                if not self._finds_place(half, stream, segment):
                    raise Desync("frame header missing")
            if stream.position >= stream.end:
                return

    def lose(self, role: Role, stream: Stream) -> None:
        """What passes up to the next segment is missed, and maybe the end of streams with it."""
        stream.skip(stream.end - stream.position)
        self._doubt(self._halves[role])

    def _doubt(self, half: _Half) -> None:
        """Bytes were missed that may have been anything."""
        half.lost = True
        half.left = 0
        half.block = None
        half.preface = False
        asks = half.role is Role.REQUEST
        asked = self._halves[Role.REQUEST]
        certain = asks or not (self._unsure or asked.lost or asked.suspects is not None)
        for entry in self._open.values():
            message = entry.request if asks else entry.response
            if message is None:
                certain = False
            elif not message.complete:
                message.inexact = True
                if message.content is not None:
                    message.content.skip(0)
            if not asks:
                entry.incomplete = "lost"
        if certain:
            half.suspects = (half.suspects or set()) | set(self._open)
        else:
            half.decoder.lose()
            half.suspects = None

    def _is_intact(self, half: _Half, number: int, flags: int) -> bool:
        """Whether no header block can have been missed before this one, on stream ``number``.

        Clients open streams in order: if the next one is the next, none was opened unseen. Servers:
        every stream that was being answered was seen to end after the hole, or ends with this.
        """
        suspects = half.suspects
        half.suspects = None
        if half.role is Role.REQUEST:
            intact = number == self._last + 2
            if not intact:
                self._unsure = True
            return intact
        if self._unsure or self._halves[Role.REQUEST].suspects is not None:
            return False
        return not suspects or (suspects == {number} and flags & END_STREAM != 0)

    def _finds_place(self, half: _Half, stream: Stream, segment: Segment) -> bool:
        stream.skip(max(segment.offset - stream.position, 0))
        data = stream.window()
        found = http2_frames.chain(data)
        if found is Plausible.SHORT and len(data) >= HEADER:
            known = unpack_header(data)[4] in self._open
            found = Plausible.YES if known else found
        if found is Plausible.YES:
            half.lost = False
            return True
        stream.skip(stream.end - stream.position)
        return False

    def _pass_unseen(self, half: _Half, stream: Stream) -> None:
        """Bytes of a payload that are not known, as many as have passed."""
        begin, known = stream.position, self._segment.offset
        count = min(half.left, (known if begin < known else stream.end) - begin)
        content = min(count, half.content)
        half.content -= content
        half.left -= count
        if half.message is not None:
            half.message.wire_size += content
            if half.message.messages is not None:
                half.message.messages.skip(content)
            if half.message.content is not None and content:
                half.message.content.skip(content)
        stream.skip(count)
        if not half.left and half.ends:
            self._end(half, half.stream, stream.time_at(stream.position - 1))

    def _cut_head(self, half: _Half, stream: Stream) -> bool:
        """Read what is known of a frame that is not whole; ``False`` if that is too little."""
        data = stream.window()
        if len(data) < HEADER:
            return False
        high, low, kind, flags, number = unpack_header(data)
        length = high << 16 | low
        if not is_plausible(length, kind, flags, number):
            return False
        if kind in _HEADS:
            self._on_head(half, kind, flags, number, data[HEADER:], stream, stream.position, True)
        stream.skip(len(data))
        half.left = length + HEADER - len(data)
        half.content, half.message = 0, None
        half.ends = kind in (HEADERS, DATA) and flags & END_STREAM != 0
        half.stream = number
        entry = self._open.get(number)
        if kind == DATA and entry is not None:  # how much of it is padding is not known
            for message in (entry.request, entry.response):
                if message is not None and not message.complete:
                    message.inexact = True
                if message is not None and message.content is not None:
                    message.content.skip(length)
        return True

    # ---- frames ----

    def _walk(self, half: _Half, stream: Stream) -> int:
        """Read frames from the window; how many bytes of it were used."""
        data = stream.window()
        at, size, begin = 0, len(data), stream.position
        while True:
            if half.left:
                at += self._pass_payload(half, data, at)
                if half.left:
                    return at
                if half.ends:
                    self._end(half, half.stream, stream.time_at(begin + at - 1))
            if size - at < HEADER:
                return at
            high, low, kind, flags, number = unpack_header(data, at)
            length = high << 16 | low
            if kind == DATA and not flags & PADDED:
                at += HEADER
                self._begin_data(half, number, flags, length, length)
            elif kind == DATA:
                if size - at == HEADER:
                    return at
                padding = data[at + HEADER]
                at += HEADER + 1
                self._begin_data(half, number, flags, length - 1, length - 1 - padding)
            else:
                end = at + HEADER + length
                if not is_plausible(length, kind, flags, number) or length > _BLOCK_MAX:
                    raise Desync("not a frame")
                if end > size:
                    return at
                self._on_frame(
                    half, kind, flags, number, data[at + HEADER : end], stream, begin + at
                )
                at = end
            if not half.left and kind == DATA and half.ends:
                self._end(half, number, stream.time_at(begin + at - 1))

    def _begin_data(self, half: _Half, number: int, flags: int, length: int, content: int) -> None:
        if not 0 < number <= STREAM_MASK or flags & ~_DATA_FLAGS or content < 0:
            raise Desync("not a DATA frame")
        if half.block is not None:
            raise Desync("header block interrupted")
        entry = self._open.get(number)
        message: Http2Message | None = None
        if entry is not None:
            message = entry.request if half.role is Role.REQUEST else entry.response
            if message is not None and length:
                message.has_body = True
        half.message = message
        half.left, half.content = length, content
        half.ends = flags & END_STREAM != 0
        half.stream = number

    def _pass_payload(self, half: _Half, data: bytes, at: int) -> int:
        """The payload goes on at ``at``; how much of it is there."""
        count = min(half.left, len(data) - at)
        half.left -= count
        message = half.message
        if message is not None and count:
            content = min(count, half.content)
            half.content -= content
            message.wire_size += content
            if message.messages is not None:
                message.messages.feed(data[at : at + content])
            if message.content is not None:
                message.content.feed(data[at : at + content])
        return count

    def _on_frame(
        self,
        half: _Half,
        kind: int,
        flags: int,
        number: int,
        payload: bytes,
        stream: Stream,
        at: int,
    ) -> None:
        """A whole frame that is not DATA, at offset ``at``."""
        if half.block is not None and kind != CONTINUATION:
            raise Desync("header block interrupted")
        last = stream.time_at(at + HEADER + len(payload) - 1)
        if kind in _HEADS:
            self._on_head(half, kind, flags, number, payload, stream, at, False)
        elif kind == RST_STREAM:
            entry = self._open.get(number)
            if entry is not None:
                self._abort(number, entry, int.from_bytes(payload), last)
        elif kind == GOAWAY and half.role is Role.RESPONSE:
            served = int.from_bytes(payload[:4]) & STREAM_MASK
            for opened in [each for each in self._open if each > served]:
                self._abort(opened, self._open[opened], int.from_bytes(payload[4:8]), last)

    def _on_head(
        self, half: _Half, kind: int, flags: int, number: int, payload: bytes, stream: Stream,
        at: int, cut: bool,
    ) -> None:  # fmt: skip
        """A part of a header block, the last one if the flags say so or it is ``cut``."""
        ends = flags & END_HEADERS or cut
        last = at + HEADER + len(payload) - 1
        if kind == CONTINUATION:
            if half.block is None or half.stream != number:
                raise Desync("CONTINUATION of nothing")
            half.block += payload
            at, time, sequence, flags, kind = half.opened
        else:
            skipped = _PROMISED if kind == PUSH_PROMISE else 0
            half.block = bytearray(fragment(payload, flags, skipped, cut))
            time, sequence = stream.time_at(at), stream.sequence_at(at)
            half.stream, half.opened = number, (at, time, sequence, flags, kind)
        if len(half.block) > _BLOCK_MAX:
            raise Desync("header block too long")
        if not ends:
            return
        data, half.block = bytes(half.block), None
        if half.suspects is not None and not self._is_intact(half, number, flags):
            half.decoder.lose()
        block = half.decoder.decode(data, cut)
        if kind == PUSH_PROMISE:
            return  # what is pushed is no answer to a request that was made
        if half.role is Role.REQUEST:
            self._on_request_block(number, block, (time, sequence, len(data)))
        else:
            self._on_response_block(number, block, (time, sequence, len(data)))
        if flags & END_STREAM and not cut:
            self._end(half, number, stream.time_at(last))

    # ---- streams ----

    def _on_request_block(self, number: int, block: Block, head: tuple[int, int, int]) -> None:
        if number <= self._last:
            return  # trailers
        self._last = number
        message = Http2Message(0, *head)
        http2_message.request(message, block)
        if len(self._open) >= _OPEN_MAX:
            oldest = next(iter(self._open))
            self._unsure = True
            self._open[oldest].incomplete = "lost"
            self._finish(oldest)
        self._open[number] = Entry(message, self._segment.tgid, self._segment.tid)

    def _on_response_block(self, number: int, block: Block, head: tuple[int, int, int]) -> None:
        entry = self._open.get(number)
        if entry is None:
            if b":status" in block.fields and number & 1:
                self.unmatched += 1
            return
        if b":status" not in block.fields and (entry.response or not (block.unknown or block.cut)):
            http2_message.trailers(block, entry.request)  # maybe of a head that was missed
            if entry.response is not None:
                entry.response.unknown += block.unknown
            return
        if http2_message.status_of(block.fields) in _INTERIM:
            return
        message = Http2Message(0, *head)
        http2_message.response(message, block, entry.request)
        entry.response = message

    def _end(self, half: _Half, number: int, time: int) -> None:
        """A stream's last byte in this direction has passed; the response's ends the exchange."""
        half.ends = False
        if half.suspects is not None:
            half.suspects.discard(number)
        entry = self._open.get(number)
        if entry is None:
            return
        message = entry.request if half.role is Role.REQUEST else entry.response
        if message is not None:
            message.complete = True
            message.end_ns = time
        if half.role is Role.RESPONSE:
            entry.incomplete = "lost" if message is None else None
            self._finish(number)

    def _abort(self, number: int, entry: Entry, code: int, time: int) -> None:
        self._unsure = True
        if code not in _NO_TROUBLE or not http2_message.settle(entry, time):
            entry.incomplete = "aborted"
            entry.request.reset = code
        self._finish(number)

    def _finish(self, number: int) -> None:
        self.finished.append(self._open.pop(number))

    def settle(self) -> None:
        """Finish the streams whose end alone is missing."""
        for number, entry in list(self._open.items()):
            if http2_message.settle(entry, self._time):
                self._finish(number)

    def abandon(self) -> list[Entry]:
        """The streams that are open."""
        left, self._open = list(self._open.values()), {}
        return left

    def compiled(self) -> None:
        """This is not."""

    def describe(
        self,
        side: Side,
        ends: tuple[Address, Address],
        request: Any,
        response: Any,
    ) -> Description:
        """In the words of the one that is checked: they are not compiled."""
        return self._checked.describe(side, ends, request, response)


def _passes_preface(half: _Half, stream: Stream) -> bool:
    """Whether the connection preface, if there is one, has been passed."""
    data = stream.window()
    if len(data) < len(PREFACE) and PREFACE.startswith(data) and not stream.hole():
        return False
    half.preface = False
    if data.startswith(PREFACE):
        stream.skip(len(PREFACE))
    return True
