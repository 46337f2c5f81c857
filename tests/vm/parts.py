# SPDX-License-Identifier: Apache-2.0
"""What is run under each kernel: the tests that a kernel can change the outcome of."""

from __future__ import annotations

import re
from dataclasses import dataclass

SECONDS = 3000  # for one part under one kernel, on a machine that does other work too
SLOWER = 20  # software emulation: deadlines of tests are longer by that
FIRST_WITH_A = (6, 3)  # sock_send_length
FIRST_WITH_TLS = (6, 6)  # links to many uprobes at once
# Why a test may be skipped: it has no meaning there.
MAY_BE_SKIPPED = frozenset(
    {"this kernel has no MPTCP", "socket state is not charged to the socket here"}
)


@dataclass(frozen=True)
class Part:
    """Tests that one boot runs. ``tier``: hold them to it; "" is the best that the kernel has."""

    name: str
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    tier: str = ""
    before: str = ""
    parameters: str = ""  # of the kernel
    since: tuple[int, int] = (0, 0)  # kernels before that have nothing to be tested

    def is_for(self, release: str) -> bool:
        """Whether a kernel has what is tested."""
        return number_of(release) >= self.since

    def command(self, tiers: str, slower: float) -> str:
        """What is run; ``tiers``: the letters of those that there must be, if not ""."""
        words = " ".join(f"'tests/{file}'" for file in self.files)
        some = f" -k 'not ({' or '.join(self.left_out)})'" if self.left_out else ""
        variables = f"TEST_PATIENCE={slower} TEST_FEW_PROCESSES=1"
        if tiers:
            variables += f" TEST_TIERS={tiers}"
        # The guest has no /etc/ssl.
        variables += " OPENSSL_CONF=$PWD/tests/vm/openssl.cnf"
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
    # Long by their number of bytes, or by loads for what any kernel would show.
    ("one_thread_reads_and_another_writes", "the_kernel_lacks", "one_refused_program",
     "rejected_program", "a_needed_program", "two_readers", "attach_only_once", "next_tier"),
    before=".venv/bin/otelauto doctor && ",
)  # fmt: skip
CALLS = Part("calls", _kernel("calls", "endings", "system_calls"), tier="C")
TLS = Part("tls", _kernel("tls"), since=FIRST_WITH_TLS)
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
PARTS = (KERNEL, SERVICES, CALLS, TLS)  # the longest first
# Of the last emulated kernel that was asked for only.
LOCKED = Part("locked", ("vm/locked_down.py",), parameters="lockdown=confidentiality")


def number_of(release: str) -> tuple[int, int]:
    """Major and minor number; (0, 0) of what does not begin so."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def tiers_of(release: str) -> str:
    """The letters of the tiers that a kernel of Debian's has."""
    return "ABC" if number_of(release) >= FIRST_WITH_A else "BC"
