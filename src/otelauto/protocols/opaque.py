# SPDX-License-Identifier: Apache-2.0
"""Protocols that are recognised only to be named: otelauto reads nothing in them."""

from __future__ import annotations

from otelauto.flows.vocabulary import Likeness, Message, Parser

_TLS_HEADER = 6  # record header (RFC 8446, section 5.1) and the handshake type
_CLIENT_HELLO = 1
_SERVER_HELLO = 2


class Opaque:
    """A name for bytes that are left alone."""

    opaque = True
    multiplexed = False
    beginning = b""
    response_start = b""

    def parser(self) -> Parser[Message]:
        """There is none."""
        raise NotImplementedError(type(self).__name__)


class Tls(Opaque):
    """TLS handshakes (RFC 8446): what follows is ciphertext."""

    name = "tls"

    def recognize(self, head: bytes, at_start: bool) -> Likeness:
        """A handshake record that holds a hello."""
        if not at_start or head[:1] != b"\x16" or head[1:2] not in (b"", b"\x03"):
            return Likeness.NO
        if len(head) < _TLS_HEADER:
            return Likeness.MAYBE
        if head[2] > 4:
            return Likeness.NO
        if head[5] == _CLIENT_HELLO:
            return Likeness.REQUEST
        return Likeness.RESPONSE if head[5] == _SERVER_HELLO else Likeness.NO
