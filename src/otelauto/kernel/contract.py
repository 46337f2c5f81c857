# SPDX-License-Identifier: Apache-2.0
"""The user-space view of bpf/abi.h, made from the BTF of a compiled object.

    python -m otelauto.kernel.contract OBJECT...   # prints the text of src/otelauto/abi.py

The same functions compare the checked-in view with an object when it is loaded.
"""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path
from typing import Final

from otelauto import abi
from otelauto.errors import KernelError
from otelauto.kernel.btf import KIND_ARRAY, KIND_ENUM, KIND_STRUCT, Btf, BtfError, Member, Type

RECORDS: Final = ("opening", "segment", "process_event", "endpoint_key", "verdict")
FLAG_ENUMS: Final = ("segment_flag",)
ENUMS: Final = (
    "abi_limit",
    "record_kind",
    "direction",
    "capture_mode",
    "segment_flag",
    "socket_role",
    "endpoint_kind",
    "process_event_kind",
    "target_state",
    "counter",
    "tls_call",
)
UNITS: Final = ("cookie_t", "ktime_ns", "port_host", "tgid_t", "tid_t")
CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


def class_name(name: str) -> str:
    """``port_host`` -> ``PortHost``, ``tgid_t`` -> ``Tgid``."""
    return "".join(part.capitalize() for part in re.sub(r"_t$", "", name).split("_"))


def section(path: Path, wanted: str) -> bytes:
    """One section of a little-endian ELF64 file; raises BtfError if it is not there."""
    raw = path.read_bytes()
    try:
        table, size, count, names_at = struct.unpack_from("<Q10xHHH", raw, 0x28)
        rows = [struct.unpack_from("<IIQQQQ", raw, table + i * size) for i in range(count)]
        names = raw[rows[names_at][4] :]
        for name_at, _, _, _, offset, length in rows:
            if names[name_at : names.index(0, name_at)].decode() == wanted:
                return raw[offset : offset + length]
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise BtfError(f"{path} is not an ELF object: {error}") from error
    raise BtfError(f"{path} has no section {wanted}")


def _field(btf: Btf, member: Member) -> list[tuple[str, str, str, int]]:
    """(name, struct code, annotation, size) of each Python field that a C member becomes."""
    entry, typedef = btf.resolve(member.type_id)
    if entry.kind == KIND_ARRAY:
        element, _ = btf.resolve(entry.reference)
        if element.kind == KIND_ARRAY:
            return [
                (f"{member.name}_{i}", f"{element.size}s", "bytes", element.size)
                for i in range(entry.size)
            ]
        if element.size == 1:
            return [(member.name, f"{entry.size}s", "bytes", entry.size)]
        return [
            (f"{member.name}_{i}", CODES[element.size], "int", element.size)
            for i in range(entry.size)
        ]
    annotation = class_name(typedef) if typedef in UNITS else "int"
    return [(member.name, CODES[entry.size], annotation, entry.size)]


def layout(btf: Btf, name: str) -> tuple[list[tuple[str, str]], str]:
    """([(field, annotation)], struct format) of the record ``name``; pads become ``x``."""
    record = btf.find(KIND_STRUCT, name)
    fields: list[tuple[str, str]] = []
    code, at = "<", 0
    for member in record.members:
        for field_name, one, annotation, size in _field(btf, member):
            if field_name.startswith("pad"):
                code += "x" if size == 1 else f"{size}x"
            else:
                code += one
                fields.append((field_name, annotation))
            at += size
    if at != record.size:
        raise BtfError(f"struct {name} has unnamed padding: {at} of {record.size} bytes named")
    return fields, code


def _enum_text(entry: Type) -> list[str]:
    base = "IntFlag" if entry.name in FLAG_ENUMS else "IntEnum"
    lines = [f"class {class_name(entry.name)}(enum.{base}):"]
    lines += [f"    {member.name} = {member.value}" for member in entry.members]
    return [*lines, "", ""]


def _record_text(btf: Btf, name: str) -> list[str]:
    fields, code = layout(btf, name)
    lines = [f"class {class_name(name)}(NamedTuple):"]
    lines += [f"    {field}: {annotation}" for field, annotation in fields]
    return [*lines, "", "", f'{name.upper()}: Final = struct.Struct("{code}")', "", ""]


def generate(btf: Btf) -> str:
    """The text of the generated module."""
    lines = [
        "# Generated from the BTF of bpf/*.bpf.o by `make abi`. Do not edit.",
        '"""The contract with the kernel half (bpf/abi.h): records, enumerations, unit types."""',
        "",
        "from __future__ import annotations",
        "",
        "import enum",
        "import struct",
        "from typing import Final, NamedTuple, NewType",
        "",
        *(f'{class_name(unit)} = NewType("{class_name(unit)}", int)' for unit in UNITS),
        "",
        "",
    ]
    for name in ENUMS:
        lines += _enum_text(btf.find(KIND_ENUM, name))
    for name in RECORDS:
        lines += _record_text(btf, name)
    return "\n".join(lines).rstrip("\n") + "\n"


def check(btf: Btf, origin: str) -> None:
    """Compare the checked-in view with an object's; raises KernelError when they differ."""
    try:
        for name in RECORDS:
            fields, code = layout(btf, name)
            record, packer = getattr(abi, class_name(name)), getattr(abi, name.upper())
            if tuple(f for f, _ in fields) != record._fields or code != packer.format:
                raise BtfError(f"struct {name} differs")
        for name in ENUMS:
            ours = {member.name: member.value for member in getattr(abi, class_name(name))}
            theirs = {m.name: m.value for m in btf.find(KIND_ENUM, name).members}
            if ours != theirs:
                raise BtfError(f"enum {name} differs")
    except BtfError as error:
        raise KernelError(
            f"the BPF object {origin} was not built for this otelauto ({error})",
            "reinstall otelauto; in a checkout run `make bpf abi`",
        ) from error


if __name__ == "__main__":
    sys.stdout.write(generate(Btf(section(Path(sys.argv[1]), ".BTF"))))
