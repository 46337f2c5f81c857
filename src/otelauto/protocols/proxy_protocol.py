# SPDX-License-Identifier: Apache-2.0
"""The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt).

A load balancer puts it before the first byte of a connection to name the client it speaks for.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from otelauto.flows.vocabulary import Address, Family

V1_START = b"PROXY "
V2_START = b"\r\n\r\n\0\r\nQUIT\n"
_V1_MAX = 107
_V2_HEADER = 16
_V2_MAX = 2048  # ours: longer TLV blocks than any known sender's are not believed
_V1_WORDS = 6  # PROXY TCP4 source destination port port


@dataclass(frozen=True, slots=True)
class Prefix:
    """A whole prefix: how many bytes it takes, and the client it names, if it names one."""

    size: int
    client: Address | None


def may_begin(head: bytes) -> bool:
    """Whether ``head`` begins with a prefix, or could once more bytes are there."""
    return (
        head.startswith((V1_START, V2_START))
        or V1_START.startswith(head)
        or V2_START.startswith(head)
    )


def parse(head: bytes) -> Prefix | None:
    """The prefix that ``head`` begins with, ``None`` if there is none or not all of it yet."""
    if head.startswith(V1_START):
        return _parse_v1(head)
    if head.startswith(V2_START):
        return _parse_v2(head)
    return None


def broken(head: bytes) -> bool:
    """Whether ``head``, which may begin a prefix, can no longer become one."""
    if head.startswith(V2_START) and len(head) >= _V2_HEADER:
        return head[12] >> 4 != 2 or struct.unpack_from("!H", head, 14)[0] > _V2_MAX
    if head.startswith(V1_START):
        line_end = head.find(b"\r\n", 0, _V1_MAX)
        return line_end < 0 and len(head) >= _V1_MAX
    return False


def _parse_v1(head: bytes) -> Prefix | None:
    line_end = head.find(b"\r\n", 0, _V1_MAX)
    if line_end < 0:
        return None
    words = head[:line_end].split(b" ")
    if len(words) != _V1_WORDS or words[1] not in (b"TCP4", b"TCP6"):
        return Prefix(line_end + 2, None)  # UNKNOWN
    family = Family.INET if words[1] == b"TCP4" else Family.INET6
    if not words[4].isdigit() or int(words[4]) > 0xFFFF:
        return Prefix(line_end + 2, None)
    return Prefix(line_end + 2, _address(family, words[2].decode("latin-1"), int(words[4])))


def _address(family: Family, host: str, port: int) -> Address | None:
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return None
    return Address(family, str(literal), port)


def _parse_v2(head: bytes) -> Prefix | None:
    if len(head) < _V2_HEADER or broken(head):
        return None
    command, family, length = struct.unpack_from("!BBH", head, 12)
    if len(head) < _V2_HEADER + length:
        return None
    block = head[_V2_HEADER : _V2_HEADER + length]
    client: Address | None = None
    if command & 0xF == 1 and family == 0x11 and length >= 12:
        host = str(ipaddress.IPv4Address(block[:4]))
        client = Address(Family.INET, host, struct.unpack_from("!H", block, 8)[0])
    elif command & 0xF == 1 and family == 0x21 and length >= 36:
        host = str(ipaddress.IPv6Address(block[:16]))
        client = Address(Family.INET6, host, struct.unpack_from("!H", block, 32)[0])
    return Prefix(_V2_HEADER + length, client)
