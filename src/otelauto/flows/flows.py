# SPDX-License-Identifier: Apache-2.0
"""From ring records to exchanges: the table of connections.

Not thread-safe: one thread feeds records, ticks and takes verdicts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from otelauto.abi import Opening, RecordKind, Segment
from otelauto.counters import Counters
from otelauto.flows import meanings
from otelauto.flows.connection import Connection
from otelauto.flows.endpoints import Endpoints
from otelauto.flows.hub import Hub
from otelauto.flows.records import BadRecordError, decode
from otelauto.flows.vocabulary import Address, Entry, Exchange, Family, Recognizer, Side, Verdict
from otelauto.hot.lane import Lane

QUIET_NS = 500_000_000  # silence that ends what only silence can end
UNIX_STALLED_NS = 5_000_000_000  # AF_UNIX: a response that ends at close has ended
UNIX_FINISHED_NS = 60_000_000_000  # AF_UNIX, after the peer has finished
UNIX_IDLE_NS = 3_600_000_000_000  # AF_UNIX, whose close leaves no record
# TCP's does: a connection that is silent for long may go on, and its addresses come only once.
IDLE_NS = 24 * 3_600_000_000_000
SWEEP_NS = 5_000_000_000  # between looks for idle connections
FOREVER_NS = (1 << 63) - 1
CONNECTIONS_MAX = 32768
EVICTION_SAMPLE = 64
UNREAD_MAX = 1024
_SEQUENCE_BITS = 32
_SEGMENT = int(RecordKind.RECORD_SEGMENT)


@dataclass(frozen=True, slots=True)
class Unread:
    """Connections of one endpoint that are not read. ``carries`` says why (``"tls"``, ...)."""

    carries: str
    endpoint: str  # ":443" for a port here, "192.0.2.1:443" or a socket's path elsewhere
    connections: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``status`` says. ``by_protocol`` counts open connections; ``""`` is: not known yet."""

    open: int
    by_protocol: dict[str, int]
    unread: tuple[Unread, ...]


# How the spans of a connection name its peer, encoded; None: the lane must not have it.
Admit = Callable[[Side, int, Address, Address], bytes | None]


class Flows:
    """Feeds records to their connections and keeps the table of connections bounded."""

    def __init__(
        self,
        protocols: tuple[Recognizer, ...],
        counters: Counters,
        deliver: Callable[[Exchange], None],
        connections_max: int = CONNECTIONS_MAX,
        lane: Lane | None = None,
        admit: Admit = lambda side, tgid, local, peer: None,
    ) -> None:
        """``deliver`` gets every exchange once, but those that ``lane`` counts itself.

        ``admit`` is asked with the side, the process and the local and remote address of each
        connection that ``lane`` could read.
        """
        self._lane = lane
        self._admit = admit
        if lane is not None:
            lane.rest, lane.resume, lane.describe = self._read, self._resume, self._describe
        self._counters = counters
        self._connections_max = connections_max
        self._endpoints = Endpoints()
        self._hub = Hub(protocols, counters, self._hand_on, self._endpoints, self._note_unread)
        self._deliver = deliver
        self._delivered = 0  # since the last tick
        self._in_lane = 0  # exchanges of the lane, up to the last tick
        self._connections: OrderedDict[int, Connection] = OrderedDict()
        # Sessions of TLS are connections of their own here: each with its socket, 0 if not proven.
        self._sessions: dict[int, int] = {}
        self._plain: set[int] = set()  # the sockets of sessions
        self._closing_unseen: set[int] = set()  # whose close leaves no record: AF_UNIX, unknown
        self._waiting: dict[int, tuple[Connection, Segment]] = {}
        self._unread: dict[tuple[str, str], int] = {}
        self._gaps: dict[int, Connection] = {}
        self._swept_ns = 0

    @property
    def protocols(self) -> tuple[Recognizer, ...]:
        """What is looked for in a connection's bytes."""
        return self._hub.protocols

    @property
    def lane(self) -> Lane | None:
        """What the ring may be drained into instead of calling :meth:`feed`."""
        return self._lane

    def feed(self, record: memoryview | bytes) -> None:
        """Take one record of the data ring; a bad one is counted and dropped."""
        if self._lane is not None:
            self._lane.feed(record)
        else:
            self._read(record)

    def _read(self, record: memoryview | bytes) -> None:
        try:
            head, payload = decode(record)
        except BadRecordError as problem:
            self._counters.add(meanings.RECORDS_BAD, label=str(problem))
            return
        if isinstance(head, Opening):
            self._open(head, payload)
            return
        connection = self._connections.get(head.connection)
        if connection is None:
            if head.kind != _SEGMENT:
                return
            self._counters.add(meanings.OPENINGS_MISSING)
            connection = self._add(Connection(self._hub, head.connection, None, b""))
            connection.sequence = head.sequence + 1
        elif connection.sequence == head.sequence:
            connection.sequence += 1
        else:
            self._note_gap(connection, head.sequence)
        if head.kind == _SEGMENT:
            connection.segment(head, payload)
            if connection.waits():
                self._waiting[head.connection] = (connection, head)
            elif self._lane is not None and connection.adoptable():
                self._adopt(self._lane, connection)
        elif connection.ending(head):
            self._remove(head.connection)

    # ---- the fast lane ----

    def _adopt(self, lane: Lane, connection: Connection) -> None:
        peer = self._admit(connection.side, connection.tgid, *connection.ends)
        if peer is not None:
            connection.adopt(lane, peer)

    def _resume(
        self,
        cookie: int,
        sequence: int,
        offsets: tuple[int, int],
        last_ns: int,
        records: list[bytes],
        exchanges: int,
    ) -> None:
        """The lane gives a connection back, with the records of the exchange in progress."""
        self._connections[cookie].resume(sequence, offsets, last_ns, exchanges)
        for record in records:
            self._read(record)

    def _describe(self, cookie: int, last_ns: int, entry: Entry) -> None:
        """The lane gives an exchange back that overlaps with others."""
        self._connections[cookie].describe(entry, last_ns)

    def _reclaim(self, cookie: int) -> Connection:
        """The connection, which the lane has no longer."""
        if self._lane is not None:
            self._lane.take_out(cookie)
        return self._connections[cookie]

    def _last_ns(self, connection: Connection) -> int:
        """When something passed last on the connection, wherever it is read."""
        if self._lane is None:
            return connection.last_ns
        return self._lane.last_ns(connection.cookie) or connection.last_ns

    def _collect(self, lane: Lane, now_ns: int) -> None:
        """Take over what the lane has counted."""
        self._delivered += lane.exchanges - self._in_lane
        self._in_lane = lane.exchanges
        for tally in lane.take_tallies():
            self._endpoints.fold(tally)
        for cookie in lane.stalled(now_ns - UNIX_STALLED_NS):
            lane.take_out(cookie)

    # ---- the table ----

    def _hand_on(self, exchange: Exchange) -> None:
        self._delivered += 1
        self._deliver(exchange)

    def _open(self, opening: Opening, path: bytes) -> None:
        if opening.plaintext:
            self._open_plaintext(opening)
        known = self._connections.get(opening.connection)
        if known is None:
            known = self._add(Connection(self._hub, opening.connection, opening, path))
            if known.cookie in self._plain:
                known.is_ciphertext()
            return
        self._note_gap(known, opening.sequence)
        known.reopen(opening, path)
        self._note_family(known)

    def _open_plaintext(self, opening: Opening) -> None:
        """The socket that carries a TLS session has nothing more to say."""
        if opening.connection not in self._sessions and not opening.carrier:
            self._counters.add(meanings.SESSIONS_UNPROVEN)
        self._sessions[opening.connection] = opening.carrier
        carrier = self._connections.get(opening.carrier)
        if carrier is not None:
            if carrier.ignored and carrier.cookie not in self._plain:
                self._forget_unread(carrier)
            carrier.is_ciphertext()
        if opening.carrier:
            self._plain.add(opening.carrier)

    def _forget_unread(self, carrier: Connection) -> None:
        key = (carrier.carries, _endpoint_name(carrier))
        if self._unread.get(key, 0) > 1:
            self._unread[key] -= 1
        else:
            self._unread.pop(key, None)

    def _add(self, connection: Connection) -> Connection:
        if len(self._connections) >= self._connections_max:
            self._evict()
        self._connections[connection.cookie] = connection
        self._note_family(connection)
        return connection

    def _note_family(self, connection: Connection) -> None:
        local = connection.ends[0]
        if local.family is Family.UNIX or not local.host:
            self._closing_unseen.add(connection.cookie)
        else:
            self._closing_unseen.discard(connection.cookie)

    def _remove(self, cookie: int) -> None:
        connection = self._connections.pop(cookie, None)
        self._waiting.pop(cookie, None)
        self._closing_unseen.discard(cookie)
        for socket in (cookie, self._sessions.pop(cookie, 0)):
            if socket not in self._connections:
                self._plain.discard(socket)
        if connection is not None and self._gaps.pop(cookie, None) is not None:
            self._count_lost(connection)

    def _evict(self) -> None:
        """Of the first few connections forget the one idle longest; the others go to the end.

        So each call looks at others, and one that is in use outlives those that are not.
        """
        looked_at = list(islice(self._connections.values(), EVICTION_SAMPLE))
        for connection in looked_at:
            self._connections.move_to_end(connection.cookie)
        self._expire(min(looked_at, key=self._last_ns).cookie, "full")

    def _expire(self, cookie: int, reason: str) -> None:
        self._reclaim(cookie).finish("expired")
        self._remove(cookie)
        self._counters.add(meanings.CONNECTIONS_EXPIRED, label=reason)

    def _note_gap(self, connection: Connection, found: int) -> None:
        """``found`` is not the record number that was expected.

        Two threads that use a connection at once may number their records in one order and put
        them into the ring in the other. So a gap is counted when it has stayed open for a while.
        """
        ahead = (found - connection.sequence) % (1 << _SEQUENCE_BITS)
        if ahead < 1 << (_SEQUENCE_BITS - 1):
            connection.missing += ahead
            connection.sequence = (found + 1) % (1 << _SEQUENCE_BITS)
            if ahead:
                connection.missed()
                self._gaps[connection.cookie] = connection
        elif connection.missing:
            connection.missing -= 1
        else:
            self._counters.add(meanings.RECORDS_BAD, label="sequence")

    def _count_lost(self, connection: Connection) -> None:
        if connection.missing:
            self._counters.add(meanings.RECORDS_LOST, connection.missing)
            connection.missing = 0

    def tick(self, now_ns: int) -> None:
        """Publish what only time can finish and forget idle connections.

        Call it after each drain: silence is judged by the records that were fed.
        """
        if self._lane is not None:
            self._collect(self._lane, now_ns)
        self._count_delivered()
        for cookie, (connection, segment) in list(self._waiting.items()):
            silence = now_ns - connection.last_ns
            if silence >= QUIET_NS:
                connection.quiet()
            if silence >= UNIX_STALLED_NS and connection.ends[0].family is Family.UNIX:
                connection.stalled(segment)
            if not connection.waits():
                del self._waiting[cookie]
        for cookie, connection in list(self._gaps.items()):
            if now_ns - connection.last_ns >= QUIET_NS:
                del self._gaps[cookie]
                self._count_lost(connection)
        if now_ns - self._swept_ns >= SWEEP_NS:
            self._swept_ns = now_ns
            self._sweep(now_ns)

    def waits(self) -> bool:
        """Whether :meth:`tick` may finish something soon, though nothing more is fed."""
        return bool(self._waiting or self._gaps or (self._lane and self._lane.stalled(FOREVER_NS)))

    def _count_delivered(self) -> None:
        self._counters.add(meanings.EXCHANGES, self._delivered)
        self._delivered = 0

    def _sweep(self, now_ns: int) -> None:
        for cookie, connection in list(self._connections.items()):
            limit = IDLE_NS
            if cookie in self._closing_unseen:
                limit = UNIX_FINISHED_NS if connection.half_closed else UNIX_IDLE_NS
            if now_ns - self._last_ns(connection) >= limit:
                self._expire(cookie, "idle")

    def interrupt(self) -> None:
        """Nothing is seen for a while: what is in flight is lost, and connections begin anew."""
        for cookie in list(self._connections):
            self._reclaim(cookie).interrupted()
        self._waiting.clear()

    def shorten_heads(self, shorten: bool) -> None:
        """Copy little of each turn (or as much as is wanted again); long heads are cut."""
        self._endpoints.shorten(shorten)

    def forget(self, tgid: int) -> None:
        """A process is gone, and with it its connections whose close leaves no record."""
        for cookie in self._closing_unseen | self._sessions.keys():
            if self._connections[cookie].tgid == tgid:
                self._abort(cookie)

    def close(self) -> None:
        """Nothing more will be fed: publish what is whole, and the rest as incomplete.

        May be called again; the table is empty then.
        """
        for cookie in list(self._connections):
            self._abort(cookie)
        if self._lane is not None:
            self._collect(self._lane, 0)
        self._count_delivered()

    def _abort(self, cookie: int) -> None:
        connection = self._reclaim(cookie)
        connection.quiet()
        connection.finish("aborted")
        self._remove(cookie)

    def take_verdicts(self) -> list[Verdict]:
        """What the kernel half should know, since the last call, oldest first."""
        return self._endpoints.take()

    def _note_unread(self, connection: Connection) -> None:
        if connection.carries == "upgraded":
            return
        key = (connection.carries, _endpoint_name(connection))
        if key in self._unread or len(self._unread) < UNREAD_MAX:
            self._unread[key] = self._unread.get(key, 0) + 1

    def connections(self) -> Summary:
        """The state of the table."""
        by_protocol: dict[str, int] = {}
        for connection in self._connections.values():
            by_protocol[connection.carries] = by_protocol.get(connection.carries, 0) + 1
        unread = tuple(
            Unread(carries, endpoint, count)
            for (carries, endpoint), count in sorted(self._unread.items())
        )
        return Summary(len(self._connections), by_protocol, unread)


def _endpoint_name(connection: Connection) -> str:
    local, peer = connection.ends
    if local.family is Family.UNIX:
        return local.host
    return f":{local.port}" if connection.serves else f"{peer.host}:{peer.port}"
