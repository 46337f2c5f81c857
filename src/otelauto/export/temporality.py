# SPDX-License-Identifier: Apache-2.0
"""What one OTLP endpoint is to be told of the collected series, by what has arrived there.

Series are cumulative. With delta temporality an export says what is new since the last one that
arrived, so one that was lost loses nothing: the next says it too, from the same start. With
cumulative temporality, series that are gone are told once more, as having no value.

https://opentelemetry.io/docs/specs/otel/metrics/data-model/#temporality
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otelauto.counters import Counters, Meaning
from otelauto.export.points import Point, Told, difference, point_of, stale_point
from otelauto.export.red import Collected
from otelauto.flows.vocabulary import Instrument
from otelauto.hot.cells import Series
from otelauto.spans.span import Service

MOST_CARRIED = 20_000

SERIES_LOST = Meaning(
    "otlp_metrics_series_lost",
    "Series that ended while the OTLP metrics endpoint did not take their last values, and for"
    " which there was no more room (delta temporality).",
)

Identity = tuple[str, str, str]


@dataclass(slots=True)
class _Mark:
    """A series as an export told it. ``at_ns`` is wall time."""

    service: Service
    instrument: Instrument
    point: Point
    at_ns: int


class Cumulative:
    """Totals since the start of each series."""

    def __init__(self) -> None:
        self._told: dict[Identity, Collected] = {}
        self._telling: dict[Identity, Collected] = {}

    def read(self, collected: Sequence[Collected], now_ns: int) -> list[Collected | Told]:
        """What to tell now. Of gone series there are points that are stale."""
        self._telling = {_identity(one.service): one for one in collected}
        gone = [
            Told(one.service, [(i, [stale_point(i, s) for s in every]) for i, every in one.series])
            for identity, one in self._told.items()
            if identity not in self._telling
        ]
        return [*collected, *gone]

    def delivered(self) -> None:
        """What was read last has arrived."""
        self._told = self._telling


class Delta:
    """What is new since the last export that arrived."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._told: dict[Series, _Mark] = {}
        self._telling: dict[Series, _Mark] = {}
        self._carried: dict[Series, _Mark] = {}  # gone before their last values arrived

    def read(self, collected: Sequence[Collected], now_ns: int) -> list[Collected | Told]:
        """What to tell now; ``now_ns`` is wall time. Series without news are left out."""
        before, self._telling = self._telling, {}
        news: list[Collected | Told] = []
        for one in collected:
            tables = []
            for instrument, every in one.series:
                points = [point_of(series) for series in every]
                for point in points:
                    mark = _Mark(one.service, instrument, point, now_ns)
                    self._telling[point.series] = mark
                tables.append((instrument, list(filter(None, map(self._since_told, points)))))
            news.append(Told(one.service, tables))
        self._carry(before)
        for mark in self._carried.values():
            new = self._since_told(mark.point)
            if new is not None:
                news.append(Told(mark.service, [(mark.instrument, [new])]))
        return news

    def delivered(self) -> None:
        """What was read last has arrived."""
        self._told = self._telling
        self._telling = {}
        self._carried = {}

    def _carry(self, before: dict[Series, _Mark]) -> None:
        """Keep what was read and did not arrive of series that are gone now."""
        for series, mark in before.items():
            if series in self._telling:
                continue
            if len(self._carried) < MOST_CARRIED:
                self._carried[series] = mark
            else:
                self._counters.add(SERIES_LOST)

    def _since_told(self, point: Point) -> Point | None:
        told = self._told.get(point.series)
        return point if told is None else difference(point, told.point, told.at_ns)


def _identity(service: Service) -> Identity:
    return service.name, service.namespace, service.instance_id
