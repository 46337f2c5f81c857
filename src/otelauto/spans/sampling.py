# SPDX-License-Identifier: Apache-2.0
"""Which spans are exported. Every exchange is measured, whatever is decided here.

Samplers are those of the OpenTelemetry specification
(https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers), head sampling by the trace
id and the parent's flag. A span is known when its exchange is over, so one that failed or was slow
can be kept although its trace was not sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from otelauto.flows.vocabulary import Exchange
from otelauto.spans.conditions import Test, Written, every
from otelauto.spans.parent import SAMPLED
from otelauto.spans.span import Fate, Span

# The trace id's last 8 bytes but the lowest bit, as the SDKs of Go and Python compare them: the
# same traces are sampled here as there.
ALL: Final = 1 << 63
BUDGET_ALL: Final = 1 << 56  # the random part of a trace id: its last 7 bytes (W3C, level 2)


class Thresholds(NamedTuple):
    """Whose number of the trace id is below is sampled: without parent, by the parent's flag."""

    root: int
    sampled: int
    unsampled: int


Rule = tuple[Sequence[Written], str, float]  # conditions, sampler, ratio


def thresholds(sampler: str, ratio: float = 1.0) -> Thresholds:
    """The truth table of a sampler. ``ratio`` is that of the ``traceidratio`` samplers.

    Raises:
        ValueError: there is no such sampler.
    """
    base, based = sampler.removeprefix("parentbased_"), sampler.startswith("parentbased_")
    shares = {"always_on": 1.0, "always_off": 0.0, "traceidratio": ratio}
    if base not in shares:
        raise ValueError(f"no sampler: {sampler!r}")
    below = int(shares[base] * ALL)
    return Thresholds(below, ALL, 0) if based else Thresholds(below, below, below)


def trace_number(trace_id: bytes) -> int:
    """What samplers compare with a threshold."""
    return int.from_bytes(trace_id[8:]) >> 1


class Sampling:
    """The stage that decides on a span that nothing before has decided on.

    The first rule whose conditions hold names the sampler, else it is the default one.
    ``keep_slow_ns``: spans that take so long are kept; 0: none is for that.
    """

    def __init__(
        self,
        default: Thresholds,
        rules: Sequence[Rule] = (),
        *,
        keep_errors: bool = False,
        keep_slow_ns: int = 0,
    ) -> None:
        self._default = default
        self._rules: list[tuple[Test, Thresholds]] = [
            (every(conditions), thresholds(sampler, ratio)) for conditions, sampler, ratio in rules
        ]
        self.keep_errors = keep_errors
        self.keep_slow_ns = keep_slow_ns
        self.budget = BUDGET_ALL  # traces whose random part is below are what may be afforded

    def __call__(self, exchange: Exchange, span: Span) -> None:
        """Set the span's fate, and the flag of one that is exported."""
        if span.fate is not Fate.EXPORTED:
            return
        if not self._sampled(span):
            span.fate = Fate.UNSAMPLED
        elif int.from_bytes(span.trace_id[-7:]) >= self.budget:
            span.fate = Fate.OVER_BUDGET
        else:
            span.trace_flags |= SAMPLED

    def policy(self, span: Span) -> Thresholds:
        """The thresholds of spans like this one: they depend on no ids."""
        for test, found in self._rules:
            if test(span):
                return found
        return self._default

    def _sampled(self, span: Span) -> bool:
        if self.keep_errors and span.error:
            return True
        if self.keep_slow_ns and span.end_ns - span.start_ns >= self.keep_slow_ns:
            return True
        policy = self.policy(span)
        if not span.parent_id:
            below = policy.root
        else:
            below = policy.sampled if span.trace_flags & SAMPLED else policy.unsampled
        return trace_number(span.trace_id) < below
