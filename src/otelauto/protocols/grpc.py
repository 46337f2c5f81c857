# SPDX-License-Identifier: Apache-2.0
"""gRPC over HTTP/2, gRPC-Web and Connect, in the words of the semantic conventions, version 1.44.

Sources: PROTOCOL-HTTP2.md and PROTOCOL-WEB.md of the gRPC project; the Connect protocol reference
(connectrpc.com).
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from otelauto.flows.vocabulary import Address, Attributes, Description, Instrument, Side
from otelauto.protocols.http1_describe import DURATION_BUCKETS, address_attributes
from otelauto.protocols.http_message import HttpMessage
from otelauto.protocols.json_body import Body, members, whole
from otelauto.protocols.url import split_authority, text

if TYPE_CHECKING:  # written down for type checkers only
    from otelauto.hot.http2 import Count

# By number; the semantic conventions want the names.
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
# What a client does wrong is no error of the server.
_CLIENT_ERRORS = frozenset(CODES) - {
    "UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
}  # fmt: skip
_NUMBERS = {str(number).encode(): name for number, name in enumerate(CODES)}
CONNECT_VERSION = b"connect-protocol-version"
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT_DIGITS_MAX = 8
_MESSAGE_MAX = 256  # characters of a status message
_PREFIX = 5  # compressed flag and length
_TRAILER_FLAG = 0x80  # gRPC-Web: the message is the trailers
_END_FLAG = 0x02  # Connect: the message is the end of the stream
_TRAILERS_MAX = 1024
_LABELS = ("rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type")
_OTHER = "_OTHER"


def _instrument(side: Side) -> Instrument:
    labels = _LABELS if side is Side.SERVER else (*_LABELS, "server.address", "server.port")
    word = "inbound" if side is Side.SERVER else "outbound"
    return Instrument(
        f"rpc.{side.value}.call.duration",
        "s",
        f"Duration of {word} remote procedure calls.",
        DURATION_BUCKETS,
        labels,
    )


INSTRUMENTS = {side: (_instrument(side),) for side in Side}


@dataclass(slots=True)
class Kind:
    """How calls are carried. ``prefixed``: a body is messages, each behind flag and length.

    ``last``: the flag of a message that is none but tells how the call ended. ``encoded``: all of a
    body is in base64.
    """

    system: str
    prefixed: bool
    web: bool = False
    last: int = _TRAILER_FLAG
    encoded: bool = False


GRPC = Kind("grpc", prefixed=True)
GRPC_WEB = Kind("grpc", prefixed=True, web=True)
GRPC_WEB_TEXT = Kind("grpc", prefixed=True, web=True, encoded=True)
CONNECT_STREAM = Kind("connectrpc", prefixed=True, last=_END_FLAG)
CONNECT_UNARY = Kind("connectrpc", prefixed=False)


def kind_of(content_type: bytes, fields: dict[bytes, bytes]) -> Kind | None:
    """How a request carries a call; ``None``: it carries none that is known."""
    if content_type.startswith(b"application/grpc"):
        if content_type[16:17] in (b"", b"+", b";"):
            return GRPC
        if content_type.startswith(b"application/grpc-web-text"):
            return GRPC_WEB_TEXT
        return GRPC_WEB if content_type.startswith(b"application/grpc-web") else None
    if content_type.startswith(b"application/connect+"):
        return CONNECT_STREAM
    return CONNECT_UNARY if CONNECT_VERSION in fields else None


@dataclass(slots=True)
class Counted:
    """The messages of one direction of a call.

    ``count`` and ``size`` (bytes of whole messages, without their prefixes) are ``exact`` unless
    bytes that tell are missing. ``trailers``: the last message of gRPC-Web and Connect, which tells
    how the call ended.
    """

    count: int = 0
    size: int = 0
    exact: bool = True
    trailers: bytes = b""

    @classmethod
    def of(cls, counted: Count | None) -> Counted | None:
        """What compiled code has counted; ``None``: the body is no messages."""
        return None if counted is None else cls(*counted)


class Messages(Counted):
    """Counts the messages of one direction of a call, as its body passes."""

    __slots__ = ("_foreign", "_last", "_left", "_prefix", "_trailing")

    def __init__(self, kind: Kind = GRPC) -> None:
        super().__init__()
        self._last = kind.last
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
        self._trailing = prefix[0] & self._last != 0
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


class EncodedMessages(Messages):
    """Messages in base64. Each may be encoded by itself, so padding may stand in the middle."""

    __slots__ = ("_digits",)

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self._digits = b""

    def feed(self, data: bytes) -> None:
        """Take the next known bytes of a body."""
        digits = self._digits + data
        whole = len(digits) - len(digits) % 4
        self._digits = digits[whole:]
        for at in range(0, whole, 4):
            try:
                super().feed(binascii.a2b_base64(digits[at : at + 4], strict_mode=True))
            except ValueError:
                self.exact = False

    def skip(self, count: int) -> None:
        """What follows may begin anywhere."""
        self.exact = False


def messages(kind: Kind) -> Messages:
    """A counter of the messages of one direction of a call."""
    return EncodedMessages(kind) if kind.encoded else Messages(kind)


def trailer_fields(trailers: bytes) -> dict[bytes, bytes]:
    """The trailers of gRPC-Web, which are written like those of HTTP/1."""
    lines = (line.partition(b":") for line in trailers.split(b"\r\n"))
    return {name.strip().lower(): value.strip() for name, _, value in lines if name}


def timeout_seconds(value: bytes) -> float | None:
    """``grpc-timeout``: at most eight digits and a unit; ``None`` if it is not that."""
    digits, unit = value[:-1], _UNITS.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _TIMEOUT_DIGITS_MAX:
        return None
    return int(digits) * unit


@dataclass(slots=True)
class Call:
    """What the bytes say of one call beside its request and response."""

    kind: Kind
    timeout: bytes = b""
    status: bytes | None = None  # grpc-status as sent
    message: bytes = b""
    sent: Counted | None = None  # of the client
    answered: Counted | None = None
    refusal: Body | None = None  # of a unary call of Connect

    def take(self, fields: dict[bytes, bytes]) -> None:
        """Trailers, or the head of a response that is both."""
        status = fields.get(b"grpc-status")
        if status:
            self.status = status
            self.message = fields.get(b"grpc-message", b"")


def describe(
    side: Side,
    ends: tuple[Address, Address],
    request: HttpMessage,
    response: HttpMessage | None,
    call: Call,
) -> Description:
    """Attributes of one call. Nothing is said of a status that was not seen."""
    attributes: Attributes = {"rpc.system.name": call.kind.system}
    attributes.update(address_attributes(side, ends[1], ends[1]))
    method = text(request.target.partition(b"?")[0]).removeprefix("/")
    failure = _add_status(attributes, side, response, call)
    if method and failure == "UNIMPLEMENTED" and side is Side.SERVER:
        # Maybe no such method: no label is made of what strangers choose.
        attributes["rpc.method"], attributes["rpc.method_original"] = _OTHER, method
        method = ""
    elif method:
        attributes["rpc.method"] = method
    host, port = split_authority(text(request.host or b""), text(request.scheme))
    fallback = ends[0] if side is Side.SERVER else ends[1]
    if not host:
        host, port = fallback.host, fallback.port
    if host:
        attributes["server.address"] = host
    if port:
        attributes["server.port"] = port
    _add_measures(attributes, call, request, response)
    if request.truncated or (response is not None and response.truncated):
        attributes["otelauto.head.truncated"] = True
    if unknown := request.unknown + (response.unknown if response is not None else 0):
        attributes["otelauto.fields.unknown"] = unknown
    failed = failure is not None and (side is Side.CLIENT or failure not in _CLIENT_ERRORS)
    if failed and failure:
        attributes["error.type"] = failure
    return Description(
        method or call.kind.system,
        attributes,
        failed,
        None,
        request.parent,
        INSTRUMENTS[side],
    )


def _add_status(
    attributes: Attributes, side: Side, response: HttpMessage | None, call: Call
) -> str | None:
    """Add the status; the name of what failed, ``None`` if nothing did or it is not known."""
    if call.kind.web and call.status is None and call.answered is not None:
        call.take(trailer_fields(call.answered.trailers))
    if call.kind.system == CONNECT_UNARY.system:
        said = _connect_status(response, call)
        if said is not None:
            attributes["rpc.response.status_code"] = said
            return None if said == "OK" else said
    if call.status is not None:
        name = _NUMBERS.get(call.status, _OTHER)
        attributes["rpc.response.status_code"] = name
        if call.message:
            said = unquote_to_bytes(call.message).decode("utf-8", "replace")
            attributes["otelauto.rpc.status_message"] = said[:_MESSAGE_MAX]
        return None if name == "OK" else name
    if response is None or not response.status:
        return None
    if response.status != 200:  # the answer of somebody who knows HTTP only
        attributes["http.response.status_code"] = response.status
        return str(response.status) if side is Side.CLIENT or response.status >= 500 else None
    return None


def _connect_status(response: HttpMessage | None, call: Call) -> str | None:
    """The status of a call of Connect, where it is known."""
    if call.kind is CONNECT_UNARY:
        if response is not None and response.status == 200:
            return "OK"  # a unary error has another status
        error = members(call.refusal.text(), ("code",)) if call.refusal is not None else {}
    else:
        said = whole(call.answered.trailers) if call.answered is not None else None
        if said is None or said.get("error") is None:
            return None if said is None else "OK"
        error = said["error"] if isinstance(said["error"], dict) else {}
    code = error.get("code")
    if not isinstance(code, str):
        return None
    name = "CANCELLED" if code == "canceled" else code.upper()
    return name if name in CODES else _OTHER


def _add_measures(
    attributes: Attributes, call: Call, request: HttpMessage, response: HttpMessage | None
) -> None:
    timeout = timeout_seconds(call.timeout)
    if timeout is not None:
        attributes["otelauto.rpc.timeout"] = timeout
    halves = (("request", call.sent, request), ("response", call.answered, response))
    for word, messages, half in halves:
        if messages is None or half is None or not half.complete or half.inexact:
            continue
        if messages.exact:
            attributes[f"otelauto.rpc.{word}.messages"] = messages.count
            attributes[f"otelauto.rpc.{word}.size"] = messages.size
