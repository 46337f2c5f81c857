# SPDX-License-Identifier: Apache-2.0
"""Exchanges of one connection that overlap, each under an id of its own.

Here nothing is in doubt about which response answers which request: the bytes say so. What is left
for the flows is the place: where bytes are missing it may be lost, and is found again at a later
segment, without the exchanges in between having to be given up.
"""

from __future__ import annotations

from collections.abc import Callable

from otelauto.abi import Segment
from otelauto.counters import Counters
from otelauto.flows import meanings
from otelauto.flows.stream import ByteStream
from otelauto.flows.vocabulary import Desync, Entry, MultiplexParser, Role
from otelauto.hot.http2 import Session

# So many bytes passed with fewer exchanges than that: bulk data.
BULK_LOOK = 4 << 20
BULK_EXCHANGES = 128
LOSSES_MAX = (
    256  # places lost, or not found, in a row without one exchange, before the protocol is doubted
)

# Gets the parser, an exchange, and why it is incomplete.
Publish = Callable[[MultiplexParser, Entry, str | None], None]


class Multiplexed:
    """Follows one parser; the counterpart of :class:`otelauto.flows.conversation.Conversation`."""

    __slots__ = (
        "_bulk", "_copy_bulk", "_counters", "_exchanges", "_losses", "_missed", "_passed",
        "_publish", "_streams", "parser",
    )  # fmt: skip

    def __init__(
        self,
        parser: MultiplexParser,
        streams: tuple[ByteStream, ByteStream],
        whole: tuple[bool, bool],
        publish: Publish,
        copy_bulk: Callable[[bool], None],
        counters: Counters,
    ) -> None:
        """``streams`` carry requests and responses; ``whole``: which from their first byte on.

        ``copy_bulk`` is told when mostly bulk data passes, and when that is over.
        """
        self.parser = parser
        parser.begin(whole)
        self._streams = {Role.REQUEST: streams[0], Role.RESPONSE: streams[1]}
        self._publish = publish
        self._counters = counters
        self._losses = 0
        self._missed = False
        self._copy_bulk = copy_bulk
        self._bulk = False
        self._passed = self._exchanges = 0  # bytes and exchanges since the last look

    def waits(self) -> bool:
        """Silence finishes nothing here."""
        return False

    def rests(self) -> bool:
        """Whether compiled code can read in its place."""
        if self.parser.compiled() is None:
            return False
        return all(stream.rests() for stream in self._streams.values())

    def lend(self) -> Session | None:
        """What compiled code reads on with, now that everything rests."""
        session: Session | None = self.parser.compiled()
        if session is not None:
            session.take_passed()
        return session

    def resume(self, exchanges: int) -> None:
        """Compiled code is done, and has published ``exchanges`` itself."""
        session = self.parser.compiled()
        self._exchanges += exchanges
        if session is not None:
            self._pass(session.take_passed())

    def missed(self) -> None:
        """A record was lost: the offsets of the next one, if any, say whether bytes are missing."""
        self._missed = True

    def excuse(self) -> None:
        """Bytes are known to be missing: that the place was lost is no evidence."""
        self._losses = 0

    def may_be_tunnel(self) -> bool:
        """No exchange changes the protocol of the others."""
        return False

    def bears_hole(self, role: Role, segment: Segment) -> bool:
        """A hole may lie within the payload of a frame; the parser knows."""
        return True

    def received(self, role: Role, segment: Segment, boundary: bool) -> None:
        """Go on with a direction to which ``segment`` was appended. May raise :class:`Desync`."""
        stream, parser = self._streams[role], self.parser
        try:
            parser.read(role, stream, segment)
        except Desync:
            self._counters.add(meanings.DESYNCS)
            self._losses += 1
            parser.lose(role, stream)
        if parser.unmatched:
            self._counters.add(meanings.RESPONSES_UNMATCHED, parser.unmatched)
            parser.unmatched = 0
        if parser.finished:
            self._losses = 0
            self._hand_on_finished()
        elif self._losses > LOSSES_MAX:
            raise Desync("no place to read from")
        self._pass(segment.length)

    def _pass(self, length: int) -> None:
        self._passed += length
        if self._passed >= BULK_LOOK:
            self._look_for_bulk()

    def _look_for_bulk(self) -> None:
        bulk = self._exchanges < BULK_EXCHANGES
        self._passed = self._exchanges = 0
        if bulk is not self._bulk:
            self._bulk = bulk
            self._copy_bulk(bulk)

    def _hand_on_finished(self) -> None:
        finished, self.parser.finished = self.parser.finished, []
        self.hand_on(finished)

    def hand_on(self, finished: list[Entry]) -> None:
        """Publish exchanges."""
        self._exchanges += len(finished)
        for entry in finished:
            self._publish(self.parser, entry, entry.incomplete)

    def quiet(self) -> None:
        """Nothing has passed for a while."""

    def stalled(self, segment: Segment) -> None:
        """Nothing has passed for long on a connection whose close leaves no record."""

    def ended(self, segment: Segment) -> None:
        """A direction has ended. What is open may still be answered in the other."""
        if self._streams[Role.RESPONSE].ended:
            self.finish("aborted", segment)

    def finish(self, reason: str, segment: Segment | None) -> None:
        """Publish what is left, incomplete for ``reason`` if anything of it lacks."""
        if not self._missed:  # or what was lost may have told of a failure
            self.parser.settle()
        left = self.parser.abandon()
        self._hand_on_finished()
        for entry in left:
            self._publish(self.parser, entry, entry.incomplete or reason)
