# SPDX-License-Identifier: Apache-2.0
"""The kernel half, running: which processes are watched, what has been captured, what was lost."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import select
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from otelauto import abi
from otelauto.errors import KernelError
from otelauto.kernel.go_probes import GoProbes
from otelauto.kernel.libbpf import library
from otelauto.kernel.objects import (
    BpfObject,
    NotAllowedError,
    Probe,
    ProgramCost,
    RejectedError,
)
from otelauto.kernel.ring import Ring, Take
from otelauto.kernel.tiers import TIERS, HookError, Tier
from otelauto.kernel.uprobe_links import WAYS, Way
from otelauto.kernel.uprobes import LibraryProbes

log = logging.getLogger("otelauto.kernel")

DATA_RING: Final = 4 << 20
EVENT_RING: Final = 256 << 10
WAKE_AT: Final = DATA_RING // 4  # crossing it wakes the consumer: room for what comes meanwhile
SHARED_MAPS: Final = ("targets", "counters", "records", "events", "shared")
# Of all tiers, the programs that see ends of connections and copy nothing.
ENDINGS: Final = frozenset({"sock_state", "sock_gone", "inet_freed", "unix_freed"})
TGID: Final = struct.Struct("<I")
SHARED: Final = struct.Struct("<III")
GENERATION_AT, WAKE_PENDING_AT, SLEEPING_AT = 0, 4, 8
ONE: Final = (1).to_bytes(8, sys.byteorder)  # what eventfd(2) takes
COMMIT_S: Final = 0.1  # that a program takes from the flag to its record, and much longer
PORTS: Final = 1 << 16
COUNTERS: Final = tuple(c.name for c in sorted(abi.Counter) if c < abi.Counter.COUNTER_COUNT)


@dataclass(slots=True)
class Wanted:
    """What the kernel half is to look at, decided before it is loaded."""

    system_wide: bool = False
    report_all_execs: bool = False
    excluded: tuple[int, ...] = ()
    listen_ports: Iterable[tuple[int, int]] = ()  # ranges, both ends included
    libraries: bool = False  # be able to put probes into libraries
    ways: Sequence[Way] = WAYS  # to put them there, best first


@dataclass(slots=True)
class _Words:
    """The words that both sides write (struct shared_state), mapped."""

    memory: mmap.mmap
    view: memoryview = field(init=False)

    def __post_init__(self) -> None:
        self.view = memoryview(self.memory)[: SHARED.size].cast("I")

    def close(self) -> None:
        self.view.release()
        self.memory.close()


def _set_constants(sockets: BpfObject, tier: Tier, wanted: Wanted) -> None:
    sockets.set_constants(system_wide=int(wanted.system_wide), wake_at=WAKE_AT, **tier.constants())


def _rank(error: KernelError) -> int:
    if isinstance(error, NotAllowedError):
        return 0
    return 2 if isinstance(error, HookError) and error.absent else 1


class Capture:
    """The best tier that this kernel allows, loaded and attached.

    Nothing is pinned: the kernel removes it all with this process.

    Raises KernelError from the constructor when the kernel cannot serve; a tool that can see
    nothing does not stay up.
    """

    def __init__(self, wanted: Wanted) -> None:
        if not Path("/sys/kernel/btf/vmlinux").exists():
            raise KernelError(
                "this kernel does not describe its types (no /sys/kernel/btf/vmlinux)",
                "use a kernel built with CONFIG_DEBUG_INFO_BTF, as Debian's and Ubuntu's are",
            )
        self._cpus = library().call("libbpf_num_possible_cpus")
        with ExitStack() as undo:
            self._start(wanted)
            undo.callback(self._processes.close)
            undo.callback(self._sockets.close)
            self.libraries, self.libraries_refused = self._load_libraries(wanted)
            if self.libraries:
                undo.callback(self.libraries.close)
            self.go, self.go_refused = self._load_go(wanted)
            undo.pop_all()
        self._records = Ring(self._sockets.map_fd("records"), DATA_RING)
        self._events = Ring(self._sockets.map_fd("events"), EVENT_RING)
        memory = mmap.mmap(self._sockets.map_fd("shared"), mmap.PAGESIZE)
        self._shared = _Words(memory)
        self.publish()
        self._poll = select.epoll()
        # Edge-triggered: each write wakes, and nobody has to read what was written.
        self._wakeups = open(os.eventfd(0), "wb", buffering=0)  # noqa: PTH123, SIM115
        for fd in (self._records.fd, self._events.fd, self._wakeups.fileno()):
            self._poll.register(fd, select.EPOLLIN | select.EPOLLET)
        self.largest_backlog = 0

    def _start(self, wanted: Wanted) -> None:
        """Try the tiers, best first; raises KernelError when none can be had.

        Of several reasons the one that can be changed is told: permission, else a refusal, else
        what this kernel does not have.
        """
        errors: list[KernelError] = []
        for tier in TIERS:
            try:
                self._try(tier, wanted)
            except KernelError as error:
                log.debug("tier %s: %s", tier.name, error.message)
                errors.append(error)
            else:
                self.tier = tier.name
                self.refusals = [error.message for error in errors]
                return
        raise min(errors, key=_rank)

    def _load_libraries(self, wanted: Wanted) -> tuple[LibraryProbes | None, str]:
        """The probes for libraries, or why there are none. All else works without them."""
        if not wanted.libraries:
            return None, "not asked for"
        if self._sockets.name != TIERS[0].object:
            return None, f"that takes tier {TIERS[0].name}"
        try:
            return LibraryProbes(self._sockets, self._cpus, wanted.system_wide, wanted.ways), ""
        except KernelError as error:
            return None, error.message

    def _load_go(self, wanted: Wanted) -> tuple[GoProbes | None, str]:
        """The same for programs written in Go."""
        if self.libraries is None:
            return None, self.libraries_refused
        try:
            go = GoProbes(self._sockets, self._cpus, wanted.system_wide, self.libraries)
        except KernelError as error:
            return None, error.message
        return go, ""

    def _try(self, tier: Tier, wanted: Wanted) -> None:
        """Load and attach one tier, without the programs that the kernel rejects."""
        rejected: dict[str, str] = {}
        while True:
            with ExitStack() as undo:
                self._sockets = BpfObject(tier.object)
                undo.callback(self._sockets.close)
                self._processes = BpfObject("procs")
                undo.callback(self._processes.close)
                try:
                    self.probes = self._load(tier, wanted, rejected)
                except RejectedError as error:
                    if error.program in tier.needed or error.program in rejected:
                        raise
                    rejected[error.program] = error.message
                    continue
                undo.pop_all()
                self._loaded = tier, wanted, rejected
                return

    def _load(self, tier: Tier, wanted: Wanted, rejected: Mapping[str, str]) -> list[Probe]:
        sockets, processes = self._sockets, self._processes
        tier.check(sockets)
        _set_constants(sockets, tier, wanted)
        processes.set_constants(
            system_wide=int(wanted.system_wide), report_all_execs=int(wanted.report_all_execs)
        )
        sockets.multiply_map("workspaces", self._cpus)
        probes = sockets.load(rejected)
        for name in SHARED_MAPS:
            processes.share_map(name, sockets)
        probes += processes.load(rejected)
        for tgid in wanted.excluded:
            self.exclude(tgid)
        for low, high in wanted.listen_ports:
            self._want_ports(low, high)
        probes += sockets.attach() + processes.attach()
        tier.check_attached(probes)
        return probes

    def _want_ports(self, low: int, high: int) -> None:
        for word in range(low // 64, high // 64 + 1):
            key = TGID.pack(word)
            bits = int.from_bytes(self._processes.lookup("wanted_ports", key, 8) or b"", "little")
            for port in range(max(low, word * 64), min(high, word * 64 + 63) + 1):
                bits |= 1 << port % 64
            self._processes.update("wanted_ports", key, bits.to_bytes(8, "little"))

    @property
    def deaf(self) -> bool:
        """Whether a hook that tells of processes was refused."""
        events = self._processes.programs
        return any(p.state != "attached" for p in self.probes if p.name in events)

    # ---- targets ----

    def watch(self, tgid: int) -> None:
        """Watch a process; raises KernelError when the table of targets is full."""
        self._set_target(tgid, abi.TargetState.TARGET_WATCHED)

    def exclude(self, tgid: int) -> None:
        """Never watch a process, also when everything else is."""
        self._set_target(tgid, abi.TargetState.TARGET_EXCLUDED)

    def _set_target(self, tgid: int, state: abi.TargetState) -> None:
        try:
            self._sockets.update("targets", TGID.pack(tgid), TGID.pack(state))
        except OSError as error:
            raise KernelError(f"cannot watch process {tgid}: {error.strerror}") from error

    def unwatch(self, tgid: int) -> None:
        """Stop watching a process; no error if it is not watched."""
        self._sockets.delete("targets", TGID.pack(tgid))
        self.publish()

    # ---- verdicts ----

    def put_connection_verdict(self, connection: int, verdict: abi.Verdict) -> bool:
        """Decide for one connection; takes effect at its next segment after :meth:`publish`.

        False when the kernel has no room for it. Old verdicts make room, so that is rare.
        """
        return self._put_verdict("connection_verdicts", struct.pack("<Q", connection), verdict)

    def put_endpoint_verdict(self, key: abi.EndpointKey, verdict: abi.Verdict) -> bool:
        """Decide for every connection of an endpoint; otherwise like the one for a connection."""
        return self._put_verdict("endpoint_verdicts", abi.ENDPOINT_KEY.pack(*key), verdict)

    def _put_verdict(self, table: str, key: bytes, verdict: abi.Verdict) -> bool:
        try:
            self._sockets.update(table, key, abi.VERDICT.pack(*verdict))
        except OSError as error:
            if error.errno in (errno.ENOMEM, errno.EBUSY):
                return False
            raise
        return True

    def publish(self) -> None:
        """Make every connection look its target and its verdict up again."""
        words = self._shared.view
        words[GENERATION_AT // 4] = words[GENERATION_AT // 4] % 0xFFFFFFFF + 1

    # ---- draining ----

    def wait(self, seconds: float) -> None:
        """Sleep, but wake early for a new listener, a data ring that fills, or :meth:`wake`."""
        self._shared.view[SLEEPING_AT // 4] = 0
        self._poll.poll(seconds)

    def rest(self, seconds: float) -> None:
        """Sleep, but wake early for anything that comes: the first record or process event too.

        Its wake-up is paid by the process that it is about, so rest only where little is expected.
        """
        words = self._shared.view
        # A program that read the flag before it was set may commit its record a moment later, and
        # wakes nobody: the look after a short sleep finds it.
        naps = (seconds,) if words[SLEEPING_AT // 4] else (0.0, COMMIT_S, seconds)
        words[SLEEPING_AT // 4] = 1
        if any(map(self._comes_within, naps)):
            words[SLEEPING_AT // 4] = 0

    def _comes_within(self, seconds: float) -> bool:
        # The call gives up the interpreter's lock and takes it again: no load below comes before
        # what was stored before it.
        woken = bool(self._poll.poll(seconds))
        return woken or bool(self._records.waiting or self._events.waiting)

    def wake(self) -> None:
        """End the :meth:`wait` or :meth:`rest` in progress, or else the next one.

        For other threads and signal handlers; does nothing after :meth:`close`.
        """
        with suppress(ValueError):
            self._wakeups.write(ONE)

    def drain_records(self, take: Take) -> int:
        """Hand over the records that wait; returns how many. Views are valid in ``take`` only."""
        self.largest_backlog = max(self.largest_backlog, self._records.waiting)
        taken = self._records.drain(take)
        self._shared.view[WAKE_PENDING_AT // 4] = 0
        return taken

    def drain_events(self) -> list[abi.ProcessEvent]:
        """The process events that wait."""
        found: list[abi.ProcessEvent] = []
        if not self._events.waiting:
            return found
        self._events.drain(
            lambda view: found.append(abi.ProcessEvent(*abi.PROCESS_EVENT.unpack(view)))
        )
        return found

    @property
    def ring_fill(self) -> float:
        """Share of the data ring that waits, 0 to 1."""
        return self._records.waiting / DATA_RING

    # ---- self-observation ----

    def counters(self) -> dict[str, int]:
        """Totals of the kernel's counters by the name in ``enum counter``."""
        cpus = self._cpus
        raw = self._sockets.values("counters", len(COUNTERS), 8 * cpus)
        each = struct.unpack(f"<{len(COUNTERS) * cpus}Q", raw)
        return {name: sum(each[n * cpus : (n + 1) * cpus]) for n, name in enumerate(COUNTERS)}

    def costs(self) -> list[ProgramCost]:
        """What the kernel counted of each program."""
        costs = self._sockets.costs() + self._processes.costs()
        return costs + [cost for probes in self._plaintext for cost in probes.costs()]

    @property
    def _plaintext(self) -> list[LibraryProbes]:
        return [probes for probes in (self.go, self.libraries) if probes]

    def kernel_memory(self) -> int:
        """Bytes of all maps; the state of watched sockets comes on top."""
        own = {n: s for n, s in self._processes.map_memory().items() if n not in SHARED_MAPS}
        libraries = sum(probes.memory() for probes in self._plaintext)
        return sum(self._sockets.map_memory().values()) + sum(own.values()) + libraries

    def pause(self) -> None:
        """Cost the services nothing: leave the hooks of their bytes. Endings are still seen."""
        self._sockets.detach(*(name for name in self._sockets.programs if name not in ENDINGS))

    def resume(self) -> bool:
        """See bytes again; what passed meanwhile was not seen. False if a hook is refused now."""
        if all(probe.state == "attached" for probe in self._sockets.attach()):
            return True
        # Before 5.13 (commit f3a95075549e) a program attaches to a function once: load it again.
        tier, wanted, rejected = self._loaded
        with ExitStack() as undo:
            fresh = BpfObject(tier.object)
            undo.callback(fresh.close)
            _set_constants(fresh, tier, wanted)
            fresh.share_maps(self._sockets)
            fresh.load(rejected)
            if any(probe.state != "attached" for probe in fresh.attach()):
                return False
            undo.pop_all()
        self._sockets.close()
        self._sockets = fresh
        return True

    def detach(self) -> None:
        """Leave every hook; what was captured and counted can still be read.

        Links into libraries are their maker's to close.
        """
        for probes in self._plaintext:
            probes.leave_sockets()
        self._processes.detach()
        self._sockets.detach()

    def close(self) -> None:
        """Detach, unload and unmap. May be called again."""
        self._poll.close()
        self._wakeups.close()
        self._shared.close()
        self._records.close()
        self._events.close()
        for probes in self._plaintext:
            probes.close()
        self._processes.close()
        self._sockets.close()
