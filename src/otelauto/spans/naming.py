# SPDX-License-Identifier: Apache-2.0
"""``naming: 2023``: attributes and metrics by the names that the 2023 instrumenter gave them.

A renaming at the end of the chain (semantic conventions 1.17); no stage before it knows. What has
no name of 2023 keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from otelauto.flows.vocabulary import Attributes, Exchange, Instrument, Side
from otelauto.spans.select import PerInstruments
from otelauto.spans.span import Span

_COMMON = {
    "client.address": "http.client_ip",
    "http.request.body.size": "http.request_content_length",
    "http.request.method": "http.method",
    "http.response.body.size": "http.response_content_length",
    "http.response.status_code": "http.status_code",
    "network.peer.address": "net.sock.peer.addr",
    "network.peer.port": "net.sock.peer.port",
    "network.protocol.version": "http.flavor",
    "rpc.response.status_code": "rpc.grpc.status_code",
    "rpc.system.name": "rpc.system",
    "url.full": "http.url",
    "url.path": "http.target",
    "url.scheme": "http.scheme",
    "user_agent.original": "http.user_agent",
}
SPAN_ATTRIBUTES: Mapping[Side, Mapping[str, str]] = {
    Side.SERVER: {
        **_COMMON,
        "server.address": "net.host.name",
        "server.port": "net.host.port",
    },
    Side.CLIENT: {
        **_COMMON,
        "server.address": "net.peer.name",
        "server.port": "net.peer.port",
    },
}
# The client's peer had one name on spans and another on metrics; a client span carries both.
CLIENT_PEER = "net.peer.name"
CLIENT_METRIC_PEER = "net.sock.peer.name"

# What had another value, too: the full path, and the number of the status.
_METHOD, _STATUS = "rpc.method", "rpc.response.status_code"
_GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

INSTRUMENTS = {
    "http.server.request.duration": "http.server.duration",
    "http.client.request.duration": "http.client.duration",
    "http.server.request.body.size": "http.server.request.size",
    "http.client.request.body.size": "http.client.request.size",
    "http.server.response.body.size": "http.server.response.size",
    "http.client.response.body.size": "http.client.response.size",
    "rpc.server.call.duration": "rpc.server.duration",
    "rpc.client.call.duration": "rpc.client.duration",
}
DURATION_BUCKETS = (
    0.0, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip


class Naming2023:
    """The stage for ``naming: 2023``; with ``naming: current`` the chain has none."""

    def __init__(self) -> None:
        self._known = PerInstruments()

    def __call__(self, exchange: Exchange, span: Span) -> None:
        """Rename the span's attributes and instruments."""
        names = SPAN_ATTRIBUTES[span.side]
        if _METHOD in span.attributes and exchange.path is None:
            _revalue(span)
        renamed: Attributes = {names.get(k, k): v for k, v in span.attributes.items()}
        if span.side is Side.CLIENT and CLIENT_PEER in renamed:
            renamed[CLIENT_METRIC_PEER] = renamed[CLIENT_PEER]
        span.attributes = renamed
        instruments = self._known.get(span.instruments, span.side)
        if instruments is None:
            instruments = self._known.put(
                span.instruments,
                span.side,
                tuple(_rename(instrument, span.side) for instrument in span.instruments),
            )
        span.instruments = instruments


def _revalue(span: Span) -> None:
    """The values of 2023 of a remote procedure call."""
    method = f"/{span.attributes[_METHOD]}"
    if span.name == span.attributes[_METHOD]:
        span.name = method
    span.attributes[_METHOD] = method
    status = span.attributes.get(_STATUS)
    if status in _GRPC_CODES:
        span.attributes[_STATUS] = _GRPC_CODES.index(str(status))


def _rename(instrument: Instrument, side: Side) -> Instrument:
    names = dict(SPAN_ATTRIBUTES[side])
    if side is Side.CLIENT:
        names["server.address"] = CLIENT_METRIC_PEER
    name = INSTRUMENTS.get(instrument.name, instrument.name)
    is_duration = instrument.unit == "s" and name != instrument.name
    return replace(
        instrument,
        name=name,
        buckets=DURATION_BUCKETS if is_duration else instrument.buckets,
        attributes=tuple(names.get(key, key) for key in instrument.attributes),
        measures=SPAN_ATTRIBUTES[side].get(instrument.measures or "", instrument.measures),
    )
