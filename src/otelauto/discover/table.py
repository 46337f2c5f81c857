# SPDX-License-Identifier: Apache-2.0
"""What is known of the host's processes and listening sockets, re-read only where it may differ.

One read of /proc/<pid>/stat tells whether a known process is still the one that is known: the
start time differs when the id was reused, the image when the process executed another program.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from otelauto.discover import programs, select
from otelauto.discover.procfs import ProcFs, Stat
from otelauto.discover.programs import Program

_ANCESTORS_LIMIT = 64


@dataclass(slots=True, eq=False)
class Process:
    """A process running one program; another program in it makes another ``Process``.

    ``sockets`` are the listening sockets it is known to hold, read when the listeners of its
    network namespace were of generation ``sockets_generation``.
    """

    tgid: int
    stat: Stat
    executable: str
    deleted: bool  # the executable's file
    netns: int
    sockets: frozenset[int] = frozenset()
    sockets_generation: int = -1
    announced: frozenset[int] = frozenset()  # ports it began to listen on, by kernel event
    program: Program | None = None

    @property
    def age_order(self) -> tuple[int, int]:
        """Sorts older processes first."""
        return self.stat.starttime, self.tgid

    def is_fork_of(self, other: Process) -> bool:
        """Does it run on in the very image of ``other``, without an exec between?"""
        return any(self.stat.image) and self.stat.image == other.stat.image


@dataclass(slots=True)
class Listeners:
    """The listening sockets of one network namespace: inode -> port, inode -> path."""

    tcp: dict[int, int]
    unix: dict[int, str]
    generation: int = 0


class ProcessTable:
    """All user-space processes by id, and the listeners of the namespaces that matter."""

    def __init__(self, procfs: ProcFs) -> None:
        self.procfs = procfs
        self.processes: dict[int, Process] = {}
        self.listeners: dict[int, Listeners] = {}
        self._kernel_threads: set[int] = set()
        self._last_started: bytes | None = None
        self.ports: dict[int, int] = {}  # all known listening TCP sockets: inode -> port
        self.paths: dict[int, str] = {}  # all known listening unix sockets: inode -> path
        self.changes_of_listeners = 0

    def refresh_all(self, watched: Collection[int], *, deep: bool) -> set[int]:
        """Look for new processes; the ids of those that are new or changed.

        Unless ``deep``, of the known ones only those ``watched`` are brought up to date, and
        process ids of kernel threads and network namespaces are not looked at again. Where nothing
        was forked since the last call, processes can only have ended, or run other programs, which
        kernel events tell: no file of theirs is read then, unless ``deep``.
        """
        started = self.procfs.last_started()
        forked = started is None or started != self._last_started
        self._last_started = started
        changed: set[int] = set()
        if not forked and not deep:
            for tgid in watched:
                if not self.procfs.exists(tgid):
                    self.processes.pop(tgid, None)
            return changed
        listed = self.procfs.tgids()
        self._kernel_threads &= set() if deep and forked else set(listed)
        tgids = [tgid for tgid in listed if tgid not in self._kernel_threads]
        for tgid in self.processes.keys() - tgids:
            del self.processes[tgid]
        for tgid in tgids:
            known = self.processes.get(tgid)
            if known is not None and not deep and tgid not in watched:
                continue
            process = self.refresh(tgid)
            if process is None:
                continue
            netns = process.netns
            if deep and process is known:
                process.netns = self.procfs.netns(tgid)
            if process is not known or process.netns != netns:
                changed.add(tgid)
        unused = self.listeners.keys() - {process.netns for process in self.processes.values()}
        for netns in unused:
            del self.listeners[netns]
        if unused:
            self._index_listeners()
        return changed

    def refresh(self, tgid: int) -> Process | None:
        """Bring one process up to date: ``None`` if it is gone or a kernel thread."""
        stat = self.procfs.stat(tgid)
        if stat is None or stat.kernel_thread:
            self.processes.pop(tgid, None)
            if stat is not None:
                self._kernel_threads.add(tgid)
            return None
        known = self.processes.get(tgid)
        if known and known.stat.identity == stat.identity:
            known.stat = stat  # the parent may have died
            return known
        executable = self.procfs.executable(tgid)
        if executable is None:
            self.processes.pop(tgid, None)
            return None
        netns = self.procfs.netns(tgid)
        process = Process(tgid, stat, executable.path, executable.deleted, netns)
        self.processes[tgid] = process
        return process

    def is_current(self, process: Process) -> bool:
        """Does the process still exist and run this program?"""
        stat = self.procfs.stat(process.tgid)
        return stat is not None and stat.identity == process.stat.identity

    def program(self, process: Process) -> Program:
        """What the process runs, found out when first asked for."""
        if process.program is None:
            process.program = programs.describe(
                process.executable,
                lambda: self.procfs.cmdline(process.tgid),
                lambda: self.procfs.working_directory(process.tgid),
            )
        return process.program

    def names(self, process: Process) -> tuple[str, ...]:
        """All that a user may call the program by."""
        return (process.executable, *self.program(process).aliases)

    def is_activator(self, process: Process) -> bool:
        """Does it hold listening sockets only to hand them to services it starts?"""
        return select.is_activator(process.tgid, self.program(process).name)

    def descends_from(self, process: Process, ancestor: int) -> bool:
        """Is it the process ``ancestor`` or a living child's child of it?"""
        tgid = process.tgid
        for _ in range(_ANCESTORS_LIMIT):
            if tgid == ancestor:
                return True
            known = self.processes.get(tgid)
            stat = known.stat if known else self.procfs.stat(tgid)
            if stat is None or stat.ppid == 0:
                return False
            tgid = stat.ppid
        return False

    def read_listeners(self, netns: int, tgids: Iterable[int], *, force: bool) -> None:
        """Bring the listeners of a network namespace up to date through one of its processes.

        Unless ``force`` is given, only those of a namespace that is new: the kernel walks its whole
        table of connections for the list, and tells of new listeners by itself.
        """
        known = self.listeners.get(netns)
        if known and not force:
            return
        for tgid in tgids:
            tcp = self.procfs.tcp_listeners(tgid)
            if not tcp and self.procfs.stat(tgid) is None:
                continue  # it vanished: ask another
            unix = self.procfs.unix_listeners(tgid)
            if known is None:
                known = self.listeners[netns] = Listeners({}, {})
            if (tcp, unix) != (known.tcp, known.unix):
                known.tcp, known.unix = tcp, unix
                known.generation += 1
                self.changes_of_listeners += 1
                self._index_listeners()
            return

    def _index_listeners(self) -> None:
        self.ports = {i: port for known in self.listeners.values() for i, port in known.tcp.items()}
        self.paths = {
            i: path for known in self.listeners.values() for i, path in known.unix.items()
        }

    def read_sockets(self, process: Process, *, force: bool) -> None:
        """Find out which of the known listening sockets the process holds.

        Unless ``force`` is given only if its namespace's listeners changed since the last look.
        """
        known = self.listeners.get(process.netns)
        generation = known.generation if known else 0
        if process.sockets_generation == generation and not force:
            return
        listening = self.ports.keys() | self.paths.keys()
        process.sockets = self.procfs.sockets(process.tgid, listening) if listening else frozenset()
        process.sockets_generation = generation
