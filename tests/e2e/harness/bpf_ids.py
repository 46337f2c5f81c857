# SPDX-License-Identifier: Apache-2.0
"""The BPF programs, maps and links of a process, and whether the kernel still has them."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path
from typing import Final

KINDS: Final = ("prog", "map", "link")
_OWNED = re.compile(rf"^({'|'.join(KINDS)})_id:\s+(\d+)$", re.MULTILINE)
_LIBBPF = ctypes.CDLL("libbpf.so.1", use_errno=True)

Ids = set[tuple[str, int]]


def owned_by(pid: int) -> Ids:
    """(kind, id) of everything of BPF that a process has a descriptor of."""
    found: Ids = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        found |= {(kind, int(number)) for kind, number in _OWNED.findall(entry.read_text())}
    return found


def alive(ids: Ids) -> Ids:
    """Those that the kernel still has."""
    return {(kind, number) for kind, number in ids if _exists(kind, number)}


def _exists(kind: str, number: int) -> bool:
    fd = int(getattr(_LIBBPF, f"bpf_{kind}_get_fd_by_id")(ctypes.c_uint32(number)))
    if fd >= 0:
        os.close(fd)
    elif -fd != errno.ENOENT:
        raise OSError(-fd, os.strerror(-fd))
    return fd >= 0
