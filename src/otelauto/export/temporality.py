# SPDX-License-Identifier: Apache-2.0
"""What one OTLP endpoint is to be told of the collected series, by what has arrived there.

Series are cumulative. With delta temporality an export says what is new since the last one that
arrived, so one that was lost loses nothing: the next says it too, from the same start. With
cumulative temporality, series that are gone are told once more, as having no value.

https://opentelemetry.io/docs/specs/otel/metrics/data-model/#temporality
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from otelauto.counters import Counters, Meaning
from otelauto.export.red import Collected, Exponential, Point
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
Told = list[tuple[Instrument, list[Series]]]


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
        self._told: dict[Identity, tuple[Service, Told]] = {}
        self._telling: dict[Identity, tuple[Service, Told]] = {}
        self._exemplars_from = self._exemplars_to = 0  # boot-clock time, as exemplars have it

    def read(self, collected: Sequence[Collected], now_ns: int) -> list[Collected]:
        """What to tell now; ``now_ns`` is wall time. Gone series have ``Point.stale`` set."""
        self._telling = {
            _identity(one.service): (
                one.service,
                [(instrument, [p.series for p in points]) for instrument, points in one.points],
            )
            for one in collected
        }
        gone = [
            Collected(service, [(i, [_stale(i, s) for s in series]) for i, series in told])
            for identity, (service, told) in self._told.items()
            if identity not in self._telling
        ]
        self._exemplars_to = _only_news(collected, self._exemplars_from)
        return [*collected, *gone]

    def delivered(self) -> None:
        """What was read last has arrived."""
        self._told = self._telling
        self._exemplars_from = self._exemplars_to


class Delta:
    """What is new since the last export that arrived."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._told: dict[Series, _Mark] = {}
        self._telling: dict[Series, _Mark] = {}
        self._carried: dict[Series, _Mark] = {}  # gone before their last values arrived
        self._exemplars_from = self._exemplars_to = 0

    def read(self, collected: Sequence[Collected], now_ns: int) -> list[Collected]:
        """What to tell now; ``now_ns`` is wall time. Series without news are left out."""
        self._exemplars_to = _only_news(collected, self._exemplars_from)
        before, self._telling = self._telling, {}
        news = []
        for one in collected:
            tables = []
            for instrument, points in one.points:
                for point in points:
                    mark = _Mark(one.service, instrument, point, now_ns)
                    self._telling[point.series] = mark
                differences = filter(None, (self._since_told(p) for p in points))
                tables.append((instrument, list(differences)))
            news.append(Collected(one.service, tables))
        self._carry(before)
        for mark in self._carried.values():
            difference = self._since_told(mark.point)
            points = [difference] if difference is not None else []
            news.append(Collected(mark.service, [(mark.instrument, points)]))
        return news

    def delivered(self) -> None:
        """What was read last has arrived."""
        self._told = self._telling
        self._carried = {}
        self._telling = {}
        self._exemplars_from = self._exemplars_to

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
        if told is None:
            return point
        last = told.point
        if point.count == last.count:
            return None
        return Point(
            point.series,
            point.count - last.count,
            point.sum - last.sum,
            math.nan,  # of the time since nobody knows
            math.nan,
            [now - then for now, then in zip(point.buckets, last.buckets, strict=True)],
            _subtract(point.exponential, last.exponential),
            point.exemplars,
            since_ns=told.at_ns,
        )


def _identity(service: Service) -> Identity:
    return service.name, service.namespace, service.instance_id


def _stale(instrument: Instrument, series: Series) -> Point:
    empty = [0] * (len(instrument.buckets) + 1)
    return Point(series, 0, 0.0, math.nan, math.nan, empty, (0, 0, 0, []), stale=True)


def _only_news(collected: Iterable[Collected], since_ns: int) -> int:
    """Take away exemplars that were told; the time of the latest one."""
    latest = since_ns
    for one in collected:
        for _, points in one.points:
            for point in points:
                if point.exemplars:
                    point.exemplars = tuple(e for e in point.exemplars if e[2] > since_ns)
                    latest = max(latest, *(e[2] for e in point.exemplars), since_ns)
    return latest


def _subtract(now: Exponential | None, then: Exponential | None) -> Exponential | None:
    """What came between two moments of one series, in the buckets of the later one."""
    if now is None or then is None:
        return now
    scale, zeros, first, counts = now
    old_scale, old_zeros, old_first, old_counts = then
    left = list(counts)
    for offset, count in enumerate(old_counts):
        left[((old_first + offset) >> (old_scale - scale)) - first] -= count
    used = [index for index, count in enumerate(left) if count]
    if not used:
        return scale, zeros - old_zeros, 0, []
    return scale, zeros - old_zeros, first + used[0], left[used[0] : used[-1] + 1]
