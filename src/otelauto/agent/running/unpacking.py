# SPDX-License-Identifier: Apache-2.0
"""Compressed bodies of requests; no more is ever made of one than its limit.

``deflate`` and ``zlib`` are RFC 1950 (RFC 9110, section 8.4.1.2), ``gzip`` RFC 1952, ``zstd`` RFC
8878, ``lz4`` the frames of lz4. ``snappy`` is a block or a stream, which senders call the same;
``x-snappy-framed`` is the stream (google/snappy, format_description and framing_format).
"""

from __future__ import annotations

import mmap
import zlib
from typing import Final

_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15, "zlib": 15}
_SNAPPY_STREAM: Final = b"\xff\x06\x00\x00sNaPpY"  # what each begins with
_GZIP_MEMBER: Final = b"\x1f\x8b"
_NO_ROOM: Final = "write whole buffer"  # what the library says when there was more than room
ENCODINGS: Final = ("gzip", "zstd", "zlib", "snappy", "deflate", "lz4", "x-snappy-framed")


class UnusableError(Exception):
    """A request that cannot be understood; ``reason`` is how it is counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TooLargeError(UnusableError):
    """A request that is more than the limit once it is decompressed."""

    def __init__(self, limit: int) -> None:
        super().__init__("too_large", f"more than {limit} bytes when decompressed")


def decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """The content of a body in one of ``ENCODINGS``; no more than ``limit`` bytes are made of it.

    Raises:
        UnusableError: it is damaged, or more than ``limit`` (``TooLargeError``).
    """
    if not body:
        return b""
    if encoding in _WINDOW_BITS:
        return _inflated(body, encoding, limit)
    import cramjam  # noqa: PLC0415 - not before somebody sends what needs it

    try:
        if encoding == "snappy" and not body.startswith(_SNAPPY_STREAM):
            if cramjam.snappy.decompress_raw_len(body) > limit:
                raise TooLargeError(limit)
            return bytes(cramjam.snappy.decompress_raw(body))
        library = {"zstd": cramjam.zstd, "lz4": cramjam.lz4}.get(encoding, cramjam.snappy)
        # Memory of the kernel's: pages that nothing is written to cost nothing.
        with mmap.mmap(-1, max(limit, 1)) as room:
            return room[: library.decompress_into(body, room)]
    except cramjam.DecompressionError as error:
        if _NO_ROOM in str(error):
            raise TooLargeError(limit) from error
        raise UnusableError("compression", f"the {encoding} data is damaged") from error


def _inflated(body: bytes, encoding: str, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    while body:
        member = zlib.decompressobj(_WINDOW_BITS[encoding])
        try:
            part = member.decompress(body, left + 1)
        except zlib.error as error:
            raise UnusableError("compression", f"the {encoding} data is damaged") from error
        left -= len(part)
        if left < 0:
            raise TooLargeError(limit)
        if not member.eof:
            raise UnusableError("compression", f"the {encoding} data ends early")
        parts.append(part)
        body = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def encoding_of(body: bytes) -> str:
    """How a message of gRPC is compressed, from its first bytes: grpcio does not tell.

    No OTLP message begins so: its fields are of field 1 (0x0a), and neither gzip's first byte nor
    zlib's is a key of a field that any message of OTLP has. Other compressions grpcio refuses by
    itself (INTERNAL), whatever it is told.
    """
    if body.startswith(_GZIP_MEMBER):
        return "gzip"
    zlib_header = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return "deflate" if zlib_header else ""
