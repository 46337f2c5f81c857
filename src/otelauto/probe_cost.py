# SPDX-License-Identifier: Apache-2.0
"""What a probed call costs on this machine, measured in this very process."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Final

from otelauto.discover.mappings import opening_paths, read_mapped
from otelauto.discover.symbols import functions
from otelauto.errors import KernelError
from otelauto.kernel.uprobes import LibraryProbes, Spot, TlsCall

FUNCTION: Final = "getppid"  # short, and of no use to anybody else here
CALLS: Final = 1000
ROUNDS: Final = 5


def cost_of_a_call(probes: LibraryProbes) -> float:
    """Nanoseconds that probes at a call's beginning and return add to it.

    It is the case that the kernel single-steps, as at the beginning of OpenSSL's functions. Raises
    KernelError where it cannot be measured.
    """
    place = _place()
    if place is None:
        raise KernelError(f"the cost of a probe cannot be measured: no {FUNCTION}() in libc")
    function = getattr(ctypes.CDLL(None), FUNCTION)
    without = _fastest(function)
    link = probes.link(os.getpid(), place[0], [Spot(place[1], TlsCall.TLS_READ)])
    try:
        return max(_fastest(function) - without, 0.0)
    finally:
        link.close()


def _place() -> tuple[str, int] | None:
    """The file that has the function, and where in it."""
    for mapped in read_mapped("/proc", os.getpid()) or ():
        if mapped.name.startswith(("libc.", "libc-", "ld-musl")):
            for path in opening_paths("/proc", os.getpid(), mapped):
                if (offset := functions(path, (FUNCTION,)).get(FUNCTION)) is not None:
                    return path, offset
    return None


def _fastest(function: Callable[[], object]) -> float:
    """Nanoseconds of a call, of the fastest round."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter_ns()
        for _ in range(CALLS):
            function()
        rounds.append((time.perf_counter_ns() - began) / CALLS)
    return min(rounds)
