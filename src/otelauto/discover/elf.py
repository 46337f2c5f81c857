# SPDX-License-Identifier: Apache-2.0
"""A reader of 64-bit little-endian ELF files (elf(5), gABI): parts, symbols, notes, bytes.

The files are other people's. Everything is read by pread in bounded pieces, so that a file that is
cut, lies about itself or changes meanwhile gives an :class:`ElfError` and nothing else. Nothing is
mapped: a mapped file that is cut short is a SIGBUS.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

_HEADER: Final = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQq")
_NOTE: Final = struct.Struct("<III")
_VERSION_DEFINITION: Final = struct.Struct("<HHHHIII")
_MAGIC: Final = b"\x7fELF\x02\x01"  # 64 bits, little endian

MACHINE_X86_64: Final = 62
MACHINE_AARCH64: Final = 183

_LOAD, _NOTES = 1, 4  # p_type
_EXECUTABLE: Final = 1  # p_flags
_NO_BITS: Final = 8  # sh_type
_FUNCTION, _INDIRECT_FUNCTION = 2, 10  # type in st_info
_RELATIVE: Final = 8  # R_X86_64_RELATIVE
_GNU_BUILD_ID, _GO_BUILD_ID = 3, 4  # n_type
_VERSION_HIDDEN: Final = 0x8000

_SECTIONS_LIMIT: Final = 4096
_SEGMENTS_LIMIT: Final = 512
_NAMES_LIMIT: Final = 1 << 20
_NAME_LIMIT: Final = 4096
_NOTES_LIMIT: Final = 1 << 16
_SYMBOLS_LIMIT: Final = 4 << 20
_STRINGS_LIMIT: Final = 512 << 20
_VERSIONS_LIMIT: Final = 4096
_READ_LIMIT: Final = 64 << 20
PIECE: Final = 1 << 20  # bytes read at once


class ElfError(ValueError):
    """Not an ELF file of the kind read here, or one that contradicts itself."""


@dataclass(frozen=True, slots=True)
class Section:
    """A row of the section table; ``size`` is 0 in the file if the section has no bytes there."""

    name: str
    kind: int
    address: int
    offset: int
    size: int
    link: int
    entry_size: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the file that is mapped; ``size`` is that of the bytes that the file gives."""

    address: int
    offset: int
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function that the file defines. ``version`` is empty where symbols have none.

    ``hidden``: of several versions of a name, not the one that a new program would be linked to.
    """

    name: str
    address: int
    size: int
    version: str = ""
    hidden: bool = False


class Image:
    """An open ELF file; close it, or use it as a context manager.

    Every method raises ElfError, which also stands for files that cannot be read.
    """

    def __init__(self, path: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise ElfError(f"cannot be opened: {error}") from error
        try:
            self._read_header()
        except ElfError:
            self.close()
            raise

    def _read_header(self) -> None:
        self.size = os.fstat(self._descriptor).st_size
        head = self.read_file(0, _HEADER.size)
        if not head.startswith(_MAGIC):
            raise ElfError("not a 64-bit little-endian ELF file")
        (
            _, self.machine, _, _, self._segments_at, self._sections_at, _, _,
            self._segment_size, self._segment_count, self._section_size, self._section_count,
            self._section_names,
        ) = _HEADER.unpack(head)  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; once."""
        os.close(self._descriptor)

    # ---- bytes ----

    def read_file(self, offset: int, size: int) -> bytes:
        """``size`` bytes at a file offset, not fewer."""
        if offset < 0 or not 0 <= size <= _READ_LIMIT or offset + size > self.size:
            raise ElfError(f"names {size} bytes at {offset}, and has {self.size}")
        try:
            data = os.pread(self._descriptor, size, offset)
        except (OSError, OverflowError) as error:
            raise ElfError(f"cannot be read: {error}") from error
        if len(data) != size:
            raise ElfError("was cut while it was read")
        return data

    def pieces(self, offset: int, size: int, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
        """(file offset, bytes) of a range in pieces; each begins ``overlap`` bytes early."""
        at = offset
        end = min(offset + size, self.size)
        while at < end:
            begin = max(offset, at - overlap)
            yield begin, self.read_file(begin, min(at + PIECE, end) - begin)
            at += PIECE

    def occurrences(self, offset: int, size: int, wanted: bytes) -> Iterator[int]:
        """File offsets at which ``wanted`` begins, ascending."""
        for begin, piece in self.pieces(offset, size, len(wanted) - 1):
            found = piece.find(wanted)
            while found >= 0:
                yield begin + found
                found = piece.find(wanted, found + 1)

    def segment_of(self, address: int) -> Segment:
        """The segment whose bytes in the file hold ``address``."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.size:
                return segment
        raise ElfError(f"address {address:#x} is not in the file")

    def file_offset(self, address: int) -> int:
        """Where the byte at a virtual address lies in the file; what a uprobe is named by."""
        segment = self.segment_of(address)
        offset = address - segment.address + segment.offset
        if offset >= self.size:
            raise ElfError(f"maps address {address:#x} from behind its end")
        return offset

    def address_of(self, offset: int) -> int:
        """The virtual address of a byte of the file."""
        for segment in self.segments:
            if segment.offset <= offset < segment.offset + segment.size:
                return offset - segment.offset + segment.address
        raise ElfError(f"file offset {offset} is not mapped")

    def read(self, address: int, size: int, *, short: bool = False) -> bytes:
        """``size`` bytes at a virtual address; with ``short``, fewer at the end of the segment."""
        segment = self.segment_of(address)
        left = segment.address + segment.size - address
        if left < size and not short:
            raise ElfError(f"only {left} of {size} bytes at {address:#x} are in the file")
        return self.read_file(address - segment.address + segment.offset, min(size, left))

    # ---- parts ----

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """What is loaded, in the order of the file."""
        return tuple(
            Segment(address, offset, size, bool(flags & _EXECUTABLE))
            for kind, flags, offset, address, size in self._program_headers()
            if kind == _LOAD and size
        )

    def _program_headers(self) -> Iterator[tuple[int, int, int, int, int]]:
        """(type, flags, offset, address, size in the file) of each."""
        if not self._segment_count:
            return
        if self._segment_size != _SEGMENT.size or self._segment_count > _SEGMENTS_LIMIT:
            raise ElfError("has no table of segments that can be read")
        table = self.read_file(self._segments_at, self._segment_count * _SEGMENT.size)
        for kind, flags, offset, address, _, size, _, _ in _SEGMENT.iter_unpack(table):
            yield kind, flags, offset, address, size

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The section table, in its order; empty if the file has none."""
        count = self._section_count
        if not count:
            return ()
        if self._section_size != _SECTION.size or count > _SECTIONS_LIMIT:
            raise ElfError("has no table of sections that can be read")
        table = self.read_file(self._sections_at, count * _SECTION.size)
        rows = list(_SECTION.iter_unpack(table))
        if self._section_names >= count:
            raise ElfError("names no section that holds the sections' names")
        _, _, _, _, names_at, names_size, *_ = rows[self._section_names]
        names = self.read_file(names_at, min(names_size, _NAMES_LIMIT))
        return tuple(
            Section(
                names[name : name + _NAME_LIMIT].partition(b"\0")[0].decode(errors="replace"),
                kind, address, offset, 0 if kind == _NO_BITS else size, link, entry_size,
            )
            for name, kind, _, address, offset, size, link, _, _, entry_size in rows
        )  # fmt: skip

    def section(self, *names: str) -> Section | None:
        """The first of the sections of one of these names."""
        return next((section for section in self.sections if section.name in names), None)

    # ---- symbols ----

    def functions(self, names: Collection[str], table: str = ".dynsym") -> list[Symbol]:
        """Defined functions by name in ``.dynsym`` or ``.symtab``, in the table's order.

        A table that is not there defines nothing. Neither table is read whole: they may be large.
        """
        symbols = self.section(table)
        if symbols is None or not names:
            return []
        if symbols.entry_size != _SYMBOL.size or symbols.link >= len(self.sections):
            raise ElfError(f"has a {table} that cannot be read")
        strings = self.sections[symbols.link]
        if symbols.size > _SYMBOLS_LIMIT * _SYMBOL.size or strings.size > _STRINGS_LIMIT:
            raise ElfError(f"has a {table} too large to be read")
        wanted = self._name_positions(strings, names)
        if not wanted:  # most files have none: then their symbols need not be read
            return []
        found = []
        for index, at, address, size in self._definitions(symbols, wanted):
            version, hidden = self._version(index) if table == ".dynsym" else ("", False)
            found.append(Symbol(wanted[at], address, size, version, hidden))
        return found

    def _name_positions(self, strings: Section, names: Collection[str]) -> dict[int, str]:
        """Names by offset in the table of strings; a name may be the end of a longer one."""
        encoded = {name.encode() + b"\0": name for name in names}
        overlap = max(map(len, encoded)) - 1
        positions = {}
        for begin, piece in self.pieces(strings.offset, strings.size, overlap):
            for text, name in encoded.items():
                found = piece.find(text)
                while found >= 0:
                    positions[begin + found - strings.offset] = name
                    found = piece.find(text, found + 1)
        return positions

    def _definitions(
        self, symbols: Section, wanted: Collection[int]
    ) -> Iterator[tuple[int, int, int, int]]:
        """(index, name's offset, address, size) of the functions whose name is wanted."""
        index = 0
        whole = symbols.size // _SYMBOL.size
        step = PIECE // _SYMBOL.size
        while index < whole:
            count = min(step, whole - index)
            table = self.read_file(symbols.offset + index * _SYMBOL.size, count * _SYMBOL.size)
            for number, row in enumerate(_SYMBOL.iter_unpack(table), index):
                name, info, _, section, address, size = row
                if name in wanted and section and info & 15 in (_FUNCTION, _INDIRECT_FUNCTION):
                    yield number, name, address, size
            index += count

    def _version(self, index: int) -> tuple[str, bool]:
        """(version, hidden) of a dynamic symbol (Solaris' and GNU's symbol versions)."""
        section = self.section(".gnu.version")
        if section is None or not 0 <= index < section.size // 2:
            return "", False
        (number,) = struct.unpack("<H", self.read_file(section.offset + 2 * index, 2))
        hidden = bool(number & _VERSION_HIDDEN)
        return self._versions.get(number & ~_VERSION_HIDDEN, ""), hidden

    @cached_property
    def _versions(self) -> dict[int, str]:
        """Names of the versions that the file defines, by number."""
        section = self.section(".gnu.version_d")
        if section is None:
            return {}
        if section.link >= len(self.sections):
            raise ElfError("has versions without names")
        names = self.sections[section.link]
        found: dict[int, str] = {}
        at = section.offset
        for _ in range(_VERSIONS_LIMIT):
            definition = self.read_file(at, _VERSION_DEFINITION.size)
            _, _, number, _, _, name_at, following = _VERSION_DEFINITION.unpack(definition)
            (name,) = struct.unpack("<I", self.read_file(at + name_at, 4))
            found.setdefault(number, self._text(names.offset + name))
            if not following:
                break
            at += following
        return found

    def _text(self, offset: int) -> str:
        """The text at a file offset, up to its null byte."""
        size = min(_NAME_LIMIT, self.size - offset)
        return self.read_file(offset, max(size, 0)).partition(b"\0")[0].decode(errors="replace")

    def relative_addend(self, address: int) -> int | None:
        """What a position-independent file's loader puts at ``address``, before the load bias."""
        section = self.section(".rela.dyn")
        if section is None:
            return None
        wanted = struct.pack("<QQ", address, _RELATIVE)
        for at in self.occurrences(section.offset, section.size, wanted):
            if (at - section.offset) % _RELOCATION.size == 0:
                addend: int = _RELOCATION.unpack(self.read_file(at, _RELOCATION.size))[2]
                return addend
        return None

    # ---- notes ----

    @cached_property
    def build_id(self) -> str:
        """The linker's build id in hexadecimal digits, or else Go's text; empty without."""
        go = ""
        for owner, kind, content in self._notes():
            if (owner, kind) == (b"GNU\0", _GNU_BUILD_ID):
                return content.hex()
            if (owner, kind) == (b"Go\0\0", _GO_BUILD_ID):
                go = content.decode(errors="replace")
        return go

    def _notes(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(owner, type, content) of each; names and contents are padded to 4 bytes."""
        for kind, _, offset, _, size in self._program_headers():
            if kind != _NOTES:
                continue
            notes = self.read_file(offset, min(size, _NOTES_LIMIT))
            at = 0
            while at + _NOTE.size <= len(notes):
                name_size, content_size, note = _NOTE.unpack_from(notes, at)
                name_at = at + _NOTE.size
                content_at = name_at + (name_size + 3 & ~3)
                at = content_at + (content_size + 3 & ~3)
                if at > len(notes):
                    break
                name = notes[name_at : name_at + name_size]
                yield name, note, notes[content_at : content_at + content_size]


_GO_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo", ".note.go.buildid")
_RUST_MARK = b"/rustc/"  # the standard library's source path in panic messages
_RODATA_LIMIT = 8 << 20
_BUILD_INFO_LIMIT = 1 << 20


def is_go(image: Image) -> bool:
    """Whether Go's own linker made the program, by its sections."""
    return image.section(*_GO_SECTIONS) is not None


def language(path: str) -> str:
    """What a program was written in: ``"go"``, ``"rust"``, or ``""``: unknown, not readable."""
    try:
        with Image(path) as image:
            if is_go(image):
                return "go"
            rodata = image.section(".rodata")
            if rodata is None:
                return ""
            marks = image.occurrences(rodata.offset, min(rodata.size, _RODATA_LIMIT), _RUST_MARK)
            return "rust" if next(marks, None) is not None else ""
    except ElfError:
        return ""


def go_build_info(path: str) -> bytes:
    """What a Go program says of the modules it was built from; empty for any other file."""
    try:
        with Image(path) as image:
            section = image.section(".go.buildinfo")
            if section is None:
                return b""
            return image.read_file(section.offset, min(section.size, _BUILD_INFO_LIMIT))
    except ElfError:
        return b""
