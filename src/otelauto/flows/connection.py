# SPDX-License-Identifier: Apache-2.0
"""One connection: which protocol it speaks, where it can be picked up, its exchanges."""

from __future__ import annotations

from typing import Any

from otelauto.abi import CaptureMode, Opening, Segment, SegmentFlag, SocketRole
from otelauto.flows import meanings
from otelauto.flows.conversation import Conversation
from otelauto.flows.doubt import Doubt
from otelauto.flows.endpoints import GENEROUS, STREAM, Endpoint, key_of
from otelauto.flows.hub import Hub
from otelauto.flows.multiplexed import Multiplexed
from otelauto.flows.records import ends
from otelauto.flows.state import State
from otelauto.flows.stream import ByteStream, append_segment
from otelauto.flows.vocabulary import (
    Address,
    Desync,
    Entry,
    Exchange,
    Family,
    Likeness,
    Message,
    MultiplexParser,
    Parser,
    Recognizer,
    Role,
    Side,
    Verdict,
)
from otelauto.hot.lane import Lane, Tally

LOOK_MAX = 16 * 1024  # bytes of a turn looked at for a protocol
# Exchanges read here after the fast lane gave a connection back, doubled each time; unless it had
# read so many that it was worth while.
STAY_MAX = 1024
WORTHWHILE = 64
GENEROUS_EXCHANGES = 32  # after missing bytes, before less is copied again

_TURN_START = int(SegmentFlag.FLAG_TURN_START)
_MIDSTREAM = int(SegmentFlag.FLAG_MIDSTREAM)
_UNKNOWN_ENDS = (Address(Family.INET, ""), Address(Family.INET, ""))


class Connection:
    """A connection by its cookie. Feeds its two streams to a conversation."""

    __slots__ = (
        "_applied", "_candidates", "_conversation", "_doubt", "_ejections", "_endpoint",
        "_generous", "_hub", "_midstream", "_recognizer", "_request_direction", "_serves",
        "_state", "_stay", "carries", "cookie", "ends", "half_closed", "last_ns", "missing",
        "netns", "sequence", "streams", "tgid",
    )  # fmt: skip

    def __init__(self, hub: Hub, cookie: int, opening: Opening | None, path: bytes) -> None:
        """``opening`` is ``None`` if that record was lost: then the addresses are not known."""
        self._hub = hub
        self.cookie = cookie
        self.ends = _UNKNOWN_ENDS if opening is None else ends(opening, path)
        self.netns = 0 if opening is None else opening.netns
        self.tgid = 0 if opening is None else int(opening.tgid)
        self.last_ns = 0 if opening is None else int(opening.time)
        self.sequence = 0 if opening is None else opening.sequence + 1
        self.streams = (ByteStream(), ByteStream())
        self.carries = ""  # protocol, or why the connection is not read
        self.half_closed = False  # the peer has finished
        self.missing = 0  # records whose numbers were skipped and that may still come
        self._midstream = opening is None
        self._state = State.DETECTING
        self._candidates = [False, False]
        self._doubt = Doubt()
        self._recognizer: Recognizer | None = None
        self._request_direction = 0
        self._conversation: Conversation | Multiplexed | None = None
        self._endpoint: Endpoint | None = None
        self._ejections = 0
        self._stay = 0  # exchanges to be read here before the fast lane may have the connection
        self._generous = 0  # exchanges of which more is still to be copied
        self._applied: Verdict | None = None  # the connection's own, which beats its endpoint's
        # Until the bytes tell. connect() leaves a role, accept() does not.
        self._serves = opening is None or opening.role != SocketRole.ROLE_CLIENT

    def reopen(self, opening: Opening, path: bytes) -> None:
        """The opening came late: the ring had no room for it before."""
        self.ends = ends(opening, path)
        self.netns = opening.netns
        if not self.carries:
            self._serves = opening.role != SocketRole.ROLE_CLIENT

    def is_ciphertext(self) -> None:
        """Its plaintext is read elsewhere: nothing is read here, and nobody need be told."""
        if not self.ignored:
            self.finish("lost")
            self._ignore("tls", tell=False)

    @property
    def ignored(self) -> bool:
        """Whether nothing will be read any more."""
        return self._state is State.IGNORED

    @property
    def side(self) -> Side:
        """Which end of the conversation the watched process is."""
        return Side.SERVER if self._request_direction == 0 else Side.CLIENT

    @property
    def serves(self) -> bool:
        """Whether the watched process answers here, as far as is known."""
        return self._serves

    def missed(self) -> None:
        """A record was lost."""
        self._excuse()
        if self._conversation is not None:
            self._conversation.missed()

    def _excuse(self) -> None:
        """Bytes are known to be missing."""
        self._doubt.excuse()
        if isinstance(self._conversation, Multiplexed):
            self._conversation.excuse()

    def interrupted(self) -> None:
        """From here on bytes pass that nobody sees, and nobody will know how many."""
        if self._state is State.IGNORED:
            return
        self.finish("lost")
        self._candidates = [False, False]
        for stream in self.streams:
            stream.discard()
        self._be_lost()

    def waits(self) -> bool:
        """Whether silence would finish something."""
        return self._conversation is not None and self._conversation.waits()

    # ---- the fast lane ----

    def adoptable(self) -> bool:
        """Whether compiled code can go on from here, knowing the offsets and nothing else."""
        conversation = self._conversation
        if conversation is None or not conversation.rests() or self._stay > 0:
            return False
        if isinstance(conversation, Multiplexed):  # it bears what is missing, wherever it is read
            return not self._doubt.desyncs
        return not (self._generous or self._doubt.desyncs or self.missing)

    def adopt(self, lane: Lane, peer: bytes) -> None:
        """Let ``lane`` read on. ``peer`` is how its spans name the peer."""
        endpoint, conversation = self._endpoint, self._conversation
        if endpoint is None:
            return
        tally = session = None
        if isinstance(conversation, Multiplexed):
            session = conversation.lend()
        else:
            tally = endpoint.tally = endpoint.tally or Tally(endpoint)
            if self._has_own_verdict(endpoint):
                tally.followers.add(self)
        lane.adopt(
            self.cookie, self.sequence, self.streams[0].end, self.streams[1].end,
            self._request_direction, self.tgid, self.last_ns,
            self.ends[0].family is Family.UNIX, peer, tally, session,
        )  # fmt: skip

    def describe(self, entry: Entry, last_ns: int) -> None:
        """Publish an exchange that the lane has read and cannot publish."""
        self.last_ns = last_ns
        if isinstance(self._conversation, Multiplexed):
            self._conversation.hand_on([entry])

    def resume(self, sequence: int, offsets: tuple[int, int], last_ns: int, exchanges: int) -> None:
        """The lane leaves the connection here, between two exchanges where they do not overlap.

        ``exchanges``: how many it has read. If they are few it is not asked again soon, and each
        time less so; -1 if it is to have the connection back at once.
        """
        self.sequence, self.last_ns = sequence, last_ns
        if self._endpoint is not None and self._endpoint.tally is not None:
            self._hub.endpoints.fold(self._endpoint.tally)
            self._endpoint.tally.followers.discard(self)
        for stream, offset in zip(self.streams, offsets, strict=True):
            stream.restart(offset)
        if isinstance(self._conversation, Multiplexed):  # nothing was read twice
            self._conversation.resume(exchanges)
        elif exchanges >= 0:
            self._ejections = 0 if exchanges >= WORTHWHILE else self._ejections + 1
            self._stay = min(1 << self._ejections, STAY_MAX)

    # ---- records ----

    def segment(self, segment: Segment, payload: bytes) -> None:
        """Take bytes that moved."""
        self.last_ns = segment.time
        self.tgid = segment.tgid
        if self._state is State.IGNORED:
            return
        boundary = segment.flags & _TURN_START != 0
        if segment.flags & _MIDSTREAM:
            self._midstream = True
        try:
            stream, conversation = self.streams[segment.direction], self._conversation
            jumped = stream.end < segment.offset > stream.position
            append_segment(stream, segment, payload)
            if jumped:
                self._excuse()
            if conversation is not None:
                role = Role.REQUEST if self._is_request(segment) else Role.RESPONSE
                if jumped and not conversation.bears_hole(role, segment):
                    raise Desync("bytes are missing")
                self._follow(conversation, role, segment, boundary)
                return
        except Desync:
            self._lose(segment, payload)
        self._seek_here(segment, payload, boundary)

    def _is_request(self, segment: Segment) -> bool:
        return segment.direction == self._request_direction

    def _follow(
        self,
        conversation: Conversation | Multiplexed,
        role: Role,
        segment: Segment,
        boundary: bool,
    ) -> None:
        conversation.received(role, segment, boundary)
        if isinstance(conversation, Conversation) and conversation.parser.upgraded:
            self._change(conversation, segment)

    def _change(self, conversation: Conversation, segment: Segment) -> None:
        """Behind the response that was just read the protocol is another."""
        change = conversation.change()
        conversation.finish("lost", None)
        if change is None:
            self._ignore("upgraded")
            return
        self._recognizer, self.carries = change.recognizer, change.name
        streams = conversation.requests.stream, conversation.responses.stream
        want = change.want, change.want
        self._say(Verdict(CaptureMode.MODE_HEADS, want) if change.want else STREAM)
        self._conversation = Multiplexed(
            change.parser, streams, (True, True), self._publish,
            self._copy_bulk if not change.want else lambda bulk: None, self._hub.counters,
        )  # fmt: skip
        for role in Role:
            self._conversation.received(role, segment, False)

    def _seek_here(self, segment: Segment, payload: bytes, boundary: bool) -> None:
        """Look whether a conversation can be picked up with this segment."""
        if self.ignored:
            return
        try:
            self._seek(segment, boundary)
        except Desync:
            self._lose(segment, payload)
            if not self.ignored:
                self.streams[segment.direction].discard()

    def _seek(self, segment: Segment, boundary: bool) -> None:
        direction = segment.direction
        stream = self.streams[direction]
        if boundary:
            stream.skip_to(segment.offset)
        elif not self._candidates[direction]:
            stream.discard()
            return
        window = stream.window()
        at_start = stream.position == 0 and not self._midstream
        known = self._recognizer if self._state is State.LOST else None
        recognizer, likeness = self._hub.recognize(window, at_start, known)
        undecided = likeness is Likeness.MAYBE and not stream.hole() and len(window) < LOOK_MAX
        self._candidates[direction] = undecided
        if undecided:
            return
        if recognizer is not None and recognizer.opaque:
            self._serves = (direction == 0) == (likeness is Likeness.REQUEST)
            self._ignore(recognizer.name)
        elif recognizer is not None and likeness is Likeness.REQUEST:
            if self._state is State.DETECTING or self._is_request(segment):
                self._begin(recognizer, segment, at_start)
            else:
                stream.discard()
        else:
            self._pass_turn(stream, likeness)

    def _pass_turn(self, stream: ByteStream, likeness: Likeness) -> None:
        """Nothing begins here."""
        stream.discard()
        if likeness is Likeness.RESPONSE:
            self._hub.counters.add(meanings.RESPONSES_UNMATCHED)
        if self._state is State.DETECTING and self._doubt.count_turn(self._midstream):
            self._ignore("desync" if self._doubt.revised else "unknown")

    def _begin(self, recognizer: Recognizer, segment: Segment, at_start: bool) -> None:
        """A request begins in the direction of ``segment``: follow the conversation from here."""
        direction = segment.direction
        requests, responses = self.streams[direction], self.streams[1 - direction]
        if not (recognizer.multiplexed and self._candidates[1 - direction]):
            responses.discard()
        certain = at_start and responses.position == 0 and self._doubt.turns == 0
        self._candidates = [False, False]
        self._request_direction = direction
        self._serves = direction == 0
        self._recognizer = recognizer
        self.carries = recognizer.name
        self._state = State.FOLLOWING
        key = key_of(self.netns, *self.ends, direction == 0)
        if recognizer.multiplexed:
            self._endpoint = self._hub.endpoints.find_multiplexed(key, direction)
            self.pass_on(self._endpoint)
            self._conversation = Multiplexed(
                recognizer.parser(), (requests, responses), (at_start, certain), self._publish,
                self._copy_bulk, self._hub.counters,
            )  # fmt: skip
        else:
            self._conversation = Conversation(
                recognizer, (requests, responses), certain, self._publish, self._hub.counters
            )
            if self._endpoint is None or self._endpoint.request_direction != direction:
                self._endpoint = self._hub.endpoints.find(key, direction, recognizer.response_start)
        self._follow(self._conversation, Role.REQUEST, segment, True)

    def _lose(self, segment: Segment, payload: bytes) -> None:
        """The bytes make no sense: publish what is left, stand before ``segment``, look again."""
        hub = self._hub
        hub.counters.add(meanings.DESYNCS)
        conversation = self._conversation
        doubtful = self._doubt.count_desync()
        self._candidates = [False, False]
        if conversation is not None:
            tunnel = conversation.may_be_tunnel() or self._recognizer is None
            conversation.finish("lost", None)
            self._conversation = None
            if tunnel:
                self._ignore("upgraded")
                return
            self._copy_all()
        self.streams[1 - segment.direction].discard()
        stream = self.streams[segment.direction]
        stream.restart(segment.offset)
        append_segment(stream, segment, payload)
        if self._recognizer is not None:
            self._state = State.LOST
        if doubtful:
            self._revise()

    def _revise(self) -> None:
        """The protocol is another, it seems."""
        if not self._doubt.revise():
            self._ignore("desync")
            return
        self._midstream = True
        self._recognizer = None
        self._state = State.DETECTING

    def _copy_all(self) -> None:
        """Bytes were missing: have more of each turn copied, for a while."""
        self._generous = GENEROUS_EXCHANGES
        if self._applied is not GENEROUS:
            self._say(GENEROUS)

    def _copy_bulk(self, bulk: bool) -> None:
        """What overlaps is copied whole, but bulk data must not fill the ring."""
        self._say(GENEROUS if bulk else STREAM)

    def _say(self, verdict: Verdict) -> None:
        self._applied = verdict
        self._hub.endpoints.say(
            Verdict(verdict.mode, verdict.want, verdict.start, connection=self.cookie)
        )

    def _ignore(self, carries: str, tell: bool = True) -> None:
        """Read nothing any more, and have nothing copied."""
        hub = self._hub
        self._state = State.IGNORED
        self._conversation = None
        self.carries = carries
        self.streams = (ByteStream(), ByteStream())
        self._say(Verdict(CaptureMode.MODE_NOTHING))
        if tell:
            hub.counters.add(meanings.CONNECTIONS_UNREAD, label=carries)
            hub.unread(self)

    def ending(self, segment: Segment) -> bool:
        """Take the end of a direction or of both; ``True``: no record of the connection follows."""
        flags = SegmentFlag(segment.flags)
        self.last_ns = max(self.last_ns, segment.time)
        over = bool(flags & (SegmentFlag.FLAG_CLOSED | SegmentFlag.FLAG_RESET))
        reset = bool(flags & SegmentFlag.FLAG_RESET)
        if flags & SegmentFlag.FLAG_RECEIVE_ENDED:
            self.half_closed = self.streams[0].ended = True
        if flags & SegmentFlag.FLAG_SEND_ENDED or (over and not reset):
            self.streams[1].ended = True
        conversation = self._conversation
        if conversation is not None:
            try:
                conversation.ended(segment)
                if over:
                    conversation.finish("aborted", segment)
            except Desync:
                self._abandon(conversation)
        return over

    def quiet(self) -> None:
        """Nothing has passed for a while."""
        conversation = self._conversation
        if conversation is not None:
            try:
                conversation.quiet()
            except Desync:
                self._abandon(conversation)

    def _abandon(self, conversation: Conversation | Multiplexed) -> None:
        """Leave a conversation between two segments."""
        self._hub.counters.add(meanings.DESYNCS)
        conversation.finish("lost", None)
        self._conversation = None
        self._be_lost()
        self._candidates = [False, False]
        for stream in self.streams:
            stream.discard()

    def _be_lost(self) -> None:
        """The place is not known any more; not every protocol can be joined in the middle."""
        if self._recognizer is not None:
            self._state = State.LOST
        elif self._state is State.FOLLOWING:
            self._ignore("upgraded")

    def stalled(self, segment: Segment) -> None:
        """An AF_UNIX connection, whose close leaves no record, is as good as closed."""
        conversation = self._conversation
        if conversation is not None:
            try:
                conversation.stalled(segment)
            except Desync:
                self._abandon(conversation)

    def finish(self, reason: str) -> None:
        """Forget the connection: publish what is left of its exchanges as incomplete."""
        if self._conversation is not None:
            self._conversation.finish(reason, None)
            self._conversation = None

    def _publish(
        self, parser: Parser[Any] | MultiplexParser, entry: Entry, incomplete: str | None
    ) -> None:
        hub = self._hub
        request, response = entry.request, entry.response
        side = self.side
        said = parser.describe(side, self.ends, request, response)
        end_ns = self.last_ns
        if incomplete is None and response is not None:
            end_ns = response.end_ns
            self._learn(request, response, entry.pipelined)
        else:
            hub.counters.add(meanings.EXCHANGES_INCOMPLETE, label=incomplete or "")
        if request.truncated or (response is not None and response.truncated):
            hub.counters.add(meanings.HEADS_TRUNCATED)
        if unknown := request.unknown + (response.unknown if response is not None else 0):
            hub.counters.add(meanings.FIELDS_UNKNOWN, unknown)
        sequences = request.tcp_sequence, response.tcp_sequence if response is not None else 0
        exchange = Exchange(
            self.carries, side, self.cookie, entry.tgid, entry.tid,
            request.start_ns, max(end_ns, request.start_ns), *self.ends,
            said.name, said.attributes, said.instruments, said.path, said.parent, said.error,
            incomplete, sequences, said.bounded,
        )  # fmt: skip
        hub.deliver(exchange)

    def _learn(self, request: Message, response: Message, pipelined: bool) -> None:
        """Tell the endpoint of a whole exchange.

        Its verdict has to be passed on to a connection that had one of its own, or whose endpoint
        the kernel half does not know (AF_UNIX).
        """
        endpoint = self._endpoint
        self._doubt.confirm()
        self._stay -= 1
        if endpoint is None or isinstance(self._conversation, Multiplexed):
            return
        heads = (request.head_size, response.head_size)
        cut = (request.truncated, response.truncated)
        self._hub.endpoints.learn(endpoint, heads, cut, pipelined)
        if self._generous:
            self._generous -= 1
        else:
            self.pass_on(endpoint)

    def _has_own_verdict(self, endpoint: Endpoint) -> bool:
        return self._applied is not None or endpoint.key is None

    def pass_on(self, endpoint: Endpoint) -> None:
        """Make the verdict of ``endpoint`` the connection's own, if it needs one."""
        own = self._has_own_verdict(endpoint)
        if own and endpoint.verdict is not None and endpoint.verdict is not self._applied:
            self._say(endpoint.verdict)
