# SPDX-License-Identifier: Apache-2.0
"""Values that strangers choose and labels are made of: only so many different ones a service."""

from __future__ import annotations

from otelauto.counters import Counters, Meaning
from otelauto.flows.vocabulary import Exchange
from otelauto.spans.span import Service, Span

OTHER = "_OTHER"
DEFAULT_MAX_VALUES = 100

OPERATIONS_OVERFLOWED = Meaning(
    "operations_overflowed",
    "Exchanges whose operation is reported as `_OTHER`, because their service has its full number"
    " of names (limits.operations_per_service).",
)


class Bounded:
    """The stage that replaces an exchange's ``bounded`` attributes once there are too many."""

    def __init__(self, counters: Counters, max_values: int = DEFAULT_MAX_VALUES) -> None:
        self._counters = counters
        self._max_values = max_values
        self._known: dict[Service, set[tuple[str, object]]] = {}

    def __call__(self, exchange: Exchange, span: Span) -> None:
        """Let known values pass, and new ones while there is room."""
        for name in exchange.bounded:
            value = span.attributes.get(name)
            if value in (None, OTHER):
                continue
            known = self._known.setdefault(span.service, set())
            if (name, value) in known:
                continue
            if len(known) < self._max_values:
                known.add((name, value))
            else:
                span.attributes[name] = OTHER
                self._counters.add(OPERATIONS_OVERFLOWED)

    def forget(self, service: Service) -> None:
        """The service is gone."""
        self._known.pop(service, None)
