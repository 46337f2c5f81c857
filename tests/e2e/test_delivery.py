# SPDX-License-Identifier: Apache-2.0
"""Long outages and kills: what was produced is delivered, is on disk, or is counted."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness.process import free_port, wait_until
from tests.house.scan import ROOT
from tests.scale import PATIENCE, SCALE
from tests.unit.test_otlp_http import Receiver

pytestmark = pytest.mark.e2e

RATE = 1000
# The whole of it is ten minutes of a thousand spans a second, from a scale of 20 on.
OUTAGE_SPANS = min(600_000, 30_000 * SCALE)
OUTAGE_RATE = RATE if SCALE > 1 else 4 * RATE
KILLS = min(100, 5 * SCALE)
MOST_LOST_S = 1.0
MIB = 1 << 20


class Feeder:
    """A running harness/feeder.py; ``reports`` grows. ``last`` is its latest report."""

    def __init__(self, port: int, directory: Path, rate: int, first: int, *more: int) -> None:
        url = f"http://127.0.0.1:{port}/v1/traces"
        words = [url, directory / "spool", rate, first, *more]
        self._errors = (directory / "feeder.err").open("ab")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.harness.feeder", *map(str, words)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=self._errors, env={**os.environ},
        )  # fmt: skip
        self.reports: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout:
            lines = (line for line in self.popen.stdout if line.endswith(b"\n"))
            self.reports.extend(map(json.loads, lines))

    @property
    def last(self) -> dict[str, Any]:
        wait_until(lambda: bool(self.reports), "the feeder reports")
        return self.reports[-1]

    def end(self, sent: signal.Signals) -> float:
        """Send a signal; returns how long it took to end, in seconds."""
        began = time.monotonic()
        self.popen.send_signal(sent)
        self.popen.wait(60 * PATIENCE)
        took = time.monotonic() - began
        self._thread.join(20)
        self._errors.close()
        return took

    def wait_for_number(self, number: int, seconds: float = 60.0) -> None:
        """Until the span of that number was offered."""
        self.wait_for(lambda last: bool(last["last"] >= number), seconds)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> None:
        """Until a report is ``wanted`` that is made from now on."""
        seen = len(self.reports)
        wait_until(
            lambda: len(self.reports) > seen and wanted(self.last), "what is wanted", seconds
        )


@contextlib.contextmanager
def fed(*words: Any) -> Iterator[Feeder]:
    feeder = Feeder(*words)
    try:
        yield feeder
    finally:
        if feeder.popen.poll() is None:
            feeder.end(signal.SIGKILL)


@contextlib.contextmanager
def receiving(port: int) -> Iterator[Receiver]:
    receiver = Receiver(port=port)
    try:
        yield receiver
    finally:
        receiver.close()


@pytest.mark.timeout(1200)
def test_a_long_outage_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    with fed(port, tmp_path, OUTAGE_RATE, 0) as feeder:
        with receiving(port) as before:
            wait_until(lambda: len(before.requests) > 2, "spans arrive")
        sent = len(before.span_numbers())
        start = feeder.last["rss"]
        feeder.wait_for_number(OUTAGE_SPANS, 3 * OUTAGE_SPANS / OUTAGE_RATE)
        waiting = feeder.last["spooled"]
        assert waiting > OUTAGE_SPANS - sent - 4 * OUTAGE_RATE
        with receiving(port) as after:
            began = time.monotonic()
            feeder.wait_for(lambda last: last["spooled"] == 0)
            took = time.monotonic() - began
            assert feeder.end(signal.SIGTERM) < 5 * PATIENCE
            numbers = [*before.span_numbers(), *after.span_numbers()]
    final = feeder.last
    assert final["dropped"] == {}
    assert set(numbers) == set(range(final["last"] + 1))
    twice = len(numbers) - len(set(numbers))
    assert twice <= OUTAGE_RATE, "more than the batch that was in flight"
    late = after.span_numbers()
    assert late == sorted(late)
    grown = max(report["rss"] for report in feeder.reports) - start
    largest = max(report["spool_bytes"] for report in feeder.reports)
    print(
        f"{final['last'] + 1} spans, {waiting} on disk in {largest / MIB:.1f} MiB, drained in"
        f" {took:.1f} s, memory grew by {grown / MIB:.1f} MiB, {twice} twice"
    )
    assert grown <= 20 * MIB
    assert largest <= 200_000_000


@pytest.mark.timeout(600)
def test_beyond_the_cap_what_is_lost_is_counted(tmp_path: Path) -> None:
    port = free_port()
    with fed(port, tmp_path, 4 * RATE, 0, MIB // 4) as feeder:
        feeder.wait_for(lambda last: last["dropped"].get("spool_full", 0) > 2000)
        with receiving(port) as receiver:
            feeder.wait_for(lambda last: last["spooled"] == 0)
            feeder.end(signal.SIGTERM)
            numbers = receiver.span_numbers()
    final = feeder.last
    assert set(final["dropped"]) == {"spool_full"}
    assert len(numbers) == len(set(numbers)) == final["sent"]
    assert final["last"] + 1 == final["sent"] + final["dropped"]["spool_full"]


@pytest.mark.timeout(1200)
def test_kill_9_under_load_loses_at_most_a_second(tmp_path: Path) -> None:
    """Again and again, with an endpoint that is there, is not, or does not know."""
    port = free_port()
    rng = random.Random(9)
    numbers: list[int] = []
    lives: list[tuple[int, float, list[dict[str, Any]]]] = []
    first = 0
    for round_ in range(KILLS):
        with contextlib.ExitStack() as stack:
            receiver = stack.enter_context(receiving(port)) if round_ % 3 else None
            if receiver is not None and round_ % 3 == 2:
                receiver.replies = [(503, {}, b"")] * 5
            feeder = stack.enter_context(fed(port, tmp_path, RATE, first))
            feeder.wait_for_number(first + rng.randrange(900, 2200))
            killed_at = time.monotonic()
            feeder.end(signal.SIGKILL)
            numbers += receiver.accepted_numbers() if receiver is not None else []
            lives.append((first, killed_at, feeder.reports))
            first = feeder.reports[-1]["last"] + 10_000  # it may have offered more than it told of
    with receiving(port) as receiver, fed(port, tmp_path, RATE, first) as feeder:
        feeder.wait_for(lambda last: last["last"] > first and last["spooled"] == 0)
        feeder.end(signal.SIGTERM)
        numbers += receiver.accepted_numbers()
        assert feeder.last["dropped"] == {}
    arrived = Counter(numbers)
    lost_s = [lost_seconds(*life, arrived) for life in lives]
    print(f"{KILLS} kills: at most {max(lost_s):.2f} s of spans lost")
    assert max(lost_s) <= MOST_LOST_S * PATIENCE
    assert max(arrived.values()) <= 2
    assert sum(count - 1 for count in arrived.values()) <= KILLS * 2 * RATE


def lost_seconds(
    first: int, killed_at: float, reports: list[dict[str, Any]], arrived: Counter[int]
) -> float:
    """How long before the kill the oldest span was offered that did not arrive."""
    known = first
    for report in reports:
        for number in range(known, report["last"] + 1):
            if number not in arrived:
                return killed_at - float(report["at"])
        known = max(known, report["last"] + 1)
    return 0.0
