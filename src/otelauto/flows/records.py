# SPDX-License-Identifier: Apache-2.0
"""Ring records as Python values; one that breaks the contract raises :class:`BadRecordError`."""

from __future__ import annotations

import socket

from otelauto.abi import OPENING, SEGMENT, AbiLimit, Opening, RecordKind, Segment
from otelauto.flows.vocabulary import Address, Family

_OPENING = int(RecordKind.RECORD_OPENING)
_SEGMENT_KINDS = (int(RecordKind.RECORD_SEGMENT), int(RecordKind.RECORD_ENDING))
_CAPTURE_MAX = int(AbiLimit.CAPTURE_MAX)
_HEAD_SIZE = SEGMENT.size
MAPPED_IPV4 = b"\0" * 10 + b"\xff\xff"  # RFC 4291, section 2.5.5.2


class BadRecordError(ValueError):
    """A record that is not as bpf/abi.h says; the message is a short reason for the counter."""


def decode(record: memoryview | bytes) -> tuple[Opening | Segment, bytes]:
    """One ring record and its payload (the path, for an opening). Raises :class:`BadRecordError`.

    The payload is a copy: the record may be overwritten once this returns.
    """
    if not len(record):
        raise BadRecordError("empty")
    kind = record[0]
    if kind in _SEGMENT_KINDS:
        return _segment(record)
    if kind == RecordKind.RECORD_OPENING:
        return _opening(record)
    raise BadRecordError("kind")


def _opening(record: memoryview | bytes) -> tuple[Opening, bytes]:
    if len(record) < OPENING.size:
        raise BadRecordError("short")
    opening = Opening._make(OPENING.unpack_from(record))
    end = OPENING.size + opening.path_length
    if opening.path_length > AbiLimit.UNIX_PATH_MAX or end > len(record):
        raise BadRecordError("path length")
    return opening, bytes(record[OPENING.size : end])


def _segment(record: memoryview | bytes) -> tuple[Segment, bytes]:
    if len(record) < _HEAD_SIZE:
        raise BadRecordError("short")
    segment = Segment._make(SEGMENT.unpack_from(record))
    captured = segment.captured
    end = _HEAD_SIZE + captured
    if captured > segment.length or captured > _CAPTURE_MAX or end > len(record):
        raise BadRecordError("captured length")
    if segment.direction > 1:
        raise BadRecordError("direction")
    return segment, bytes(record[_HEAD_SIZE:end])


def ends(opening: Opening, path: bytes) -> tuple[Address, Address]:
    """The local and the remote address of a connection.

    Both ends of an AF_UNIX stream carry the path of the listening socket (the client's own end has
    none). An abstract name begins with ``@`` instead of NUL.
    """
    if opening.family == Family.UNIX:
        name = _unix_name(path)
        return Address(Family.UNIX, name), Address(Family.UNIX, name)
    return (
        _internet(opening.family, opening.local, opening.local_port),
        _internet(opening.family, opening.remote, opening.remote_port),
    )


def _unix_name(path: bytes) -> str:
    if path.startswith(b"\0"):
        return "@" + path[1:].decode("utf-8", "backslashreplace")
    return path.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _internet(family: int, address: bytes, port: int) -> Address:
    if family == Family.INET:
        return Address(Family.INET, socket.inet_ntop(socket.AF_INET, address[:4]), port)
    if family != Family.INET6:
        return Address(Family.INET, "", port)
    if address.startswith(MAPPED_IPV4):
        return Address(Family.INET, socket.inet_ntop(socket.AF_INET, address[12:]), port)
    return Address(Family.INET6, socket.inet_ntop(socket.AF_INET6, address), port)
