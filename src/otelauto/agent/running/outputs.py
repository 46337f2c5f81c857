# SPDX-License-Identifier: Apache-2.0
"""To whom a component passes telemetry on, and its own place among the consumers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otelauto.agent.pipeline import Consumer, Metrics, Payload, Refused, Running, Traces
from otelauto.agent.river.values import Capsule, Value
from otelauto.agent.schema import CONSUMER, Decoded
from otelauto.counters import Counters, Meaning

ITEMS_UNROUTED = Meaning(
    "agent_items_unrouted",
    "Spans and data points that came to a component with no output for them.",
    "signal",
)


class Outputs:
    """The consumers of an ``output`` block: each gets everything.

    When one refuses, the others have it nevertheless, and get it again when it is sent again.
    """

    def __init__(self, content: Decoded, counters: Counters) -> None:
        self._counters = counters
        (block,) = content.blocks["output"]
        self._traces = _consumers(block, "traces")
        self._metrics = _consumers(block, "metrics")

    def takes(self, signal: str) -> bool:
        """Whether anybody is there for ``traces`` or ``metrics``; for nothing else there is."""
        return bool({"traces": self._traces, "metrics": self._metrics}.get(signal))

    def traces(self, payload: Traces) -> None:
        """Pass spans on; raises :class:`Refused`."""
        self._each(payload, [each.traces for each in self._traces], "traces")

    def metrics(self, payload: Metrics) -> None:
        """Pass data points on; raises :class:`Refused`."""
        self._each(payload, [each.metrics for each in self._metrics], "metrics")

    def _each(
        self, payload: Payload[Any], takers: Sequence[Callable[[Any], None]], signal: str
    ) -> None:
        refusals = []
        for take in takers:
            try:
                take(payload)
            except Refused as refused:
                refusals.append(refused)
        if not takers:
            self._counters.add(ITEMS_UNROUTED, payload.items, signal)
        if refusals:
            raise together(refusals)


def together(refusals: Sequence[Refused]) -> Refused:
    """One refusal for several: permanent only if all are, to be tried again after the longest."""
    if len(refusals) == 1:
        return refusals[0]
    waits = [each.retry_after_s for each in refusals if each.retry_after_s is not None]
    return Refused(
        "; ".join(dict.fromkeys(map(str, refusals))),
        retry_after_s=max(waits, default=None),
        permanent=all(each.permanent for each in refusals),
    )


def _consumers(block: Decoded, signal: str) -> list[Consumer]:
    if block.schema.argument(signal) is None:
        return []
    return [each.inner for each in block[signal] or ()]


def only(content: Decoded, name: str) -> Decoded | None:
    """The block ``name`` that may be there once."""
    found = content.blocks.get(name)
    return found[0] if found else None


def hand_on(component: Running, outputs: Outputs, payload: Metrics | None) -> None:
    """Pass on what ``component`` made by itself. Nobody waits to hear that it was refused: its
    health and the log say so.
    """
    if payload is None:
        return
    try:
        outputs.metrics(payload)
    except Refused as refused:
        component.last_error = str(refused)
        component.context.log.warning("metrics were not taken: %s", refused)
    else:
        component.last_error = ""


def as_input(consumer: Consumer) -> Mapping[str, Value]:
    """The exports of a component that is a consumer."""
    return {"input": Capsule(CONSUMER, consumer)}


def seconds(value: Value) -> float:
    """A duration of a configuration, which is in nanoseconds."""
    return float(value or 0) / 1e9
