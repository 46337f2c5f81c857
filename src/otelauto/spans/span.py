# SPDX-License-Identifier: Apache-2.0
"""A span as exporters see it, and the service it belongs to."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from otelauto.flows.vocabulary import Attributes, Instrument, ResourceValue, Side


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """The OpenTelemetry resource of one watched service instance. Compared by identity.

    ``attributes`` are resource attributes beside ``service.name``, ``service.namespace`` and
    ``service.instance.id`` (``host.name``, ``process.pid``, ``telemetry.sdk.*``, ...). ``sdk`` says
    what tells that the service has an OpenTelemetry SDK of its own; empty: nothing does.
    """

    name: str
    namespace: str
    instance_id: str
    attributes: dict[str, ResourceValue] = field(default_factory=dict)
    sdk: str = ""


class Fate(enum.Enum):
    """What becomes of a span: exported, or why not. Metrics do not depend on it."""

    EXPORTED = ""
    UNSAMPLED = "sampler"
    OVER_BUDGET = "max_overhead"
    FILTERED = "filter"
    LEFT_TO_SDK = "sdk"


@dataclass(slots=True)
class Span:
    """One finished span. Times are boot-clock nanoseconds; exporters call ``clock.wall_ns``.

    ``parent_id`` is empty for a root. ``incomplete`` as in
    :class:`otelauto.flows.vocabulary.Exchange`: no histogram counts it. ``unmeasured`` says why
    the span has no instruments although exchanges like it are measured.
    """

    service: Service
    name: str
    side: Side
    trace_id: bytes  # 16 bytes
    span_id: bytes  # 8 bytes
    parent_id: bytes  # 8 bytes or empty
    trace_flags: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    error: bool
    incomplete: str | None
    instruments: tuple[Instrument, ...]
    fate: Fate = Fate.EXPORTED
    unmeasured: str = ""
