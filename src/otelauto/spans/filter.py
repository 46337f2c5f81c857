# SPDX-License-Identifier: Apache-2.0
"""Spans and measurements that are not wanted, by what they say of themselves."""

from __future__ import annotations

from collections.abc import Sequence

from otelauto.counters import Counters, Meaning
from otelauto.flows.vocabulary import Exchange
from otelauto.spans.conditions import Test, Written, every
from otelauto.spans.span import Fate, Span

NOT_MEASURED = Meaning(
    "exchanges_not_measured",
    "Exchanges that enter no histogram, because filter.metrics says so (filter) or because the"
    " service's own OpenTelemetry SDK measures them (sdk).",
    "reason",
)
BY_FILTER = "filter"


class Filters:
    """The stage that leaves out of each signal what any of its entries matches.

    An entry is a list of conditions, all of which must hold.
    """

    def __init__(
        self,
        counters: Counters,
        traces: Sequence[Sequence[Written]] = (),
        metrics: Sequence[Sequence[Written]] = (),
    ) -> None:
        self._counters = counters
        self._traces: list[Test] = [every(conditions) for conditions in traces]
        self._metrics: list[Test] = [every(conditions) for conditions in metrics]

    def __call__(self, exchange: Exchange, span: Span) -> None:
        """Set the span's fate, or take its instruments."""
        if any(test(span) for test in self._traces):
            span.fate = Fate.FILTERED
        if span.instruments and any(test(span) for test in self._metrics):
            span.instruments = ()
            if span.incomplete is None:
                span.unmeasured = BY_FILTER
                self._counters.add(NOT_MEASURED, label=BY_FILTER)
