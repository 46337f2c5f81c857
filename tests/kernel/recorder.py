# SPDX-License-Identifier: Apache-2.0
"""A running capture with its records decoded, by connection, in the order of the ring."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.scale import PATIENCE
from tests.unsupported import Unsupported

from otelauto import abi
from otelauto.abi import Direction, Opening, RecordKind, Segment, SegmentFlag
from otelauto.kernel.capture import Capture, Wanted

SO_COOKIE = 57
IPPROTO_MPTCP = 262
RECEIVED, SENT = Direction.DIRECTION_RECEIVED, Direction.DIRECTION_SENT
DEADLINE = 20.0 * PATIENCE


@dataclass(slots=True)
class Piece:
    """A segment record and its payload."""

    segment: Segment
    payload: bytes

    @property
    def flags(self) -> SegmentFlag:
        return SegmentFlag(self.segment.flags)


@dataclass(slots=True)
class Watched:
    """All records of one connection."""

    openings: list[tuple[Opening, bytes]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    endings: list[Segment] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)

    def of(self, direction: int) -> list[Piece]:
        return [piece for piece in self.pieces if piece.segment.direction == direction]

    def payload(self, direction: int) -> bytes:
        return b"".join(piece.payload for piece in self.of(direction))

    def flagged(self, flag: SegmentFlag) -> list[Segment]:
        return [ending for ending in self.endings if ending.flags & flag]


class Recorder:
    """Watches this very process with the real programs; loads them if it gets none that run.

    Of running ones it sees what happens from now on: records that wait are thrown away, counters
    begin at 0.
    """

    def __init__(
        self,
        wanted: Wanted | None = None,
        watch_self: bool = True,
        running: Capture | None = None,
    ) -> None:
        self._owned = running is None
        self.capture = running or Capture(wanted or Wanted())
        if running:
            running.drain_records(lambda _: None)
            running.drain_events()
        self._before = self.capture.counters()
        self.connections: dict[int, Watched] = {}
        self.events: list[abi.ProcessEvent] = []
        self.delivered = 0
        self.raw: list[bytes] | None = None
        if watch_self:
            self.capture.watch(os.getpid())

    def drain(self) -> None:
        self.delivered += self.capture.drain_records(self._take)
        self.events += self.capture.drain_events()

    def _take(self, view: memoryview) -> None:
        if self.raw is not None:
            self.raw.append(bytes(view))
        if view[0] == RecordKind.RECORD_OPENING:
            opening = Opening(*abi.OPENING.unpack_from(view))
            watched = self.connections.setdefault(opening.connection, Watched())
            end = abi.OPENING.size + opening.path_length
            assert len(view) == end
            watched.openings.append((opening, bytes(view[abi.OPENING.size : end])))
            watched.sequences.append(opening.sequence)
            watched.kinds.append(opening.kind)
            return
        segment = Segment(*abi.SEGMENT.unpack_from(view))
        assert len(view) == abi.SEGMENT.size + segment.captured
        watched = self.connections.setdefault(segment.connection, Watched())
        watched.sequences.append(segment.sequence)
        watched.kinds.append(segment.kind)
        if segment.kind == RecordKind.RECORD_SEGMENT:
            watched.pieces.append(Piece(segment, bytes(view[abi.SEGMENT.size :])))
        else:
            assert segment.kind == RecordKind.RECORD_ENDING
            watched.endings.append(segment)

    def of(self, sock: socket.socket | int) -> Watched:
        """What was recorded of a socket (or of a cookie) so far."""
        self.drain()
        cookie = sock if isinstance(sock, int) else cookie_of(sock)
        return self.connections.setdefault(cookie, Watched())

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Drain until ``condition`` holds."""
        deadline = time.monotonic() + DEADLINE
        while True:
            self.drain()
            if condition():
                return
            assert time.monotonic() < deadline, f"never happened: {what}"
            self.capture.wait(0.02)

    def are_mptcp_closed(self) -> bool:
        """Whether every MPTCP connection that was recorded is closed."""
        return all(
            watched.flagged(SegmentFlag.FLAG_CLOSED)
            for watched in self.connections.values()
            if watched.openings and watched.openings[0][0].protocol == IPPROTO_MPTCP
        )

    def counters(self) -> dict[str, int]:
        """By how much each counter grew since the beginning."""
        totals = self.capture.counters()
        return {name: total - self._before[name] for name, total in totals.items()}

    @contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        """A dict that holds, after the block, what each counter grew by (0s left out)."""
        before = self.counters()
        grown: dict[str, int] = {}
        yield grown
        after = self.counters()
        grown.update({k: v - before[k] for k, v in after.items() if v != before[k]})

    def close(self) -> None:
        if self._owned:
            self.capture.close()
        else:
            self.capture.unwatch(os.getpid())


def cookie_of(sock: socket.socket) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)
    (cookie,) = struct.unpack("=Q", raw)
    return int(cookie)


def give_cookies(*sockets: socket.socket) -> None:
    """Where BPF cannot give a socket its cookie, it must have it before the first byte."""
    for sock in sockets:
        cookie_of(sock)


def verdict(
    mode: abi.CaptureMode,
    want: tuple[int, int] = (0, 0),
    starts: tuple[bytes, bytes] = (b"", b""),
) -> abi.Verdict:
    """A verdict from values in the order of ``enum direction``."""
    received, sent = (start.ljust(8, b"\0") for start in starts)
    return abi.Verdict(mode, *want, len(starts[0]), len(starts[1]), received, sent)


def copy_everything(recorder: Recorder, *sockets: socket.socket) -> None:
    """Decide for MODE_STREAM on these connections."""
    for sock in sockets:
        stream = verdict(abi.CaptureMode.MODE_STREAM)
        recorder.capture.put_connection_verdict(cookie_of(sock), stream)
    recorder.capture.publish()


KINDS = ("tcp4", "tcp6", "mapped", "mptcp", "unix")


def inet_socket(kind: str, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    """A fresh socket; raises Unsupported where the kernel is built without MPTCP."""
    try:
        protocol = IPPROTO_MPTCP if kind == "mptcp" else 0
        return socket.socket(family, socket.SOCK_STREAM, protocol)
    except OSError as error:
        if kind == "mptcp" and error.errno == errno.EPROTONOSUPPORT:
            raise Unsupported("this kernel has no MPTCP") from error
        raise


def listener(kind: str, path: str = "") -> socket.socket:
    """A listening stream socket of one of KINDS; ``path`` is for unix."""
    if kind == "unix":
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
    elif kind in ("tcp6", "mapped"):
        server = socket.socket(socket.AF_INET6)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, kind == "tcp6")
        server.bind(("::1" if kind == "tcp6" else "::", 0))
    else:
        server = inet_socket(kind)
        server.bind(("127.0.0.1", 0))
    server.listen(64)
    return server


def connected(kind: str, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    """(client, accepted) of a listener of that kind. A mapped client is IPv6 ::ffff:127.0.0.1."""
    if kind == "unix":
        client = socket.socket(socket.AF_UNIX)
        client.connect(server.getsockname())
    elif kind in ("tcp6", "mapped"):
        client = socket.socket(socket.AF_INET6)
        host = "::1" if kind == "tcp6" else "::ffff:127.0.0.1"
        client.connect((host, server.getsockname()[1]))
    else:
        client = inet_socket(kind)
        client.connect(server.getsockname())
    accepted, _ = server.accept()
    for end in (client, accepted):
        end.settimeout(DEADLINE)
    give_cookies(client, accepted)
    return client, accepted
