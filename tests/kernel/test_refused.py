# SPDX-License-Identifier: Apache-2.0
"""A target that finds the table of targets full is counted, and watched once there is room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from otelauto.config import Purpose, load
from otelauto.config.kinds import MAX_PID
from otelauto.counters import Counters
from otelauto.errors import KernelError
from otelauto.instrument import TARGETS_REFUSED, Watcher
from otelauto.kernel.capture import Capture

pytestmark = pytest.mark.kernel
ROOM = 16_384  # targets in bpf/targets.h
KTHREADD = 2


def fill(capture: Capture) -> list[int]:
    """Watch ids that no process can have until there is no room; returns them."""
    fillers = []
    for tgid in range(MAX_PID + 1, MAX_PID + 1 + 2 * ROOM):
        try:
            capture.watch(tgid)
        except KernelError:
            return fillers
        fillers.append(tgid)
    raise AssertionError("the table is never full")


@pytest.fixture
def named() -> list[int]:
    return []


@pytest.fixture
def watcher(named: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    """It looks for this very process, and takes a kernel thread for itself; not started."""
    monkeypatch.setattr("otelauto.instrument.ProcFs.own_tgid", lambda procfs: KTHREADD)
    config = load(None, {}, {"--pid": str(os.getpid())}, Purpose.WATCH).config
    made = Watcher(config, Counters(), on_target=lambda tgid, service: named.append(tgid))
    with closing(made):
        yield made


def scan(watcher: Watcher) -> None:
    """One turn, in which a scan of /proc is due."""
    watcher.discovery._next_scan = 0.0
    watcher.turn(lambda record: None)


def test_what_was_refused_is_tried_again(
    watcher: Watcher, named: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    fillers = fill(watcher.capture)
    assert len(fillers) > ROOM / 2
    watcher.start()
    scan(watcher)
    assert named == []
    assert watcher.targets() == []
    assert watcher._counters.get(TARGETS_REFUSED) == 1
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"cannot watch process {os.getpid()}: ")
    for tgid in fillers:
        watcher.capture.unwatch(tgid)
    scan(watcher)
    assert named == [os.getpid()]
    assert [target.tgid for target in watcher.targets()] == named
    scan(watcher)
    assert named == [os.getpid()]
    assert watcher._counters.get(TARGETS_REFUSED) == 1


def test_a_refused_process_that_ended_is_forgotten(watcher: Watcher, named: list[int]) -> None:
    fillers = fill(watcher.capture)
    watcher.start()
    watcher._apply(watcher.discovery.on_exit(os.getpid()))  # as if its id were free again
    for tgid in fillers:
        watcher.capture.unwatch(tgid)
    watcher._retry_refused()
    assert named == []
