# SPDX-License-Identifier: Apache-2.0
"""The words that parsers, span stages and exporters share; nothing here knows a protocol.

A *connection* carries two byte streams. A parser reads *messages* from them and pairs a request
with its response: an *exchange*. After the parser everything a reader may want to know about the
protocol is in the exchange's attributes and instruments; no later stage asks which protocol it was.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

AttributeValue = str | int | float | bool
Attributes = dict[str, AttributeValue]
ResourceValue = AttributeValue | tuple[str, ...]  # lists describe services, never exchanges


class Desync(Exception):  # noqa: N818  (a state of affairs, not an error of ours)
    """The bytes at hand make no sense here: missing, joined mid-stream or not this protocol.

    The only exception a parser may raise for captured bytes. The connection is then asked for the
    next message boundary.
    """


class Role(enum.Enum):
    """Which half of a conversation a direction carries."""

    REQUEST = "request"
    RESPONSE = "response"


class Side(enum.Enum):
    """Which end of the conversation the watched process is (the OpenTelemetry span kind)."""

    SERVER = "server"
    CLIENT = "client"


class Family(enum.IntEnum):
    """Address families as Linux numbers them (``AF_*``)."""

    UNIX = 1
    INET = 2
    INET6 = 10


@dataclass(frozen=True, slots=True)
class Address:
    """One end of a connection. ``host`` is a literal IP address, or the path of a unix socket.

    ``port`` is 0 where the family has none. An IPv4-mapped IPv6 address is written as IPv4.
    An empty ``host`` means: not known.
    """

    family: Family
    host: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A valid W3C ``traceparent`` as seen in the bytes (https://www.w3.org/TR/trace-context/)."""

    trace_id: bytes  # 16 bytes, not all zero
    span_id: bytes  # 8 bytes, not all zero
    flags: int


@dataclass(frozen=True, slots=True)
class Instrument:
    """A histogram that exchanges are measured with.

    Names and units are those of the OpenTelemetry semantic conventions. ``measures`` is the
    attribute whose value is recorded (an exchange without it is not recorded), or ``None`` for the
    duration in seconds. ``attributes`` are the span attributes that make a series, where present.
    """

    name: str
    unit: str
    description: str
    buckets: tuple[float, ...]
    attributes: tuple[str, ...]
    # Not a matter of identity: what some exchanges are measured by may differ within one metric.
    measures: str | None = field(default=None, compare=False)


@dataclass(slots=True)
class Exchange:
    """One request with its response, or what is known of it.

    Times are boot-clock nanoseconds (CLOCK_BOOTTIME). On the server side ``start_ns`` is when the
    receive call of the first request byte returned and ``end_ns`` when the send call of the last
    response byte returned; mirrored for the client.

    ``incomplete`` names why the exchange is not whole (``"aborted"``, ``"lost"``, ...): such an
    exchange becomes a span that says so and enters no histogram; its ``end_ns`` is the last byte
    seen. ``None`` for a whole exchange.
    """

    protocol: str  # OpenTelemetry name, "http"
    side: Side
    connection: int  # socket cookie
    tgid: int
    tid: int
    start_ns: int
    end_ns: int
    local: Address
    peer: Address
    name: str  # span name without the route: "GET"
    attributes: Attributes
    instruments: tuple[Instrument, ...]
    path: str | None = None  # what routes are made of; None where the protocol has no paths
    parent: TraceContext | None = None
    error: bool = False
    incomplete: str | None = None
    # Raw TCP sequence numbers of the first byte of request and response: equal at both ends, the
    # evidence that links a client's exchange with the server's on one host. 0 when unknown.
    tcp_sequences: tuple[int, int] = (0, 0)
    bounded: tuple[str, ...] = ()  # attributes whose values strangers choose


@dataclass(frozen=True, slots=True)
class Verdict:
    """What user space has decided about the bytes of a connection, or of all of an endpoint's.

    ``mode`` is a value of the contract's ``CaptureMode``. ``want`` and ``start`` are by direction
    (received, sent): bytes copied of each turn, and how a message head begins (up to 8 bytes).
    Exactly one of ``connection``, ``endpoint`` and ``beginning`` is given. ``endpoint`` is (netns
    inode, address, is local), ``beginning`` how a direction of the connections concerned begins.
    """

    mode: int
    want: tuple[int, int] = (0, 0)
    start: tuple[bytes, bytes] = (b"", b"")
    connection: int | None = None
    endpoint: tuple[int, Address, bool] | None = None
    beginning: bytes | None = None


@dataclass(slots=True)
class Description:
    """What a parser says of an exchange (the protocol's share of :class:`Exchange`)."""

    name: str
    attributes: Attributes
    error: bool = False
    path: str | None = None
    parent: TraceContext | None = None
    instruments: tuple[Instrument, ...] = field(default=())
    bounded: tuple[str, ...] = ()


class Likeness(enum.Enum):
    """What the first bytes of a turn look like to a protocol. Strict: a miss beats a mistake."""

    NO = "no"
    MAYBE = "maybe"  # too few bytes to tell
    REQUEST = "request"
    RESPONSE = "response"


class Segment(Protocol):
    """What a parser may know of the last bytes of a stream: where they begin and who moved them."""

    @property
    def offset(self) -> int: ...
    @property
    def tgid(self) -> int: ...
    @property
    def tid(self) -> int: ...


class Stream(Protocol):
    """One direction of a connection as a parser sees it: bytes at absolute offsets, with holes.

    ``position`` is the offset of the next byte to read (it may lie ahead of ``end``: bytes skipped
    before they passed), ``end`` the offset after the last byte that passed, ``ended`` whether the
    sender has finished this direction in good order.
    """

    position: int
    end: int
    ended: bool

    def window(self) -> bytes:
        """The known bytes from ``position`` up to the first hole or the end."""
        ...

    def hole(self) -> bool:
        """Whether bytes that passed, but are not known, follow the window."""
        ...

    def skip(self, count: int) -> None:
        """Move ``position`` on by ``count`` bytes, known or not, passed or not."""
        ...

    def rewind(self) -> None:
        """Take back what was skipped beyond ``end``."""
        ...

    def time_at(self, offset: int) -> int:
        """Boot-clock ns at which the byte at ``offset`` (>= position - 1) passed."""
        ...

    def piece_end(self, offset: int) -> int:
        """Where what passed together with the byte at ``offset``, which passed, ends."""
        ...

    def sequence_at(self, offset: int) -> int:
        """Raw TCP sequence number of the byte at ``offset`` (>= position - 1), 0 if not known."""
        ...

    def last_bytes(self) -> bytes:
        """The last bytes that passed, up to 8, as far as they are known."""
        ...


@dataclass(slots=True)
class Message:
    """A request or a response from the moment its head is known. Parsers extend it.

    ``start`` is the stream offset of its first byte. A message is ``complete`` when its last byte
    has passed; then ``end_ns`` is when. An ``open_ended`` message does not tell its own end (cut
    short, lost framing): whoever follows the connection settles it by what comes next, and by
    silence only if ``may_be_over``. An ``endless`` one takes everything until its direction ends.
    """

    start: int
    start_ns: int
    tcp_sequence: int
    head_size: int
    end_ns: int = 0
    complete: bool = False
    open_ended: bool = False
    may_be_over: bool = False
    endless: bool = False
    truncated: bool = False  # the head was longer than what was captured of it
    may_upgrade: bool = False  # a request after whose response the protocol may be another
    lasting: bool = False  # a pause of any length is part of it
    inexact: bool = False  # records were lost meanwhile: claim no size
    unknown: int = 0  # fields that are there and could not be read


@dataclass(slots=True)
class Entry:
    """An exchange in the making, and the process and thread that moved its request."""

    request: Any  # a Message of the parser's own kind
    tgid: int
    tid: int
    pipelined: bool = False  # sent before the response to the one before
    response: Any = None
    incomplete: str | None = None  # why it will not become whole


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Change:
    """What reads a connection on after one of its exchanges has changed the protocol.

    ``parser`` has taken that exchange along and publishes it. ``recognizer`` can find a lost place
    again; ``None``: nobody can. ``want``: bytes of each segment to be copied, 0: all.
    """

    name: str
    parser: MultiplexParser
    recognizer: Recognizer | None
    want: int = 0


class Parser(Protocol[M]):
    """A protocol's reader of one connection. Raises nothing but :class:`Desync`."""

    upgraded: bool  # the bytes that follow are no longer of this protocol

    @property
    def compiled(self) -> bool:
        """Whether, between two exchanges, compiled code (hot/) can read in this one's place."""
        ...

    def read(self, role: Role, stream: Stream, request: M | None) -> M | None:
        """The next message, once its head is there; ``None``: more bytes are needed.

        ``request`` is the request that a response answers (``None`` for a request).
        """
        ...

    def read_partial(self, stream: Stream) -> M | None:
        """A request from a head that will not become whole; ``None`` if it says too little."""
        ...

    def advance(self, message: M, stream: Stream) -> None:
        """Follow the body of ``message`` as far as bytes have passed; may complete it."""
        ...

    def settle(self, message: M, stream: Stream) -> None:
        """Declare an open-ended ``message`` complete with the last byte that was advanced over."""
        ...

    def answered(self, request: M, response: M, stream: Stream) -> None:
        """The final ``response`` to ``request`` begins; ``stream`` carries the request."""
        ...

    def change(self, entry: Entry) -> Change | None:
        """Once ``upgraded``: what reads on after the exchange ``entry``; ``None``: nothing does."""
        ...

    def describe(
        self, side: Side, ends: tuple[Address, Address], request: M, response: M | None
    ) -> Description:
        """What the exchange was. ``ends`` are the local and the remote address."""
        ...


class MultiplexParser(Protocol):
    """A reader of one connection on which exchanges overlap, each with an id of its own.

    Unlike a :class:`Parser` it pairs requests with responses itself, by that id. Raises nothing but
    :class:`Desync`.
    """

    finished: list[Entry]  # exchanges that have ended since somebody last took them
    unmatched: int  # responses skipped since then, because their request was not seen
    upgraded: bool

    def begin(self, whole: tuple[bool, bool]) -> None:
        """Whether the streams of requests and of responses are followed from their first byte."""
        ...

    def read(self, role: Role, stream: Stream, segment: Segment) -> None:
        """Read on, as far as bytes have passed; ``segment`` is the last one of ``stream``."""
        ...

    def lose(self, role: Role, stream: Stream) -> None:
        """The place in ``stream`` is lost; a later segment may begin where it can be told."""
        ...

    def settle(self) -> None:
        """Finish what is whole but for a mark of its end. Nothing more will be read."""
        ...

    def abandon(self) -> list[Entry]:
        """The exchanges that are open, oldest first. Nothing more will be read.

        What turns out to be whole without more is ``finished``.
        """
        ...

    def compiled(self) -> Any:
        """What compiled code (hot/) can read on with in this one's place; ``None``: it cannot."""
        ...

    def describe(
        self, side: Side, ends: tuple[Address, Address], request: Any, response: Any
    ) -> Description:
        """As :meth:`Parser.describe`."""
        ...


class Recognizer(Protocol):
    """A protocol as the registry lists it."""

    name: str
    multiplexed: bool  # its exchanges overlap: :meth:`parser` gives a MultiplexParser
    opaque: bool  # recognised only to be named: nothing in it is read
    beginning: bytes  # how every connection begins, 8 bytes; empty if that is not so
    response_start: bytes  # how every response begins; may be empty (at most 8 bytes)

    def recognize(self, head: bytes, at_start: bool) -> Likeness:
        """What ``head`` is the beginning of. ``at_start``: nothing passed before it."""
        ...

    def parser(self) -> Any:
        """A :class:`Parser` or :class:`MultiplexParser` for a new connection.

        Raises ``NotImplementedError`` if opaque.
        """
        ...
