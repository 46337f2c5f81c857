# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PTH116, PTH123  (plain strings, as in procfs.py)
"""Which files a process runs code of (``/proc/PID/maps``, proc(5)), and how to open each of them.

A file may have been replaced on disk since, or lie in another mount namespace.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_DELETED: Final = " (deleted)"
_LIMIT: Final = 16 << 20  # bytes of a list of mappings


@dataclass(frozen=True, slots=True)
class Mapped:
    """A file of which a process has executable code.

    ``path`` is as its mount namespace names it, ``device`` and ``inode`` as the kernel lists them;
    ``area`` is one of its mappings, as ``/proc/PID/map_files`` names it.
    """

    path: str
    deleted: bool
    device: str
    inode: int
    area: str

    @property
    def name(self) -> str:
        """The file's name without its directory."""
        return posixpath.basename(self.path)


def read_mapped(root: str, tgid: int) -> list[Mapped] | None:
    """The files that process ``tgid`` runs code of, each once; ``None`` if it may not be known.

    ``root`` is where proc is mounted.
    """
    try:
        with open(f"{root}/{tgid}/maps", "rb") as file:
            text = file.read(_LIMIT)
    except OSError:
        return None
    return list(parse_mapped(text))


def parse_mapped(text: bytes) -> Iterator[Mapped]:
    """The same from the text of the file; lines that are not understood are passed over."""
    seen = set()
    for line in text.splitlines():
        fields = line.split(None, 5)
        # address, permissions, offset, device, inode, path
        if len(fields) < 6 or b"x" not in fields[1] or not fields[5].startswith(b"/"):
            continue
        device = fields[3].decode("ascii", "replace")
        inode = int(fields[4]) if fields[4].isdigit() else 0
        if not inode or (device, inode) in seen:
            continue
        seen.add((device, inode))
        path = os.fsdecode(fields[5])
        yield Mapped(
            path.removesuffix(_DELETED),
            path.endswith(_DELETED),
            device,
            inode,
            fields[0].decode("ascii", "replace"),
        )


def opening_paths(root: str, tgid: int, mapped: Mapped) -> Iterator[str]:
    """Paths that open this very file from here, at this moment.

    By name in the process's own mount namespace, as its program, or by the mapping itself, which
    takes CAP_CHECKPOINT_RESTORE.
    """
    names = ("exe", f"map_files/{mapped.area}")
    for name in names if mapped.deleted else (f"root{mapped.path}", *names):
        path = f"{root}/{tgid}/{name}"
        try:
            # The device is not compared: file systems with subvolumes have several for one file.
            if os.stat(path).st_ino == mapped.inode:
                yield path
        except OSError:
            continue
