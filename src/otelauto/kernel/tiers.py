# SPDX-License-Identifier: Apache-2.0
"""The ways to see the bytes of sockets, best first; which one works is found by trying."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from otelauto.errors import KernelError
from otelauto.kernel.libbpf import library
from otelauto.kernel.objects import BpfObject, Probe

NO_REMEDY: Final = "otelauto needs Linux 5.10 or newer with BPF tracing allowed"
# Before 5.19 (commit ec095263a965) `nonblock` was a parameter of its own.
RECEIVE_WITH_NONBLOCK: Final = 6


class HookError(KernelError):
    """A hook that a tier cannot do without is absent or refused."""

    def __init__(self, hook: str, state: str, why: str) -> None:
        super().__init__(f"cannot see socket traffic: {hook} is {state} ({why})", NO_REMEDY)
        self.absent = state == "absent"


@dataclass(frozen=True, slots=True)
class Tier:
    """An object file with the programs without which it is of no use."""

    name: str
    object: str
    needed: tuple[str, ...]
    constants: Callable[[], dict[str, int]] = dict

    def check(self, opened: BpfObject) -> None:
        """Raise HookError, before anything is loaded, when a needed hook is not in this kernel."""
        for program in self.needed:
            if not opened.is_there(program):
                hook = opened.hook(program)
                raise HookError(hook, "absent", f"Linux {platform.release()} has no {hook}")

    def check_attached(self, probes: Iterable[Probe]) -> None:
        """Raise HookError when a needed program is not attached."""
        for probe in probes:
            if probe.name in self.needed and probe.state != "attached":
                raise HookError(probe.hook, probe.state, probe.why)


def _receive_prototype() -> dict[str, int]:
    nonblock = library().parameters("tcp_recvmsg") == RECEIVE_WITH_NONBLOCK
    return {"has_nonblock": int(nonblock)}


TIERS: Final = (
    Tier("A (socket tracepoints)", "sockets", ("sock_send", "sock_recv")),
    Tier("B (ends of functions)", "functions", ("tcp_send", "tcp_recv"), _receive_prototype),
    Tier(
        "B (ends of functions, tables instead of storage)",
        "functions_older",
        ("tcp_send", "tcp_recv", "inet_freed", "unix_freed"),
        _receive_prototype,
    ),
    Tier("C (ends of system calls)", "system_calls", ("call_end",)),
    Tier("C (ends of system calls, plain updates)", "system_calls_older", ("call_end",)),
)
