# SPDX-License-Identifier: Apache-2.0
"""HTTP exchanges in the words of the OpenTelemetry semantic conventions, version 1.44."""

from __future__ import annotations

from dataclasses import replace

from otelauto.flows.vocabulary import (
    Address,
    Attributes,
    Description,
    Family,
    Instrument,
    Side,
)
from otelauto.protocols.http1_head import KNOWN_METHODS
from otelauto.protocols.http_message import HttpMessage
from otelauto.protocols.settings import ProtocolSettings
from otelauto.protocols.url import Target, redact_query, split_authority, split_target, text

# As the semantic conventions advise.
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# They advise none for sizes: the 2023 instrumenter's up to 8 KiB, then powers of four to 256 MiB.
SIZE_BUCKETS = (
    0, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192,
    32768, 131072, 524288, 2097152, 8388608, 33554432, 134217728, 268435456,
)  # fmt: skip

_COMMON = (
    "http.request.method",
    "url.scheme",
    "http.response.status_code",
    "error.type",
    "network.protocol.version",
)
# A client does not know the route that serves it. On the server, address and port are what a client
# wrote into Host: no label is made of what strangers choose.
_LABELS = {
    Side.SERVER: (*_COMMON, "http.route"),
    Side.CLIENT: (*_COMMON, "server.address", "server.port"),
}
_SEEN_MAX = 4096


def _instruments(side: Side, more: tuple[str, ...] = ()) -> tuple[Instrument, ...]:
    word = side.value
    labels = _LABELS[side] + more
    return (
        Instrument(
            f"http.{word}.request.duration",
            "s",
            f"Duration of HTTP {word} requests.",
            DURATION_BUCKETS,
            labels,
        ),
        *(
            Instrument(
                f"http.{word}.{half}.body.size",
                "By",
                f"Size of HTTP {word} {half} bodies.",
                SIZE_BUCKETS,
                labels,
                measures=f"http.{half}.body.size",
            )
            for half in ("request", "response")
        ),
    )


INSTRUMENTS = {side: _instruments(side) for side in Side}
# Where operations are named.
_OPERATIONS = ("graphql.operation.type", "graphql.operation.name")
INSTRUMENTS_NAMED = {side: _instruments(side, _OPERATIONS) for side in Side}


class Describer:
    """Writes the attributes of one connection's exchanges; what repeats is made once."""

    __slots__ = ("_constant", "_constant_of", "_hosts", "_instruments", "_settings")

    def __init__(self, settings: ProtocolSettings) -> None:
        self._instruments = INSTRUMENTS_NAMED if settings.operations else INSTRUMENTS
        self._settings = settings
        self._constant: Attributes = {}
        self._constant_of: tuple[Side, Address, Address] | None = None
        self._hosts: dict[tuple[bytes, str], tuple[str, int]] = {}

    def describe(
        self,
        side: Side,
        ends: tuple[Address, Address],
        client: Address,
        request: HttpMessage,
        response: HttpMessage | None,
    ) -> Description:
        """``client`` is who sent the request as far as is known: the peer, or whom it proxies."""
        method = KNOWN_METHODS.get(request.method)
        target = split_target(request.target, request.method == b"CONNECT")
        if request.scheme:
            target = replace(target, scheme=text(request.scheme))
        attributes = dict(self._constants(side, ends[1], client))
        if request.method:
            attributes["http.request.method"] = method or "_OTHER"
            if method is None:
                attributes["http.request.method_original"] = text(request.method)
        if request.version:
            attributes["network.protocol.version"] = request.version
        self._add_url(attributes, side, ends, request, target)
        if request.user_agent:
            attributes["user_agent.original"] = text(request.user_agent)
        _add_size(attributes, "request", request)
        error = False
        if response is not None:
            error = _add_response(attributes, side, response)
        if request.truncated or (response is not None and response.truncated):
            attributes["otelauto.head.truncated"] = True
        if unknown := request.unknown + (response.unknown if response is not None else 0):
            attributes["otelauto.fields.unknown"] = unknown
        return Description(
            method or "HTTP",
            attributes,
            error,
            target.path if target.path and target.path.startswith("/") else None,
            request.parent,
            self._instruments[side],
        )

    def _constants(self, side: Side, peer: Address, client: Address) -> Attributes:
        key = (side, peer, client)
        if self._constant_of != key:
            self._constant_of = key
            self._constant = address_attributes(side, peer, client)
        return self._constant

    def _add_url(
        self,
        attributes: Attributes,
        side: Side,
        ends: tuple[Address, Address],
        request: HttpMessage,
        target: Target,
    ) -> None:
        attributes["url.scheme"] = target.scheme
        fallback = ends[0] if side is Side.SERVER else ends[1]
        host, port = self._server(request.host or b"", target, fallback)
        if host:
            attributes["server.address"] = host
        if port:
            attributes["server.port"] = port
        if not target.path:
            return
        attributes["url.path"] = target.path
        query = redact_query(target.query) if self._settings.capture_query else ""
        if query:
            attributes["url.query"] = query
        if side is Side.CLIENT and target.path.startswith("/"):
            attributes["url.full"] = _full_url(target, host, port, query)

    def _server(self, host: bytes, target: Target, fallback: Address) -> tuple[str, int]:
        """Host and port the request was meant for: the target's, the Host field's, the socket's."""
        if target.authority:
            return split_authority(target.authority, target.scheme)
        if not host:
            return fallback.host, fallback.port
        known = self._hosts.get((host, target.scheme))
        if known is None:
            if len(self._hosts) >= _SEEN_MAX:
                self._hosts.clear()
            known = split_authority(text(host), target.scheme)
            self._hosts[host, target.scheme] = known
        return known


def address_attributes(side: Side, peer: Address, client: Address) -> Attributes:
    """What is known of the other end; ``client`` is who sent the request through it."""
    attributes: Attributes = {}
    if peer.host:
        attributes["network.peer.address"] = peer.host
        if peer.port:
            attributes["network.peer.port"] = peer.port
    if side is Side.SERVER and client.host and client.family is not Family.UNIX:
        attributes["client.address"] = client.host
        if client.port:
            attributes["client.port"] = client.port
    return attributes


def _full_url(target: Target, host: str, port: int, query: str) -> str:
    if ":" in host:
        host = f"[{host}]"
    user = "REDACTED:REDACTED@" if target.credentials else ""
    written = "" if port == {"http": 80, "https": 443}.get(target.scheme, 0) else f":{port}"
    return f"{target.scheme}://{user}{host}{written}{target.path}{'?' + query if query else ''}"


def _add_size(attributes: Attributes, half: str, message: HttpMessage) -> None:
    """The exact size where it is known, else what went over the wire behind a head known whole."""
    size = message.body_size()
    if size is not None:
        attributes[f"http.{half}.body.size"] = size
    elif message.open_ended or message.inexact or not message.complete:
        attributes[f"otelauto.http.{half}.wire_size"] = message.wire_size


def _add_response(attributes: Attributes, side: Side, response: HttpMessage) -> bool:
    """Add status and size; returns whether the exchange failed."""
    status = response.status
    _add_size(attributes, "response", response)
    if not status:
        return False
    attributes["http.response.status_code"] = status
    failed = status >= 500 or (status >= 400 and side is Side.CLIENT)
    if failed:
        attributes["error.type"] = str(status)
    return failed
