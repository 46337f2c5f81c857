# SPDX-License-Identifier: Apache-2.0
"""Hiding what people say in captured HTTP/1.x, so that a recording can be shown to others.

What is kept: start lines without query and credentials, field names, values of an allow-list, and
the framing of bodies as far as it can be proved. Every other byte becomes ``x``; the length stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from otelauto.flows.vocabulary import Likeness
from otelauto.protocols.http1_body import chunk_size
from otelauto.protocols.http1_head import is_token, likeness, split_request_line, status_of

# Fields that steer the parser or say nothing of a person.
KEPT = frozenset(
    name.encode()
    for name in (
        "accept-encoding", "accept-ranges", "age", "cache-control", "connection",
        "content-encoding", "content-length", "content-type", "date", "expect", "host",
        "keep-alive", "server", "te", "traceparent", "trailer", "transfer-encoding", "upgrade",
        "user-agent", "vary",
    )
)  # fmt: skip
_HIDDEN = b"x"
_CHUNK_LINE_MAX = 64
# Ends of a body that say nothing but that it ended; longest first.
_ENDS = (b"\r\n0\r\n\r\n", b"0\r\n\r\n", b"\r\n")
_END = _ENDS[1]
_EMPTY_LINE = re.compile(rb"\n\r?\n")


@dataclass(slots=True)
class _Framing:
    """What a head says about its body. Without a length a body may go on to the close."""

    to_close: bool = False
    chunked: bool = False
    length: int | None = None
    doubtful: bool = False


def redact(payload: bytes) -> bytes:
    """``payload`` of one segment with everything personal overwritten; of equal length."""
    hidden = bytearray()
    rest = payload
    while rest:
        shown, used = _message(rest)
        if not used:
            hidden += _body(rest)
            break
        hidden += shown
        rest = rest[used:]
    return bytes(hidden)


def unfinished(payload: bytes) -> bool:
    """Whether ``payload`` ends within a head, or in what may be the beginning of one."""
    rest = payload
    while rest:
        like = likeness(rest)
        if like is Likeness.MAYBE:
            return True
        if like is Likeness.NO or _head_end(rest) is None:
            return like is not Likeness.NO
        rest = rest[_message(rest)[1] :]
    return False


def _head_end(data: bytes) -> int | None:
    """Where the head that ``data`` begins with ends: behind its empty line."""
    found = _EMPTY_LINE.search(data, len(data) - len(data.lstrip(b"\r\n")))
    return found.end() if found else None


def _hide(data: bytes) -> bytes:
    return _HIDDEN * len(data)


def _message(data: bytes) -> tuple[bytes, int]:
    """The message that ``data`` begins with, redacted, and its bytes; none if it is no head."""
    if likeness(data) not in (Likeness.REQUEST, Likeness.RESPONSE):
        return b"", 0
    start = len(data) - len(data.lstrip(b"\r\n"))
    line_end = data.index(b"\n", start)
    shown = bytearray(data[:start] + _start_line(data[start:line_end]) + b"\n")
    framing = _Framing(_may_have_body(data[start:line_end]))
    at = line_end + 1
    while at < len(data):
        newline = data.find(b"\n", at)
        if newline < 0:
            shown += _hide(data[at:])
            return bytes(shown), len(data)
        line = data[at:newline]
        at = newline + 1
        shown += _field(line, framing) + b"\n"
        if line in (b"", b"\r"):
            body, used = _framed_body(data[at:], framing)
            return bytes(shown) + body, at + used
    return bytes(shown), len(data)


def _may_have_body(line: bytes) -> bool:
    """Whether ``line`` begins a response that can have a body."""
    known = status_of(line.rstrip(b"\r"))
    return known is not None and known[1] >= 200 and known[1] not in (204, 304)


def _start_line(line: bytes) -> bytes:
    text = line.rstrip(b"\r")
    end = line[len(text) :]
    parts = split_request_line(text)
    if parts is None:
        return text[:13] + _hide(text[13:]) + end  # status line: the reason is free text
    begin = len(parts[0]) + 1
    behind = begin + len(parts[1])
    return text[:begin] + _target(parts[1]) + text[behind:] + end


def _target(target: bytes) -> bytes:
    """A request target without query, fragment and credentials."""
    path_end = min(at for at in (target.find(b"?"), target.find(b"#"), len(target)) if at >= 0)
    shown, hidden = target[:path_end], target[path_end:]
    if not shown.startswith(b"/"):
        scheme, colon, rest = shown.rpartition(b"://")
        authority, slash, path = rest.partition(b"/")
        user, at, host = authority.rpartition(b"@")
        shown = scheme + colon + _hide(user) + at + host + slash + path
    return shown + hidden[:1] + _hide(hidden[1:])


def _field(line: bytes, framing: _Framing) -> bytes:
    """One field line (without LF), redacted; takes note of what it says about the body."""
    text = line.rstrip(b"\r")
    end = line[len(text) :]
    name, colon, value = text.partition(b":")
    if not text:
        return end
    if not colon or not is_token(name):  # folded, or not a field at all
        framing.doubtful = True
        return _hide(text) + end
    word, bare = name.lower(), value.strip(b" \t")
    if word == b"transfer-encoding":
        framing.chunked = bare.lower().endswith(b"chunked")
    elif word == b"content-length":
        new = int(bare) if bare.isdigit() and len(bare) < 19 else -1
        framing.doubtful |= new < 0 or framing.length not in (None, new)
        framing.length = new
    return name + colon + (value if word in KEPT else _hide_value(value)) + end


def _hide_value(value: bytes) -> bytes:
    lead = len(value) - len(value.lstrip(b" \t"))
    return value[:lead] + _hide(value[lead:])


def _framed_body(data: bytes, framing: _Framing) -> tuple[bytes, int]:
    """The body that begins ``data``, and how many bytes of ``data`` belong to it."""
    if framing.doubtful:
        return _hide(data), len(data)
    if framing.chunked:
        return _chunks(data)
    length = framing.length
    if length is None:
        return (_hide(data), len(data)) if framing.to_close else (b"", 0)
    return _hide(data[:length]), min(length, len(data))


def _chunks(data: bytes) -> tuple[bytes, int]:
    """A chunked body from its first chunk on: size lines and line ends are kept."""
    shown = bytearray()
    at = 0
    while True:
        newline = data.find(b"\n", at, at + _CHUNK_LINE_MAX)
        size = chunk_size(data[at:newline].rstrip(b"\r")) if newline >= 0 else None
        if size is None:
            return bytes(shown) + _hide(data[at:]), len(data)
        line = data[at:newline].rstrip(b"\r")
        digits, semicolon, extension = line.partition(b";")
        shown += digits + semicolon + _hide(extension) + data[at + len(line) : newline + 1]
        at = newline + 1
        if size == 0:
            trailer, used = _trailer(data[at:])
            return bytes(shown) + trailer, at + used
        content = data[at : at + size]
        shown += _hide(content)
        at += len(content)
        if data[at : at + 2] == b"\r\n":
            shown += b"\r\n"
            at += 2
        elif at < len(data):
            return bytes(shown) + _hide(data[at:]), len(data)
        if at >= len(data):
            return bytes(shown), len(data)


def _trailer(data: bytes) -> tuple[bytes, int]:
    """Trailer fields up to the empty line: names and values are hidden, line ends kept."""
    shown = bytearray()
    at = 0
    while at < len(data):
        newline = data.find(b"\n", at)
        if newline < 0:
            return bytes(shown) + _hide(data[at:]), len(data)
        line = data[at:newline]
        end = b"\r\n" if line.endswith(b"\r") else b"\n"
        shown += _hide(line[: len(line) + 1 - len(end)]) + end
        at = newline + 1
        if line in (b"", b"\r"):
            break
    return bytes(shown), at


def _body(data: bytes) -> bytes:
    """Bytes that begin no message: chunks if they prove to be, else only an end is kept."""
    if _is_chunks(data):
        return _chunks(data)[0]
    for end in _ENDS:
        if data.endswith(end):
            return _hide(data[: -len(end)]) + end
    return _hide(data)


def _is_chunks(data: bytes) -> bool:
    """Whether whole chunks fill ``data`` exactly, at least one with content."""
    at = 0
    while at < len(data):
        newline = data.find(b"\n", at, at + _CHUNK_LINE_MAX)
        line = data[at:newline] if newline >= 0 else b""
        size = chunk_size(line[:-1]) if line.endswith(b"\r") else None
        if size is None:
            return False
        if size == 0:
            return at > 0 and data[at:] == _END
        at = newline + 1 + size
        if data[at : at + 2] != b"\r\n":
            return False
        at += 2
    return at > 0
