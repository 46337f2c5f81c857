# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 (RFC 9113): how it is recognised, and what its exchanges are called.

What the bytes say is read by compiled code (hot/http2.pyx).
"""

from __future__ import annotations

from typing import Final

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
from otelauto.hot.http2 import Session, first_block, plausible
from otelauto.protocols import grpc, http_operations
from otelauto.protocols.http1_describe import Describer
from otelauto.protocols.http2_message import Http2Message, entry_of
from otelauto.protocols.settings import ProtocolSettings

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # section 3.4
HEADER: Final = 9  # bytes of a frame's
SETTINGS: Final = 4
_READ, _DOUBTED = 0, 1
# Section 7.
_ERRORS = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
_LIKENESS = {
    "request": Likeness.REQUEST,
    "response": Likeness.RESPONSE,
    "more": Likeness.MAYBE,
    "": Likeness.NO,
}


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
        if at_start and (PREFACE.startswith(head) or _may_be_settings(head)):
            return Likeness.MAYBE
        if len(head) < HEADER:
            return Likeness.NO
        if at_start and head[3] != SETTINGS:
            return Likeness.NO
        if not plausible(head):
            return Likeness.NO
        return _LIKENESS[first_block(head)]

    def parser(self) -> Http2Parser:
        """A reader for a new connection."""
        return Http2Parser(self._settings)


def _may_be_settings(head: bytes) -> bool:
    """Whether less than a frame header is there, which may become that of SETTINGS."""
    return (
        0 < len(head) < HEADER
        and not any(head[:2])
        and head[3:4] in (b"", bytes([SETTINGS]))
        and not any(head[4:])
    )


class Http2Parser:
    """One connection. ``session`` holds what is known of it; the fast lane may read it on."""

    __slots__ = ("_describer", "_operations", "finished", "session", "unmatched", "upgraded")

    def __init__(self, settings: ProtocolSettings) -> None:
        self.finished: list[Entry] = []
        self.unmatched = 0
        self.upgraded = False
        self._operations = settings.operations
        self.session = Session(entry_of, http_operations.may_ask if self._operations else None)
        self._describer = Describer(settings)

    def begin(self, whole: tuple[bool, bool]) -> None:
        """A stream joined in the middle: requests stand at a frame, responses anywhere."""
        self.session.begin(*whole)

    def read(self, role: Role, stream: Stream, segment: Segment) -> None:
        """Read all frames that are there. Raises Desync where the place is lost."""
        asks, session = role is Role.REQUEST, self.session
        whole = True
        while whole and stream.position < stream.end:
            whole = self._read_on(asks, stream, segment)
        stream.skip(stream.end - stream.position)
        self.unmatched += session.take_unmatched()
        self.finished += session.take_ended()
        if not whole:
            raise Desync("no frame is here")

    def _read_on(self, asks: bool, stream: Stream, segment: Segment) -> bool:
        """Read what passed in one piece, or what is missing before ``segment``.

        ``False``: the place is lost.
        """
        if self.session.lost(asks):
            stream.skip(max(segment.offset - stream.position, 0))
        begin = stream.position
        data = stream.window()
        time, tcp_sequence, end = stream.time_at(begin), stream.sequence_at(begin), stream.end
        if begin < segment.offset:
            end = segment.offset if not data else stream.piece_end(begin)
        data = data[: end - begin]
        stream.skip(end - begin)
        became = self.session.feed(
            asks, data, end - begin - len(data), time, tcp_sequence, segment.tgid, segment.tid
        )
        return became == _READ or (became == _DOUBTED and end <= segment.offset)

    def lose(self, role: Role, stream: Stream) -> None:
        """What passes up to the next segment is missed, and maybe the end of streams with it."""
        stream.skip(stream.end - stream.position)
        self.session.doubt(role is Role.REQUEST)

    def settle(self) -> None:
        """Finish the streams whose end alone is missing."""
        self.finished += self.session.settle()

    def abandon(self) -> list[Entry]:
        """The streams that are open."""
        return self.session.abandon()

    def compiled(self) -> Session | None:
        """What the fast lane may read on with; ``None`` while the place is lost."""
        session = self.session
        return None if session.lost(True) or session.lost(False) else session

    def describe(
        self,
        side: Side,
        ends: tuple[Address, Address],
        request: Http2Message,
        response: Http2Message | None,
    ) -> Description:
        """As a call where it carries one, else as HTTP."""
        if request.call is not None:
            said = grpc.describe(side, ends, request, response, request.call)
        else:
            said = self._describer.describe(side, ends, ends[1], request, response)
            if request.content is not None:
                answer = response.content if response is not None else None
                asked = http_operations.Asked(request.content, answer)
                said = http_operations.describe(said, side, asked, self._operations)
        if request.reset >= 0:
            known = request.reset < len(_ERRORS)
            said.attributes["otelauto.http2.error"] = (
                _ERRORS[request.reset] if known else f"0x{request.reset:x}"
            )
        return said
