# SPDX-License-Identifier: Apache-2.0
"""What all versions of HTTP, and gateways that speak of HTTP, know of a message (RFC 9110)."""

from __future__ import annotations

from dataclasses import dataclass

from otelauto.flows.vocabulary import Message, TraceContext


@dataclass(slots=True)
class HttpMessage(Message):
    """A request or a response: what its head says, and how far its body has come.

    An empty ``method`` and a ``status`` of 0 are: not known.
    """

    version: str = ""
    method: bytes = b""
    target: bytes = b""
    scheme: bytes = b""  # empty: what the target says, else http
    status: int = 0
    host: bytes | None = None
    user_agent: bytes | None = None
    parent: TraceContext | None = None
    wire_size: int = 0  # body bytes on the wire so far, framing included

    def body_size(self) -> int | None:
        """The exact size of the body; ``None`` where it is not known or there is none."""
        raise NotImplementedError
