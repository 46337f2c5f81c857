# SPDX-License-Identifier: Apache-2.0
"""Go programs: the version that built one, and where its functions are, symbol table or not.

The runtime needs the table of functions (``pclntab``) to unwind stacks, so stripping keeps it.
Formats: src/internal/abi/symtab.go and src/debug/gosym/pclntab.go of Go 1.18 (magic ...f0) and of
Go 1.20 and newer (magic ...f1); the build information is src/debug/buildinfo's, inline since 1.18.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from otelauto.discover.elf import ElfError, Image, Section, Segment

_MAGICS: Final = (b"\xf1\xff\xff\xff\0\0", b"\xf0\xff\xff\xff\0\0")  # 1.20, 1.18
_HEADER: Final = struct.Struct("<6xBB8Q")  # quantum, pointer size; then words of 8 bytes
_ENTRY: Final = struct.Struct("<II")  # of the function table: offset in the text, in the table
_END: Final = struct.Struct("<I")  # a word of that table, and the last: where the text ends
_TEXT_AT: Final = 24  # of the header: where the text starts
_FUNCTIONS_LIMIT: Final = 4 << 20
_CANDIDATES_LIMIT: Final = 1 << 16  # places that hold the number of a name's offset
_BUILD_INFO_MAGIC: Final = b"\xff Go buildinf:"
_BUILD_INFO_SIZE: Final = 32
_BUILD_INFO_LIMIT: Final = 1 << 20
_VERSION_LIMIT: Final = 256
_INLINE: Final = 2  # flag: the strings follow the header

# How a function that may need a larger stack begins: it compares sp, or sp less its frame, with the
# limit in g, which is in r14 where arguments are in registers (ABIInternal, amd64).
STACK_CHECK: Final = b"\x49\x3b\x66\x10"  # cmp rsp, [r14+0x10]
_FRAME_CHECKS: Final = (b"\x4c\x8d\x64\x24", b"\x4c\x8d\xa4\x24")  # lea r12, [rsp-frame]
_SAMPLE: Final = 256  # functions looked at to tell where the text starts
_SAMPLE_HOPELESS: Final = 24  # not one stack check among so many
_SCATTER: Final = 7_368_787  # a prime: every function is looked at before one is again
_SAMPLE_SHARE: Final = 0.4  # of those, with a stack check; at a wrong start there is about none
_GUESSES: Final = 4096  # functions that the first stack check of the text may belong to


class GoError(ElfError):
    """Not a Go program, or not one whose tables are understood; the text says which."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function's virtual addresses: the first, and the one after its last (padding included)."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Table:
    """The table of functions: file offsets, but for two addresses."""

    address: int
    text: int  # address that functions' offsets count from; 0 if the file does not say
    count: int
    names: int
    names_size: int
    functions: int
    end: int


def built_by(image: Image) -> str:
    """What built the program, as Go itself says it: ``go1.22.4``, ``devel go1.23-...``."""
    at = _build_information(image)
    head = image.read_file(at, _BUILD_INFO_SIZE)
    if not head[15] & _INLINE:
        raise GoError("was built by Go 1.17 or older")
    size = min(_VERSION_LIMIT, image.size - at - _BUILD_INFO_SIZE)
    text = image.read_file(at + _BUILD_INFO_SIZE, max(size, 3))
    length = used = 0
    while used < 3:  # a varint (encoding/binary)
        length |= (text[used] & 0x7F) << 7 * used
        used += 1
        if text[used - 1] < 0x80:
            break
    said = text[used : used + length]
    if len(said) != length or not said.isascii():
        raise GoError("tells no version of Go")
    return said.decode().removeprefix("devel ")


def _build_information(image: Image) -> int:
    """File offset of the build information: its own section, or early in the data."""
    section = image.section(".go.buildinfo")
    areas: list[Section | Segment] = [section] if section else list(image.segments)
    for area in areas:
        size = min(area.size, _BUILD_INFO_LIMIT)
        for at in image.occurrences(area.offset, size, _BUILD_INFO_MAGIC):
            if (at - area.offset) % 16 == 0:
                return at
    raise GoError("is not a Go program")


def functions(image: Image, names: Collection[str]) -> dict[str, Function]:
    """Where these functions are; those that are not in the program are left out.

    Raises GoError if the tables are not understood, or contradict the code.
    """
    table = _find_table(image)
    raw = image.read_file(table.functions, table.count * _ENTRY.size + _END.size)
    # Pairs of a function's offset in the text and its record's in the table; then the text's size.
    entries = memoryview(raw).cast("I")
    numbers = {name: _number(image, table, entries, name) for name in names}
    if all(number is None for number in numbers.values()):
        return {}
    text = _text_start(image, table, entries)
    found = {}
    for name, number in numbers.items():
        if number is not None:
            start, end = entries[2 * number], entries[2 * number + 2]
            if end <= start:
                raise GoError("has functions that end before they begin")
            found[name] = Function(name, text + start, text + end)
    return found


# ---- the table of functions ----


def _find_table(image: Image) -> _Table:
    section = image.section(".gopclntab", ".data.rel.ro.gopclntab")
    if section:
        return _read_table(image, section.offset, section.offset + section.size)
    for segment in image.segments:
        for magic in _MAGICS:
            for at in image.occurrences(segment.offset, segment.size, magic + b"\1\x08"):
                try:
                    return _read_table(image, at, segment.offset + segment.size)
                except ElfError:
                    continue  # the bytes of a magic number may be anything else's
    raise GoError("has no table of functions")


def _read_table(image: Image, at: int, end: int) -> _Table:
    head = image.read_file(at, _HEADER.size)
    if not head.startswith(_MAGICS):
        raise GoError("has a table of functions that is not of Go 1.18 or newer")
    _, pointer_size, count, _, text, names, names_end, _, _, functions_at = _HEADER.unpack(head)
    if pointer_size != 8 or not 0 < count <= _FUNCTIONS_LIMIT:
        raise GoError("has a table of functions that cannot be read")
    if not _HEADER.size <= names <= names_end <= functions_at <= end - at:
        raise GoError("has a table of functions in disorder")
    return _Table(
        address=image.address_of(at), count=count, text=text, names=at + names,
        names_size=names_end - names, functions=at + functions_at, end=end,
    )  # fmt: skip


def _number(image: Image, table: _Table, entries: memoryview, name: str) -> int | None:
    """The function's number in the table: of the record that has the offset of its name."""
    text = b"\0" + name.encode() + b"\0"
    named = next(image.occurrences(table.names, table.names_size, text), None)
    if named is None:
        return None
    position = _END.pack(named + 1 - table.names)
    records = table.functions + table.count * _ENTRY.size + _END.size
    candidates = image.occurrences(records, table.end - records, position)
    for at in islice(candidates, _CANDIDATES_LIMIT):
        record = at - 4 - table.functions  # a record: offset in the text, offset of the name, ...
        (start,) = _END.unpack(image.read_file(at - 4, 4))
        number = bisect_left(range(table.count), start, key=lambda i: entries[2 * i])
        if number < table.count and tuple(entries[2 * number : 2 * number + 2]) == (start, record):
            return number
    return None


# ---- where the text starts ----


def _text_start(image: Image, table: _Table, entries: memoryview) -> int:
    """The address that the offsets of functions count from: the first that the code agrees with.

    The table's own word is 0 in programs that may be loaded anywhere (their loader fills it in),
    and in those of newer Go. The section's start is not Go's where a C linker put something before.
    """
    code = image.section(".text")
    symbols = image.functions(("runtime.text",), ".symtab")
    for address in (
        table.text,
        image.relative_addend(table.address + _TEXT_AT),
        *(symbol.address for symbol in symbols),
        code.address if code else None,
    ):
        if address and _agrees(image, address, entries):
            return address
    for address in _guesses(image, entries):
        if _agrees(image, address, entries):
            return address
    raise GoError("has a table of functions that does not fit its code")


def _agrees(image: Image, text: int, entries: memoryview) -> bool:
    """Do enough functions begin with a stack check if the text starts there?"""
    count = len(entries) // 2
    sample = min(count, _SAMPLE)
    checks = 0
    for tried in range(sample):
        if tried == _SAMPLE_HOPELESS and not checks:
            return False
        start = entries[2 * (tried * _SCATTER % count)]  # neighbours are of a kind
        try:
            checks += checks_stack(image.read(text + start, len(STACK_CHECK)))
        except ElfError:
            return False
    return checks > _SAMPLE_SHARE * sample


def checks_stack(code: bytes) -> bool:
    """Does a function that begins so look for room on its stack, with g in r14?"""
    return code.startswith((STACK_CHECK, *_FRAME_CHECKS))


def _guesses(image: Image, entries: memoryview) -> Iterator[int]:
    """The first stack check of the text is one of the first functions'."""
    for segment in image.segments:
        if not segment.executable:
            continue
        for at in islice(image.occurrences(segment.offset, segment.size, STACK_CHECK), 4):
            address = at - segment.offset + segment.address
            for number in range(min(len(entries) // 2, _GUESSES)):
                yield address - entries[2 * number]
