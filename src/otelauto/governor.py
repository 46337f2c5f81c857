# SPDX-License-Identifier: Apache-2.0
"""Keeps otelauto's own cost under a limit: detail is given up in a written order, and comes back.

Two costs are known: the CPU time of this process, and the run time of the BPF programs, which the
services pay. The kernel counts the latter on request only, and counting costs too, so it is
sampled: one look of every SAMPLE_EVERY.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from otelauto.counters import Counters, Meaning
from otelauto.errors import KernelError
from otelauto.kernel.objects import ProgramCost
from otelauto.kernel.statistics import run_time_statistics

log = logging.getLogger("otelauto.governor")

LOOK_INTERVAL_S: Final = 1.0
PATIENCE: Final = 3  # looks in a row over the limit before a step down
CALM_LOOKS: Final = 30  # looks in a row under CALM_SHARE of the limit before a step back up
CALM_SHARE: Final = 0.5
DETACHED_S: Final = 60.0
SAMPLE_EVERY: Final = 5

STEPS_TAKEN: Final = Meaning(
    "overhead_steps",
    "Times that detail was given up because otelauto cost more than max_overhead allows, by what "
    "was reached: short_heads, sampled_spans, metrics_only, detached.",
    "step",
)


class Step(enum.IntEnum):
    """How much is given up; each step includes those before it."""

    FULL = 0
    SHORT_HEADS = 1
    SAMPLED_SPANS = 2
    METRICS_ONLY = 3
    DETACHED = 4


# Of all traces, at each step. The metrics still measure every exchange.
SPAN_SHARES: Final = {
    Step.FULL: 1.0,
    Step.SHORT_HEADS: 1.0,
    Step.SAMPLED_SPANS: 0.1,
    Step.METRICS_ONLY: 0.0,
    Step.DETACHED: 0.0,
}


@dataclass(frozen=True, slots=True)
class Usage:
    """Shares of one CPU. ``programs`` is ``None`` where it was not measured."""

    agent: float
    programs: float | None = None


class Meter:
    """Measures :class:`Usage` between calls. ``costs`` are the loaded BPF programs'."""

    def __init__(self, costs: Callable[[], Iterable[ProgramCost]], measure_programs: bool) -> None:
        self._costs = costs
        self._sampling = ExitStack()
        self._measure_programs = measure_programs
        self._looks = 0
        self._at = time.monotonic()
        self._used = time.process_time()
        self._ran: int | None = None  # ns, when this sample began

    def read(self) -> Usage:
        """The usage since the last call; the programs' in one call of SAMPLE_EVERY."""
        now, used = time.monotonic(), time.process_time()
        elapsed = max(now - self._at, 1e-9)
        agent = (used - self._used) / elapsed
        programs = None
        if self._ran is not None:
            programs = (self._run_time_ns() - self._ran) / 1e9 / elapsed
            self._stop()
        self._looks += 1
        if self._measure_programs and self._looks % SAMPLE_EVERY == 1:
            self._begin()
        self._at, self._used = now, used
        return Usage(agent, programs)

    def _run_time_ns(self) -> int:
        return sum(cost.run_time_ns for cost in self._costs())

    def _begin(self) -> None:
        try:
            self._sampling.enter_context(run_time_statistics())
        except KernelError as error:
            self._measure_programs = False
            log.warning("max_overhead.programs has no effect: %s", error.message)
            return
        self._ran = self._run_time_ns()

    def _stop(self) -> None:
        self._sampling.close()
        self._ran = None

    def close(self) -> None:
        """Stop counting."""
        self._stop()


class Governor:
    """Decides the step. ``apply`` is called with each new one, by the thread that calls look().

    Limits are shares of one CPU; 0 is no limit.
    """

    def __init__(
        self,
        agent: float,
        programs: float,
        read: Callable[[], Usage],
        counters: Counters,
        apply: Callable[[Step], None],
    ) -> None:
        self._limits = (agent, programs)
        self.has_limits = any(self._limits)
        self._read = read
        self._counters = counters
        self._apply = apply
        self.step = Step.FULL
        self._over = self._calm = 0
        self._last_programs = 0.0
        self._next_look = 0.0
        self._attach_at = 0.0

    def look(self, now: float) -> None:
        """Take one look if it is time; ``now`` is in seconds of the monotonic clock."""
        if not self.has_limits or now < self._next_look:
            return
        self._next_look = now + LOOK_INTERVAL_S
        usage = self._read()
        if usage.programs is not None:
            self._last_programs = usage.programs
        if self.step is Step.DETACHED:
            if now >= self._attach_at:
                self._move(Step.METRICS_ONLY, usage)
            return
        share = self._share_of_limit(usage)
        self._over = self._over + 1 if share > 1 else 0
        self._calm = self._calm + 1 if share < CALM_SHARE else 0
        if self._over >= PATIENCE:
            self._attach_at = now + DETACHED_S
            self._move(Step(self.step + 1), usage)
            self._counters.add(STEPS_TAKEN, label=self.step.name.lower())
        elif self._calm >= CALM_LOOKS and self.step is not Step.FULL:
            self._move(Step(self.step - 1), usage)

    def _share_of_limit(self, usage: Usage) -> float:
        agent, programs = self._limits
        return max(
            usage.agent / agent if agent else 0.0,
            self._last_programs / programs if programs else 0.0,
        )

    def _move(self, step: Step, usage: Usage) -> None:
        self._over = self._calm = 0
        self._last_programs = 0.0  # what was measured before the step says nothing of it
        log.warning(
            "overhead %s: agent %.1f%% and BPF programs %.1f%% of a CPU",
            f"step {self.step.name.lower()} -> {step.name.lower()}",
            100 * usage.agent,
            100 * (usage.programs or 0.0),
        )
        self.step = step
        self._apply(step)
