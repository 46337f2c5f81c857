# SPDX-License-Identifier: Apache-2.0
"""Probes on functions of a library, in one process at a time: plaintext of TLS (bpf/tls.bpf.c).

How they are put there is for ``uprobe_links.py`` to say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from otelauto import abi
from otelauto.errors import KernelError
from otelauto.kernel.objects import BpfObject, Probe, ProgramCost
from otelauto.kernel.uprobe_links import WAYS, Way

TlsCall: TypeAlias = abi.TlsCall

# The maps that the socket programs and these work on together; theirs are used.
SHARED_MAPS: Final = (
    "targets", "counters", "records", "events", "shared",
    "connections", "connection_verdicts", "endpoint_verdicts", "slot_cursors",
)  # fmt: skip
CALLED: Final = "tls_called"  # one word
CALLED_KEY: Final = bytes(4)
NOT_CALLED: Final = bytes(4)


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a file, by its offset in bytes, where a function of that kind begins.

    ``leaves``: where it ends, by a return instruction. ``stepped``: the kernel does not emulate the
    instruction there, so that a hit takes a second trap.
    """

    offset: int
    call: TlsCall
    leaves: bool = False
    stepped: bool = False

    @property
    def cookie(self) -> int:
        """What the program is told."""
        return self.call | (TlsCall.TLS_LEAVES if self.leaves else 0)


@dataclass(slots=True)
class Link:
    """Probes in one process's mapping of one file; closing takes them out of its text.

    ``closed`` is called once they are out.
    """

    descriptors: list[int] = field(default_factory=list)
    closed: Callable[[], None] | None = None

    def close(self) -> None:
        """Take the probes out; takes the kernel some tens of ms. May be called again."""
        while self.descriptors:
            os.close(self.descriptors.pop())
        if self.closed:
            closed, self.closed = self.closed, None
            closed()


class LibraryProbes:
    """The programs of ``tls.bpf.o``, sharing the maps of the socket programs.

    Nothing of them runs until :meth:`link` has made a link. The programs that look at sockets are
    attached when asked for; a first call into a library brings a ``PROCESS_TLS`` event until then.
    ``way`` is the first of ``ways`` that the kernel has. Raises KernelError where it has none, or
    does not take the programs.
    """

    OBJECT = "tls"
    PROGRAMS: tuple[str, ...] = ("tls_enter", "tls_return")  # those of links
    way: Way = WAYS[0]

    def __init__(
        self, sockets: BpfObject, cpus: int, system_wide: bool, ways: Sequence[Way] = WAYS
    ) -> None:
        for way in ways:
            with ExitStack() as undo:
                self._object = BpfObject(self.OBJECT)
                undo.callback(self._object.close)
                for program in self.PROGRAMS:
                    self._object.set_attach_type(program, way.attach_type)
                self._arrange_maps(sockets, cpus)
                self._object.set_constants(system_wide=int(system_wide))
                for probe in self._object.load():
                    raise KernelError(f"{probe.name} cannot be attached: {probe.why}")
                if way.is_there(self._object.program_fd(self.PROGRAMS[0])):
                    self.way = way
                    undo.pop_all()
                    return
        names = " nor ".join(way.name for way in ways)
        raise KernelError(f"the kernel has no probes in programs: neither {names}")

    def _arrange_maps(self, sockets: BpfObject, cpus: int) -> None:
        for name in SHARED_MAPS:
            self._object.share_map(name, sockets)
        self._object.multiply_map("workspaces", cpus)

    def lend_maps(self, names: Iterable[str], borrower: BpfObject) -> None:
        """Let another object that is not loaded yet use these maps."""
        for name in names:
            borrower.share_map(name, self._object)

    def watch_sockets(self) -> list[Probe]:
        """Attach the programs that look at sockets, unless they are; what became of each."""
        return self._object.attach()

    def was_called(self) -> bool:
        """Whether a library was called since sockets were left."""
        return self._object.lookup(CALLED, CALLED_KEY, len(NOT_CALLED)) != NOT_CALLED

    def leave_sockets(self) -> None:
        """Detach them: sockets cost nothing more than before. The next first call is told."""
        self._object.detach()
        self._object.update(CALLED, CALLED_KEY, NOT_CALLED)

    def link(self, tgid: int, path: str, spots: Sequence[Spot]) -> Link:
        """Put probes at ``spots`` of the file ``path``, in process ``tgid`` only.

        Raises KernelError with the reason when the kernel refuses, KernelError with the cause
        ProcessLookupError when there is no such process.
        """
        enter, leave = self.PROGRAMS
        ends = [spot for spot in spots if spot.call is not TlsCall.TLS_FREE]
        return self._link(tgid, path, [(leave, ends, True), (enter, spots, False)])

    def _link(
        self, tgid: int, path: str, parts: Iterable[tuple[str, Sequence[Spot], bool]]
    ) -> Link:
        """Links of (program, places, whether at their returns), in this order.

        Returns come first: one that comes without its beginning is passed over.
        """
        link = Link()
        try:
            for program, spots, returns in parts:
                if spots:
                    places = [(spot.offset, spot.cookie) for spot in spots]
                    fd = self._object.program_fd(program)
                    link.descriptors += self.way.create(fd, tgid, path, places, returns)
        except OSError as error:
            link.close()
            raise KernelError(f"the kernel refuses the probes: {error.strerror}") from error
        return link

    def costs(self) -> list[ProgramCost]:
        """What the kernel counted of each program."""
        return self._object.costs()

    def memory(self) -> int:
        """Bytes of the maps that are not the socket programs' as well."""
        sizes = self._object.map_memory()
        return sum(size for name, size in sizes.items() if name not in SHARED_MAPS)

    def close(self) -> None:
        """Detach and unload; links have to be closed before."""
        self._object.close()
