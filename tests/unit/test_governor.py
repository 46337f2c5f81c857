# SPDX-License-Identifier: Apache-2.0
"""Detail is given up in order while otelauto costs too much, and comes back when it does not."""

from __future__ import annotations

from itertools import count

import pytest

from otelauto import governor
from otelauto.counters import Counters
from otelauto.errors import KernelError
from otelauto.governor import CALM_LOOKS, DETACHED_S, PATIENCE, Governor, Meter, Step, Usage
from otelauto.kernel.objects import ProgramCost


class Machine:
    """A governor, a clock that it is asked by, and the usage that it reads."""

    def __init__(self, agent: float = 0.0, programs: float = 0.0) -> None:
        self.usage = Usage(0.0)
        self.steps: list[Step] = []
        self.counters = Counters()
        self.now = 0.0
        self.governor = Governor(
            agent, programs, lambda: self.usage, self.counters, self.steps.append
        )

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += governor.LOOK_INTERVAL_S
            self.governor.look(self.now)


def test_without_a_limit_nothing_is_given_up() -> None:
    machine = Machine()
    machine.usage = Usage(1.0, 1.0)
    machine.look(100)
    assert machine.steps == []


@pytest.mark.parametrize("usage", [Usage(0.3, 0.0), Usage(0.0, 0.06)])
def test_detail_is_given_up_in_order_under_either_limit(usage: Usage) -> None:
    machine = Machine(agent=0.2, programs=0.05)
    machine.usage = usage
    machine.look(PATIENCE - 1)
    assert machine.steps == []
    machine.look(1 + 3 * PATIENCE)
    assert machine.steps == [
        Step.SHORT_HEADS, Step.SAMPLED_SPANS, Step.METRICS_ONLY, Step.DETACHED,
    ]  # fmt: skip
    for step in machine.steps:
        assert machine.counters.get(governor.STEPS_TAKEN, step.name.lower()) == 1


def test_a_short_peak_costs_nothing() -> None:
    machine = Machine(agent=0.2)
    for _ in range(50):
        machine.usage = Usage(0.9)
        machine.look(PATIENCE - 1)
        machine.usage = Usage(0.19)
        machine.look()
    assert machine.steps == []


def test_detail_comes_back_a_step_at_a_time_and_only_well_below_the_limit() -> None:
    machine = Machine(agent=0.2)
    machine.usage = Usage(0.3)
    machine.look(2 * PATIENCE)
    machine.usage = Usage(0.15)
    machine.look(2 * CALM_LOOKS)
    assert machine.governor.step is Step.SAMPLED_SPANS
    machine.usage = Usage(0.01)
    machine.look(CALM_LOOKS)
    assert machine.governor.step is Step.SHORT_HEADS
    machine.look(2 * CALM_LOOKS)
    assert machine.steps[2:] == [Step.SHORT_HEADS, Step.FULL]


def test_after_a_while_it_attaches_again_and_leaves_again_if_it_must() -> None:
    machine = Machine(agent=0.2)
    machine.usage = Usage(0.3)
    machine.look(4 * PATIENCE)
    assert machine.governor.step is Step.DETACHED
    machine.look(int(DETACHED_S / governor.LOOK_INTERVAL_S) - 1)
    assert machine.governor.step is Step.DETACHED
    machine.look(1)
    assert machine.governor.step is Step.METRICS_ONLY
    machine.look(PATIENCE)
    assert machine.governor.step is Step.DETACHED


def test_it_does_not_look_more_often_than_it_should() -> None:
    machine = Machine(agent=0.2)
    machine.usage = Usage(0.3)
    for tenth in range(10 * PATIENCE):
        machine.governor.look(tenth / 10)
    assert len(machine.steps) == 1


def test_what_was_measured_before_a_step_does_not_count_after_it() -> None:
    machine = Machine(programs=0.05)
    machine.usage = Usage(0.0, 0.5)
    machine.look(PATIENCE)
    machine.usage = Usage(0.0)
    machine.look(2 * PATIENCE)
    assert machine.steps == [Step.SHORT_HEADS]


# ---- the meter ----


def cost(run_time_ns: int) -> ProgramCost:
    return ProgramCost("sock_recv", 1, run_time_ns, 1, 0, 1)


def test_the_agents_share_is_that_of_this_process() -> None:
    meter = Meter(list, measure_programs=False)
    spent = 0
    for number in range(200_000):
        spent += number
    busy = meter.read()
    assert 0.02 < busy.agent < 1.5, spent  # others may have most of the processor
    assert busy.programs is None


@pytest.mark.kernel
def test_programs_are_measured_in_one_look_of_some() -> None:
    total = count(0, 1_000_000)
    meter = Meter(lambda: [cost(next(total))], measure_programs=True)
    shares = [meter.read().programs for _ in range(2 * governor.SAMPLE_EVERY + 2)]
    meter.close()
    measured = [number for number, share in enumerate(shares) if share is not None]
    assert measured == [1, 1 + governor.SAMPLE_EVERY, 1 + 2 * governor.SAMPLE_EVERY]
    assert all(share > 0 for share in shares if share is not None)


def test_without_permission_the_programs_are_not_measured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> None:
        raise KernelError("the kernel does not count", "run as root")

    monkeypatch.setattr(governor, "run_time_statistics", refused)
    meter = Meter(list, measure_programs=True)
    assert [meter.read().programs for _ in range(10)] == [None] * 10
    assert caplog.text.count("max_overhead.programs has no effect") == 1
