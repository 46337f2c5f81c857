# SPDX-License-Identifier: Apache-2.0
"""Requests and responses of HTTP/2 (RFC 9113, section 8), made of what compiled code has read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelauto.flows.vocabulary import Entry
from otelauto.protocols import grpc, traceparent
from otelauto.protocols.http_message import HttpMessage
from otelauto.protocols.json_body import Body

if TYPE_CHECKING:  # written down for type checkers only
    from otelauto.hot.http2 import Ended, Half

_VERSION = "2"
_KINDS = (
    None, grpc.GRPC, grpc.GRPC_WEB, grpc.GRPC_WEB_TEXT, grpc.CONNECT_STREAM, grpc.CONNECT_UNARY,
)  # fmt: skip


@dataclass(slots=True)
class Http2Message(HttpMessage):
    """One half of a stream. ``call`` is of the request: the remote procedure call it carries.

    ``start`` is not known. ``declared`` is the length that a response's head gave its content, -1
    without one; ``reset`` the error code that ended the stream, -1 without one. ``content`` is the
    beginning of its content, if somebody asked for it.
    """

    call: grpc.Call | None = None
    has_body: bool = False
    declared: int = -1
    reset: int = -1
    content: Body | None = None

    def body_size(self) -> int | None:
        """The content of all DATA frames; ``None`` where some may be missing or there is none."""
        if not self.complete or self.inexact:
            return None
        return self.wire_size if self.has_body or self.declared == 0 else None


def entry_of(ended: Ended) -> Entry:
    """What compiled code says of an exchange, in the words of the flows."""
    tgid, tid, incomplete, reset, kind, status, asked, answered, texts, called = ended
    request = _message(asked)
    request.reset = reset
    method, target, scheme, request.host, request.user_agent, parent = texts
    request.method, request.target, request.scheme = method or b"", target or b"", scheme or b""
    if method == b"CONNECT" and not target:  # section 8.5
        request.target = request.host or b""
    if parent is not None:
        request.parent = traceparent.parse(parent)
    response = None if answered is None else _message(answered)
    if response is not None:
        response.status = status
    if (found := _KINDS[kind]) is not None:
        timeout, code, message = called
        request.call = grpc.Call(
            found,
            timeout or b"",
            code,
            message or b"",
            grpc.Counted.of(asked[-2]),
            grpc.Counted.of(answered[-2] if answered is not None else None),
            response.content if response is not None else None,
        )
    return Entry(request, tgid, tid, response=response, incomplete=incomplete)


def _message(half: Half) -> Http2Message:
    start_ns, tcp_sequence, head, end_ns, complete, truncated, inexact, unknown, size = half[:9]
    message = Http2Message(0, start_ns, tcp_sequence, head, end_ns, complete)
    message.version = _VERSION
    message.truncated, message.inexact, message.unknown = truncated, inexact, unknown
    message.wire_size = size
    message.has_body, message.declared, _, content = half[9:]
    if content is not None:
        message.content = Body()
        message.content.feed(content)
    return message
