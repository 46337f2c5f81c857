# SPDX-License-Identifier: Apache-2.0
"""`make test-kernels`: the kernel tests and a slice of the end-to-end tests under other kernels.

    python -m tests.vm RELEASE...

Prints one row a kernel: what was chosen there, and what became of the tests. Exit code 1 when a
test fails, or when a kernel does not boot; a skipped test is listed with its reason.
"""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.vm.guest import Ended, NoGuestError, find_kernel, run

SECONDS = 900  # for one kernel
SLOWER = 20  # software emulation: deadlines of tests are longer by that
KERNEL = (
    "accounting", "calls", "endings", "lifecycle", "midstream", "modes", "processes", "slots",
    "tables", "tls", "unread", "vectors", "verifier",
)  # fmt: skip
# Long by their number of sockets, bytes or loads in a machine that is emulated.
LEFT_OUT = (
    "state_goes_with_the_socket", "one_thread_reads_and_another_writes", "the_kernel_lacks",
    "one_refused_program", "a_needed_program", "capabilities", "two_readers",
)  # fmt: skip
SERVERS = ("python-http.server", "go-net/http", "nginx-static")
END_TO_END = (
    *(f"test_servers.py::test_every_exchange_is_one_true_span[{name}]" for name in SERVERS),
)
COUNTS = re.compile(r"(\d+) (passed|failed|error|errors|skipped)\b")
TIER = re.compile(r"^  ok      tier (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """What became of the tests under one kernel; ``problem`` is "" when all is well."""

    release: str
    tier: str
    counts: dict[str, int]
    seconds: float
    problem: str
    output: str

    def __str__(self) -> str:
        numbers = [f"{self.counts.get(name, 0):>7}" for name in ("passed", "failed", "skipped")]
        return f"{self.release:<28} {self.tier:<50} {' '.join(numbers)} {self.seconds:>5.0f} s"


def _words() -> str:
    files = [f"tests/e2e/{name}" for name in END_TO_END]
    files += [f"tests/kernel/test_{name}.py" for name in KERNEL]
    words = " ".join(f"'{file}'" for file in files)
    left_out = " or ".join(LEFT_OUT)
    return (
        ".venv/bin/otelauto doctor; "
        f"OPENSSL_CONF=tests/vm/openssl.cnf TEST_PATIENCE={SLOWER}"
        " .venv/bin/python -m pytest -q -rsf --tb=short"
        f" -p no:cacheprovider --timeout={SECONDS} {words} -k 'not ({left_out})'"
    )


def examine(release: str) -> Row:
    """Run the tests under one kernel."""
    try:
        image = find_kernel(release)
        name = image.name.removeprefix("vmlinuz-")
        ended = run(image, _words(), seconds=SECONDS)
    except NoGuestError as error:
        return Row(release, "", {}, 0.0, str(error), "")
    return _judge(name, ended)


def _judge(release: str, ended: Ended) -> Row:
    lines = ended.output.rstrip().splitlines()
    counts = {kind: int(number) for number, kind in COUNTS.findall(lines[-1] if lines else "")}
    tier = TIER.search(ended.output)
    problem = ""
    if ended.code is None:
        problem = f"not done after {ended.seconds:.0f} s"
    elif ended.code or not counts.get("passed") or not tier:
        problem = f"exit code {ended.code}"
    return Row(release, tier[1] if tier else "-", counts, ended.seconds, problem, ended.output)


def main(releases: list[str]) -> int:
    """Two kernels at once; a guest has one processor."""
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        rows = list(pool.map(examine, releases))
    for row in rows:
        if row.problem:
            print(f"---- {row.release}: {row.problem}\n{row.output}")
    heads = " ".join(f"{name:>7}" for name in ("passed", "failed", "skipped"))
    print(f"{'kernel':<28} {'tier':<50} {heads}")
    for row in rows:
        print(row)
        reasons = {
            line.partition(": ")[2] for line in row.output.splitlines() if "Unsupported:" in line
        }
        for reason in sorted(reasons):
            print(f"  skipped: {reason}")
    return int(not rows or any(row.problem for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
