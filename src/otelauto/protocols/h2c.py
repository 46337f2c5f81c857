# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 that becomes HTTP/2 (``Upgrade: h2c``, RFC 7540, section 3.2).

The request that asked for it is stream 1 then, and answered there. The reader of HTTP/2 is told of
it in its own words: as the frames that would have said the same.
"""

from __future__ import annotations

import struct

from otelauto.flows.vocabulary import Entry, MultiplexParser
from otelauto.protocols import traceparent
from otelauto.protocols.http1_body import Http1Message
from otelauto.protocols.http2 import Http2

UPGRADE = b"h2c"
_DATA, _HEADERS = 0, 1  # RFC 9113, section 6
_END_STREAM, _END_HEADERS = 1, 4
_FIRST = 1  # the stream of the request that was an HTTP/1.1 one
_LITERAL = 0x10  # never indexed, with a new name (RFC 7541, section 6.2.3)
_HEAD_MAX = 1 << 14
_BODY_MAX = (1 << 24) - 1  # of one frame


def parser_of(recognizer: Http2, entry: Entry) -> MultiplexParser | None:
    """A reader of what follows, on which ``entry`` is open; ``None``: it cannot be told of it."""
    request: Http1Message = entry.request
    size = request.body_size() or 0
    block = b"".join(_field(name, value) for name, value in _fields(request))
    if not request.complete or size > _BODY_MAX or len(block) > _HEAD_MAX:
        return None
    said = _frame(_HEADERS, _END_HEADERS | (0 if size else _END_STREAM), len(block)) + block
    if size:
        said += _frame(_DATA, _END_STREAM, size)
    parser = recognizer.parser()
    session, moved = parser.session, (request.tcp_sequence, entry.tgid, entry.tid)
    session.feed(True, said[:-1], 0, request.start_ns, *moved)
    session.feed(True, said[-1:], size, request.end_ns, *moved)
    return parser


def _fields(request: Http1Message) -> list[tuple[bytes, bytes]]:
    fields = [
        (b":method", request.method),
        (b":scheme", b"http"),
        (b":path", request.target),
        (b":authority", request.host or b""),
    ]
    if request.user_agent is not None:
        fields.append((b"user-agent", request.user_agent))
    if request.parent is not None:
        fields.append((b"traceparent", traceparent.text(request.parent)))
    return fields


def _field(name: bytes, value: bytes) -> bytes:
    return bytes([_LITERAL]) + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    """Not Huffman-coded (RFC 7541, sections 5.1 and 5.2)."""
    if len(text) < 0x7F:
        return bytes([len(text)]) + text
    rest, digits = len(text) - 0x7F, bytearray([0x7F])
    while rest >= 0x80:
        digits.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(digits) + bytes([rest]) + text


def _frame(kind: int, flags: int, length: int) -> bytes:
    return struct.pack("!BHBBI", length >> 16, length & 0xFFFF, kind, flags, _FIRST)
