# SPDX-License-Identifier: Apache-2.0
"""The messages of gRPC, counted in Python: the reference for hot/messages.pxd."""

from __future__ import annotations

from dataclasses import dataclass

from otelauto.protocols.grpc import CONNECT_STREAM, CONNECT_UNARY, GRPC, GRPC_WEB, Kind

_PREFIX = 5  # compressed flag and length
_TRAILER_FLAG = 0x80  # gRPC-Web: the message is the trailers
_TRAILERS_MAX = 1024


def kind_of(content_type: bytes, fields: dict[bytes, bytes]) -> Kind | None:
    """How a request carries a call; ``None``: it carries none that is known."""
    if content_type.startswith(b"application/grpc"):
        if content_type[16:17] in (b"", b"+", b";"):
            return GRPC
        return GRPC_WEB if content_type.startswith(b"application/grpc-web") else None
    if content_type.startswith(b"application/connect+"):
        return CONNECT_STREAM
    return CONNECT_UNARY if b"connect-protocol-version" in fields else None


class Messages:
    """Counts the messages of one direction of a call.

    ``count`` and ``size`` (bytes of whole messages, without their prefixes) are ``exact`` until
    bytes that tell are missing. ``trailers``: those of gRPC-Web, which are the last message.
    """

    __slots__ = ("_foreign", "_left", "_prefix", "_trailing", "count", "exact", "size", "trailers")

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self.exact = True
        self.trailers = b""
        self._prefix = b""
        self._left = 0  # of the message at hand
        self._trailing = False
        self._foreign = False

    def feed(self, data: bytes) -> None:
        """Take the next known bytes of a body."""
        if not self.exact:
            return
        at, size = 0, len(data)
        while at < size:
            if self._left:
                at = self._follow(data, at)
                continue
            prefix = self._prefix + data[at : at + _PREFIX - len(self._prefix)]
            at += len(prefix) - len(self._prefix)
            if len(prefix) < _PREFIX:
                self._prefix = prefix
                return
            self._prefix = b""
            self._begin(prefix)

    @property
    def proved(self) -> bool:
        """Whether the body was whole messages, one at least, that no other format looks like."""
        return self.exact and self.count > 0 and not (self._left or self._prefix or self._foreign)

    def _begin(self, prefix: bytes) -> None:
        self._foreign = self._foreign or prefix[0] > 1
        self._left = int.from_bytes(prefix[1:])
        self._trailing = prefix[0] & _TRAILER_FLAG != 0
        if not self._trailing:
            self.count += 1
            self.size += self._left

    def _follow(self, data: bytes, at: int) -> int:
        taken = min(self._left, len(data) - at)
        if self._trailing:
            self.trailers = (self.trailers + data[at : at + taken])[:_TRAILERS_MAX]
        self._left -= taken
        return at + taken

    def skip(self, count: int) -> None:
        """``count`` bytes of the body passed that nobody saw."""
        if count <= self._left and not self._trailing:
            self._left -= count
        else:
            self.exact = False


@dataclass(slots=True)
class Call:
    """What the bytes say of one call beside its request and response."""

    kind: Kind
    timeout: bytes = b""
    status: bytes | None = None  # grpc-status as sent
    message: bytes = b""
    sent: Messages | None = None  # of the client
    answered: Messages | None = None

    def take(self, fields: dict[bytes, bytes]) -> None:
        """Trailers, or the head of a response that is both."""
        status = fields.get(b"grpc-status")
        if status is not None:
            self.status = status
            self.message = fields.get(b"grpc-message", b"")
