# SPDX-License-Identifier: Apache-2.0
"""gRPC over HTTP/2, gRPC-Web and Connect, in the words of the semantic conventions, version 1.44.

Sources: PROTOCOL-HTTP2.md and PROTOCOL-WEB.md of the gRPC project; the Connect protocol reference
(connectrpc.com).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from otelauto.flows.vocabulary import Address, Attributes, Description, Instrument, Side
from otelauto.protocols.http1_describe import DURATION_BUCKETS, address_attributes
from otelauto.protocols.http_message import HttpMessage
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
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT_DIGITS_MAX = 8
_MESSAGE_MAX = 256  # characters of a status message
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
    """How calls are carried. ``prefixed``: a body is messages, each behind flag and length."""

    system: str
    prefixed: bool
    web: bool = False


GRPC = Kind("grpc", prefixed=True)
GRPC_WEB = Kind("grpc", prefixed=True, web=True)
CONNECT_STREAM = Kind("connectrpc", prefixed=True)
CONNECT_UNARY = Kind("connectrpc", prefixed=False)


@dataclass(slots=True)
class Messages:
    """The messages of one direction of a call.

    ``size`` is that of whole ones, in bytes, without their prefixes; both numbers are ``exact``
    unless bytes that tell are missing. ``trailers``: those of gRPC-Web, which are the last message.
    """

    count: int
    size: int
    exact: bool
    trailers: bytes

    @classmethod
    def of(cls, counted: Count | None) -> Messages | None:
        """What compiled code has counted; ``None``: the body is no messages."""
        return None if counted is None else cls(*counted)


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
    sent: Messages | None = None  # of the client
    answered: Messages | None = None


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
        fields = trailer_fields(call.answered.trailers)
        call.status, call.message = fields.get(b"grpc-status"), fields.get(b"grpc-message", b"")
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
    if call.kind is CONNECT_UNARY:
        attributes["rpc.response.status_code"] = "OK"  # a unary error has another status
    return None


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
