# SPDX-License-Identifier: Apache-2.0
"""Room that is not needed any more goes back to the kernel."""

from __future__ import annotations

import subprocess
import sys

BODIES = """
import mmap
from pathlib import Path
from otelauto.memory import settle
{settled}
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
before = resident()
for megabytes in (8, 16, 8):
    body = b"x" * (megabytes << 20)
    kept = b"y" * 4096  # above it on the heap, where it is one
    del body
print(resident() - before)
"""


def kept(settled: str) -> int:
    """Bytes that a process of its own kept after some large bodies."""
    code = BODIES.format(settled=settled)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_large_bodies_leave_nothing_behind() -> None:
    assert kept("settle()") < 2 << 20
    assert kept("") > 4 << 20  # what the C library does by itself; else nothing was shown here
