# SPDX-License-Identifier: Apache-2.0
"""How far an endpoint is in the write-ahead log: a small file, written over in place."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final

from otelauto.agent.prometheus.wal import Position

MAGIC: Final = b"OaP1"
_POSITION: Final = struct.Struct("<4sQQ")
_CHECKSUM: Final = struct.Struct("<I")


def read_position(path: Path) -> Position | None:
    """What an endpoint stored; ``None``: nothing, or nothing that is whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) != _POSITION.size + _CHECKSUM.size:
        return None
    magic, segment, offset = _POSITION.unpack_from(data)
    (checksum,) = _CHECKSUM.unpack_from(data, _POSITION.size)
    if magic != MAGIC or checksum != zlib.crc32(data[: _POSITION.size]):
        return None
    return Position(segment, offset)


def write_position(path: Path, position: Position) -> None:
    """Store it. A kill leaves this one or the one before. Raises OSError."""
    data = _POSITION.pack(MAGIC, *position)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.pwrite(fd, data + _CHECKSUM.pack(zlib.crc32(data)), 0)
    finally:
        os.close(fd)
