# SPDX-License-Identifier: Apache-2.0
"""Frames of WebSocket (RFC 6455, section 5.2)."""

from __future__ import annotations

import struct

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(
    opcode: int, payload: bytes = b"", mask: bytes | None = None, final: bool = True
) -> bytes:
    """``mask`` is four bytes, as clients send."""
    size, masked = len(payload), 0 if mask is None else 0x80
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 1 << 16:
        head += bytes([masked | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", size)
    if mask is None:
        return head + payload
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return head + mask + (int.from_bytes(payload) ^ key).to_bytes(size)


def close(code: int, mask: bytes | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason, mask)
