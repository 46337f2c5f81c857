# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from typing import Literal

from otelauto.flows.vocabulary import Entry

# Messages, bytes of whole ones without prefixes, whether both are exact, the last message of
# gRPC-Web and Connect, which tells how the call ended.
Count = tuple[int, int, bool, bytes]
# start_ns, tcp_sequence, head_size, end_ns, complete, truncated, inexact, unknown, body_size,
# has_body, length of the content by the head or -1, messages, the beginning of the content if it
# was wanted.
Half = tuple[
    int, int, int, int, bool, bool, bool, int, int, bool, int, Count | None, bytes | None
]  # fmt: skip
# method, target, scheme, authority, user agent, traceparent.
Asked = tuple[bytes | None, bytes | None, bytes | None, bytes | None, bytes | None, bytes | None]
# grpc-timeout, grpc-status, grpc-message.
Called = tuple[bytes | None, bytes | None, bytes | None]
# tgid, tid, why it is not whole, error code that ended the stream or -1, how it carries a call (0:
# not, 1: gRPC, 2: gRPC-Web, 3: its text form, 4: Connect's streams, 5: a unary call of Connect),
# status or 0.
Ended = tuple[
    int, int, Literal["aborted", "lost"] | None, int, int, int, Half, Half | None, Asked, Called
]

def plausible(data: bytes) -> int:
    """Whether ``data`` begins at a frame: 0 no, 1 maybe (too little of it is there), 2 yes."""

def first_block(head: bytes) -> Literal["request", "response", "more", ""]:
    """Who sends frames that are plausible ones, by the first header block; empty: nobody does."""

class Session:
    """One connection of HTTP/2 (RFC 9113), with HPACK (RFC 7541) and the messages of gRPC.

    ``asks``: of the direction that carries requests. ``make`` puts an exchange in the words of the
    flows. ``may_ask`` says of a method and a content type whether content is wanted, of such a
    request and of its response; that of a refused unary call of Connect is in any case.
    """

    def __init__(
        self,
        make: Callable[[Ended], Entry],
        may_ask: Callable[[bytes, bytes | None], bool] | None = None,
    ) -> None: ...
    @property
    def passed(self) -> int:
        """Bytes that passed since :meth:`take_passed`."""

    def begin(self, requests: bool, responses: bool) -> None:
        """Which direction is followed from its first byte; else requests stand at a frame.

        The connection preface may follow; a request that was fed before stands before it.
        """

    def feed(
        self, asks: bool, data: bytes, unseen: int, time: int, tcp_sequence: int, tgid: int,
        tid: int,
    ) -> int:  # fmt: skip
        """``data`` passed, and then ``unseen`` bytes that are not known.

        Returns 0; or 1 if what follows will have to be told to be a frame; or 2 if they make no
        sense. Then they are given up, and the next ones have to begin at a frame.
        """

    def doubt(self, asks: bool) -> None:
        """Bytes were missed that may have been anything."""

    def lost(self, asks: bool) -> bool:
        """Whether the place is lost."""

    def take_ended(self) -> list[Entry]:
        """The exchanges that have ended since the last call, in order."""

    def settle(self) -> list[Entry]:
        """Those and the open ones that lack nothing but the end of their stream."""

    def abandon(self) -> list[Entry]:
        """Those and the open ones, oldest first. Nothing more will be read."""

    def take_unmatched(self) -> int:
        """Responses since the last call whose request was not seen."""

    def take_passed(self) -> int:
        """Bytes that passed since the last call."""
