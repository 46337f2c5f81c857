# SPDX-License-Identifier: Apache-2.0
"""Programs into whose code no probe is ever put, and why."""

from __future__ import annotations

import posixpath
import re
from typing import Final

# Of the executable's name. A probe is a breakpoint in the text of the process.
_PROGRAMS: Final = (
    (
        re.compile(r"clickhouse([-_].*)?"),
        "it compares its code with a checksum of it, and ends if they differ",
    ),
    (
        re.compile(
            r"(memcheck|none|helgrind|drd|massif|callgrind|cachegrind|lackey|dhat)-.*-linux"
        ),
        "it is Valgrind, which would translate a breakpoint into a signal that ends the program",
    ),
    (
        re.compile(r"qemu-(?!system-).*|box64|box86|FEX(Interpreter|Loader)?"),
        "it is an emulator, which would translate a breakpoint with the program that it runs",
    ),
    (
        re.compile(r"drrun|pinbin|rr"),
        "it runs copies of the code that it instruments or replays, breakpoints included",
    ),
    (
        re.compile(r"runsc(-sandbox)?"),
        "it is gVisor, which traps what the programs in it do",
    ),
)


def why_untouched(executable: str) -> str:
    """Why no probe is put into processes of that program; empty if probes may be.

    ``executable`` is the path that ``/proc/PID/exe`` leads to.
    """
    name = posixpath.basename(executable.removesuffix(" (deleted)"))
    return next((why for pattern, why in _PROGRAMS if pattern.fullmatch(name)), "")
