# SPDX-License-Identifier: Apache-2.0
"""Small ELF files of given code and symbols, and with the tables of a Go program."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

BASE = 0x400000  # where the file's first byte is mapped
CODE_AT = 0x200
CODE = BASE + CODE_AT
MACHINE = 62
STRTAB, RELA, NOBITS, DYNSYM = 3, 4, 8, 11
# cmp rsp, [r14+0x10]; jbe to the last instruction; push rbp; ret; then what grows the stack
GO_FUNCTION = bytes.fromhex("493b6610 7606 55 90 5d c3 9090 ebf2 cccc")


@dataclass
class Elf:
    """What goes into the file, section by section; ``symbols`` are (address, size) by name."""

    code: bytes = b""
    symbols: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sections: Mapping[str, bytes] = field(default_factory=dict)
    notes: bytes = b""
    machine: int = MACHINE
    loaded: bool = True

    def file(self) -> bytes:
        """Its bytes: headers, code, sections, the table of sections."""
        names, symbols = _symbols(self.symbols)
        contents = {
            ".text": self.code, ".dynstr": names, ".dynsym": symbols, **self.sections,
        }  # fmt: skip
        text = b"\0" + b"\0".join(name.encode() for name in (*contents, ".shstrtab")) + b"\0"
        contents[".shstrtab"] = text
        body = b""
        rows = [struct.pack("<IIQQQQIIQQ", *(0,) * 10)]
        for name, content in contents.items():
            body += b"\0" * (-len(body) % 16)
            at = CODE_AT + len(body)
            is_symbols = name == ".dynsym"
            rows.append(
                struct.pack(
                    "<IIQQQQIIQQ", text.index(b"\0" + name.encode() + b"\0") + 1,
                    DYNSYM if is_symbols else STRTAB, 2, BASE + at, at, len(content),
                    2 if is_symbols else 0, 0, 1, 24 if is_symbols else 0,
                )
            )  # fmt: skip
            body += content
        end = CODE_AT + len(body)
        segments = [struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, end, end, 4096)] * self.loaded
        note_at = 0x200 - len(self.notes)
        if self.notes:
            size = len(self.notes)
            segments.append(struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, size, size, 4))
        header = struct.pack(
            "<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 2, self.machine, 1, CODE, 64, end, 0, 64,
            56, len(segments), 64, len(rows), len(rows) - 1,
        )  # fmt: skip
        head = (header + b"".join(segments)).ljust(note_at, b"\0") + self.notes
        return head + body + b"".join(rows)


def _symbols(symbols: Mapping[str, tuple[int, int]]) -> tuple[bytes, bytes]:
    names, table = b"\0", struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name, (address, size) in symbols.items():
        table += struct.pack("<IBBHQQ", len(names), 0x12, 0, 1, address, size)
        names += name.encode() + b"\0"
    return names, table


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    """A note of ELF, padded to 4 bytes."""
    padded = owner + b"\0" * (-len(owner) % 4) + content + b"\0" * (-len(content) % 4)
    return struct.pack("<III", len(owner), len(content), kind) + padded


def go_program(names: Sequence[str], *, text: int = CODE, magic: int = 0xFFFFFFF1) -> Elf:
    """A program whose functions have these names, all with GO_FUNCTION's code and some padding.

    ``text`` is what its table says of where the text starts.
    """
    places = go_places(len(names))
    name_table = b"\0" + b"\0".join(name.encode() for name in names) + b"\0"
    entries, records = b"", b""
    table_size = 8 * len(names) + 4
    for number, name in enumerate(names):
        entries += struct.pack("<II", places[number], table_size + len(records))
        at = name_table.index(b"\0" + name.encode() + b"\0") + 1
        records += struct.pack("<IiIIIIII", places[number], at, 0, 0, 0, 0, 0, 0)
    entries += struct.pack("<I", places[-1])
    head_size = 8 + 8 * 8
    names_end = head_size + len(name_table)
    head = struct.pack("<IHBB", magic, 0, 1, 8)
    head += struct.pack(
        "<8Q", len(names), 1, text, head_size, names_end, names_end, names_end, names_end
    )
    build = b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + b"\x08go1.22.4\0"
    tables = {".gopclntab": head + name_table + entries + records, ".go.buildinfo": build}
    code = b"".join(GO_FUNCTION.ljust(end - start, b"\xcc") for start, end in pairwise(places))
    return Elf(code, sections=tables)


def go_places(count: int) -> list[int]:
    """Where so many functions begin in the text of a program, and where the last one ends."""
    sizes = [16 * (1 + number * number * 7 % 11) for number in range(count)]
    return [sum(sizes[:number]) for number in range(count + 1)]
