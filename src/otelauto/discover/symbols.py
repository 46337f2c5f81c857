# SPDX-License-Identifier: Apache-2.0
"""Where functions that an ELF file names begin in it (elf(5), 64 bits, little endian)."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_PROGRAM: Final = struct.Struct("<IIQQQQQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_MAGIC: Final = b"\x7fELF\x02\x01"
_SYMTAB, _DYNSYM = 2, 11  # sh_type
_LOAD, _EXECUTABLE = 1, 1  # p_type, p_flags
_FUNCTION = 2  # st_info & 15: STT_FUNC
_TABLES_LIMIT = 512  # headers of either kind
_NAMES_LIMIT = 64 << 20  # bytes of a string table
_SYMBOLS_LIMIT = 256 << 20  # ... of a symbol table


class _Table(NamedTuple):
    offset: int
    size: int
    names_offset: int
    names_size: int


def functions(path: str, wanted: Collection[str]) -> dict[str, int]:
    """The file offsets at which the functions ``wanted`` begin, of those that ``path`` defines.

    The dynamic symbols are looked through, and if they have none of them the others. Empty for
    files that are not ELF, are malformed, or may not be read: OSError is not raised.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        return _functions(descriptor, {name.encode() for name in wanted})
    except (OSError, OverflowError, struct.error):
        return {}
    finally:
        os.close(descriptor)


def _functions(descriptor: int, wanted: set[bytes]) -> dict[str, int]:
    head = os.pread(descriptor, _HEADER.size, 0)
    if not head.startswith(_MAGIC):
        return {}
    fields = _HEADER.unpack_from(head)
    segments = [
        (address, offset, size)
        for kind, flags, offset, address, _, size, _, _ in _rows(
            descriptor, _PROGRAM, fields[4], fields[8], fields[9]
        )
        if kind == _LOAD and flags & _EXECUTABLE
    ]
    sections = _rows(descriptor, _SECTION, fields[5], fields[10], fields[11])
    for kind in (_DYNSYM, _SYMTAB):
        for section in sections:
            if section[1] == kind and section[6] < len(sections):
                names = sections[section[6]]
                table = _Table(section[4], section[5], names[4], names[5])
                if found := _look_up(descriptor, table, wanted, segments):
                    return found
    return {}


def _rows(
    descriptor: int, row: struct.Struct, at: int, size: int, count: int
) -> list[tuple[int, ...]]:
    if size != row.size or count > _TABLES_LIMIT:
        return []
    return list(row.iter_unpack(os.pread(descriptor, count * size, at)))


def _look_up(
    descriptor: int, table: _Table, wanted: set[bytes], segments: list[tuple[int, int, int]]
) -> dict[str, int]:
    """The wanted functions of one symbol table, by name."""
    if table.names_size > _NAMES_LIMIT or table.size > _SYMBOLS_LIMIT:
        return {}
    names = os.pread(descriptor, table.names_size, table.names_offset)
    places = {at: name for name in wanted for at in _ends_with(names, name + b"\0")}
    if not places:  # most files have none of them: then the symbols need not be read
        return {}
    found: dict[str, int] = {}
    raw = os.pread(descriptor, table.size - table.size % _SYMBOL.size, table.offset)
    for name_at, info, _, section, address, _ in _SYMBOL.iter_unpack(raw):
        if info & 15 != _FUNCTION or not section:
            continue
        name = places.get(name_at)
        if name is None:
            continue
        for start, offset, size in segments:
            if start <= address < start + size:
                found[name.decode()] = address - start + offset
    return found


def _ends_with(names: bytes, tail: bytes) -> Iterator[int]:
    """Where ``tail`` is in a string table; a linker may have stored it as the end of another."""
    at = names.find(tail)
    while at >= 0:
        yield at
        at = names.find(tail, at + 1)
