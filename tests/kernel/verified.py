# SPDX-License-Identifier: Apache-2.0
"""How much of each program the verifier walks through, on every tier that this kernel has.

    python -m tests.kernel.verified

prints the rows of this kernel as they belong into verifier.tsv; `python -m tests.vm --rows` puts
those of other kernels there.
"""

from __future__ import annotations

import platform
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

from otelauto.errors import KernelError
from otelauto.kernel import capture
from otelauto.kernel.capture import Capture, Wanted
from otelauto.kernel.tiers import TIERS

TABLE = Path(__file__).parent / "verifier.tsv"
HEADER = "kernel\tprogram\tinstructions\n"
_NUMBERS = re.match(r"\d+\.\d+", platform.release())
KERNEL = _NUMBERS[0] if _NUMBERS else ""
Walked = dict[str, int]  # instructions by object/program; 0 where the kernel does not count them


def walked() -> Walked:
    """Of all tiers of ``capture.TIERS`` that load; plaintext of TLS is read with the best only."""
    found: Walked = {}
    with pytest.MonkeyPatch.context() as patch:
        for tier in capture.TIERS:
            patch.setattr(capture, "TIERS", (tier,))
            wanted = Wanted(libraries=tier is TIERS[0])
            with suppress(KernelError), closing(Capture(wanted)) as running:
                objects = [running._sockets, running._processes]
                objects += [probes._object for probes in running._plaintext]
                for one in objects:
                    for cost in one.costs():
                        found[f"{one.name}/{cost.name}"] = cost.verified_instructions
    return found


def objects(programs: Iterable[str]) -> set[str]:
    """The objects that programs are in, each told as object/program."""
    return {name.partition("/")[0] for name in programs}


def read_table(text: str) -> dict[str, Walked]:
    """What is on record, by kernel."""
    found: dict[str, Walked] = defaultdict(dict)
    for line in text.splitlines()[1:]:
        kernel, program, instructions = line.split("\t")
        found[kernel][program] = int(instructions)
    return found


def rows(kernel: str, of: Walked) -> str:
    """As lines of the table."""
    return "".join(f"{kernel}\t{name}\t{of[name]}\n" for name in sorted(of))


def table(known: Mapping[str, Walked]) -> str:
    """The whole file, oldest kernel first."""
    oldest = sorted(known, key=lambda kernel: [int(number) for number in kernel.split(".")])
    return HEADER + "".join(rows(kernel, known[kernel]) for kernel in oldest)


if __name__ == "__main__":
    print(rows(KERNEL, walked()), end="")
