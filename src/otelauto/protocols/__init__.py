# SPDX-License-Identifier: Apache-2.0
"""The protocols that otelauto reads: one file each, listed here."""

from __future__ import annotations

from otelauto.flows.vocabulary import Recognizer
from otelauto.protocols.fastcgi import FastCgi
from otelauto.protocols.http1 import Http1
from otelauto.protocols.http2 import Http2
from otelauto.protocols.opaque import Tls
from otelauto.protocols.settings import ProtocolSettings


def protocols(settings: ProtocolSettings) -> tuple[Recognizer, ...]:
    """The registry. The order does not matter: each recognises its own bytes only."""
    return (Http1(settings), Http2(settings), FastCgi(settings), Tls())
