# SPDX-License-Identifier: Apache-2.0
"""What is run under each kernel: the tests that a kernel can change the outcome of."""

from __future__ import annotations

import re
from dataclasses import dataclass

SECONDS = 3000  # for one part under one kernel, on a machine that does other work too
SLOWER = 60  # software emulation, of which others take their share: deadlines are longer by that
FIRST_WITH_STORAGE = (5, 11)  # of sockets, for tracing programs
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
        # Plugins that are not asked for cost seconds of an emulated processor.
        variables += " PYTEST_DISABLE_PLUGIN_AUTOLOAD=1"
        return (
            f"{self.before}{variables} .venv/bin/python -m pytest -q -rsf --tb=short --durations=12"
            f" -p pytest_timeout -p no:cacheprovider --timeout={SECONDS} {words}{some}"
        )


def _kernel(*names: str) -> tuple[str, ...]:
    return tuple(f"kernel/test_{name}.py" for name in names)


DOCTOR = ".venv/bin/otelauto doctor && "
# Long by their number of bytes, or by loads for what any kernel would show.
LONG = (
    "one_thread_reads_and_another_writes", "the_kernel_lacks", "one_refused_program",
    "rejected_program", "a_needed_program", "next_tier",
)  # fmt: skip
KERNEL = Part(
    "kernel",
    _kernel(
        "accounting", "calls", "endings", "lifecycle", "midstream", "modes", "other_callers",
        "processes", "slots", "tables", "unread", "vectors", "verifier",
    ),
    (*LONG, "two_readers", "attach_only_once"),
    before=DOCTOR,
)  # fmt: skip
# What depends on more than the object that is loaded: layouts of the kernel's structures, the
# verifier, what a kernel frees when it is left alone, links to many uprobes.
CORE = Part(
    "core",
    (
        *_kernel("accounting", "calls", "endings", "lifecycle", "verifier"),
        "kernel/test_tls.py::test_the_text_is_as_it_was_when_otelauto_was_killed",
        "kernel/test_tls.py::test_plaintext_and_its_socket",
    ),
    LONG,
    before=DOCTOR,
)
CALLS = Part("calls", _kernel("calls", "endings", "system_calls"), tier="C")
TLS = Part("tls", _kernel("tls"))
# Python, nginx and Go, found when they start; every tier of the kernel at once.
SERVICES = Part("services", ("vm/every_tier.py",))
PARTS = (KERNEL, SERVICES, CORE, CALLS, TLS)  # the longest first
# Of the last emulated kernel that was asked for only.
LOCKED = Part("locked", ("vm/locked_down.py",), parameters="lockdown=confidentiality")


def parts_of(release: str, whole: bool) -> tuple[Part, ...]:
    """What runs under a kernel, the longest first.

    ``whole`` is everything that has a meaning there. Else what another run of CI would show again
    is left out: `make test` holds the objects of tiers A and C to all kernel tests, under the
    kernel that runs, so that they are for the objects that only an older kernel needs, and the
    rest is what depends on the kernel itself.
    """
    number = number_of(release)
    if whole:
        return (KERNEL, SERVICES, CALLS, *((TLS,) if number >= FIRST_WITH_TLS else ()))
    if number < FIRST_WITH_STORAGE:  # functions_older, system_calls_older
        return (KERNEL, SERVICES, CALLS)
    if number < FIRST_WITH_A:  # functions
        return (KERNEL, SERVICES)
    return (SERVICES, CORE)


def number_of(release: str) -> tuple[int, int]:
    """Major and minor number; (0, 0) of what does not begin so."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def tiers_of(release: str) -> str:
    """The letters of the tiers that a kernel of Debian's has."""
    return "ABC" if number_of(release) >= FIRST_WITH_A else "BC"
