# SPDX-License-Identifier: Apache-2.0
"""What language a native executable was written in, from its ELF section table (elf(5))."""

from __future__ import annotations

import os
import struct
from typing import Final

_HEADER: Final = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little endian
_GO_SECTIONS = (b".gopclntab", b".data.rel.ro.gopclntab", b".go.buildinfo", b".note.go.buildid")
_RUST_MARK = b"/rustc/"  # the standard library's source path in panic messages
_SECTIONS_LIMIT = 512
_NAMES_LIMIT = 1 << 16
_RODATA_LIMIT = 8 << 20
_BUILD_INFO_LIMIT = 1 << 20


def language(path: str) -> str:
    """``"go"``, ``"rust"`` or ``""`` for unknown, unreadable and malformed files."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        sections = _sections(descriptor)
        if any(name in sections for name in _GO_SECTIONS):
            return "go"
        offset, size = sections.get(b".rodata", (0, 0))
        is_rust = _RUST_MARK in os.pread(descriptor, min(size, _RODATA_LIMIT), offset)
    except (OSError, OverflowError, struct.error):
        return ""
    else:
        return "rust" if is_rust else ""
    finally:
        os.close(descriptor)


def go_build_info(path: str) -> bytes:
    """What a Go program says of the modules it was built from; empty for any other file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        offset, size = _sections(descriptor).get(b".go.buildinfo", (0, 0))
        return os.pread(descriptor, min(size, _BUILD_INFO_LIMIT), offset)
    except (OSError, OverflowError, struct.error):
        return b""
    finally:
        os.close(descriptor)


def _sections(descriptor: int) -> dict[bytes, tuple[int, int]]:
    """Sections by name: (offset in the file, size). Empty unless 64-bit little-endian ELF.

    Raises:
        struct.error: the file is cut short.
        OSError, OverflowError: it names an impossible offset.
    """
    head = os.pread(descriptor, _HEADER.size, 0)
    if not head.startswith(_MAGIC):
        return {}
    fields = _HEADER.unpack_from(head)
    table, entry_size, count, names_index = fields[5], fields[10], fields[11], fields[12]
    if entry_size != _SECTION.size or count > _SECTIONS_LIMIT or names_index >= count:
        return {}
    entries = list(_SECTION.iter_unpack(os.pread(descriptor, count * _SECTION.size, table)))
    if len(entries) != count:
        return {}
    _, _, _, _, names_offset, names_size, *_ = entries[names_index]
    names = os.pread(descriptor, min(names_size, _NAMES_LIMIT), names_offset)
    return {
        names[name:].partition(b"\0")[0]: (offset, size)
        for name, _, _, _, offset, size, *_ in entries
    }
