# SPDX-License-Identifier: Apache-2.0
"""Probes on Go's crypto/tls, in one process at a time (bpf/tls_go.bpf.c)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from otelauto.errors import KernelError
from otelauto.kernel.objects import BpfObject
from otelauto.kernel.uprobes import SHARED_MAPS, LibraryProbes, Link, Spot, refusal

KEY: Final = struct.Struct("<QI4x")  # struct goroutine_key


@dataclass(frozen=True, slots=True)
class GoSpots:
    """Places in a Go program: where functions are entered, and their return instructions."""

    enter: Sequence[Spot]
    leave: Sequence[Spot]


class GoProbes(LibraryProbes):
    """The programs of ``tls_go.bpf.o``; what is known of sessions is the other libraries', too."""

    OBJECT = "tls_go"
    PROGRAMS = ("go_enter", "go_leave")

    def __init__(
        self, sockets: BpfObject, cpus: int, system_wide: bool, libraries: LibraryProbes
    ) -> None:
        self._libraries = libraries
        super().__init__(sockets, cpus, system_wide)

    def _share_maps(self, sockets: BpfObject) -> None:
        super()._share_maps(sockets)
        for name in OWN_SHARED:
            self._object.share_map(name, self._libraries.object)

    def link_go(self, tgid: int, path: str, spots: GoSpots) -> Link:
        """Put probes into process ``tgid``, and into its mapping of the file ``path`` only.

        Raises KernelError with the reason when the kernel refuses.
        """
        link = Link()
        try:
            # Returns first: one that comes without its beginning is passed over.
            for program, places in (("go_leave", spots.leave), ("go_enter", spots.enter)):
                link.descriptors.append(self._create(program, tgid, path, places, 0))
        except OSError as error:
            link.close()
            raise KernelError(refusal(error)) from error
        return link

    def forget(self, tgid: int) -> None:
        """A process is gone, or has no probes any more: so have the calls that it was in."""
        for key in self._object.keys("go_calls", KEY.size):
            if KEY.unpack(key)[1] == tgid:
                self._object.delete("go_calls", key)

    def memory(self) -> int:
        """Bytes of the maps that are not other objects' as well."""
        sizes = self._object.map_memory()
        return sum(size for name, size in sizes.items() if name not in SHARED_MAPS + OWN_SHARED)


OWN_SHARED: Final = ("sessions", "tls_threads", "workspaces")
