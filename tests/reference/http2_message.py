# SPDX-License-Identifier: Apache-2.0
"""Requests and responses of HTTP/2 (RFC 9113, section 8), made of decoded header blocks."""

from __future__ import annotations

from dataclasses import dataclass

from tests.reference.hpack import Block

from otelauto.flows.vocabulary import Entry
from otelauto.protocols import grpc, traceparent
from otelauto.protocols.http_message import HttpMessage
from otelauto.protocols.json_body import Body

_VERSION = "2"
_STATUS_DIGITS = 3
_WITHOUT_CONTENT = (204, 304)
_LENGTH_DIGITS = 19


@dataclass(slots=True)
class Http2Message(HttpMessage):
    """One half of a stream. ``call`` is of the request: the remote procedure call it carries.

    ``declared`` is the length that a response's head gave its content, -1 without one; ``reset``
    the error code that ended the stream, -1 without one.
    """

    call: grpc.Call | None = None
    timeout: bytes = b""
    messages: grpc.Messages | None = None
    has_body: bool = False
    declared: int = -1
    reset: int = -1
    content: Body | None = None  # what a unary call of Connect was refused for

    def body_size(self) -> int | None:
        """The content of all DATA frames; ``None`` where some may be missing or there is none."""
        if not self.complete or self.inexact:
            return None
        return self.wire_size if self.has_body or self.declared == 0 else None


def status_of(fields: dict[bytes, bytes]) -> int:
    """The status of a response, 0 if it is not known."""
    status = fields.get(b":status", b"")
    return int(status) if len(status) == _STATUS_DIGITS and status.isdigit() else 0


def request(message: Http2Message, block: Block) -> None:
    """Read the header block of a request into ``message``."""
    fields = block.fields
    get = fields.get
    message.version = _VERSION
    message.truncated = block.cut
    message.unknown = block.unknown
    message.method = get(b":method", b"")
    message.target = get(b":path", b"")
    message.scheme = get(b":scheme", b"")
    message.host = get(b":authority") or get(b"host")
    if message.method == b"CONNECT" and not message.target:  # section 8.5
        message.target = message.host or b""
    message.user_agent = get(b"user-agent")
    parent = get(b"traceparent")
    if parent is not None:
        message.parent = traceparent.parse(parent)
    message.timeout = get(b"grpc-timeout", b"")
    content_type = get(b"content-type")
    if content_type is not None:
        kind = grpc.kind_of(content_type, fields)
        if kind is not None:
            message.call = grpc.Call(kind, timeout=message.timeout)
            if kind.prefixed:
                message.messages = message.call.sent = grpc.messages(kind)
    elif block.unknown and message.method == b"POST":
        message.messages = grpc.Messages()  # the content may tell what the head cannot


def response(message: Http2Message, block: Block, asked: Http2Message) -> None:
    """Read the header block of the response to ``asked`` into ``message``."""
    message.version = _VERSION
    message.truncated = block.cut
    message.unknown = block.unknown
    message.status = status_of(block.fields)
    length = block.fields.get(b"content-length", b"")
    message.declared = int(length) if length.isdigit() and len(length) < _LENGTH_DIGITS else -1
    call = asked.call
    if call is None:
        return
    call.take(block.fields)
    if call.kind.prefixed:
        message.messages = call.answered = grpc.messages(call.kind)
    elif message.status != 200:
        message.content = call.refusal = Body()


def settle(entry: Entry, time: int) -> bool:
    """Make an exchange whole that lacks nothing but the end of its stream, and goes no further."""
    asked, answer = entry.request, entry.response
    if answer is None or answer.inexact or asked.call is not None:
        return False
    empty = asked.method == b"HEAD" or answer.status in _WITHOUT_CONTENT
    if not empty and not 0 <= answer.declared == answer.wire_size:
        return False
    answer.complete, answer.end_ns = True, time
    entry.incomplete = None
    return True


def trailers(block: Block, asked: Http2Message) -> None:
    """Take the trailers of the response to ``asked``.

    A request whose head did not tell that it carries a call, because the connection was joined in
    the middle, is one if its content is framed like one and trailers end the response.
    """
    if asked.call is None and asked.messages is not None and asked.messages.proved:
        asked.call = grpc.Call(grpc.GRPC, asked.timeout, sent=asked.messages)
    if asked.call is not None:
        asked.call.take(block.fields)
