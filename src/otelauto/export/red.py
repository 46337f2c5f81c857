# SPDX-License-Identifier: Apache-2.0
"""RED metrics: cumulative explicit-bucket histograms of what spans measure.

A series is (service, instrument, attribute values). The number of series is capped per service and
in all; what has no room goes to the service's overflow series (``otel.metric.overflow`` = true, as
the OpenTelemetry SDK specification has it), so totals stay exact.

The drain thread adds while exporters collect; one lock, held for one service's list at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from otelauto.counters import Counters, Meaning
from otelauto.flows.vocabulary import Attributes, AttributeValue, Instrument
from otelauto.hot.cells import Epoch, Series
from otelauto.spans.clock import boot_now_ns
from otelauto.spans.span import Service, Span

OVERFLOW: Attributes = {"otel.metric.overflow": True}
DEFAULT_MAX_SERIES = 10_000
DEFAULT_MAX_SERIES_PER_SERVICE = 2_000
DEFAULT_TTL_S = 300.0
LARGEST = 2**63  # no size or time is beyond it; NaN and infinities are not within

SERIES_OVERFLOWED = Meaning(
    "series_overflowed",
    "Measurements counted in an overflow series, because their service (limits.series_per_service)"
    " or all services together (limits.series) have their full number of series.",
    "limit",
)
NOT_MEASURABLE = Meaning(
    "measurements_invalid", "Measurements left out because their value is not a finite number."
)

Key = tuple[AttributeValue | None, ...]
Identity = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Collected:
    """All live series of one service, by instrument. What is in them goes on counting."""

    service: Service
    series: list[tuple[Instrument, list[Series]]]


class _Table:
    """The series of one service and instrument."""

    __slots__ = ("instrument", "overflow", "series")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.series: dict[Key, Series] = {}
        self.overflow: Series | None = None

    def live(self) -> list[Series]:
        every = list(self.series.values())
        if self.overflow is not None:
            every.append(self.overflow)
        # A series may be there a moment before its first measurement.
        return [series for series in every if series.count]


class _State:
    """What is known of one service. ``size`` counts its series without the overflow series."""

    __slots__ = ("by_id", "gone_at_ns", "service", "size", "tables")

    MAX_IDS = 256

    def __init__(self, service: Service) -> None:
        self.service = service
        self.tables: dict[Instrument, _Table] = {}
        # Hashing an instrument walks its buckets; its identity is enough for all but the first
        # time. The reference in the table keeps the identity from being used again.
        self.by_id: dict[int, tuple[Instrument, _Table]] = {}
        self.size = 0
        self.gone_at_ns: int | None = None

    def table(self, instrument: Instrument) -> _Table:
        known = self.by_id.get(id(instrument))
        if known is not None:
            return known[1]
        table = self.tables.get(instrument)
        if table is None:
            table = self.tables[instrument] = _Table(instrument)
        if len(self.by_id) >= self.MAX_IDS:
            self.by_id.clear()
        self.by_id[id(instrument)] = (instrument, table)
        return table


class Red:
    """The aggregator. ``now_ns`` is the boot clock."""

    def __init__(
        self,
        counters: Counters,
        *,
        max_series: int = DEFAULT_MAX_SERIES,
        max_series_per_service: int = DEFAULT_MAX_SERIES_PER_SERVICE,
        ttl_s: float = DEFAULT_TTL_S,
        now_ns: Callable[[], int] = boot_now_ns,
    ) -> None:
        self._counters = counters
        self._max_series = max_series
        self._max_per_service = max_series_per_service
        self._ttl_ns = int(ttl_s * 1e9)
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._states: dict[Identity, _State] = {}
        self._by_service: dict[Service, _State] = {}
        self._size = 0
        self.epoch = Epoch()  # moves on when series that :meth:`cells` gave are held no more

    def add(self, spans: Sequence[Span]) -> None:
        """Record what ``spans`` measure. Incomplete spans measure nothing."""
        with self._lock:
            for span in spans:
                if span.incomplete is None:
                    self._add(span)

    def cells(self, span: Span) -> list[tuple[Instrument, Series, str]]:
        """Where what ``span`` measures is counted: one series for each of its instruments.

        With the limit that made it an overflow series, ``""`` if none did; whoever counts there
        has to count SERIES_OVERFLOWED too. Good until ``epoch`` moves on.
        """
        with self._lock:
            state = self._state(span)
            return [
                (instrument, *self._series(state, instrument, span))
                for instrument in span.instruments
                if instrument.measures is None or instrument.measures in span.attributes
            ]

    def forget(self, service: Service) -> None:
        """The service's last process is gone: its series end ``ttl_s`` from now.

        Unless it comes back: a service of the same name, namespace and instance id goes on with the
        same series.
        """
        with self._lock:
            state = self._by_service.pop(service, None)
            if state is not None and state.service is service:
                state.gone_at_ns = self._now_ns()
            self.epoch.bump()

    def collect(self) -> list[Collected]:
        """Every live series, by service; series past their time are dropped first."""
        self.expire()
        with self._lock:
            states = list(self._states.values())
        collected = []
        for state in states:
            with self._lock:
                tables = [(t.instrument, t.live()) for t in state.tables.values()]
                service = state.service
            collected.append(Collected(service, tables))
        return collected

    def expire(self) -> None:
        """Drop all series, overflow series too, of services that are gone for ``ttl_s``."""
        now = self._now_ns()
        with self._lock:
            for identity, state in list(self._states.items()):
                if state.gone_at_ns is not None and now - state.gone_at_ns >= self._ttl_ns:
                    del self._states[identity]
                    self._size -= state.size
                    self.epoch.bump()

    def size(self) -> int:
        """Series that are held, overflow series not counted."""
        return self._size

    def _add(self, span: Span) -> None:
        state = self._state(span)
        attributes = span.attributes
        for instrument in span.instruments:
            measures = instrument.measures
            value: AttributeValue | None
            if measures is None:
                value = max(span.end_ns - span.start_ns, 0) / 1e9
            else:
                value = attributes.get(measures)
                if value is None:
                    continue
                if isinstance(value, (bool, str)) or not -LARGEST <= value <= LARGEST:
                    self._counters.add(NOT_MEASURABLE)
                    continue
            series, limit = self._series(state, instrument, span)
            if limit:
                self._counters.add(SERIES_OVERFLOWED, label=limit)
            series.record(value)

    def _state(self, span: Span) -> _State:
        return self._by_service.get(span.service) or self._adopt(span.service, span.end_ns)

    def _series(self, state: _State, instrument: Instrument, span: Span) -> tuple[Series, str]:
        """The series of a span, and the limit that makes it the overflow series, if one does."""
        table = state.table(instrument)
        key = tuple(map(span.attributes.get, instrument.attributes))
        series = table.series.get(key)
        return (series, "") if series else self._new_series(state, table, key, span.start_ns)

    def _adopt(self, service: Service, seen_ns: int) -> _State:
        """The state for a service object that is new, or was forgotten."""
        identity = (service.name, service.namespace, service.instance_id)
        state = self._states.get(identity)
        if state is None:
            state = self._states[identity] = _State(service)
        elif state.service is service:
            if state.gone_at_ns is not None and seen_ns <= state.gone_at_ns:
                return state  # from before it went; it stays gone
        else:
            self._by_service.pop(state.service, None)
            state.service = service
        state.gone_at_ns = None
        self._by_service[service] = state
        return state

    def _new_series(
        self, state: _State, table: _Table, key: Key, start_ns: int
    ) -> tuple[Series, str]:
        """A series for ``key``, or the overflow series and the limit that is reached."""
        instrument = table.instrument
        limit = ""
        if state.size >= self._max_per_service:
            limit = "service"
        elif self._size >= self._max_series:
            limit = "total"
        if limit:
            if table.overflow is None:
                table.overflow = Series(OVERFLOW, instrument.buckets, start_ns)
            return table.overflow, limit
        present = zip(instrument.attributes, key, strict=True)
        attributes = {name: value for name, value in present if value is not None}
        series = table.series[key] = Series(attributes, instrument.buckets, start_ns)
        state.size += 1
        self._size += 1
        return series, ""
