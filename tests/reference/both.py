# SPDX-License-Identifier: Apache-2.0
"""Compiled code and its reference beside each other."""

from __future__ import annotations

from tests.reference.hpack import Decoder as Reference
from tests.reference.http2 import Http2 as ReferenceHttp2
from tests.wire.wire import Reader

from otelauto.flows.flows import Flows
from otelauto.flows.vocabulary import Desync
from otelauto.hot.hpack import Decoder
from otelauto.protocols import protocols
from otelauto.protocols.http2 import Http2

# Header fields that compiled code tells apart.
ASKED_FOR = (
    b":method", b":path", b":scheme", b":authority", b":status", b"host", b"user-agent",
    b"traceparent", b"content-type", b"content-length", b"connect-protocol-version",
    b"grpc-timeout", b"grpc-status", b"grpc-message",
)  # fmt: skip


def by_reference() -> Reader:
    """A reader in which the reference reads HTTP/2."""
    reader = Reader()
    known = tuple(
        ReferenceHttp2(reader.settings) if isinstance(each, Http2) else each
        for each in protocols(reader.settings)
    )
    reader.flows = Flows(known, reader.counters, reader.exchanges.append, reader.connections_max)
    return reader


def blocks_differ(decoder: Decoder, reference: Reference, block: bytes, cut: bool) -> str:
    """What is different in what the two make of a header block; empty: nothing."""
    found = decoder.decode(block, cut)
    try:
        said = reference.decode(block, cut)
    except Desync:
        decoder.lose()
        reference.lose()
        return f"{block.hex()}: {found}, not nonsense" if found is not None else ""
    fields = {name: value for name, value in said.fields.items() if name in ASKED_FOR}
    if found != (fields, said.unknown):
        return f"{block.hex()}: {found}, not {fields}, {said.unknown}"
    if decoder.complete is not reference.complete:
        return f"{block.hex()}: complete is {decoder.complete}"
    return ""
