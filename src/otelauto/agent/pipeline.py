# SPDX-License-Identifier: Apache-2.0
"""What components pass on to each other, and what the agent asks of each of them.

Telemetry moves by calls: whoever has some calls the consumers behind it, on its own thread, and an
exception says that it was not taken. So a sender hears what became of its data, up to the first
queue on the way; from there on the queue answers for it.
"""

from __future__ import annotations

import enum
import logging
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from otelauto.agent.river.values import Value
from otelauto.agent.schema import Decoded
from otelauto.counters import Counters

Message = TypeVar("Message", TracesData, MetricsData)
Fields = Mapping[str, str]
"""What came with a request: names of headers or of gRPC metadata, in small letters, and values."""
NO_FIELDS: Fields = MappingProxyType({})


class Refused(Exception):  # noqa: N818 - what a consumer says, not what broke
    """The telemetry was not taken; whoever sent it still has it.

    ``permanent``: it never will be, and is to be given up. Else it may be sent again, after
    ``retry_after_s`` seconds if that is known.
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, permanent: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.permanent = permanent


class Payload(Generic[Message]):
    """``items`` spans or data points, as a message of opentelemetry-proto, as its bytes, or both:
    each is made of the other when it is asked for. One payload goes to several consumers: nobody
    changes it, or its message. ``parsed`` is the message of ``content`` where it is known already,
    ``fields`` what came with it, if its receiver keeps that (``include_metadata``).

    Bytes of several such messages, one behind another, are the bytes of their union (Protocol
    Buffers, encoding: the elements of repeated fields add up).
    """

    __slots__ = ("_encoded", "_message", "_type", "fields", "items")

    def __init__(
        self,
        kind: type[Message],
        items: int,
        content: Message | bytes | Sequence[bytes],
        parsed: Message | None = None,
        fields: Fields = NO_FIELDS,
    ) -> None:
        self._type: type[Message] = kind
        self.items = items
        self.fields = fields
        self._message: Message | None = content if isinstance(content, kind) else parsed
        self._encoded: bytes | None = None
        if not isinstance(content, kind):
            self._encoded = content if isinstance(content, bytes) else b"".join(content)

    @property
    def kind(self) -> type[Message]:
        """The type of the message."""
        return self._type

    @property
    def encoded(self) -> bytes:
        """The message as bytes; also those of an OTLP export request."""
        if self._encoded is None:
            self._encoded = self.message.SerializeToString()
        return self._encoded

    @property
    def message(self) -> Message:
        """The message; raises protobuf's ``DecodeError`` if it is made of bytes that are none."""
        if self._message is None:
            self._message = self._type.FromString(self.encoded)
        return self._message


Traces = Payload[TracesData]
Metrics = Payload[MetricsData]


class Consumer(Protocol):
    """What a capsule ``otelcol.Consumer`` holds."""

    def traces(self, payload: Traces) -> None:
        """Take the spans or raise :class:`Refused`. Called from any thread."""

    def metrics(self, payload: Metrics) -> None:
        """Take the data points or raise :class:`Refused`. Called from any thread."""


class Handler(Protocol):
    """What a capsule ``otelcol.Handler`` holds."""

    def headers(self, known: bool = False) -> Mapping[str, str]:
        """The fields, names in small letters, that prove to a server who a client is; ``known``:
        only those that are known without asking anybody.

        Raises:
            otelauto.errors.OtelautoError: they cannot be had now.
        """

    def checks(self) -> bool:
        """Whether it is for servers, too."""

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether a server takes a request with these fields, names in small letters."""


Labels = tuple[tuple[str, str], ...]  # name and value, sorted by name; __name__ is among them


@dataclass(frozen=True, slots=True)
class Exemplar:
    """An example of what a sample counts, with the labels ``trace_id`` and ``span_id``."""

    labels: Labels
    value: float
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class NativeHistogram:
    """A histogram as one sample. ``spans`` are offset and length of runs of buckets; ``deltas`` the
    counts of those buckets, each less the one before (Prometheus, "Native histograms").
    """

    count: int
    sum: float
    schema: int
    zero_threshold: float
    zero_count: int
    positive_spans: tuple[tuple[int, int], ...] = ()
    positive_deltas: tuple[int, ...] = ()
    negative_spans: tuple[tuple[int, int], ...] = ()
    negative_deltas: tuple[int, ...] = ()


STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The value that ends a series (remote write 1.0, "Stale Markers")."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of one series; ``timestamp_ms`` since the epoch. With a ``histogram`` that is the
    sample, and ``value`` is not used.
    """

    labels: Labels
    value: float
    timestamp_ms: int
    exemplars: tuple[Exemplar, ...] = ()
    histogram: NativeHistogram | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a metric family is; ``kind`` as in an exposition (``counter``, ``histogram``, ...)."""

    family: str
    kind: str
    help: str
    unit: str


class Appender(Protocol):
    """What a capsule ``prometheus.Appendable`` holds."""

    def append(self, samples: Sequence[Sample], metadata: Iterable[Metadata] = ()) -> None:
        """Take all ``samples`` or raise :class:`Refused`. Called from any thread."""


class Health(enum.StrEnum):
    """How a component is."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    EXITED = "exited"


@dataclass(slots=True)
class Context:
    """What the agent gives to a component.

    ``counters`` are the component's own: the agent shows them with its id. ``directory`` is where
    it may keep files over restarts; it does not exist before it is needed. ``changed`` is called
    when an export has a new value, on any thread.
    """

    id: str
    counters: Counters
    directory: Path
    changed: Callable[[], None]
    log: logging.Logger = field(init=False)

    def __post_init__(self) -> None:
        self.log = logging.getLogger(f"otelauto.agent.{self.id}")


class Running:
    """A component at work. It is made of its block, started, and stopped; one whose block (or what
    that refers to) changed is made anew.

    The constructor may raise :class:`otelauto.errors.OtelautoError`, and starts nothing.
    """

    def __init__(self, context: Context, content: Decoded) -> None:
        self.context = context
        self.content = content
        self.last_error = ""

    @property
    def exports(self) -> Mapping[str, Value]:
        """What other components may refer to; known from the construction on."""
        return {}

    def start(self) -> None:
        """Begin; raises :class:`otelauto.errors.OtelautoError` if it cannot (a port in use).

        What only answers others has nothing to begin, and nothing to stop.
        """

    def stop(self, deadline_s: float) -> None:
        """Take nothing any more, deliver or store what is held, within ``deadline_s`` seconds.

        Those that receive are stopped first, then those behind them.
        """

    def health(self) -> tuple[Health, str]:
        """How it is, with a sentence."""
        return (Health.UNHEALTHY, self.last_error) if self.last_error else (Health.HEALTHY, "")

    def status(self) -> Mapping[str, str | int | float]:
        """Figures for the agent's page: queue lengths, totals. Holds no secret."""
        return {}
