# SPDX-License-Identifier: Apache-2.0
"""Connections with a deadline for all that is done until it: name, connect, handshake, request.

``socket.settimeout`` limits each operation by itself: a peer that sends one byte now and then would
never be too late.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from typing import Any, Final

from otelauto.export.transport import Piece

VECTORS_MAX: Final = 1024  # pieces that one sendmsg(2) takes (IOV_MAX)
Addresses = list[tuple[Any, ...]]  # what getaddrinfo gives


class Deadline:
    """A moment, ``seconds`` from now; ``None`` is never."""

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds until then; ``None`` is no limit.

        Raises:
            TimeoutError: it has passed.
        """
        if self._at is None:
            return None
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Resolver:
    """Looks names up in a thread of its own: getaddrinfo(3) can be neither limited nor stopped."""

    def __init__(self) -> None:
        self._lookup: _Lookup | None = None

    def addresses(self, host: str, port: int, deadline: Deadline) -> Addresses:
        """The addresses of ``host``. A look-up that took too long is waited for by the next call.

        Raises:
            OSError: there are none, or not in time.
        """
        try:
            return _getaddrinfo(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            lookup = self._lookup
        if lookup is None or lookup.of != (host, port):
            lookup = self._lookup = _Lookup(host, port)
            lookup.start()
        if not lookup.done.wait(deadline.left()):
            raise TimeoutError
        self._lookup = None
        if lookup.error is not None:
            raise lookup.error
        return lookup.found


class _Lookup(threading.Thread):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(name="otelauto-resolve", daemon=True)
        self.of = (host, port)
        self.done = threading.Event()
        self.error: OSError | None = None
        self.found: Addresses = []

    def run(self) -> None:
        try:
            self.found = _getaddrinfo(*self.of, 0)
        except OSError as error:
            self.error = error
        except UnicodeError:  # a label that no name has
            self.error = socket.gaierror(socket.EAI_NONAME, "not a host name")
        finally:
            self.done.set()


def _getaddrinfo(host: str, port: int, flags: int) -> Addresses:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def dial(resolver: Resolver, host: str, port: int, deadline: Deadline) -> socket.socket:
    """A TCP connection to the first address of ``host`` that takes one.

    Each address gets its share of the time: one that does not answer must not take it all.

    Raises:
        OSError: none did, or not in time.
    """
    found = resolver.addresses(host, port, deadline)
    error: OSError = OSError("no address")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            left = deadline.left()
            sock.settimeout(None if left is None else left / (len(found) - number))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as failure:
            error = failure
            sock.close()
        else:
            return sock
    raise error


class TimedSocket:
    """The part of a socket that :mod:`http.client` uses, held to ``deadline``."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self.deadline = deadline
        self._files = 0
        self._closed = False

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._sock.settimeout(self.deadline.left())
            rest = rest[self._sock.send(rest) :]

    def send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send all pieces as they lie in memory."""
        left = [memoryview(piece) for piece in pieces if piece]
        while left:
            self._sock.settimeout(self.deadline.left())
            sent = _send_some(self._sock, left[:VECTORS_MAX])
            done = 0
            while done < len(left) and sent >= len(left[done]):
                sent -= len(left[done])
                done += 1
            del left[:done]
            if sent:
                left[0] = left[0][sent:]

    def recv_into(self, buffer: memoryview) -> int:
        """Read some bytes; 0 is the end."""
        self._sock.settimeout(self.deadline.left())
        return self._sock.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        """For reading. The socket stays open until it is closed, as with a socket's own."""
        assert mode == "rb"  # noqa: S101 - all that is asked for
        self._files += 1
        return io.BufferedReader(_Incoming(self))

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._closed = True
        self._close_if_unused()

    def file_closed(self) -> None:
        """A file of :meth:`makefile` was closed."""
        self._files -= 1
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closed and self._files == 0:
            self._sock.close()


def _send_some(sock: socket.socket, pieces: Sequence[memoryview]) -> int:
    """Send what goes at once; returns how many bytes. TLS takes one piece at a time."""
    return sock.send(pieces[0]) if isinstance(sock, ssl.SSLSocket) else sock.sendmsg(pieces)


class _Incoming(io.RawIOBase):
    def __init__(self, sock: TimedSocket) -> None:
        super().__init__()
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._sock.recv_into(memoryview(buffer))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._sock.file_closed()


class TimedConnection(HTTPConnection):
    """An HTTP connection, over TLS with a ``context``, that is held to a deadline.

    :meth:`open` and each request after :meth:`until` raise TimeoutError when it has passed. The
    server's certificate is to be for ``server_name``, if that is not empty.
    """

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext | None, server_name: str = ""
    ) -> None:
        if context is not None:
            self.default_port = 443  # what the Host field need not name
        super().__init__(host, port)
        self._context = context
        self._server_name = server_name
        self._timed: TimedSocket | None = None

    def open(self, resolver: Resolver, deadline: Deadline) -> socket.socket:
        """Connect, through the tunnel if one was set; returns the socket, to look at.

        Raises:
            OSError: it was not possible.
            HTTPException: the proxy does not speak HTTP.
        """
        sock = dial(resolver, self.host, self.port, deadline)
        self._use(sock, deadline)
        tunnel: str | None = getattr(self, "_tunnel_host", None)
        if tunnel:
            self._tunnel()  # type: ignore[attr-defined]
        if self._context is not None:
            sock.settimeout(deadline.left())
            name = self._server_name or tunnel or self.host
            sock = self._context.wrap_socket(sock, server_hostname=name)
            self._use(sock, deadline)
        return sock

    def _use(self, sock: socket.socket, deadline: Deadline) -> None:
        self._timed = TimedSocket(sock, deadline)
        self.sock = self._timed

    def abort(self) -> None:
        """From another thread: make what is in progress fail now."""
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # gone already
                sock.shutdown(socket.SHUT_RDWR)

    def send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send a body, as it lies in memory; the request said that it comes."""
        if self._timed is not None:
            self._timed.send_pieces(pieces)

    def until(self, deadline: Deadline) -> None:
        """Hold what follows to ``deadline``."""
        if self._timed is not None:
            self._timed.deadline = deadline
