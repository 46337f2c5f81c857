# SPDX-License-Identifier: Apache-2.0
"""The system calls that carry user bytes, each called by its own name through libc."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Sequence

LIBC = ctypes.CDLL(None, use_errno=True)
IOV_MAX = 1024


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Slot(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("message", Message), ("length", ctypes.c_uint32)]


class Timeout(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class Slots:
    """An array of messages, each a list of buffers of the given sizes (or contents)."""

    def __init__(self, messages: Sequence[Sequence[int | bytes]]) -> None:
        self.array = (Slot * len(messages))()
        self.buffers = []
        self._vectors = []
        for slot, parts in zip(self.array, messages, strict=True):
            buffers = [
                ctypes.create_string_buffer(part, len(part) if isinstance(part, bytes) else None)
                if not isinstance(part, bytes) or part
                else ctypes.create_string_buffer(1)
                for part in parts
            ]
            vectors = (Vector * max(len(parts), 1))()
            for vector, buffer, part in zip(vectors, buffers, parts, strict=False):
                vector.base = ctypes.addressof(buffer)
                vector.length = len(part) if isinstance(part, bytes) else part
            self.buffers.append(buffers)
            self._vectors.append(vectors)
            slot.message.vectors = vectors
            slot.message.vector_count = len(parts)

    def send(self, sock: socket.socket, count: int | None = None, flags: int = 0) -> int:
        """sendmmsg; messages sent. Raises OSError."""
        used = len(self.array) if count is None else count
        return _checked(LIBC.sendmmsg(sock.fileno(), self.array, used, flags))

    def receive(
        self,
        sock: socket.socket,
        count: int | None = None,
        flags: int = 0,
        timeout: Timeout | None = None,
    ) -> int:
        """recvmmsg; messages received. Raises OSError."""
        used = len(self.array) if count is None else count
        limit = ctypes.byref(timeout) if timeout else None
        return _checked(LIBC.recvmmsg(sock.fileno(), self.array, used, flags, limit))

    def lengths(self) -> list[int]:
        return [slot.length for slot in self.array]


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def halves(data: bytes) -> list[bytes]:
    """Odd pieces: three vectors, the second of one byte."""
    cut = len(data) // 3
    return [data[:cut], data[cut : cut + 1], data[cut + 1 :]]


def _send_slots(sock: socket.socket, data: bytes) -> int:
    slots = Slots([halves(data)])
    assert slots.send(sock) == 1
    return slots.lengths()[0]


SENDS: dict[str, Callable[[socket.socket, bytes], int]] = {
    "write": lambda s, data: os.write(s.fileno(), data),
    "writev": lambda s, data: os.writev(s.fileno(), halves(data)),
    "pwritev2": lambda s, data: _vectored("pwritev2", s, halves(data)),
    "sendto": lambda s, data: s.send(data),
    "sendmsg": lambda s, data: s.sendmsg(halves(data)),
    "sendmmsg": _send_slots,
}


def _vectored(name: str, sock: socket.socket, parts: Sequence[bytes | bytearray]) -> int:
    """preadv2 or pwritev2 at the current position (-1), as sockets demand."""
    buffers = [(ctypes.c_char * len(part)).from_buffer(bytearray(part)) for part in parts]
    vectors = (Vector * len(parts))()
    for vector, buffer in zip(vectors, buffers, strict=True):
        vector.base, vector.length = ctypes.addressof(buffer), len(buffer)
    position = ctypes.c_long(-1)
    return _checked(getattr(LIBC, name)(sock.fileno(), vectors, len(parts), position, 0))


def _room(size: int) -> list[bytearray]:
    cut = size // 3
    return [bytearray(cut), bytearray(1), bytearray(size - cut - 1)]


def _receive_slots(sock: socket.socket, size: int) -> int:
    slots = Slots([[size // 3, 1, size - size // 3 - 1]])
    assert slots.receive(sock) == 1
    return slots.lengths()[0]


RECEIVES: dict[str, Callable[[socket.socket, int], int]] = {
    "read": lambda s, size: len(os.read(s.fileno(), size)),
    "readv": lambda s, size: os.readv(s.fileno(), _room(size)),
    "preadv2": lambda s, size: _vectored("preadv2", s, _room(size)),
    "recvfrom": lambda s, size: s.recv_into(bytearray(size)),
    "recvmsg": lambda s, size: s.recvmsg_into(_room(size))[0],
    "recvmmsg": _receive_slots,
}
