# SPDX-License-Identifier: Apache-2.0
"""What watching costs a service at a rate that otelauto keeps up with: all of it is captured."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from tests.e2e.harness.process import Process

from benches.compare import warm_up
from benches.harness import (
    BENCHES,
    OTHER_CPU,
    READY,
    ROOT,
    Bench,
    BenchError,
    background_load,
    cpu_ns,
    metrics_only,
    pinned,
)
from benches.report import Budget, Figure, Section
from benches.services import ITEM, SERVICES, Running, running
from benches.switched import OFF, ON, WORDS
from otelauto.control import ask

RATE = 10_000
NAMES = ("epoll", "nginx", "go")
WINDOW_S = 0.25  # of one side of a pair
SETTLE_S = 0.06  # after a switch: longer than a turn of otelauto
TITLE = "Cost added to a service at a steady rate"
HOW = (
    f"A paced client sends {RATE:,} requests per second and shares CPU 0 with the service; what"
    " watches has CPU 1 for itself and is switched on and off, so that two windows of"
    f" {WINDOW_S} s with the same load lie side by side; which one comes first changes. A"
    " measurement is the median of the differences of its windows. The service does the same work"
    " in the same portions in both cases, and every request is captured, so this is the cost of"
    " capturing and nothing else. Plaintext of TLS is off: to put probes into a program and take"
    " them out lasts longer than a window. *Empty programs* sit on the same two hooks and do"
    " nothing: no program there can cost less."
)
HEADER = ("service", "with", "service CPU without, us/request", "added, us/request", "windows")


@dataclass(frozen=True)
class Switch:
    """A process of benches/switched.py."""

    process: Process

    def throw(self, number: int) -> None:
        """Switch, and wait until it is so."""
        os.kill(self.process.pid, number)
        self.expect(number)
        time.sleep(SETTLE_S)

    def expect(self, number: int) -> None:
        assert self.process.popen.stdout is not None
        said = self.process.popen.stdout.readline().decode().strip()
        if said != WORDS[number]:
            raise BenchError(f"the switch said {said!r}: {self.process.stderr()}")


@contextlib.contextmanager
def _switched(bench: Bench, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Switch]:
    command = pinned(OTHER_CPU, [sys.executable, "-m", "benches.switched", *words])
    settings = {"PYTHONPATH": str(ROOT), **(env or {})}
    errors = bench.directory / "switched.err"
    with Process(command, errors, env=settings, stdout=subprocess.PIPE) as process:
        yield Switch(process)


@contextlib.contextmanager
def _otelauto(bench: Bench, service: Running) -> Iterator[Switch]:
    env = {
        "OTELAUTO_CONTROL_SOCKET": str(bench.directory / "control.sock"),
        "OTELAUTO_EBPF_TLS_PLAINTEXT": "false",
        **metrics_only(),
    }
    with _switched(bench, "otelauto", "--open-port", str(service.port), env=env) as switch:
        switch.process.wait_for(lambda: READY in switch.process.stderr(), "otelauto is ready")
        yield switch
        if not ask(bench.directory / "control.sock")["spans"]:
            raise BenchError(f"otelauto saw nothing: {switch.process.stderr()}")


@contextlib.contextmanager
def _empty(bench: Bench, _: Running) -> Iterator[Switch]:
    build = [sys.executable, ROOT / "bpf" / "build.py", bench.directory]
    subprocess.run([*build, BENCHES / "load" / "empty.bpf.c"], check=True, capture_output=True)
    with _switched(bench, "empty", str(bench.directory)) as switch:
        switch.expect(OFF)
        yield switch


KINDS = {"otelauto, metrics": _otelauto, "empty programs": _empty}


def _window(pids: list[int]) -> float:
    """CPU time of the service, us per request."""
    used, began = cpu_ns(pids), time.monotonic()
    time.sleep(WINDOW_S)
    return (cpu_ns(pids) - used) / (time.monotonic() - began) / RATE / 1000


def _differences(bench: Bench, service: Running, switch: Switch) -> tuple[list[float], list[float]]:
    """(us/request without, us/request added), a pair of windows each."""
    count = 2 * bench.settings.seconds
    seconds = 2 * count * (WINDOW_S + 2 * SETTLE_S) + 1
    without, added = [], []
    pids = service.process.pids()
    with background_load(RATE, seconds, ITEM, [service.port]) as finish:
        for turn in range(count):
            found = {}
            for number in (ON, OFF) if turn % 2 else (OFF, ON):
                switch.throw(number)
                found[number] = _window(pids)
            without.append(found[OFF])
            added.append(found[ON] - found[OFF])
        load = finish()
    if load.rate < 0.99 * RATE:
        raise BenchError(f"the load reached {load.rate:.0f} requests per second only")
    return without, added


def steady(bench: Bench) -> Section:
    """The compiled services: of a Python request, what is added is too small a part to be seen."""
    section = Section(TITLE, HOW, HEADER)
    for name in NAMES[:1] if bench.settings.only_shows else NAMES:
        title = SERVICES[name].title
        with running(SERVICES[name].command, bench.directory, name) as service:
            warm_up(service)
            for kind, start in KINDS.items():
                without: list[float] = []
                added: list[list[float]] = []
                for _ in range(bench.settings.pairs):
                    with start(bench, service) as switch:
                        base, more = _differences(bench, service, switch)
                    without += base
                    added.append(more)
                figure = Figure([median(block) for block in added], "us")
                windows = str(sum(map(len, added)))
                cells = (title, kind, f"{median(without):.2f}", str(figure), windows)
                section.rows.append(cells)
                if start is _otelauto:
                    what = f"CPU added to a request: {title}, {RATE:,} requests/s"
                    section.budgets.append(Budget(what, figure, 0.7))
    return section
