# SPDX-License-Identifier: Apache-2.0
"""The little of the protobuf wire format (protobuf.dev, "Encoding") that OTLP needs.

Fields are written in the order of the calls; a reader does not care.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MASK64 = (1 << 64) - 1
_SMALL = [bytes((value,)) for value in range(0x80)]


def varint(value: int) -> bytes:
    """Base-128 varint; a negative number as its 64-bit two's complement."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= MASK64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """What a signed integer (sint32, sint64) is written as."""
    return value << 1 if value >= 0 else ~(value << 1)


def key(field: int, wire_type: int) -> bytes:
    """What a field begins with."""
    return varint(field << 3 | wire_type)


def head(field: int, size: int) -> bytes:
    """What comes before the ``size`` bytes of a field of bytes, or of an embedded message."""
    return key(field, LENGTH) + varint(size)


def sized(field: int, data: bytes) -> bytes:
    """A field of bytes, or an embedded message."""
    return b"%b%b%b" % (key(field, LENGTH), varint(len(data)), data)


def text(field: int, value: str) -> bytes:
    """A string field; what is not UTF-8 (lone surrogates) becomes ``?``."""
    return sized(field, value.encode("utf-8", "replace"))


def integer(field: int, value: int) -> bytes:
    """An int64, enum or bool field."""
    return key(field, VARINT) + varint(value)


def double(field: int, value: float) -> bytes:
    """A double field."""
    return key(field, FIXED64) + struct.pack("<d", value)


def fixed64(field: int, value: int) -> bytes:
    """A fixed64 field."""
    return key(field, FIXED64) + struct.pack("<Q", value & MASK64)


class MalformedError(ValueError):
    """These bytes are not a protobuf message."""


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number, and an integer or bytes.

    Raises:
        MalformedError: the bytes end early or hold an unknown wire type.
    """
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, at = _read_varint(data, at)
            yield field, value
            continue
        if wire_type == LENGTH:
            size, at = _read_varint(data, at)
        elif wire_type in {FIXED64, FIXED32}:
            size = 8 if wire_type == FIXED64 else 4
        else:
            raise MalformedError(f"wire type {wire_type}")
        if at + size > len(data):
            raise MalformedError("a field ends beyond the message")
        yield field, data[at : at + size]
        at += size


def varints(data: bytes) -> Iterator[int]:
    """The values of a packed field of varints.

    Raises:
        MalformedError: the last one is not whole.
    """
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise MalformedError("a varint ends beyond the message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedError("a varint of more than ten bytes")
