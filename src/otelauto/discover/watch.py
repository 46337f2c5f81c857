# SPDX-License-Identifier: Apache-2.0
"""Deciding which processes are watched: at once by kernel events, and by looking at all of /proc.

A process is selected by what the user asked for, or because a selected one forked it (the kernel
half watches such a child from its first instruction). Once selected it stays so until it exits or
executes another program: a server that stopped listening still answers on its open connections.
Whatever an event did not tell, the next scan finds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

from otelauto.counters import Counters
from otelauto.discover.groups import Group, Groups
from otelauto.discover.names import Identity, Namer, Naming
from otelauto.discover.procfs import ProcFs
from otelauto.discover.select import Selector
from otelauto.discover.table import Process, ProcessTable

SCAN_INTERVAL_S: Final = 5.0
DEEP_INTERVAL_S: Final = 30.0
DEEP_INTERVAL_MAX_S: Final = 60.0
_SCAN_SHARE = 200  # a scan takes at most one part in so many of the time
_DEEP_SHARE = 5000  # the same of deep ones, while that is within the longest interval
_FAMILY_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """A watched process and the service it belongs to.

    ``starttime`` is in clock ticks and tells reuses of ``tgid`` apart. ``deleted``: the file of the
    executable is gone or was replaced. ``summary`` is what it runs, without further arguments.
    ``reason`` says why it was selected, for people. ``ports`` and ``paths`` are what it listens on.
    Processes of one ``group`` are one service instance and have equal ``identity``.
    """

    tgid: int
    starttime: int
    executable: str
    deleted: bool
    summary: str
    netns: int
    reason: str
    ports: tuple[int, ...]
    paths: tuple[str, ...]
    group: int
    identity: Identity

    @property
    def service_name(self) -> str:
        """``service.name``."""
        return self.identity.service_name


@dataclass(slots=True)
class Changes:
    """What is new. Apply ``stopped`` before ``started``: a reused process id is in both.

    ``stopped`` may name processes that user space never started: children that the kernel half
    watched on its own and that are not wanted. ``renamed`` are targets whose service is now
    described differently. ``excluded`` must never be watched, though everything else is.
    """

    started: list[Target] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    renamed: list[Target] = field(default_factory=list)
    excluded: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.started or self.stopped or self.renamed or self.excluded)


class Discovery:
    """The processes to watch. Not thread-safe: one thread feeds it and takes its decisions.

    ``own_tgid`` is otelauto's process id in the initial PID namespace (``ProcFs.own_tgid``):
    neither it nor a descendant is ever a target.
    """

    def __init__(
        self,
        selector: Selector,
        procfs: ProcFs,
        naming: Naming,
        own_tgid: int,
        clock: Callable[[], float] = time.monotonic,
        counters: Counters | None = None,
    ) -> None:
        self._selector = selector
        self._table = ProcessTable(procfs)
        self._namer = Namer(procfs, naming, counters or Counters())
        self._own_tgid = own_tgid
        self._clock = clock
        self._groups = Groups()
        self._watched: dict[int, tuple[Process, str]] = {}  # with the reason
        self._targets: dict[int, Target] = {}
        self._pid_starts: dict[int, int] = {}
        self._excluded: set[int] = set()
        self._settled_listeners = 0  # changes of listeners that all processes were compared with
        self._announced: set[int] = set()  # namespaces of listeners that may not have been listed
        self._next_scan = self._next_deep = clock()

    def targets(self) -> Mapping[int, Target]:
        """What is watched now, by process id."""
        return self._targets

    def due(self, now: float) -> bool:
        """Is it time for a scan? Every 5 s, more rarely where a scan takes more than 25 ms."""
        return now >= self._next_scan

    def scan(self, *, deep: bool = False) -> Changes:
        """Compare what may have changed with /proc.

        Listeners are read in network namespaces that are new, or where one began to listen, and
        descriptors of processes that are new. All that is known is compared every 30 s, every 60 s
        where that takes long, or if ``deep`` is given: do so when kernel events were lost.
        """
        began = self._clock()
        deep = deep or began >= self._next_deep
        changed = self._table.refresh_all(self._watched, deep=deep)
        self._excluded &= self._table.processes.keys()
        if deep or changed or self._announced:
            self._read_listeners(force=deep)
        if deep or changed or self._table.changes_of_listeners != self._settled_listeners:
            changed |= self._read_sockets(deep=deep)
        changes = self._settle(changed | self._watched.keys())
        ended = self._clock()
        pause = (ended - began) * _SCAN_SHARE
        self._next_scan = began + max(SCAN_INTERVAL_S, pause)
        if deep:
            share = min((ended - began) * _DEEP_SHARE, DEEP_INTERVAL_MAX_S)
            self._next_deep = began + max(DEEP_INTERVAL_S, share, pause)
        return changes

    def _read_sockets(self, *, deep: bool) -> set[int]:
        """Find out who holds which listener; the processes to decide anew on because of it."""
        for process in self._may_listen():
            self._table.read_sockets(process, force=deep)
        if deep:
            self._read_foreign_sockets()
            self._look_for_sdks()
        seen, self._settled_listeners = self._settled_listeners, self._table.changes_of_listeners
        return set(self._table.processes) if deep or seen != self._settled_listeners else set()

    def on_exec(self, tgid: int) -> Changes:
        """A process of the host executed a program: it may match now, or no longer."""
        known = tgid in self._table.processes
        process = self._table.refresh(tgid)
        if process is not None and self._selector.open_ports and self._table.listeners:
            self._table.read_sockets(process, force=True)  # a listener may have been handed down
        changes = self._settle((tgid,))
        if not known and tgid not in self._watched:
            self._table.processes.pop(tgid, None)  # nothing of it is needed before the next scan
        return changes

    def on_fork(self, parent: int, child: int) -> Changes:
        """A watched process forked; the kernel half watches the child already."""
        process = self._table.refresh(child)
        origin = self._table.processes.get(parent)
        if process and origin and process.is_fork_of(origin):
            process.sockets = origin.sockets
        changes = self._settle((child,))
        if child not in self._watched and child not in changes.stopped:
            changes.stopped.append(child)
        return changes

    def on_watched(self, tgid: int) -> Changes:
        """The kernel half tells of the forks of a target from now on: find those before.

        A worker may come after its master's children were looked at, and before this.
        """
        if self._selector.system_wide:  # the kernel half watches them, too
            return Changes()
        found = set(self._table.procfs.children(tgid)) - self._watched.keys()
        for child in found:
            process = self._table.refresh(child)
            if process is not None:
                self._table.read_sockets(process, force=False)
        changes = self._settle(found)
        for child in found - self._watched.keys():
            self._table.processes.pop(child, None)  # nothing of it is needed before the next scan
        return changes

    def on_exit(self, tgid: int) -> Changes:
        """A process ended. Its id may have been given to another by now."""
        gone = self._table.processes.pop(tgid, None)
        stat = self._table.procfs.stat(tgid) if gone else None
        if gone and stat and stat.starttime != gone.stat.starttime:
            self._table.refresh(tgid)
        return self._settle((tgid,))

    def on_listen(self, tgid: int, port: int, netns: int) -> Changes:
        """A process began to listen on a wanted port of the network namespace ``netns``.

        The kernel tells before the socket is in its lists: the event is believed.
        """
        process = self._table.refresh(tgid)
        if process is None:
            return self._settle((tgid,))
        process.netns = self._table.procfs.netns(tgid)
        near = (p.tgid for p in self._table.processes.values() if p.netns == netns)
        via = (
            (tgid,) if process.netns == netns else tuple(near)
        )  # the socket stays where it was made
        self._table.read_listeners(netns, via, force=True)
        self._announced.add(netns)
        process.announced |= {port}
        self._table.read_sockets(process, force=True)
        family = self._family(process, {i for i, p in self._table.ports.items() if p == port})
        return self._settle(family)

    def describe_again(self, pods: AbstractSet[str]) -> Changes:
        """What is said of these pods has changed: the services in them that are not what they were.

        The pods are those of :attr:`Container.pod_uid`.
        """
        changes = Changes()
        for group in self._groups.all():
            identity = group.identity
            container = identity.container if identity else None
            if identity is None or container is None or container.pod_uid not in pods:
                continue
            group.identity = self._namer.again(identity)
            self._publish(group, changes)
        return changes

    def _read_listeners(self, *, force: bool) -> None:
        """Bring listeners up to date in the network namespaces that matter."""
        announced, self._announced = self._announced, set()
        by_netns: dict[int, list[int]] = {}
        everywhere = bool(self._selector.open_ports)
        for process in self._table.processes.values():
            if everywhere or self._own_reason(process):
                by_netns.setdefault(process.netns, []).append(process.tgid)
        for netns, tgids in by_netns.items():
            self._table.read_listeners(netns, tgids, force=force or netns in announced)

    def _may_listen(self) -> list[Process]:
        """Whose descriptors matter: those near a wanted port, and what is selected otherwise."""
        wanted = {
            netns
            for netns, known in self._table.listeners.items()
            if any(self._selector.wants_port(port) for port in known.tcp.values())
        }
        return [
            process
            for process in self._table.processes.values()
            if process.netns in wanted
            or process.tgid in self._watched
            or (not self._selector.open_ports and self._own_reason(process))
        ]

    def _read_foreign_sockets(self) -> None:
        """Find the holders of wanted sockets that nobody in their network namespace serves.

        A socket stays in the namespace where it was made, also in the hands of a service that a
        launcher started in another one.
        """
        wanted = {i for i, p in self._table.ports.items() if self._selector.wants_port(p)}
        for process in self._table.processes.values():
            if wanted & process.sockets and not self._table.is_activator(process):
                wanted -= process.sockets
        if not wanted:
            return
        seen = {process.tgid for process in self._may_listen()}
        for process in list(self._table.processes.values()):
            if process.tgid not in seen:
                process.sockets |= self._table.procfs.sockets(process.tgid, wanted)

    def _family(self, process: Process, sockets: set[int]) -> set[int]:
        """The relatives that hold the sockets too: a worker's master and the other workers."""
        top = process
        for _ in range(_FAMILY_LIMIT):
            parent = self._table.refresh(top.stat.ppid)
            if (
                parent is None
                or self._table.is_activator(parent)
                or not self._holds(parent, sockets)
            ):
                break
            top = parent
        found = {process.tgid, top.tgid}
        unvisited = [top.tgid]
        while unvisited and len(found) < _FAMILY_LIMIT:
            for tgid in self._table.procfs.children(unvisited.pop()):
                child = self._table.refresh(tgid)
                if child is not None and tgid not in found and self._holds(child, sockets):
                    found.add(tgid)
                    unvisited.append(tgid)
        return found

    def _look_for_sdks(self) -> None:
        """Look again at the services that had no SDK when they were named."""
        for group in self._groups.all():
            identity = group.identity
            if identity is not None and not identity.sdk:
                found = self._namer.sdk(min(group.members), identity.language)
                if found:
                    group.identity = replace(identity, sdk=found)

    def _holds(self, process: Process, sockets: set[int]) -> bool:
        self._table.read_sockets(process, force=False)
        return bool(process.sockets & sockets)

    def _reason(self, process: Process) -> str | None:
        """Why the process is watched; ``None`` if it is not."""
        reason = self._own_reason(process) or self._inherited_reason(process)
        if reason is None or self._selector.excludes(self._table.names(process)):
            return None
        return None if self._table.descends_from(process, self._own_tgid) else reason

    def _own_reason(self, process: Process) -> str | None:
        selector, tgid = self._selector, process.tgid
        if tgid in selector.pids:
            # The number means the process that had it first, not a later one.
            start = self._pid_starts.setdefault(tgid, process.stat.starttime)
            if start == process.stat.starttime:
                return f"pid {tgid}"
        if selector.system_wide:
            return "system_wide"
        if selector.open_ports:
            port = min(filter(selector.wants_port, self._listening_ports(process)), default=None)
            return (
                None if port is None or self._table.is_activator(process) else f"open_port {port}"
            )
        if selector.executable_name and selector.wants_executable(self._table.names(process)):
            return f"executable_name {selector.executable_name}"
        return None

    def _listening_ports(self, process: Process) -> tuple[int, ...]:
        ports = self._table.ports
        held = {ports[inode] for inode in process.sockets if inode in ports}
        return tuple(sorted(held | process.announced))

    def _inherited_reason(self, process: Process) -> str | None:
        parent, _ = self._watched.get(process.stat.ppid, (None, ""))
        return f"forked by {parent.tgid}" if parent and process.is_fork_of(parent) else None

    def _settle(self, tgids: Iterable[int]) -> Changes:
        """Decide anew on these processes and tell what changed."""
        changes = Changes()
        alive = []
        for tgid in tgids:
            process = self._table.processes.get(tgid)
            watched, _ = self._watched.get(tgid, (None, ""))
            if watched and (process is None or process.stat.starttime != watched.stat.starttime):
                self._forget(tgid, changes)
            if process is not None:
                alive.append(process)
        touched: dict[int, Group] = {}
        for process in sorted(alive, key=lambda process: process.age_order):
            group = self._place(process, changes)
            if group is not None:
                touched[group.number] = group
        for group in touched.values():
            if group.members:
                self._publish(group, changes)
        return changes

    def _place(self, process: Process, changes: Changes) -> Group | None:
        """Watch the process or not; the group to publish if it is watched."""
        watched, reason = self._watched.get(process.tgid, (None, ""))
        if watched is not process:
            found = self._reason(process)
            if found is None:
                if watched is not None:
                    self._forget(process.tgid, changes)
                self._exclude(process.tgid, changes)
                return None
            reason = found
            self._excluded.discard(process.tgid)
            self._groups.leave(process.tgid)
            self._watched[process.tgid] = process, reason
        sockets = () if self._table.is_activator(process) else process.sockets
        return self._groups.join(process, sockets)

    def _exclude(self, tgid: int, changes: Changes) -> None:
        """Tell once of each process that the kernel half would watch with all the others."""
        if self._selector.system_wide and tgid not in self._excluded:
            self._excluded.add(tgid)
            changes.excluded.append(tgid)

    def _forget(self, tgid: int, changes: Changes) -> None:
        self._groups.leave(tgid)
        del self._watched[tgid]
        del self._targets[tgid]
        changes.stopped.append(tgid)

    def _publish(self, group: Group, changes: Changes) -> None:
        """Bring the targets of a group up to date."""
        paths = self._table.paths
        identity = group.identity = group.identity or self._identity(group)
        for tgid in sorted(group.members):
            process, reason = self._watched[tgid]
            target = Target(
                tgid=tgid,
                starttime=process.stat.starttime,
                executable=process.executable,
                deleted=process.deleted,
                summary=self._table.program(process).summary,
                netns=process.netns,
                reason=reason,
                ports=self._listening_ports(process),
                paths=tuple(sorted({paths[i] for i in process.sockets if i in paths})),
                group=group.number,
                identity=identity,
            )
            before = self._targets.get(tgid)
            self._targets[tgid] = target
            if before is None:
                changes.started.append(target)
            elif (before.identity, before.group) != (identity, group.number):
                changes.renamed.append(target)

    def _identity(self, group: Group) -> Identity:
        """Named by the oldest member that did not vanish while it was read, or just the oldest."""
        members = [self._watched[tgid][0] for tgid in group.members]
        found: list[Identity] = []
        for process in sorted(members, key=lambda process: process.age_order):
            program = self._table.program(process)
            found.append(self._namer.identity(process.tgid, process.executable, program))
            if self._table.is_current(process):
                return found[-1]
        return found[0]
