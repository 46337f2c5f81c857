# SPDX-License-Identifier: Apache-2.0
"""`make test-kernels`: the kernel tests and a slice of the end-to-end tests under other kernels.

    python -m tests.vm [--whole] [--guests N] [--part NAME]... RELEASE...
    python -m tests.vm --rows RELEASE...

A RELEASE is how that of a kernel which tests/vm/install.sh has unpacked begins ("6.1."), "newest",
or "here": the kernel that runs, without an emulator. With --whole, and for parts that are named,
nothing is left out that another run would show again. Prints a row for each kernel and part of the
tests (tests/vm/parts.py): the tier of capture, and what became of them; the rows are left in
.build/vm/kernels.txt, too. Exit code 1 when a test fails, when one is skipped that must not be, or
when a kernel does not boot. With --rows nothing is tested: the rows of these kernels in
tests/kernel/verifier.tsv are measured again.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tests.kernel.verified import TABLE, Walked, objects, read_table, table
from tests.vm.guest import (
    CHECKOUT,
    COMPILING,
    Ended,
    NoGuestError,
    compile_sources,
    find_kernel,
    run,
)
from tests.vm.parts import (
    LOCKED,
    MAY_BE_SKIPPED,
    PARTS,
    SECONDS,
    SLOWER,
    Part,
    parts_of,
    tiers_of,
)

HERE = "here"
TABLE_OF_THIS = CHECKOUT / ".build" / "vm" / "kernels.txt"
COUNTS = re.compile(r"(\d+) (passed|failed|error|errors|skipped)\b")
TIER = re.compile(r"^(?:capture: |  ok      )tier (.*)$", re.MULTILINE)
BAD = re.compile(r"^(?:FAILED|ERROR) .*", re.MULTILINE)
SKIPPED = "Unsupported: "


@dataclass(frozen=True)
class Kernel:
    """A kernel that tests run under; without an image, the one that runs here."""

    release: str
    image: Path | None

    @property
    def tiers(self) -> str:
        """The letters of the tiers that it must have; "" if nobody knows."""
        return tiers_of(self.release) if self.image else ""

    def run(self, command: str, parameters: str = "") -> Ended:
        """``command`` (of bash, in the checkout) under it. Raises NoGuestError."""
        if self.image:
            return run(self.image, command, seconds=SECONDS, parameters=parameters)
        return _run_here(command)


def _run_here(command: str) -> Ended:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        ["bash", "-c", command], cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(done.returncode, done.stdout, time.monotonic() - began, cpu)


def find(word: str) -> Kernel:
    """The kernel that a word of the command line means; raises NoGuestError."""
    if word == HERE:
        return Kernel(os.uname().release, None)
    image = find_kernel(word)
    return Kernel(image.name.removeprefix("vmlinuz-"), image)


@dataclass(frozen=True)
class Row:
    """What became of a part under one kernel; ``problem`` is "" when all is well."""

    kernel: Kernel
    part: Part
    tier: str
    counts: dict[str, int]
    ended: Ended
    problem: str = ""

    def __str__(self) -> str:
        bad = sum(self.counts.get(name, 0) for name in ("failed", "error", "errors"))
        numbers = (self.counts.get("passed", 0), bad, self.counts.get("skipped", 0))
        times = f"{self.ended.seconds:>6.0f} {self.ended.cpu:>6.0f}"
        release = self.kernel.release + ("" if self.kernel.image else " (here)")
        return (
            f"{release:<28} {self.part.name:<9} {self.tier:<49}"
            f" {' '.join(f'{number:>7}' for number in numbers)} {times}  {self.problem}"
        ).rstrip()

    def skips(self) -> set[str]:
        """Why tests were skipped."""
        lines = self.ended.output.splitlines()
        return {line.partition(SKIPPED)[2] for line in lines if SKIPPED in line}

    def failures(self) -> list[str]:
        """Which tests failed."""
        return BAD.findall(self.ended.output)


HEAD = (
    f"{'kernel':<28} {'tests':<9} {'tier':<49}"
    f" {'passed':>7} {'failed':>7} {'skipped':>7} {'s':>6} {'CPU s':>6}"
)


def examine(kernel: Kernel, part: Part) -> Row:
    """Run a part of the tests under one kernel."""
    command = part.command(kernel.tiers, SLOWER if kernel.image else 1)
    try:
        ended = kernel.run(command, part.parameters)
    except NoGuestError as error:
        print(f"{kernel.release}, {part.name}: {error}", flush=True)
        return Row(kernel, part, "-", {}, Ended(None, "", 0.0, 0.0), "it does not boot")
    row = _judge(kernel, part, ended)
    output = f"\n{ended.output}" if row.problem else ""
    said = f"{row.problem or 'passed'}, {ended.seconds:.0f} s"
    print(f"{kernel.release}, {part.name}: {said}{output}", flush=True)
    return row


def _judge(kernel: Kernel, part: Part, ended: Ended) -> Row:
    lines = ended.output.rstrip().splitlines()
    counts = {kind: int(number) for number, kind in COUNTS.findall(lines[-1] if lines else "")}
    tier = TIER.search(ended.output)
    named = "-" if part is LOCKED else part.tier or ", ".join(kernel.tiers)
    named = tier[1] if tier else named
    row = Row(kernel, part, named, counts, ended)
    if ended.code is None:
        return replace(row, problem=f"not done after {ended.seconds:.0f} s")
    if ended.code or not counts.get("passed"):
        return replace(row, problem=f"exit code {ended.code}")
    if row.skips() - MAY_BE_SKIPPED:
        return replace(row, problem="skipped what must not be")
    return row


def jobs_of(kernels: list[Kernel], names: set[str], whole: bool) -> list[tuple[Kernel, Part]]:
    """What is to be run, the longest first; the parts of these names only, if there are any."""
    has = {kernel: parts_of(kernel.release, whole) for kernel in kernels}
    if names:
        has = {kernel: parts + parts_of(kernel.release, True) for kernel, parts in has.items()}
    jobs = [(kernel, part) for part in PARTS for kernel in kernels if part in has[kernel]]
    emulated = [kernel for kernel in kernels if kernel.image]
    jobs += [(kernel, LOCKED) for kernel in emulated[-1:]]
    return [(kernel, part) for kernel, part in jobs if not names or part.name in names]


def compile_tests(jobs: list[tuple[Kernel, Part]]) -> None:
    """Compile here what guests import, the tests with their assertions as pytest writes them."""
    files = sorted(
        {f"tests/{file}" for kernel, part in jobs if kernel.image for file in part.files}
    )
    if files:
        compile_sources()
        # A test that cannot be imported here fails there.
        collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", *files]
        subprocess.run(collect, cwd=CHECKOUT, env=COMPILING, check=False, stdout=subprocess.DEVNULL)


def check(jobs: list[tuple[Kernel, Part]], guests: int) -> int:
    """Run parts under kernels, ``guests`` at once; a guest has one processor."""
    began = time.monotonic()
    compile_tests(jobs)
    with ThreadPoolExecutor(guests) as pool:
        rows = list(pool.map(examine, *zip(*jobs, strict=True)))
    kernels = list(dict.fromkeys(kernel for kernel, _ in jobs))
    rows.sort(key=lambda row: kernels.index(row.kernel))
    skips = sorted({f"{row.kernel.release}: {why}" for row in rows for why in row.skips()})
    seconds, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [HEAD, *map(str, rows), *(f"  skipped: {skip}" for skip in skips)]
    for row in rows:
        lines += [f"{row.kernel.release}, {row.part.name}: {bad}" for bad in row.failures()]
    total = [sum(row.counts.get(kind, 0) for row in rows) for kind in ("passed", "skipped")]
    bad = sum(bool(row.problem) for row in rows)
    lines.append(
        f"{len(rows) - bad} parts of {len(rows)} passed: {total[0]} tests passed, {total[1]}"
        f" skipped in {seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of CPU"
    )
    print("\n".join(lines))
    TABLE_OF_THIS.parent.mkdir(parents=True, exist_ok=True)
    TABLE_OF_THIS.write_text("\n".join(lines) + "\n")
    return int(any(row.problem for row in rows))


def measure(kernels: list[Kernel], guests: int) -> int:
    """Put what the verifier walks through under these kernels on record."""
    known, fresh = read_table(TABLE.read_text()), defaultdict[str, Walked](dict)
    with ThreadPoolExecutor(guests) as pool:
        found = list(pool.map(_rows, kernels))
    for kernel, text in zip(kernels, found, strict=True):
        print(f"{kernel.release}:\n{text}", end="", flush=True)
        for number, programs in read_table(f"\n{text}").items():
            for name, instructions in programs.items():
                # Of two kernels of one number the one where there is more to walk through.
                fresh[number][name] = max(fresh[number].get(name, 0), instructions)
    for number, programs in fresh.items():
        measured = objects(programs)
        left = {name: n for name, n in known[number].items() if not objects([name]) & measured}
        known[number] = left | programs
    TABLE.write_text(table(known))
    return 0


def _rows(kernel: Kernel) -> str:
    ended = kernel.run(".venv/bin/python -m tests.kernel.verified")
    if ended.code or not ended.output:
        raise NoGuestError(f"{kernel.release}: exit code {ended.code}: {ended.output}")
    return ended.output


def main() -> int:
    known = [part.name for part in (*PARTS, LOCKED)]
    asked = argparse.ArgumentParser(prog="python -m tests.vm")
    asked.add_argument("--rows", action="store_true", help="measure the rows of verifier.tsv")
    asked.add_argument("--whole", action="store_true", help="all that has a meaning under each")
    asked.add_argument("--guests", type=int, default=min(2, os.cpu_count() or 1))
    asked.add_argument("--part", action="append", default=[], choices=known, dest="parts")
    asked.add_argument("kernels", nargs="+", metavar="RELEASE")
    words = asked.parse_args()
    try:
        kernels = list(dict.fromkeys(map(find, words.kernels)))  # two words may mean one kernel
        if words.rows:
            return measure(kernels, words.guests)
    except NoGuestError as error:
        print(error)
        return 1
    return check(jobs_of(kernels, set(words.parts), words.whole), words.guests)


if __name__ == "__main__":
    sys.exit(main())
