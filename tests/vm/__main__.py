# SPDX-License-Identifier: Apache-2.0
"""`make test-kernels`: the kernel tests and a slice of the end-to-end tests under other kernels.

    python -m tests.vm RELEASE...

Prints a row for each kernel and part of the tests: the tier of capture, and what became of them.
Exit code 1 when a test fails, or when a kernel does not boot; a skipped test is listed with its
reason.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.vm.guest import Ended, NoGuestError, find_kernel, run

SECONDS = 3000  # for one part under one kernel, on a machine that does other work too
SLOWER = 20  # software emulation: deadlines of tests are longer by that
FIRST_WITH_A = (6, 3)
COUNTS = re.compile(r"(\d+) (passed|failed|error|errors|skipped)\b")
TIER = re.compile(r"^(?:capture: |  ok      )tier (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """Tests that one boot runs. ``tier``: hold them to it; "" is the best that the kernel has."""

    name: str
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    tier: str = ""
    before: str = ""
    parameters: str = ""  # of the kernel

    def command(self, release: str) -> str:
        """What the guest runs."""
        words = " ".join(f"'tests/{file}'" for file in self.files)
        some = f" -k 'not ({' or '.join(self.left_out)})'" if self.left_out else ""
        variables = f"TEST_PATIENCE={SLOWER} TEST_FEW_PROCESSES=1 TEST_TIERS={tiers_of(release)}"
        if self.tier:
            variables += f" TEST_TIER={self.tier}"
        return (
            f"{self.before}{variables} .venv/bin/python -m pytest -q -rsf --tb=short --durations=8"
            f" -p no:cacheprovider --timeout={SECONDS} {words}{some}"
        )


def _kernel(*names: str) -> tuple[str, ...]:
    return tuple(f"kernel/test_{name}.py" for name in names)


KERNEL = Part(
    "kernel",
    _kernel(
        "accounting", "calls", "endings", "lifecycle", "midstream", "modes", "other_callers",
        "processes", "slots", "tables", "unread", "vectors", "verifier",
    ),
    # Long by their number of bytes or of loads; the tests of a table of connections are not.
    ("one_thread_reads_and_another_writes", "the_kernel_lacks", "one_refused_program",
     "rejected_program", "a_needed_program", "two_readers"),
    before=".venv/bin/otelauto doctor && ",
)  # fmt: skip
CALLS = Part("calls", _kernel("calls", "endings", "system_calls"), tier="C")
# "tiers" has every tier of the kernel at once.
SERVICES = Part(
    "services",
    (
        "e2e/test_servers.py::test_every_exchange_is_one_true_span[python-http.server]",
        "e2e/test_servers.py::test_every_exchange_is_one_true_span[nginx-static]",
        "e2e/test_tiers.py::test_the_same_exchanges_are_the_same_spans[go-net/http]",
        "e2e/test_lifecycle.py::test_by_executable_name_of_what_starts_later",
    ),
)
PARTS = (KERNEL, SERVICES, CALLS)  # the longest first
# Of the last kernel that was asked for only.
LOCKED = Part("locked", ("vm/locked_down.py",), parameters="lockdown=confidentiality")


def tiers_of(release: str) -> str:
    """The letters of the tiers that a kernel of Debian's has; "A" came with 6.3."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    new = numbers is not None and (int(numbers[1]), int(numbers[2])) >= FIRST_WITH_A
    return "ABC" if new else "BC"


@dataclass(frozen=True)
class Row:
    """What became of a part under one kernel; ``problem`` is "" when all is well."""

    release: str
    part: str
    tier: str
    counts: dict[str, int]
    ended: Ended
    problem: str

    def __str__(self) -> str:
        numbers = [f"{self.counts.get(name, 0):>7}" for name in ("passed", "failed", "skipped")]
        times = f"{self.ended.seconds:>6.0f} {self.ended.cpu:>6.0f}"
        return f"{self.release:<28} {self.part:<9} {self.tier:<49} {' '.join(numbers)} {times}"


def examine(image: Path, part: Part) -> Row:
    """Run a part of the tests under one kernel."""
    release = image.name.removeprefix("vmlinuz-")
    try:
        command = part.command(release)
        ended = run(image, command, seconds=SECONDS, parameters=part.parameters)
    except NoGuestError as error:
        print(f"{release}, {part.name}: {error}", flush=True)
        return Row(release, part.name, "-", {}, Ended(None, "", 0.0, 0.0), str(error))
    row = _judge(release, part, ended)
    output = f"\n{ended.output}" if row.problem else ""
    print(f"{release}, {part.name}: {row.problem or 'passed'}{output}", flush=True)
    return row


def _judge(release: str, part: Part, ended: Ended) -> Row:
    lines = ended.output.rstrip().splitlines()
    counts = {kind: int(number) for number, kind in COUNTS.findall(lines[-1] if lines else "")}
    tier = TIER.search(ended.output)
    named = tier[1] if tier else "-" if part is LOCKED else ", ".join(tiers_of(release))
    problem = ""
    if ended.code is None:
        problem = f"not done after {ended.seconds:.0f} s"
    elif ended.code or not counts.get("passed"):
        problem = f"exit code {ended.code}"
    return Row(release, part.name, named, counts, ended, problem)


def main(releases: list[str]) -> int:
    """As many guests at once as there are processors; a guest has one."""
    began = time.monotonic()
    try:
        images = [find_kernel(release) for release in releases or ["newest"]]
    except NoGuestError as error:
        print(error)
        return 1
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        jobs = [(image, part) for part, image in itertools.product(PARTS, images)]
        jobs.append((images[-1], LOCKED))
        rows = list(pool.map(examine, *zip(*jobs, strict=True)))
    heads = " ".join(f"{name:>7}" for name in ("passed", "failed", "skipped"))
    print(f"{'kernel':<28} {'tests':<9} {'tier':<49} {heads} {'s':>6} {'CPU s':>6}")
    for row in sorted(rows, key=lambda row: releases_order(row, images)):
        print(row)
    for reason in sorted({reason for row in rows for reason in reasons(row)}):
        print(f"  skipped: {reason}")
    print(f"{time.monotonic() - began:.0f} s, {sum(row.ended.cpu for row in rows):.0f} s of CPU")
    return int(any(row.problem for row in rows))


def releases_order(row: Row, images: list[Path]) -> tuple[int, str]:
    """Kernels as they were asked for."""
    return [image.name.removeprefix("vmlinuz-") for image in images].index(row.release), row.part


def reasons(row: Row) -> set[str]:
    """Why tests were skipped, with the kernel."""
    lines = [line for line in row.ended.output.splitlines() if "Unsupported:" in line]
    return {f"{row.release}: {line.partition('Unsupported: ')[2]}" for line in lines}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
