# SPDX-License-Identifier: Apache-2.0
"""What user space learnt, in the words of the kernel's tables."""

from __future__ import annotations

import socket

from otelauto import abi
from otelauto.flows.records import MAPPED_IPV4
from otelauto.flows.vocabulary import Address, Family, Verdict
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
    port = abi.PortHost(address.port)
    if local:
        return [abi.EndpointKey(bytes(16), netns, port, 1)]
    if address.family is Family.INET6:
        return [abi.EndpointKey(socket.inet_pton(socket.AF_INET6, address.host), netns, port, 0)]
    four = socket.inet_aton(address.host)
    return [
        abi.EndpointKey(four + bytes(12), netns, port, 0),
        abi.EndpointKey(MAPPED_IPV4 + four, netns, port, 0),
    ]
