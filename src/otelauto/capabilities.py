# SPDX-License-Identifier: Apache-2.0
"""Which capabilities this process has, and what is lost without each (capabilities(7))."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# Name: (bit in <linux/capability.h>, what is lost without it)
CAPABILITIES: Final = {
    "CAP_BPF": (39, "BPF programs cannot be loaded: nothing is seen"),
    "CAP_PERFMON": (38, "tracing programs cannot be loaded: nothing is seen"),
    "CAP_SYS_PTRACE": (19, "other users' processes cannot be inspected: they are not found"),
    "CAP_DAC_READ_SEARCH": (2, "other users' files cannot be read: names may be missing"),
}


def held(name: str) -> bool:
    """Whether the capability ``name`` is effective."""
    bit, _ = CAPABILITIES[name]
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> bit & 1)
