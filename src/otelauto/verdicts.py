# SPDX-License-Identifier: Apache-2.0
"""What user space learnt, in the words of the kernel's tables."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from otelauto import abi
from otelauto.flows.records import MAPPED_IPV4
from otelauto.flows.vocabulary import Address, Family, Recognizer, Verdict
from otelauto.kernel.capture import Capture


def put_verdict(capture: Capture, verdict: Verdict) -> None:
    """Store one verdict; :meth:`Capture.publish` makes connections look it up.

    A full table costs nothing but copied bytes: the connection stays in the mode it is in.
    """
    packed = _packed(verdict)
    if verdict.connection is not None:
        capture.put_connection_verdict(verdict.connection, packed)
    elif verdict.endpoint is not None:
        for key in _keys(*verdict.endpoint):
            capture.put_endpoint_verdict(key, packed)
    elif verdict.beginning is not None:
        key = abi.EndpointKey(
            verdict.beginning.ljust(16, b"\0"),
            0,
            abi.PortHost(0),
            abi.EndpointKind.ENDPOINT_BEGINNING,
        )
        capture.put_endpoint_verdict(key, packed)


def beginnings(protocols: Iterable[Recognizer]) -> list[Verdict]:
    """What the first bytes of a connection tell at once: where exchanges overlap, copy all."""
    return [
        Verdict(abi.CaptureMode.MODE_STREAM, beginning=protocol.beginning)
        for protocol in protocols
        if protocol.beginning
    ]


def _packed(verdict: Verdict) -> abi.Verdict:
    received, sent = verdict.start
    return abi.Verdict(
        mode=verdict.mode,
        want_0=verdict.want[0],
        want_1=verdict.want[1],
        start_length_0=min(len(received), 8),
        start_length_1=min(len(sent), 8),
        start_0=received[:8],
        start_1=sent[:8],
    )


def _keys(netns: int, address: Address, local: bool) -> list[abi.EndpointKey]:
    """An IPv4 peer is reached through IPv4 sockets, and through IPv6 ones by its mapped address."""
    port, remote = abi.PortHost(address.port), abi.EndpointKind.ENDPOINT_REMOTE
    if local:
        return [abi.EndpointKey(bytes(16), netns, port, abi.EndpointKind.ENDPOINT_LOCAL)]
    if address.family is Family.INET6:
        six = socket.inet_pton(socket.AF_INET6, address.host)
        return [abi.EndpointKey(six, netns, port, remote)]
    four = socket.inet_aton(address.host)
    return [
        abi.EndpointKey(four + bytes(12), netns, port, remote),
        abi.EndpointKey(MAPPED_IPV4 + four, netns, port, remote),
    ]
