# SPDX-License-Identifier: Apache-2.0
"""Which capabilities this process has, what is lost without each, and giving up all others.

Source: capabilities(7), capset(2), prctl(2).
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
from pathlib import Path
from typing import Final

log = logging.getLogger("otelauto")

# Name: (bit in <linux/capability.h>, what is lost without it)
CAPABILITIES: Final = {
    "CAP_BPF": (39, "BPF programs cannot be loaded: nothing is seen"),
    "CAP_PERFMON": (38, "tracing programs cannot be loaded: nothing is seen"),
    "CAP_SYS_PTRACE": (19, "other users' processes cannot be inspected: they are not found"),
    "CAP_DAC_READ_SEARCH": (2, "other users' files cannot be read: names may be missing"),
    "CAP_CHECKPOINT_RESTORE": (
        40,
        "TLS libraries that were replaced on disk cannot be opened: their plaintext is not read",
    ),
}


NET_BIND_SERVICE: Final = 10  # to listen on a port below 1024
SYS_ADMIN: Final = 21  # to have the run time of BPF programs counted
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38
LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
HEADER: Final = struct.Struct("<Ii")  # version, thread: 0 is the caller
SETS: Final = struct.Struct("<6I")  # effective, permitted, inheritable: low words, then high words


def forbid_core_dumps() -> None:
    """A core of this process would hold what it saw, and credentials (PR_SET_DUMPABLE, prctl(2)).

    It also keeps other processes of the same user from reading its memory (ptrace(2)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("a core dump may hold secrets: %s", os.strerror(ctypes.get_errno()))


def take_up() -> None:
    """Make effective what is needed of the permitted capabilities.

    The capabilities of a program's file may be permitted only (``setcap ...=p``), so that the
    program also starts where it is given none of them. A kernel that refuses changes nothing here:
    whatever needs one says so.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = HEADER.pack(LINUX_CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(SETS.size)
    if libc.capget(header, sets) == 0:
        known = [bit for bit, _ in CAPABILITIES.values()] + [NET_BIND_SERVICE, SYS_ADMIN]
        wanted = sum(1 << bit for bit in known)
        effective, permitted, inherited, *high = SETS.unpack(sets)
        effective |= permitted & wanted & 0xFFFFFFFF
        high[0] |= high[1] & wanted >> 32
        libc.capset(header, SETS.pack(effective, permitted, inherited, *high))


def give_up_others(*, low_port: bool = False, statistics: bool = False) -> None:
    """Keep what is needed once the programs run, and never get more, by no program that is run.

    Of the calling thread and of those that it will start: call it before there are others.
    ``low_port`` is whether a port below 1024 is still to be listened on, ``statistics`` whether the
    run time of BPF programs is to be counted. A kernel that refuses is a warning: nothing is lost
    but the precaution.
    """
    kept = sum(1 << bit for bit, _ in CAPABILITIES.values())
    if low_port:
        kept |= 1 << NET_BIND_SERVICE
    if statistics:
        kept |= 1 << SYS_ADMIN
    libc = ctypes.CDLL(None, use_errno=True)
    header = HEADER.pack(LINUX_CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(SETS.size)
    if libc.capget(header, sets) == 0:
        effective, permitted, _, effective_high, permitted_high, _ = SETS.unpack(sets)
        words = (kept & 0xFFFFFFFF, kept >> 32)
        wanted = SETS.pack(
            effective & words[0], permitted & words[0], 0,
            effective_high & words[1], permitted_high & words[1], 0,
        )  # fmt: skip
        if libc.capset(header, wanted) == 0 and libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            return
    log.warning("privileges that are not needed were kept: %s", os.strerror(ctypes.get_errno()))


def held(name: str) -> bool:
    """Whether the capability ``name`` is effective."""
    bit, _ = CAPABILITIES[name]
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> bit & 1)
