# SPDX-License-Identifier: Apache-2.0
"""Which span attributes make a metric series.

A parser lists those of the semantic conventions. The settings ``report_target`` and ``report_peer``
add what is left out for its cardinality; the 2023 naming reports fewer.
"""

from __future__ import annotations

from dataclasses import replace

from otelauto.flows.vocabulary import Exchange, Instrument, Side
from otelauto.spans.span import Span

Instruments = tuple[Instrument, ...]

# What the 2023 metrics did not carry.
NOT_IN_2023 = frozenset(
    {
        "error.type",
        "network.protocol.name",
        "network.protocol.version",
        "server.address",
        "server.port",
        "url.scheme",
    }
)


class PerInstruments:
    """Remembers a function of (instruments, side) by identity: parsers hand out constant tuples."""

    MAX_KNOWN = 256

    def __init__(self) -> None:
        self._known: dict[tuple[int, Side], tuple[Instruments, Instruments]] = {}

    def get(self, instruments: Instruments, side: Side) -> Instruments | None:
        """What was remembered for this very tuple."""
        known = self._known.get((id(instruments), side))
        return known[1] if known is not None else None

    def put(self, instruments: Instruments, side: Side, result: Instruments) -> Instruments:
        """Remember ``result``; the key tuple is kept alive so that its id stays its own."""
        if len(self._known) >= self.MAX_KNOWN:
            self._known.clear()
        self._known[id(instruments), side] = (instruments, result)
        return result


class Select:
    """The stage that completes the attributes of a span's instruments.

    ``report_target``: server series also carry the path (``url.path``). ``report_peer``: series
    also carry the peer's address. ``as_2023``: the attributes of the 2023 metrics only (beside the
    two settings).
    """

    def __init__(
        self, report_target: bool = False, report_peer: bool = False, as_2023: bool = False
    ) -> None:
        self._as_2023 = as_2023
        target = ("url.path",) if report_target else ()
        peer: tuple[str, ...] = ("network.peer.address",) if report_peer else ()
        self._added = {Side.SERVER: target + peer, Side.CLIENT: peer}
        if report_peer and as_2023:
            self._added[Side.CLIENT] = ("server.address", "network.peer.port")
        self._known = PerInstruments()

    def __call__(self, exchange: Exchange, span: Span) -> None:
        """Replace the span's instruments."""
        selected = self._known.get(span.instruments, span.side)
        if selected is None:
            selected = self._known.put(
                span.instruments,
                span.side,
                tuple(self._select(instrument, span.side) for instrument in span.instruments),
            )
        span.instruments = selected

    def _select(self, instrument: Instrument, side: Side) -> Instrument:
        kept = instrument.attributes
        if self._as_2023:
            kept = tuple(name for name in kept if name not in NOT_IN_2023)
        added = tuple(name for name in self._added[side] if name not in kept)
        return replace(instrument, attributes=kept + added)
