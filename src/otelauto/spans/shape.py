# SPDX-License-Identifier: Apache-2.0
"""The user's word on metrics: which attributes make their series, which buckets they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from otelauto.flows.vocabulary import Exchange, Instrument
from otelauto.spans.select import PerInstruments
from otelauto.spans.span import Span

Attributes = Sequence[tuple[str, Sequence[str]]]  # pattern of metrics, patterns of attributes
Buckets = Sequence[tuple[str, Sequence[float]]]

_PATTERN = frozenset("*?[")


class Shape:
    """The stage that reshapes instruments, by the names that they are exported with.

    ``include`` replaces the attributes of the metrics that it names: a pattern stands for those of
    the metric that match, anything else for that attribute of the span. ``exclude`` takes away what
    matches.
    """

    def __init__(
        self, include: Attributes = (), exclude: Attributes = (), buckets: Buckets = ()
    ) -> None:
        self._include = include
        self._exclude = exclude
        self._buckets = buckets
        self._known = PerInstruments()

    def __call__(self, exchange: Exchange, span: Span) -> None:
        """Replace the span's instruments."""
        shaped = self._known.get(span.instruments, span.side)
        if shaped is None:
            made = tuple(map(self._shape, span.instruments))
            shaped = self._known.put(span.instruments, span.side, made)
        span.instruments = shaped

    def _shape(self, instrument: Instrument) -> Instrument:
        name, attributes = instrument.name, instrument.attributes
        included = [each for metric, given in self._include if fnmatchcase(name, metric)
                    for each in given]  # fmt: skip
        if included:
            attributes = tuple(dict.fromkeys(_expanded(included, attributes)))
        for metric, patterns in self._exclude:
            if fnmatchcase(name, metric):
                attributes = tuple(
                    each for each in attributes if not any(fnmatchcase(each, p) for p in patterns)
                )
        buckets = next(
            (tuple(bounds) for metric, bounds in self._buckets if fnmatchcase(name, metric)),
            instrument.buckets,
        )
        return replace(instrument, attributes=attributes, buckets=buckets)


def named(attributes: Attributes) -> set[str]:
    """The attributes that are named outright."""
    return {each for _, given in attributes for each in given if not _PATTERN & set(each)}


def _expanded(patterns: Sequence[str], own: Sequence[str]) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        if _PATTERN & set(pattern):
            found += [name for name in own if fnmatchcase(name, pattern)]
        else:
            found.append(pattern)
    return found
