# SPDX-License-Identifier: Apache-2.0
"""What carries OTLP messages, and what the answers to them mean.

The rules are those of the OTLP specification (opentelemetry-proto, docs/specification.md): a
partial success is never retried; what may be retried is said by the status alone.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from otelauto.export.protobuf import MalformedError, fields

MAX_REQUEST = 64 * 1024 * 1024  # bytes; beyond it a client should not send ("OTLP Limits")
MAX_ANSWER = 4 * 1024 * 1024
MAX_SHOWN = 300  # bytes of a peer's text in a log
DEFAULT_TIMEOUT_MS = 10_000
REST_AFTER_S = 10.0  # of silence
STOPPED = "the exporter was stopped"
NO_TIME = "no time left"
NO_ANSWER = "no answer in time"
_MAX_REJECTED = 1 << 63  # an int64 that is negative on the wire looks larger
_MAX_DELAY_S = 1 << 40  # google.protobuf.Duration allows 10,000 years; more is negative or garbage
_RETRY_INFO = b"google.rpc.RetryInfo"


Piece = bytes | memoryview
# A message, whole or in pieces: what is large (a batch of encoded spans) is never copied together.
Body = bytes | Sequence[Piece]


def pieces_of(body: Body) -> Sequence[Piece]:
    """The pieces of a message, one behind another."""
    return (body,) if isinstance(body, bytes) else body


class Compression(enum.StrEnum):
    """How messages are compressed; gRPC's library knows no zstd and no snappy."""

    NONE = "none"
    GZIP = "gzip"
    DEFLATE = "deflate"
    ZLIB = "zlib"  # the same as deflate, by another name
    ZSTD = "zstd"
    SNAPPY = "snappy"


class Verdict(enum.Enum):
    """What to do after a request."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one request. ``rejected`` counts items of a partial success.

    ``retry_after_s`` is how long the endpoint wants not to be asked again. ``unauthorized``: it was
    refused for want of the right credentials.
    """

    verdict: Verdict
    error: str = ""
    rejected: int = 0
    retry_after_s: float | None = None
    unauthorized: bool = False


class Transport(Protocol):
    """A way to one OTLP endpoint, for one signal. One thread calls ``post`` and ``rest``."""

    url: str  # for people: no secrets

    def post(self, body: Body, seconds_left: float | None = None) -> Answer:
        """Send one message. ``seconds_left`` shortens the timeout (a deadline of the caller's)."""

    def rest(self) -> None:
        """Nothing was to be sent for ``REST_AFTER_S``: stop whatever costs something meanwhile."""

    def abort(self) -> None:
        """From another thread: make a ``post`` in progress, and each later one, fail now."""

    def close(self) -> None:
        """Close the connection."""


def too_large(size: int) -> Answer | None:
    """The refusal of a message that no server need take; ``None`` if ``size`` bytes may be sent."""
    if size <= MAX_REQUEST:
        return None
    return Answer(Verdict.REFUSED, f"a message of {size} bytes, more than {MAX_REQUEST}")


def shortened(timeout_s: float | None, seconds_left: float | None) -> float | None:
    """The smaller of two limits, in seconds; ``None`` is no limit."""
    limits = [limit for limit in (timeout_s, seconds_left) if limit is not None]
    return min(limits, default=None)


def accepted(data: bytes) -> Answer:
    """Success, with what an Export*ServiceResponse says of rejected items.

    Anything else than such a response, nothing too, is a full success.
    """
    rejected, message = 0, ""
    try:
        for field, value in fields(data):
            if field != 1 or not isinstance(value, bytes):
                continue
            for inner, content in fields(value):
                if inner == 1 and isinstance(content, int):
                    rejected = content if content < _MAX_REJECTED else 0
                elif inner == 2 and isinstance(content, bytes):
                    message = shown(content)
    except MalformedError:
        return Answer(Verdict.ACCEPTED)
    return Answer(Verdict.ACCEPTED, message, rejected)


def rpc_status(data: bytes) -> tuple[str, float | None]:
    """Message, and delay in seconds of a RetryInfo, of a google.rpc.Status.

    A RetryInfo without a delay is 0.0, no RetryInfo ``None``. What is malformed says nothing.
    Source: googleapis, google/rpc/status.proto and error_details.proto.
    """
    message, delay = "", None
    try:
        for field, value in fields(data):
            if field == 2 and isinstance(value, bytes):
                message = shown(value)
            elif field == 3 and isinstance(value, bytes):
                found = _retry_delay(value)
                delay = found if found is not None else delay
    except MalformedError:
        return "", None
    return message, delay


def _retry_delay(detail: bytes) -> float | None:
    """The delay in a google.protobuf.Any, if it holds a RetryInfo."""
    parts = {field: value for field, value in fields(detail) if isinstance(value, bytes)}
    if parts.get(1, b"").rpartition(b"/")[2] != _RETRY_INFO:
        return None
    delay = 0.0
    for field, duration in fields(parts.get(2, b"")):
        if field == 1 and isinstance(duration, bytes):
            units = {unit: count for unit, count in fields(duration) if isinstance(count, int)}
            seconds = units.get(1, 0) + units.get(2, 0) / 1e9
            delay = seconds if seconds < _MAX_DELAY_S else 0.0
    return delay


def shown(data: bytes) -> str:
    """Bytes of a peer as they may stand in a log."""
    text = data[:MAX_SHOWN].decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() else " " for c in text)
