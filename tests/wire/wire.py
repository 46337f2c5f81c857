# SPDX-License-Identifier: Apache-2.0
"""Builds the ring records that the kernel half would emit for a conversation."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from otelauto.abi import OPENING, SEGMENT, AbiLimit, RecordKind, SegmentFlag, SocketRole
from otelauto.counters import Counters
from otelauto.flows.flows import Flows
from otelauto.flows.vocabulary import Exchange, Family
from otelauto.protocols import protocols
from otelauto.protocols.settings import ProtocolSettings

CLIENT, SERVER = "client", "server"
STEP_NS = 1_000
BEGIN_NS = 1_000_000_000
SECOND_NS = 1_000_000_000


@dataclass
class Heads:
    """Heads mode: bytes wanted of each turn of the client and of the server."""

    client: int = 8192
    server: int = 1024
    start: bytes = b"HTTP/1."


@dataclass
class Wire:
    """One connection as seen by the process at ``view``; ``records`` is what crosses the ring."""

    view: str = SERVER
    cookie: int = 1
    heads: Heads | None = None
    midstream: bool = False
    family: int = Family.INET
    path: bytes = b""
    local: tuple[str, int] = ("10.0.0.2", 8080)
    remote: tuple[str, int] = ("10.0.0.1", 40000)
    tgid: int = 77
    carrier: int | None = None  # of the plaintext of a TLS session; 0: not proven
    records: list[bytes] = field(default_factory=list)
    time: int = BEGIN_NS
    sequence: int = 0
    offsets: list[int] = field(default_factory=lambda: [0, 0])
    last: int | None = None
    left: int = 0

    def open(self) -> Wire:
        self.records.append(
            OPENING.pack(
                RecordKind.RECORD_OPENING,
                SocketRole.ROLE_SERVER if self.view == SERVER else SocketRole.ROLE_CLIENT,
                self.family,
                self._next(),
                self.cookie,
                self.time,
                self.tgid,
                self.tgid,
                4026531840,
                self.local[1],
                self.remote[1],
                99,
                packed(self.local[0]),
                packed(self.remote[0]),
                6,
                len(self.path),
                self.carrier is not None,
                self.carrier or 0,
            )
            + self.path
        )
        return self

    def _next(self) -> int:
        self.sequence += 1
        return (self.sequence - 1) % (1 << 32)

    def direction(self, sender: str) -> int:
        return 1 if sender == self.view else 0

    def send(self, sender: str, data: bytes, captured: int | None = None) -> Wire:
        """One system call that moved ``data``."""
        direction = self.direction(sender)
        flags = SegmentFlag(0)
        if self.last != direction:
            flags |= SegmentFlag.FLAG_TURN_START
            self.left = self._want(sender)
        if self.midstream:
            flags |= SegmentFlag.FLAG_MIDSTREAM
        self.last = direction
        self.time += STEP_NS
        if captured is None:
            captured = self._captured(sender, data)
        tail = b""
        if captured < len(data):
            flags |= SegmentFlag.FLAG_TAIL
            tail = data[-8:].rjust(8, b"\0")
        self.records.append(
            SEGMENT.pack(
                RecordKind.RECORD_SEGMENT,
                direction,
                flags,
                self._next(),
                self.cookie,
                self.time,
                self.offsets[direction],
                len(data),
                captured,
                self.tgid,
                self.tgid + 1,
                1000 * (direction + 1) + self.offsets[direction],
                0,
                tail,
            )
            + data[:captured]
        )
        self.offsets[direction] += len(data)
        return self

    def _want(self, sender: str) -> int:
        if self.heads is None:
            return 0
        return self.heads.client if sender == CLIENT else self.heads.server

    def _captured(self, sender: str, data: bytes) -> int:
        if self.heads is None or len(data) <= AbiLimit.SMALL_SEGMENT:
            return min(len(data), AbiLimit.CAPTURE_MAX)
        captured = min(len(data), self.left)
        self.left -= captured
        if sender == SERVER and data.startswith(self.heads.start):
            captured = min(len(data), self.heads.server)
        return captured

    def lose(self, count: int = 1) -> Wire:
        """The ring was full: the last ``count`` records never arrived."""
        del self.records[-count:]
        return self

    def end(self, flags: SegmentFlag) -> Wire:
        self.time += STEP_NS
        self.records.append(
            SEGMENT.pack(
                RecordKind.RECORD_ENDING,
                0,
                flags,
                self._next(),
                self.cookie,
                self.time,
                0,
                0,
                0,
                self.tgid,
                self.tgid,
                0,
                0,
                b"",
            )
        )
        return self

    def finish(self, sender: str) -> Wire:
        """``sender`` sends its FIN."""
        own = sender == self.view
        return self.end(SegmentFlag.FLAG_SEND_ENDED if own else SegmentFlag.FLAG_RECEIVE_ENDED)

    def close(self) -> Wire:
        """The watched process closes its socket."""
        return self.end(SegmentFlag.FLAG_CLOSED)


def packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed.ljust(16, b"\0")


@dataclass
class Reader:
    """Flows with what they delivered."""

    settings: ProtocolSettings = field(default_factory=ProtocolSettings)
    connections_max: int = 1024

    def __post_init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.counters = Counters()
        self.time = BEGIN_NS
        self.flows = Flows(
            protocols(self.settings),
            self.counters,
            self.exchanges.append,
            self.connections_max,
        )

    def feed(self, records: Iterable[bytes]) -> Reader:
        for record in records:
            self.flows.feed(memoryview(record))
        return self

    def tick(self, time: int) -> Reader:
        self.time = time
        self.flows.tick(time)
        return self


def read(wire: Wire) -> list[Exchange]:
    """What is delivered once ``wire`` has been silent for a second."""
    return Reader().feed(wire.records).tick(wire.time + SECOND_NS).exchanges
