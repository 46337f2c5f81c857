# SPDX-License-Identifier: Apache-2.0
"""A reader of BTF, the kernel's type format (Documentation/bpf/btf.rst): what the contract needs.

Raises :class:`BtfError` on anything that is not well-formed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

MAGIC: Final = 0xEB9F
HEADER: Final = struct.Struct("<HBBIIIII")
TYPE: Final = struct.Struct("<III")

KIND_INT, KIND_PTR, KIND_ARRAY, KIND_STRUCT, KIND_UNION, KIND_ENUM = 1, 2, 3, 4, 5, 6
KIND_FWD, KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_FUNC = 7, 8, 9, 10, 11, 12
KIND_FUNC_PROTO, KIND_VAR, KIND_DATASEC, KIND_FLOAT, KIND_DECL_TAG = 13, 14, 15, 16, 17
KIND_TYPE_TAG, KIND_ENUM64 = 18, 19


class BtfError(ValueError):
    """Not BTF, or cut short."""


@dataclass(slots=True)
class Member:
    """A struct member, an enumerator (its ``value``), a variable of a section (its size)."""

    name: str
    type_id: int
    offset: int = 0  # bytes
    value: int = 0


@dataclass(slots=True)
class Type:
    """One BTF type; ``size`` is in bytes, for arrays the number of elements."""

    kind: int
    name: str
    size: int
    reference: int
    members: list[Member] = field(default_factory=list)


class Btf:
    """All types of one BTF blob, by id; id 0 is void."""

    def __init__(self, raw: bytes) -> None:
        try:
            self._read(raw)
        except BtfError:
            raise
        except (struct.error, IndexError, ValueError) as error:
            raise BtfError(f"malformed BTF: {error}") from error

    def _read(self, raw: bytes) -> None:
        magic, _, _, header_length, type_at, type_length, string_at, string_length = (
            HEADER.unpack_from(raw)
        )
        if magic != MAGIC:
            raise BtfError("not BTF (little-endian)")
        strings_start = header_length + string_at
        self._strings = raw[strings_start : strings_start + string_length]
        self.types: list[Type] = [Type(0, "void", 0, 0)]
        position = header_length + type_at
        end = position + type_length
        while position < end:
            name, info, size = TYPE.unpack_from(raw, position)
            position += TYPE.size
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            entry = Type(kind, self._string(name), size, size)
            position = self._read_tail(raw, position, entry, count, bool(info >> 31))
            self.types.append(entry)
        for section in self.types:
            if section.kind == KIND_DATASEC:
                for member in section.members:
                    member.name = self.types[member.type_id].name

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(0, offset)].decode()

    def _read_tail(self, raw: bytes, at: int, entry: Type, count: int, flag: bool) -> int:
        kind = entry.kind
        if kind in (KIND_INT, KIND_VAR, KIND_DECL_TAG):
            return at + 4
        if kind == KIND_ARRAY:
            entry.reference, _, entry.size = struct.unpack_from("<III", raw, at)
            return at + 12
        if kind in (KIND_STRUCT, KIND_UNION):
            for _ in range(count):
                name, type_id, offset = struct.unpack_from("<III", raw, at)
                bits = offset & 0xFFFFFF if flag else offset
                entry.members.append(Member(self._string(name), type_id, bits // 8))
                at += 12
        elif kind == KIND_ENUM:
            for _ in range(count):
                name, value = struct.unpack_from("<Ii", raw, at)
                entry.members.append(Member(self._string(name), 0, value=value))
                at += 8
        elif kind in (KIND_ENUM64, KIND_DATASEC):
            for _ in range(count):
                first, second, third = struct.unpack_from("<III", raw, at)
                entry.members.append(
                    Member("", first, second, third)  # named when all types are known
                    if kind == KIND_DATASEC
                    else Member(self._string(first), 0, value=third << 32 | second)
                )
                at += 12
        elif kind == KIND_FUNC_PROTO:
            at += 8 * count
        return at

    def find(self, kind: int, name: str) -> Type:
        """The type of that kind and name; raises BtfError if there is none."""
        for entry in self.types:
            if entry.kind == kind and entry.name == name:
                return entry
        raise BtfError(f"no type {name!r} of kind {kind}")

    def resolve(self, type_id: int) -> tuple[Type, str]:
        """The type behind typedefs and qualifiers, and the outermost typedef's name (or "")."""
        typedef = ""
        entry = self.types[type_id]
        while entry.kind in (KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT):
            if entry.kind == KIND_TYPEDEF and not typedef:
                typedef = entry.name
            entry = self.types[entry.reference]
        return entry, typedef
