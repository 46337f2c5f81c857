# SPDX-License-Identifier: Apache-2.0
"""Heads of HTTP/1.x messages (RFC 9112, sections 2 to 5): where they end and what they say."""

from __future__ import annotations

from otelauto.flows.vocabulary import Likeness

HEAD_MAX = 64 * 1024  # a longer head is read as far as it goes
LINE_MAX = 16 * 1024  # a start line longer than this is not believed
METHOD_MAX = 32

# RFC 9110, PATCH (RFC 5789) and QUERY: what semantic conventions call known.
KNOWN_METHODS = {
    method.encode(): method
    for method in (
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
    )
}  # fmt: skip
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_CONTROLS = bytes((*range(0x20), 0x7F))
_CAPITALS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-_")
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
_RESPONSE = b"HTTP/1."
_STATUS_LINE_MIN = 12  # HTTP/1.1 200
_SPACES = b" \t\r"
_LENGTH_DIGITS_MAX = 18
CONFLICT = -1  # a Content-Length that cannot be believed


class Fields:
    """The field lines of one head. Names are matched without case; what was asked is remembered.

    ``codings`` are the transfer codings in order, lower case. ``length`` is the one Content-Length,
    ``None`` without one, and ``-1`` if it is no number or there are several that differ (RFC 9112,
    section 6.3).
    """

    __slots__ = ("_known", "_lower", "codings", "length", "raw")

    def __init__(self, raw: bytes) -> None:
        if b"\n " in raw or b"\n\t" in raw:
            raw = _unfold(raw)
        self.raw = raw
        self._lower = raw.lower()
        self._known: dict[bytes, tuple[bytes, ...]] = {}
        self.codings = _codings(self.values(b"\ntransfer-encoding:"))
        self.length = _content_length(self.values(b"\ncontent-length:"))

    def value(self, key: bytes) -> bytes | None:
        """The first value of the field whose lower-case name between LF and colon is ``key``."""
        found = self.values(key)
        return found[0] if found else None

    def values(self, key: bytes) -> tuple[bytes, ...]:
        """All values of a field, in order; ``key`` as for :meth:`value`."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._find(key)
        return known

    def _find(self, key: bytes) -> tuple[bytes, ...]:
        values = []
        found = self._lower.find(key)
        while found >= 0:
            start = found + len(key)
            end = self.raw.find(b"\n", start)
            values.append((self.raw[start:end] if end >= 0 else self.raw[start:]).strip(_SPACES))
            found = self._lower.find(key, start)
        return tuple(values)


class Heads:
    """Splits heads. A client sends the same fields again and again: the last ones are kept."""

    KEPT_MAX = 256
    KEPT_SIZE_MAX = 2048

    def __init__(self) -> None:
        self._kept: dict[bytes, Fields] = {}

    def split(self, lines: bytes) -> tuple[bytes, Fields]:
        """The start line without its end, and the fields."""
        end = lines.find(b"\n")
        if end < 0:
            return lines.rstrip(b"\r"), Fields(b"")
        raw = lines[end:]
        fields = self._kept.get(raw)
        if fields is None:
            fields = Fields(raw)
            if len(raw) <= self.KEPT_SIZE_MAX:
                if len(self._kept) >= self.KEPT_MAX:
                    self._kept.clear()
                self._kept[raw] = fields
        return lines[:end].rstrip(b"\r"), fields


def _codings(values: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if not values:
        return ()
    items = b",".join(values).lower().split(b",")
    codings = (item.partition(b";")[0].strip(b" \t") for item in items)
    return tuple(coding for coding in codings if coding not in (b"", b"identity"))


def _content_length(values: tuple[bytes, ...]) -> int | None:
    if not values:
        return None
    numbers = {item.strip(b" \t") for value in values for item in value.split(b",")}
    lengths = {_decimal(number) for number in numbers}
    return lengths.pop() if len(lengths) == 1 else CONFLICT


def _decimal(digits: bytes) -> int:
    return int(digits) if digits.isdigit() and len(digits) <= _LENGTH_DIGITS_MAX else CONFLICT


def _unfold(raw: bytes) -> bytes:
    """Replace obsolete line folding by spaces (RFC 9112, section 5.2)."""
    lines = raw.split(b"\n")
    joined = [lines[0]]
    for line in lines[1:]:
        if line[:1] in (b" ", b"\t"):
            joined[-1] = joined[-1].rstrip(b"\r") + b" " + line
        else:
            joined.append(line)
    return b"\n".join(joined)


def find_end(data: bytes) -> tuple[int, int] | None:
    """(bytes of the lines, bytes of the head with the empty line), ``None`` if it is not all there.

    Lines end with CRLF or a bare LF (RFC 9112, section 2.2).
    """
    crlf = data.find(b"\n\r\n")
    bare = data.find(b"\n\n", 0, crlf + 2 if crlf >= 0 else len(data))
    if bare >= 0 and (crlf < 0 or bare < crlf):
        return bare, bare + 2
    return (crlf, crlf + 3) if crlf >= 0 else None


def split_request_line(line: bytes) -> tuple[bytes, bytes, str] | None:
    """(method, target, version) of a request line, ``None`` if it is none."""
    method, _, rest = line.partition(b" ")
    target, _, version_bytes = rest.rpartition(b" ")
    version = _VERSIONS.get(version_bytes)
    if version is None or not target or not is_method(method):
        return None
    if not _plausible_target(target):
        return None
    return method, target, version


def _usual(method: bytes) -> bool:
    """Whether methods are spelt so: for recognising, a token is too little."""
    return len(method) <= METHOD_MAX and _CAPITALS.issuperset(method)


def is_method(method: bytes) -> bool:
    """Whether ``method`` is a token of sensible length."""
    if method in KNOWN_METHODS:
        return True
    return len(method) <= METHOD_MAX and is_token(method)


def is_token(word: bytes) -> bool:
    """Whether ``word`` is a token (RFC 9110, section 5.6.2)."""
    return bool(word) and _TOKEN.issuperset(word)


def _plausible_target(target: bytes) -> bool:
    """No control characters. Spaces and bytes beyond ASCII are borne, as servers bear them."""
    return len(target.translate(None, _CONTROLS)) == len(target)


def status_of(line: bytes) -> tuple[str, int] | None:
    """(version, status code) of a status line, ``None`` if it is none (RFC 9112, section 4)."""
    version = _VERSIONS.get(line[:8])
    digits = line[9:12]
    if version is None or line[8:9] != b" " or not digits.isdigit() or len(digits) != 3:
        return None
    if line[12:13] not in (b"", b" "):
        return None
    status = int(digits)
    return (version, status) if status >= 100 else None


def likeness(head: bytes) -> Likeness:
    """Whether ``head`` begins with a request line or a status line; strict."""
    start = 0
    while head[start : start + 1] in (b"\r", b"\n") and start < 8:
        start += 1
    newline = head.find(b"\n", start, start + LINE_MAX)
    if newline < 0:
        return _likeness_of_part(head[start:])
    line = head[start:newline].rstrip(b"\r")
    if line.startswith(_RESPONSE):
        return Likeness.RESPONSE if status_of(line) else Likeness.NO
    parts = split_request_line(line)
    return Likeness.REQUEST if parts and _usual(parts[0]) else Likeness.NO


def _likeness_of_part(line: bytes) -> Likeness:
    if len(line) >= LINE_MAX:
        return Likeness.NO
    if line.startswith(_RESPONSE):
        whole = len(line) <= _STATUS_LINE_MIN or status_of(line.rstrip(b"\r")) is not None
        return Likeness.MAYBE if whole else Likeness.NO
    method, space, target = line.partition(b" ")
    if not method:
        return Likeness.NO if space else Likeness.MAYBE
    if not (_usual(method) or _RESPONSE.startswith(method)):
        return Likeness.NO
    return Likeness.MAYBE if _plausible_target(target.rstrip(b"\r")) else Likeness.NO
