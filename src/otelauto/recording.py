# SPDX-License-Identifier: Apache-2.0
"""Recordings: the kernel's records in a file, for bug reports, benches and work without root.

A recording holds strangers' traffic. It is created for its owner only (mode 0600), never through a
symbolic link or over another file, and not where anyone may rename it.

The file (integers little-endian)::

    magic "OTELAREC"   version u16   header length u32   header crc32 u32
    header: JSON {abi, boot_to_wall_ns, host, kernel, otelauto, redacted}
    blocks: "BLCK"   payload length u32   items u32   crc32 u32 (of the first three and the payload)
        payload: items, each   length u32   kind u8 (0 record, 1 note)   bytes
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from enum import IntEnum
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple

from otelauto import __version__, abi
from otelauto.errors import ConfigError, OtelautoError
from otelauto.redaction import Hide, Redaction

MAGIC: Final = b"OTELAREC"
VERSION: Final = 1
BLOCK_BYTES: Final = 64 * 1024  # a block is written when it holds so much
MAX_ITEM: Final = 64 * 1024
MAX_BLOCK: Final = BLOCK_BYTES + MAX_ITEM + 16
MAX_HEADER: Final = 64 * 1024

_PREFIX: Final = struct.Struct("<8sHII")
_BLOCK: Final = struct.Struct("<4sIII")
_BLOCK_MARK: Final = b"BLCK"
_ITEM: Final = struct.Struct("<IB")
Note = dict[str, Any]


class _ItemKind(IntEnum):
    RECORD = 0
    NOTE = 1


class Header(NamedTuple):
    """What a recording says of itself. ``boot_to_wall_ns`` is wall clock minus boot clock."""

    abi: str
    boot_to_wall_ns: int
    host: str
    kernel: str
    otelauto: str
    redacted: bool


def abi_fingerprint() -> str:
    """A digest of all layouts and numbers of the contract between kernel and user space."""
    parts: list[str] = []
    for name, thing in sorted(vars(abi).items()):
        if isinstance(thing, struct.Struct):
            parts.append(f"{name}={thing.format}")
        elif isinstance(thing, type) and issubclass(thing, IntEnum) and thing is not IntEnum:
            parts += [f"{name}.{member.name}={member.value}" for member in thing]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def boot_to_wall_ns() -> int:
    """Nanoseconds to add to CLOCK_BOOTTIME to get the wall clock, now."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Writer:
    """Writes a new recording. Use it as a context manager, or call :meth:`close`.

    ``redact`` and ``unfinished`` are those of :class:`otelauto.redaction.Redaction`; ``None`` keeps
    the payloads. ``malformed`` counts records that were left out because their lengths
    contradict the contract. Raises :class:`ConfigError` if the file may not be created and
    :class:`OtelautoError` if it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        redact: Hide | None,
        unfinished: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self.records = 0
        self.malformed = 0
        self._path = path
        self._redaction: Redaction | None = None
        if redact is not None:
            self._redaction = Redaction(redact, unfinished, self._append_record)
        self._block = bytearray()
        self._items = 0
        self._file = _create(path)
        header = Header(
            abi=abi_fingerprint(),
            boot_to_wall_ns=boot_to_wall_ns(),
            host=platform.node(),
            kernel=platform.release(),
            otelauto=__version__,
            redacted=redact is not None,
        )
        text = json.dumps(header._asdict()).encode()
        self._put(_PREFIX.pack(MAGIC, VERSION, len(text), zlib.crc32(text)) + text)

    def write(self, record: bytes | memoryview) -> None:
        """Append one record as it came from the ring."""
        kept = self._kept(bytes(record))
        if kept is None:
            self.malformed += 1
            return
        self.records += 1
        if self._redaction is None:
            self._append_record(kept)
        else:
            self._redaction.take(kept)

    def note(self, note: Note) -> None:
        """Append a JSON object that the reader hands out before the records that follow it."""
        self._append(_ItemKind.NOTE, json.dumps(note).encode())

    def flush(self) -> None:
        """Write what is gathered, so that a crash from now on does not lose it.

        What redaction holds back is not among it.
        """
        if self._items:
            start = _BLOCK.pack(_BLOCK_MARK, len(self._block), self._items, 0)[:12]
            checksum = zlib.crc32(self._block, zlib.crc32(start))
            block = start + struct.pack("<I", checksum) + self._block
            # Cleared first: what could be written of a block is torn, a second try would follow it.
            self._block.clear()
            self._items = 0
            self._put(block)

    def close(self) -> None:
        """Write the rest and close the file. Calling it again does nothing."""
        if self._file.closed:
            return
        try:
            if self._redaction is not None:
                self._redaction.finish()
            self.flush()
        finally:
            self._file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _kept(self, record: bytes) -> bytes | None:
        """``record`` without what is beyond its length, or ``None`` if its lengths are wrong."""
        kind = record[0] if record else 0
        if kind == abi.RecordKind.RECORD_OPENING and len(record) >= abi.OPENING.size:
            end = abi.OPENING.size + abi.Opening._make(abi.OPENING.unpack_from(record)).path_length
            return record[:end] if end <= len(record) else None
        segments = (abi.RecordKind.RECORD_SEGMENT, abi.RecordKind.RECORD_ENDING)
        if kind not in segments or len(record) < abi.SEGMENT.size:
            return None
        end = abi.SEGMENT.size + abi.Segment._make(abi.SEGMENT.unpack_from(record)).captured
        return record[:end] if end <= len(record) else None

    def _append_record(self, record: bytes) -> None:
        self._append(_ItemKind.RECORD, record)

    def _append(self, kind: _ItemKind, data: bytes) -> None:
        if len(data) > MAX_ITEM:
            self.malformed += 1
            return
        self._block += _ITEM.pack(len(data), kind) + data
        self._items += 1
        if len(self._block) >= BLOCK_BYTES:
            self.flush()

    def _put(self, data: bytes | bytearray) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OtelautoError(
                f"the recording {self._path} cannot be written: {error.strerror}.",
                "Make room, or record to another place.",
            ) from None


def _create(path: Path) -> FileIO:
    """Create ``path`` for the owner only, relative to its opened and inspected directory."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.fstat(folder).st_mode & stat.S_IWOTH:
                raise ConfigError(
                    f"{path.parent} is writable by everyone, so a recording is not safe there.",
                    "Record to a directory of your own.",
                )
            return FileIO(os.open(path.name, flags, 0o600, dir_fd=folder), "wb")
        finally:
            os.close(folder)
    except FileExistsError:
        raise ConfigError(f"{path} exists already.", "Give another name or remove it.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ConfigError(
            f"{path} cannot be created: {reason}.", "Give a path where you may create files."
        ) from None


class Reader:
    """Reads a recording: iterate over it for the records, as bytes and in order.

    ``on_note`` gets the notes between them. After the iteration ``torn_bytes`` says how many bytes
    of an unfinished last block were left out. Raises :class:`ConfigError` for a file that cannot
    be opened, is no recording, is of another version or contract, or is corrupt.
    """

    def __init__(self, path: Path, on_note: Callable[[Note], None] | None = None) -> None:
        self.torn_bytes = 0
        self._path = path
        self._on_note = on_note
        try:
            with path.open("rb") as file:
                self.header = self._read_header(file)
                self._start = file.tell()
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            raise ConfigError(
                f"{path} cannot be read: {reason}.", 'Name a file that "otelauto record" wrote.'
            ) from None

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            file.seek(self._start)
            self.torn_bytes = 0
            while (payload := self._read_block(file)) is not None:
                yield from self._records(*payload)

    def _read_header(self, file: BinaryIO) -> Header:
        prefix = file.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size or not prefix.startswith(MAGIC):
            raise self._refused("is not a recording of otelauto")
        _, version, length, checksum = _PREFIX.unpack(prefix)
        if version != VERSION:
            raise self._refused(f"has version {version} of the format, this is {VERSION}")
        text = file.read(length) if length <= MAX_HEADER else b""
        if len(text) != length or zlib.crc32(text) != checksum:
            raise self._refused("has a corrupt header")
        try:
            header = Header(**json.loads(text))
        except (TypeError, ValueError):
            raise self._refused("has a header that is not understood") from None
        if not isinstance(header.boot_to_wall_ns, int):
            raise self._refused("has a header that is not understood")
        if header.abi != abi_fingerprint():
            raise self._refused(
                f"was made by otelauto {header.otelauto} with other records than this one's"
            )
        return header

    def _read_block(self, file: BinaryIO) -> tuple[bytes, int] | None:
        """Payload and number of items of the next block; ``None`` at the end or at a torn one."""
        at = file.tell()
        start = file.read(_BLOCK.size)
        if len(start) < _BLOCK.size:
            self.torn_bytes = len(start)
            return None
        mark, length, items, checksum = _BLOCK.unpack(start)
        if mark != _BLOCK_MARK or length > MAX_BLOCK:
            if not any(start) and (rest := _zeros(file)) is not None:
                self.torn_bytes = len(start) + rest  # the crash came before the data was on disk
                return None
            raise self._refused(f"is corrupt at byte {at}")
        payload = file.read(length)
        if len(payload) < length:
            self.torn_bytes = len(start) + len(payload)
            return None
        if zlib.crc32(payload, zlib.crc32(start[:12])) != checksum:
            raise self._refused(f"is corrupt at byte {at}")
        return payload, items

    def _records(self, payload: bytes, items: int) -> Iterator[bytes]:
        at = 0
        for _ in range(items):
            if at + _ITEM.size > len(payload):
                raise self._refused("has a block that is shorter than its items")
            length, kind = _ITEM.unpack_from(payload, at)
            at += _ITEM.size
            data = payload[at : at + length]
            at += length
            if len(data) < length:
                raise self._refused("has an item that is longer than its block")
            if kind == _ItemKind.RECORD:
                yield data
            elif kind == _ItemKind.NOTE:
                self._note(data)
            else:
                raise self._refused(f"has an item of unknown kind {kind}")

    def _note(self, data: bytes) -> None:
        try:
            note = json.loads(data)
        except ValueError:
            note = None
        if not isinstance(note, dict):
            raise self._refused("has a note that is not understood")
        if self._on_note is not None:
            self._on_note(note)

    def _refused(self, sentence: str) -> ConfigError:
        return ConfigError(
            f"{self._path} {sentence}.", "Make a new recording with this otelauto and name it."
        )


def _zeros(file: BinaryIO) -> int | None:
    """How many bytes are left if all are zero, else ``None``."""
    count = 0
    while chunk := file.read(1 << 16):
        if any(chunk):
            return None
        count += len(chunk)
    return count
