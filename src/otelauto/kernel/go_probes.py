# SPDX-License-Identifier: Apache-2.0
"""Probes on Go's crypto/tls, in one process at a time (bpf/tls_go.bpf.c)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from typing import Final

from otelauto.kernel.objects import BpfObject
from otelauto.kernel.uprobes import SHARED_MAPS, LibraryProbes, Link, Spot

KEY: Final = struct.Struct("<QI4x")  # struct goroutine_key
# What is known of sessions, and room to put records together, are the other libraries', too.
LENT_MAPS: Final = ("sessions", "tls_threads", "workspaces")


class GoProbes(LibraryProbes):
    """The programs of ``tls_go.bpf.o``, sharing maps with those of the other libraries."""

    OBJECT = "tls_go"
    PROGRAMS = ("go_call",)

    def __init__(
        self, sockets: BpfObject, cpus: int, system_wide: bool, libraries: LibraryProbes
    ) -> None:
        self._libraries = libraries
        super().__init__(sockets, cpus, system_wide, [libraries.way])

    def _arrange_maps(self, sockets: BpfObject, cpus: int) -> None:
        for name in SHARED_MAPS:
            self._object.share_map(name, sockets)
        self._libraries.lend_maps(LENT_MAPS, self._object)

    def link(self, tgid: int, path: str, spots: Sequence[Spot]) -> Link:
        """Put probes at ``spots`` of the file ``path``, in process ``tgid`` only.

        Never a return probe: returns are places of their own. Raises KernelError as the others do.
        """
        # The kernel goes by this order: a call whose beginning is seen has its end seen.
        ordered = sorted(spots, key=lambda spot: not spot.leaves)
        link = self._link(tgid, path, [("go_call", ordered, False)])
        link.closed = partial(self._forget, tgid)
        return link

    def leave_sockets(self) -> None:
        """Detach the programs that look at sockets."""
        self._object.detach()

    def _forget(self, tgid: int) -> None:
        """What is known of the calls that the process was in is of no use any more."""
        for key in self._object.keys("go_calls", KEY.size):
            if KEY.unpack(key)[1] == tgid:
                self._object.delete("go_calls", key)

    def memory(self) -> int:
        """Bytes of the maps that no other object has."""
        sizes = self._object.map_memory()
        return sum(size for name, size in sizes.items() if name not in SHARED_MAPS + LENT_MAPS)
