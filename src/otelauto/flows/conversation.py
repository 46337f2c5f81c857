# SPDX-License-Identifier: Apache-2.0
"""Requests and responses of one connection, paired in order.

Both directions are read as their bytes arrive. Records come in causal order, except that a request
may be recorded just before the last bytes of the response before it (one thread reads, another
writes); so responses wait for their turn in a queue of requests.

A pairing is *certain* when both streams were followed from their beginning. On a connection that
was joined midstream, or after missing bytes, a response may belong to a request that nobody saw.
Then whole exchanges are held back until the next request begins, or silence falls, without a
response too many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from otelauto.abi import Segment
from otelauto.counters import Counters
from otelauto.flows import meanings
from otelauto.flows.stream import ByteStream
from otelauto.flows.vocabulary import (
    Change,
    Desync,
    Entry,
    Likeness,
    Message,
    Parser,
    Recognizer,
    Role,
)

OUTSTANDING_MAX = 1024  # requests without a response
HELD_MAX = 64
PIPELINED_DEPTH = 3  # two outstanding requests may be an overlap of threads


# Gets the parser, an exchange, and why it is incomplete.
Publish = Callable[[Parser[Any], Entry, str | None], None]


@dataclass(slots=True)
class Half:
    """One direction: its bytes, the message being read, and whether a new one may have begun."""

    role: Role
    stream: ByteStream
    message: Message | None = None
    candidate: bool = False


class Conversation:
    """Follows one parser. Every method may raise :class:`Desync`, after which it is of no use."""

    __slots__ = (
        "_answers_begun", "_certain", "_counters", "_held", "_pending", "_pipelined", "_publish",
        "_recognizer", "_skipping", "parser", "requests", "responses",
    )  # fmt: skip

    def __init__(
        self,
        recognizer: Recognizer,
        streams: tuple[ByteStream, ByteStream],
        certain: bool,
        publish: Publish,
        counters: Counters,
    ) -> None:
        """``streams`` carry requests and responses; ``publish`` gets each exchange once."""
        self.parser: Parser[Any] = recognizer.parser()
        self.requests = Half(Role.REQUEST, streams[0])
        self.responses = Half(Role.RESPONSE, streams[1])
        self._pipelined = False
        self._recognizer = recognizer
        self._certain = certain
        self._answers_begun = certain  # or, up to now, nothing was missed since the first request
        self._publish = publish
        self._counters = counters
        self._pending: deque[Entry] = deque()
        self._held: list[Entry] = []
        self._skipping = False

    def waits(self) -> bool:
        """Whether silence would finish something."""
        return bool(self._held or (self._pending and self._pending[0].response is not None))

    def rests(self) -> bool:
        """Whether it stands between two exchanges, with nothing open and nothing in doubt."""
        requests, responses = self.requests, self.responses
        return (
            not self._pending
            and self._certain
            and not self._held
            and requests.message is None
            and responses.message is None
            and not (requests.candidate or responses.candidate)
            and requests.stream.rests()
            and responses.stream.rests()
            and self.parser.compiled
        )

    def missed(self) -> None:
        """A record of the connection was lost."""
        self._answers_begun = True
        for half in (self.requests, self.responses):
            if half.message is not None:
                half.message.inexact = half.message.endless

    def may_be_tunnel(self) -> bool:
        """Whether a response that changes the protocol may be among the bytes that are missing."""
        return any(entry.request.may_upgrade for entry in self._pending)

    def bears_hole(self, role: Role, segment: Segment) -> bool:
        """Whether the bytes missing before ``segment`` can have passed without hiding a message.

        Before the first response, if no record was lost since its request, they passed before that.
        """
        if role is Role.RESPONSE and not self._answers_begun and not segment.unseen:
            return True
        message = (self.requests if role is Role.REQUEST else self.responses).message
        return message is not None and message.endless

    def received(self, role: Role, segment: Segment, boundary: bool) -> None:
        """Go on with a direction to which ``segment`` was appended.

        ``boundary``: it begins a turn, so a request may begin with it.
        """
        if role is Role.REQUEST:
            half = self.requests
            answered = not self._pending or self._pending[-1].response is not None
            boundary = boundary and answered
        else:
            half = self.responses
            if not self._answers_begun:
                self._answers_begun = True
                half.stream.skip_to(segment.offset)
            boundary = len(self._pending) > 1 and not half.candidate
        message = half.message
        if message is not None and message.open_ended:
            if not (boundary or half.candidate):
                self.parser.advance(message, half.stream)
                return
            if boundary:
                half.stream.skip_to(segment.offset)
            if self._undecided(half, message):
                return
        if role is Role.REQUEST:
            self._read_requests(segment)
        else:
            self._read_responses(segment)

    def _undecided(self, half: Half, message: Message) -> bool:
        """Look whether the next message begins where ``half`` reads one with an open end.

        If so, that one is settled. ``True``: more bytes are needed to tell.
        """
        likeness = self._recognizer.recognize(half.stream.window(), False)
        half.candidate = likeness is Likeness.MAYBE and not half.stream.hole()
        if likeness.value == half.role.value:
            self._settle(half, message)
        return half.candidate

    def _settle(self, half: Half, message: Message) -> None:
        self.parser.settle(message, half.stream)
        self._complete(half, message)

    def _complete(self, half: Half, message: Message) -> None:
        """The message that ``half`` reads is whole."""
        half.message = None
        if half.role is Role.RESPONSE:
            self._answer_complete()
        else:
            self._request_complete(message)

    def _at_next(self, half: Half) -> bool:
        """Follow the message that ``half`` reads; whether bytes of the next one are there."""
        message, stream = half.message, half.stream
        if message is not None:
            if not message.complete:
                self.parser.advance(message, stream)
            if not message.complete:
                return False
            self._complete(half, message)
        return stream.end > stream.position

    def _read_requests(self, segment: Segment) -> None:
        half, pending = self.requests, self._pending
        while self._at_next(half):
            if pending and pending[-1].request.may_upgrade and pending[-1].response is None:
                return  # what this is its response will tell
            message = self.parser.read(Role.REQUEST, half.stream, None)
            if message is None:
                return
            self._begin(message, segment)

    def _begin(self, message: Message, segment: Segment) -> None:
        """A request has been read."""
        pending = self._pending
        self._skipping = False
        if pending:
            response = pending[0].response
            if response is not None and response.open_ended and response.may_be_over:
                self._settle(self.responses, response)
        if pending:
            if message.start > segment.offset or len(pending) >= PIPELINED_DEPTH - 1:
                self._pipelined = pending[-1].response is None or self._pipelined
            if len(pending) >= OUTSTANDING_MAX:
                raise Desync("too many requests without a response")
        else:
            self._pipelined = False
            if self._held:
                self._confirm()
        pending.append(Entry(message, segment.tgid, segment.tid, self._pipelined))
        self.requests.message = message

    def _request_complete(self, message: Message) -> None:
        """If its response came early, the exchange is whole now."""
        pending = self._pending
        if pending and pending[0].request is message and self._is_answered(pending[0]):
            self._pop()

    @staticmethod
    def _is_answered(entry: Entry) -> bool:
        return entry.response is not None and entry.response.complete

    def _read_responses(self, segment: Segment) -> None:
        half, parser, pending = self.responses, self.parser, self._pending
        stream = half.stream
        while self._at_next(half) and not parser.upgraded:
            if pending and self._is_answered(pending[0]):
                self._pop()  # its request was never finished
            if not pending and not self._begin_partial(segment):
                self._skip_unmatched()
                return
            entry = pending[0]
            entry.response = half.message = parser.read(Role.RESPONSE, stream, entry.request)
            if half.message is None:
                return
            parser.answered(entry.request, half.message, self.requests.stream)
            if entry.request.may_upgrade and not parser.upgraded:
                self._read_requests(segment)

    def _begin_partial(self, segment: Segment) -> bool:
        """A response to a request whose head is not whole: the server gave up on it."""
        if self.requests.message is not None:
            return False
        message = self.parser.read_partial(self.requests.stream)
        if message is None:
            return False
        self._begin(message, segment)
        return True

    def _skip_unmatched(self) -> None:
        stream = self.responses.stream
        likeness = self._recognizer.recognize(stream.window(), False)
        if likeness is Likeness.RESPONSE or not self._skipping:
            self._counters.add(meanings.RESPONSES_UNMATCHED)
        self._skipping = True
        self._certain = False
        self._drop_held()
        stream.discard()

    def _answer_complete(self) -> None:
        """The response to the oldest request is whole."""
        request = self._pending[0].request
        over = request.complete or (request.open_ended and request.may_be_over)
        if over and not self.parser.upgraded:
            self._pop()

    def change(self) -> Change | None:
        """The protocol has changed: what reads on, ``None`` if nothing does.

        It takes the exchange that changed it along; else that one is over, and published. What was
        read behind it as requests was not of this protocol any more.
        """
        change = self.parser.change(self._pending[0])
        if change is None:
            self._pop()
        else:
            self._pending.popleft()
        self._pending.clear()
        return change

    def _pop(self) -> None:
        """Publish the oldest exchange, which is whole; hold it back while in doubt."""
        entry = self._pending.popleft()
        if self._certain or self.parser.upgraded:
            self._publish(self.parser, entry, None)
            return
        self._held.append(entry)
        if len(self._held) > HELD_MAX:
            self._drop_held()
            raise Desync("pairing stays uncertain")

    def _confirm(self) -> None:
        self._certain = True
        held, self._held = self._held, []
        for entry in held:
            self._publish(self.parser, entry, None)

    def _drop_held(self) -> None:
        if self._held:
            self._counters.add(meanings.EXCHANGES_UNCONFIRMED, len(self._held))
            self._held = []

    def quiet(self) -> None:
        """Nothing has passed for a while: finish what only silence can finish."""
        response = self.responses.message
        another = len(self._pending) > 1
        if response is not None and response.open_ended and (response.may_be_over or another):
            self._settle(self.responses, response)
        if self._pending and self._is_answered(self._pending[0]):
            self._pop()
        if self._held and not self._pending:
            self._confirm()

    def ended(self, segment: Segment) -> None:
        """A direction has ended: its stream says so."""
        if self.responses.message is not None:
            self._read_responses(segment)
        if self.responses.stream.ended and not self.parser.upgraded:
            self.finish("aborted", segment)

    def stalled(self, segment: Segment) -> None:
        """On a connection whose close leaves no record: a response in progress is over."""
        message = self.responses.message
        if message is not None and not message.lasting:
            self.responses.stream.ended = True
            self.ended(segment)

    def finish(self, reason: str, segment: Segment | None) -> None:
        """Publish what is left, incomplete for ``reason`` where it is not whole.

        ``segment`` is the last record, ``None`` if the end was not seen.
        """
        with suppress(Desync):  # what is left is incomplete anyway
            if segment is not None:
                self.quiet()
                self._begin_partial(segment)
            elif self._pending and self._is_answered(self._pending[0]):
                self._pop()
        while self._pending:
            entry = self._pending.popleft()
            if reason == "lost":
                entry.request.inexact = True  # a response that ended it early may be lost
            if not self._certain:
                entry.response = None  # it may be another's
            self._publish(self.parser, entry, reason)
            if reason == "lost" and entry.request.may_upgrade and self._pending:
                # What follows it may be of another protocol.
                self._counters.add(meanings.EXCHANGES_UNCONFIRMED, len(self._pending))
                self._pending.clear()
        self._drop_held()
        self.requests.message = self.responses.message = None
