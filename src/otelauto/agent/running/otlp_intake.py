# SPDX-License-Identifier: Apache-2.0
"""What an OTLP request becomes, whichever door it came through: telemetry passed on, or a reason.

Answers: opentelemetry-proto, docs/specification.md ("Failures", "OTLP/gRPC Throttling",
"OTLP/HTTP Throttling", "Partial Success").
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, TracesData

from otelauto.agent.pipeline import NO_FIELDS, Fields, Payload, Refused
from otelauto.agent.running.otlp_from_json import BadJsonError, from_json
from otelauto.agent.running.outputs import Outputs
from otelauto.agent.running.unpacking import UnusableError, decompressed
from otelauto.counters import Counters, Meaning
from otelauto.export import protobuf

ITEMS_ACCEPTED = Meaning(
    "agent_receiver_items_accepted",
    "Spans and data points that a receiver took and passed on. Not a loss.",
    "signal",
)
ITEMS_REFUSED = Meaning(
    "agent_receiver_items_refused",
    "Spans and data points that a receiver gave back because nobody behind it took them.",
    "signal",
)
ITEMS_INVALID = Meaning(
    "agent_receiver_items_invalid",
    "Spans without a valid trace id and span id; the sender was told (partial success).",
    "signal",
)
REQUESTS_REJECTED = Meaning(
    "agent_receiver_requests_rejected",
    "Requests that a receiver answered with an error and did not read or understand.",
    "reason",
)
# No part of a message of telemetry is smaller than this on average, in bytes. Smaller ones are
# there to make it grow when it is decoded, or to keep whoever looks at each of them busy.
SMALLEST_PART, SMALLEST_OBJECT = 16, 8
FREE_PARTS = 1000  # that any message may have
LARGE = 1 << 20  # bytes; a message of so many is decoded alone: hostile ones grow twentyfold
OVERLOADED_RETRY_S = 1.0
KINDS: dict[str, type[TracesData] | type[MetricsData]] = {
    "traces": TracesData,
    "metrics": MetricsData,
}
_TRACE_ID, _SPAN_ID = 16, 8  # bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """The good answer: ``rejected`` items, and why, are a partial success."""

    rejected: int = 0
    message: str = ""

    def encoded(self) -> bytes:
        """The Export*ServiceResponse."""
        if not self.rejected:
            return b""
        partial = protobuf.integer(1, self.rejected) + protobuf.text(2, self.message)
        return protobuf.sized(1, partial)


class Room:
    """Bytes of requests that may be held at a time, over all connections. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self.left = limit

    def take(self, size: int) -> bool:
        """Whether there was room for ``size`` bytes; if so it is gone until given back."""
        with self._lock:
            if size > self.left:
                return False
            self.left -= size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self.left += size


class Intake:
    """Decodes requests and passes on what is in them. Used by many threads."""

    def __init__(self, outputs: Outputs, counters: Counters) -> None:
        self.outputs = outputs
        self.counters = counters
        self.serving = 0  # requests whose telemetry is being passed on
        self._lock = threading.Lock()
        self._large = threading.Lock()

    def rejected(self, reason: str) -> None:
        """Count a request that came to nothing."""
        self.counters.add(REQUESTS_REJECTED, label=reason)

    def take(
        self,
        signal: str,
        body: bytes,
        limit: int,
        encoding: str = "",
        json: bool = False,
        fields: Fields = NO_FIELDS,
    ) -> Taken:
        """Pass a request's telemetry on.

        ``limit`` is the most bytes that ``body`` may have, also without its ``encoding`` (one of
        ``ENCODINGS``, or none). ``fields`` go with it.

        Raises:
            UnusableError: it is none (``TooLargeError``: too much), and is counted.
            Refused: nobody took it, and it is counted.
        """
        try:
            plain = decompressed(body, encoding, limit) if encoding else body
            if len(plain) > LARGE:
                with self._large:
                    payload, invalid = decoded(signal, plain, json)
            else:
                payload, invalid = decoded(signal, plain, json)
        except UnusableError as error:
            self.rejected(error.reason)
            raise
        if invalid:
            self.counters.add(ITEMS_INVALID, invalid, signal)
        payload.fields = fields
        if payload.items:
            self._pass_on(signal, payload)
        if not invalid:
            return Taken()
        return Taken(invalid, f"{invalid} spans have no valid trace id and span id")

    def _pass_on(self, signal: str, payload: Payload[TracesData] | Payload[MetricsData]) -> None:
        forward: Any = self.outputs.traces if signal == "traces" else self.outputs.metrics
        with self._lock:
            self.serving += 1
        try:
            forward(payload)
        except Refused:
            self.counters.add(ITEMS_REFUSED, payload.items, signal)
            raise
        finally:
            with self._lock:
                self.serving -= 1
        self.counters.add(ITEMS_ACCEPTED, payload.items, signal)


def decoded(
    signal: str, body: bytes, json: bool
) -> tuple[Payload[TracesData] | Payload[MetricsData], int]:
    """The telemetry of a message, and how many of its spans had to be left out.

    Whatever is damaged is found here: later its bytes stand among those of other senders.

    Raises:
        UnusableError: it is no such message.
    """
    kind: Any = KINDS[signal]
    content: bytes | None = body
    try:
        if json:
            _must_be_few(body.count(b"{") + body.count(b"["), len(body) // SMALLEST_OBJECT)
            message = from_json(kind, body)
            content = None
        else:
            _must_be_few(top_parts(body), len(body) // SMALLEST_PART)
            message = kind.FromString(body)
    except BadJsonError as error:
        raise UnusableError("malformed", str(error)) from error
    except DecodeError as error:
        raise UnusableError("malformed", f"this is no OTLP message of {signal}") from error
    if isinstance(message, MetricsData):
        points = _count_points(message, len(body) // SMALLEST_PART)
        return Payload(MetricsData, points, content or message, message), 0
    items, invalid = _count_spans(message.resource_spans, len(body) // SMALLEST_PART)
    if invalid:
        _remove_invalid(message.resource_spans)
        content = None
    return Payload(TracesData, items - invalid, content or message, message), invalid


def _must_be_few(parts: int, most: int) -> None:
    """Raises :class:`UnusableError` for more parts than a message of its size can have."""
    if parts > most + FREE_PARTS:
        raise UnusableError("malformed", "there are far more parts than content")


def top_parts(body: bytes) -> int:
    """How many fields the message has; enough of them if they are too many. What is damaged is
    left to the parser.
    """
    count, most = 0, len(body) // SMALLEST_PART + FREE_PARTS
    try:
        for _ in protobuf.fields(body):
            count += 1
            if count > most:
                break
    except protobuf.MalformedError:
        return count
    return count


def _count_spans(resources: Iterable[ResourceSpans], most: int) -> tuple[int, int]:
    """Spans, and how many of them no trace store would take."""
    count = invalid = scopes = 0
    for resource in resources:
        scopes += len(resource.scope_spans)
        _must_be_few(scopes, most)
        for scope in resource.scope_spans:
            count += len(scope.spans)
            _must_be_few(count, most)
            for span in scope.spans:
                if len(span.trace_id) != _TRACE_ID or len(span.span_id) != _SPAN_ID:
                    invalid += 1
    return count, invalid


def _remove_invalid(resources: Iterable[ResourceSpans]) -> None:
    for resource in resources:
        for scope in resource.scope_spans:
            good = [
                span
                for span in scope.spans
                if len(span.trace_id) == _TRACE_ID and len(span.span_id) == _SPAN_ID
            ]
            if len(good) < len(scope.spans):
                kept = type(scope)(spans=good)
                scope.ClearField("spans")
                scope.spans.extend(kept.spans)


def points_of(metric: Metric) -> int:
    """Data points of a metric, of whatever kind."""
    which = metric.WhichOneof("data")
    return len(getattr(metric, which).data_points) if which else 0


def _count_points(message: MetricsData, most: int) -> int:
    points = parts = 0
    for resource in message.resource_metrics:
        parts += len(resource.scope_metrics)
        _must_be_few(parts, most)
        for scope in resource.scope_metrics:
            parts += len(scope.metrics)
            _must_be_few(parts, most)
            points += sum(map(points_of, scope.metrics))
    return points
