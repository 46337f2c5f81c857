# SPDX-License-Identifier: Apache-2.0
"""``make bench-vm``: instructions per request, in an emulated machine whose clock counts them.

Writes benches/RESULTS-VM.md, unless BENCH_ROWS or BENCH_COLUMNS ask for a part (names divided by
spaces): that is only printed. BENCH_SECONDS (of the guest's clock) and BENCH_PAIRS say how long.
Each row is a boot of its own. Needs root, and what `make bench-vm` installs before.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.vm.guest import NoGuestError, compile_sources, find_kernel, run

from benches.counted import AGENT, COLUMNS, CONNECTIONS, METRICS, REST_SECONDS, ROWS, SERVED, TRACES
from benches.harness import BENCHES, BenchError, Settings
from benches.report import Budget, Figure, Section, merged, own_version, page, said

COMMAND = "make bench-vm"
KERNEL = "6.12"
BOOT_SECONDS = 3600  # of this machine's clock, for one row; it may be busy
PATIENCE = 20  # files of the host come late by the guest's clock
PAIRS, SECONDS = 2, 2
KILO, MB, MIB = 1e3, 1e6, 2**20
UNIT = "thousand"
LABELS = {METRICS: "Prometheus", TRACES: "Prometheus + OTLP traces"}
# thousand instructions per request: what watching may add to the service, what otelauto may take
GOAL, LIMIT = 2.5, 4
AGENT_LIMITS = {METRICS: 4, TRACES: 10}

ABOUT = (
    "Counted, not timed: the emulated machine has one CPU, and its clock is the number of"
    " instructions that it has executed, one a nanosecond. So CPU time is a count of instructions,"
    " repeatable to about 1 % whatever else this machine does. What it leaves out: caches, and the"
    " price of a trap into the kernel. A figure is a median; the smallest and the largest follow"
    " in parentheses."
)
PAGE = "Instructions, counted in an emulated machine"
TITLE = "Instructions per request"
HOW = (
    f"wrk, {CONNECTIONS} kept connections, asks for all that the service gives; everything shares"
    " the one CPU. In thousands of instructions, user space and kernel: `service` is what the"
    " control group of the service executed per request, `otelauto` what its own did, until its"
    " queues were empty again. *Prometheus*: metrics on a page that nobody scrapes;"
    " *+ OTLP traces*: every span sent too, by OTLP/HTTP without compression. `records dropped`"
    " had no room in the kernel's ring, `spans given up` none in an exporter's queue."
)
HEADER = (
    "service", "with", "requests/s without", "requests/s with", "service, without",
    "service, with", "added", "otelauto", "spans per request", "records dropped", "spans given up",
    "RSS, MB", "BPF maps", "BPF programs",
)  # fmt: skip
AGENT_TITLE = "Start and rest"
AGENT_HOW = (
    "*First span*: seconds of the guest's clock from the start of the process to the first span"
    " printed, while a client sends 200 requests per second; files are in the page cache. A real"
    " CPU executes several instructions a nanosecond. *Executed until then*: by otelauto itself."
    f" *At rest*: one server is watched for {REST_SECONDS} s and nobody asks it anything."
)
Row = dict[str, Any]


def _measured(name: str, columns: list[str], settings: Settings) -> Any:
    """What benches.counted says of one row in the guest. Raises BenchError."""
    command = (
        f"TEST_PATIENCE={PATIENCE} BENCH_PAIRS={settings.pairs} BENCH_SECONDS={settings.seconds}"
        f" .venv/bin/python -m benches.counted {name} {' '.join(columns)}"
    )
    ended = run(find_kernel(KERNEL), command, seconds=BOOT_SECONDS, counting=True)
    if ended.code != 0:
        raise BenchError(f"{name}: exit code {ended.code}: {ended.output[-4000:]}")
    print(f"{name}: {ended.seconds:.0f} s", file=sys.stderr, flush=True)
    return json.loads(ended.output.splitlines()[-1])


def _figure(rows: list[Row], field: str, scale: float = 1, digits: int = 0) -> Figure:
    return Figure([row[field] / scale for row in rows], digits=digits)


def _cells(title: str, column: str, without: list[Row], with_: list[Row]) -> tuple[str, ...]:
    last = with_[-1]  # what does not depend on the load is the same each time
    return (
        title,
        LABELS[column],
        str(_figure(without, "rate")),
        str(_figure(with_, "rate")),
        str(_figure(without, "service", KILO, 2)),
        str(_figure(with_, "service", KILO, 2)),
        str(_added(without, with_)),
        str(_figure(with_, "agent", KILO, 2)),
        str(_figure(with_, "spans", 1, 3)),
        str(_figure(with_, "dropped")),
        str(_figure(with_, "given_up")),
        str(_figure(with_, "rss", MB, 1)),
        f"{last['maps']}, {last['kernel_memory'] / MIB:.1f} MiB",
        str(last["programs"]),
    )


def _added(without: list[Row], with_: list[Row]) -> Figure:
    pairs = zip(without, with_, strict=True)
    return Figure([(after["service"] - before["service"]) / KILO for before, after in pairs], UNIT)


def service_section(name: str, figures: dict[str, list[Row]]) -> Section:
    """The rows and budgets of one service, of what benches.counted says of it."""
    section = Section(TITLE, HOW, HEADER)
    title, without = SERVED[name].title, figures["none"]
    for column in (each for each in COLUMNS if each in figures):
        with_ = figures[column]
        what, added = f"{title}, {LABELS[column]}", _added(without, with_)
        section.rows.append(_cells(title, column, without, with_))
        section.budgets += [
            Budget(f"added to a request (goal): {what}", added, GOAL),
            Budget(f"added to a request (limit): {what}", added, LIMIT),
            Budget(
                f"otelauto, a request: {what}",
                replace(_figure(with_, "agent", KILO, 2), unit=UNIT),
                AGENT_LIMITS[column],
            ),
        ]
    return section


def agent_section(figures: Row) -> Section:
    """What does not depend on the service."""
    start = Figure(figures["first_span"], "s")
    maps = Figure([figures["kernel_memory"] / MIB], "MiB", 1)
    row = (
        str(start),
        f"{Figure(figures['start']).median / 1e6:,.0f} million",
        f"{figures['at_rest'] / KILO:,.0f} thousand/s",
        f"{figures['rss'] / MB:.1f}",
        f"{figures['maps']}, {maps}",
        str(figures["programs"]),
    )
    header = ("first span", "executed until then", "at rest", "RSS, MB", "BPF maps", "BPF programs")
    budgets = [
        Budget("from start to the first span published", start, 1),
        Budget("BPF maps, one target", maps, 16),
    ]
    return Section(AGENT_TITLE, AGENT_HOW, header, [row], budgets)


def facts(settings: Settings) -> list[tuple[str, str]]:
    """Where the figures come from."""
    return [
        ("command", f"`{COMMAND}`"),
        ("settings", str(settings)),
        ("kernel", find_kernel(KERNEL).name.removeprefix("vmlinuz-")),
        ("emulator", said("qemu-system-x86_64", "--version")),
        ("otelauto", own_version()),
        ("Python", platform.python_version()),
        ("wrk", said("wrk", "-v")),
        ("nginx", said("nginx", "-v")),
        ("Go", said("go", "env", "GOVERSION")),
    ]


def _chosen(variable: str, known: Sequence[str]) -> list[str]:
    """The names that the environment asks for; all without it. Raises BenchError."""
    names = os.environ.get(variable, "").split() or list(known)
    if unknown := set(names) - set(known):
        raise BenchError(
            f"{variable}: no {' '.join(sorted(unknown))} (there are: {' '.join(known)})"
        )
    return names


def measure(rows: list[str], columns: list[str], settings: Settings) -> list[Section]:
    """Boot once for each row."""
    sections = []
    for name in rows:
        figures = _measured(name, columns, settings)
        sections.append(agent_section(figures) if name == AGENT else service_section(name, figures))
    return merged(sections)


def main() -> int:
    settings = Settings.from_environment(seconds=SECONDS, pairs=PAIRS)
    try:
        rows, columns = _chosen("BENCH_ROWS", ROWS), _chosen("BENCH_COLUMNS", COLUMNS)
        subprocess.run([BENCHES / "install.sh"], check=True, stdout=sys.stderr)
        compile_sources()
        where = facts(settings)
        sections = measure(rows, columns, settings)
    except (BenchError, NoGuestError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    text = page(COMMAND, where, sections, title=PAGE, about=ABOUT)
    print(text)
    if set(rows) == set(ROWS) and set(columns) == set(COLUMNS):
        (BENCHES / "RESULTS-VM.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
