# SPDX-License-Identifier: Apache-2.0
"""What hot/hpack.pyx does, in Python: the reference that it is compared with.

HPACK (RFC 7541) as a bystander decodes it.

The dynamic table is one direction's. A bystander may join late, or miss a part of a header block;
then some entries are not known. Indices count from the newest entry, so what was inserted since is
known for sure, and whatever lies behind it is *unknown*: never guessed. The encoder announces every
change of the table's size in a block (section 4.2), so SETTINGS need not be followed. A table that
is held smaller than the encoder's loses old entries to the unknown; a larger one does no harm.
"""

from __future__ import annotations

from tests.reference import huffman

from otelauto.flows.vocabulary import Desync

Field = tuple[bytes, bytes]

# Appendix A, from index 1 on.
_STATIC: tuple[Field, ...] = (
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"),
    (b":path", b"/index.html"), (b":scheme", b"http"), (b":scheme", b"https"),
    *((b":status", code) for code in b"200 204 206 304 400 404 500".split()),
    (b"accept-charset", b""), (b"accept-encoding", b"gzip, deflate"),
    *((name, b"") for name in (
        b"accept-language accept-ranges accept access-control-allow-origin age allow authorization "
        b"cache-control content-disposition content-encoding content-language content-length "
        b"content-location content-range content-type cookie date etag expect expires from host "
        b"if-match if-modified-since if-none-match if-range if-unmodified-since last-modified link "
        b"location max-forwards proxy-authenticate proxy-authorization range referer refresh "
        b"retry-after server set-cookie strict-transport-security transfer-encoding user-agent "
        b"vary via www-authenticate"
    ).split()),
)  # fmt: skip
_STATIC_SIZE = 61
_OVERHEAD = 32  # section 4.1
_DEFAULT_LIMIT = 4096
_LIMIT_MAX = 64 * 1024  # ours: a table that is larger at the encoder is held as far as this
_INTEGER_BYTES_MAX = 5
_KEPT_MAX = 512
_KEPT_SIZE_MAX = 512
_STRINGS: dict[bytes, bytes] = {}  # decoded Huffman strings: the same ones come again and again
_STRINGS_MAX = 4096


class Block:
    """What a header block says. ``fields`` by name; of a repeated one the last.

    ``unknown`` counts the fields of which the name or the value is not known. ``cut``: it ends
    before its end.
    """

    __slots__ = ("cut", "fields", "unknown")

    def __init__(self, fields: dict[bytes, bytes], unknown: int, cut: bool) -> None:
        self.fields = fields
        self.unknown = unknown
        self.cut = cut


class _End(Exception):  # noqa: N818  (how a cut block ends)
    """The block ends within a field."""


class Decoder:
    """One direction's dynamic table, and the decoding of its header blocks, in order."""

    __slots__ = ("_changes", "_entries", "_kept", "_limit", "_size", "complete")

    def __init__(self) -> None:
        self.complete = True  # every entry is known
        self._entries: list[Field | None] = []  # oldest first; None: inserted, not known
        self._size = 0
        self._limit = _DEFAULT_LIMIT
        self._changes = 0
        self._kept: dict[bytes, Block] = {}  # blocks that changed nothing, while nothing changes

    def lose(self) -> None:
        """Blocks were missed: nothing that was inserted so far can be relied on."""
        self.complete = False
        self._entries.clear()
        self._kept.clear()
        self._size = 0

    def decode(self, data: bytes, cut: bool = False) -> Block:
        """Decode a whole header block, or (``cut``) the beginning of one.

        Raises Desync if ``data`` is no header block, or refers to what cannot be there.
        """
        kept = self._kept.get(data)
        if kept is not None and not cut:
            return kept
        changes = self._changes
        fields: dict[bytes, bytes] = {}
        try:
            unknown = self._read(data, fields)
        except _End:
            if not cut:
                raise Desync("header block cut short") from None
            unknown = 0
        if cut:
            self.lose()
            return Block(fields, unknown, True)
        block = Block(fields, unknown, False)
        if changes == self._changes and len(data) <= _KEPT_SIZE_MAX:
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            self._kept[data] = block
        return block

    def _read(self, data: bytes, fields: dict[bytes, bytes]) -> int:
        """Put the fields of ``data`` into ``fields``; how many more there are that are unknown."""
        at, end, unknown = 0, len(data), 0
        while at < end:
            first = data[at]
            if first & 0x80:  # section 6.1
                index, at = _integer(data, at, 0x7F)
                field = self._entry(index)
                if field is None:
                    unknown += 1
                else:
                    fields[field[0]] = field[1]
                continue
            if first & 0xE0 == 0x20:  # section 6.3
                limit, at = _integer(data, at, 0x1F)
                self._resize(limit)
                continue
            inserts = first & 0x40
            index, at = _integer(data, at, 0x3F if inserts else 0x0F)  # section 6.2
            name: bytes | None
            if index:
                field = self._entry(index)
                name = field[0] if field is not None else None
            else:
                name, at = _string(data, at)
            value, at = _string(data, at)
            if name is None:
                unknown += 1
            else:
                fields[name] = value
            if inserts:
                self._insert(name, value)
        return unknown

    def _entry(self, index: int) -> Field | None:
        if index <= _STATIC_SIZE:
            if not index:
                raise Desync("header index 0")
            return _STATIC[index - 1]
        behind = index - _STATIC_SIZE
        if behind <= len(self._entries):
            return self._entries[-behind]
        if self.complete:
            raise Desync("header index beyond the table")
        return None

    def _insert(self, name: bytes | None, value: bytes) -> None:
        self._kept.clear()
        self._changes += 1
        entry = None if name is None else (name, value)
        self._size += _size_of(entry)
        self._entries.append(entry)
        if self._size > self._limit:
            self._evict()

    def _resize(self, limit: int) -> None:
        if limit > _LIMIT_MAX:
            limit = _LIMIT_MAX
            self.complete = False  # what it holds beyond ours
        self._kept.clear()
        self._changes += 1
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        gone, entries = 0, self._entries
        while self._size > self._limit and gone < len(entries):
            self._size -= _size_of(entries[gone])
            gone += 1
        del entries[:gone]


def _size_of(entry: Field | None) -> int:
    """Section 4.1; an unknown entry takes what is certain."""
    return _OVERHEAD if entry is None else len(entry[0]) + len(entry[1]) + _OVERHEAD


def _integer(data: bytes, at: int, mask: int) -> tuple[int, int]:
    """The integer whose prefix, within ``mask``, is at ``at``, and where it ends (section 5.1)."""
    value = data[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _INTEGER_BYTES_MAX, 7):
        if at >= len(data):
            raise _End
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Desync("header integer too large")


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """The string literal at ``at``, and where it ends (section 5.2)."""
    if at >= len(data):
        raise _End
    coded = data[at] & 0x80
    length, at = _integer(data, at, 0x7F)
    end = at + length
    if end > len(data):
        raise _End
    literal = data[at:end]
    if not coded:
        return literal, end
    known = _STRINGS.get(literal)
    if known is None:
        known = huffman.decode(literal)
        if len(literal) <= _KEPT_SIZE_MAX:
            if len(_STRINGS) >= _STRINGS_MAX:
                _STRINGS.clear()
            _STRINGS[literal] = known
    return known, end
