# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 frames (RFC 9113, sections 4 and 6): their headers, what tells them from other bytes."""

from __future__ import annotations

import enum
import struct
from typing import Final

from tests.reference.hpack import Decoder

from otelauto.flows.vocabulary import Desync, Likeness

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # section 3.4
HEADER: Final = 9
# Length (high, low), type, flags, stream.
unpack_header: Final = struct.Struct("!BHBBI").unpack_from
STREAM_MASK: Final = 0x7FFFFFFF

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE = range(9)
CONTINUATION: Final = 9
# ALTSVC (RFC 7838), ORIGIN (RFC 8336) and PRIORITY_UPDATE (RFC 9218).
_EXTENSIONS = {0x0A, 0x0C, 0x10}

END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

_FLAGS = {
    DATA: END_STREAM | PADDED,
    HEADERS: END_STREAM | END_HEADERS | PADDED | PRIORITIZED,
    SETTINGS: 0x1,
    PUSH_PROMISE: END_HEADERS | PADDED,
    PING: 0x1,
    CONTINUATION: END_HEADERS,
}
_LENGTHS = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_OF_STREAM = {DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION}
_OF_CONNECTION = {SETTINGS, PING, GOAWAY}
_GOAWAY_MIN = 8
_SETTING = 6
LENGTH_MAX: Final = 1 << 20  # ours: a longer frame is not believed where a place is looked for


class Plausible(enum.Enum):
    """What bytes are that should begin with a frame."""

    NO = 0
    SHORT = 1  # less than a whole frame of a kind that tells
    YES = 2


def is_plausible(length: int, kind: int, flags: int, stream: int) -> bool:
    """Whether a frame header says what a sender would, by section 6 (strict)."""
    if length > LENGTH_MAX or stream > STREAM_MASK:
        return False
    if (kind in _OF_STREAM and not stream) or (kind in _OF_CONNECTION and stream):
        return False
    if kind > CONTINUATION:
        return kind in _EXTENSIONS
    if flags & ~_FLAGS.get(kind, 0) or _LENGTHS.get(kind, length) != length:
        return False
    if kind == SETTINGS:
        return length % _SETTING == 0 and not (flags and length)
    return kind != GOAWAY or length >= _GOAWAY_MIN


def chain(data: bytes) -> Plausible:
    """Whether ``data`` begins at a frame: every frame header in it must be plausible.

    A header is not much of a proof for a DATA frame whose end is not there.
    """
    at, proved = 0, False
    while len(data) - at >= HEADER:
        high, low, kind, flags, stream = unpack_header(data, at)
        if not is_plausible(high << 16 | low, kind, flags, stream):
            return Plausible.NO
        at += HEADER + (high << 16 | low)
        proved = proved or kind not in (DATA, CONTINUATION) or at == len(data)
        if at <= len(data) - HEADER:
            proved = True  # by the next header, which is looked at now
    return Plausible.YES if proved else Plausible.SHORT


def may_be_settings(head: bytes) -> bool:
    """Whether less than a frame header is there, which may become that of SETTINGS."""
    return (
        0 < len(head) < HEADER
        and not any(head[:2])
        and head[3:4] in (b"", bytes([SETTINGS]))
        and not any(head[4:])
    )


def fragment(payload: bytes, flags: int, skipped: int = 0, cut: bool = False) -> bytes:
    """The header block fragment in the payload of HEADERS or PUSH_PROMISE (sections 6.2, 6.6).

    ``skipped`` bytes come before it; of a ``cut`` payload the end is missing. Raises Desync if the
    padding takes more than there is.
    """
    begin, end = skipped, len(payload)
    if flags & PADDED:
        if not payload:
            raise Desync("frame without its padding")
        begin += 1
        end -= 0 if cut else payload[0]
    if flags & PRIORITIZED:
        begin += 5
    if begin > end and not cut:
        raise Desync("frame padding too long")
    return payload[begin:end]


def first_block(head: bytes) -> Likeness:
    """By its first header block: who sends frames that are plausible ones."""
    at = 0
    while len(head) - at >= HEADER:
        high, low, kind, flags, stream = unpack_header(head, at)
        end = at + HEADER + (high << 16 | low)
        if kind == HEADERS and end <= len(head):
            decoder = Decoder()
            decoder.lose()
            try:
                block = decoder.decode(
                    fragment(head[at + HEADER : end], flags), not flags & END_HEADERS
                )
            except Desync:
                return Likeness.NO
            if stream & 1 and (b":method" in block.fields or b":scheme" in block.fields):
                return Likeness.REQUEST
            if b":status" in block.fields:
                return Likeness.RESPONSE
        at = end
    return Likeness.MAYBE
