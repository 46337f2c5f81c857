# SPDX-License-Identifier: Apache-2.0
"""The watching half of otelauto: discovery tells the kernel whom to watch, records come back.

One thread does all of it, in turns: short ones while there is traffic; after a while without any it
sleeps until something comes. What becomes of the records is the caller's: ``take`` gets each.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from otelauto import abi
from otelauto.capabilities import held
from otelauto.cluster import HOLD_S, Cluster
from otelauto.config import Config
from otelauto.counters import Counters, Meaning
from otelauto.discover.environment import check_environment
from otelauto.discover.names import Naming
from otelauto.discover.procfs import ProcFs
from otelauto.discover.sdk import ENDPOINTS
from otelauto.discover.select import COLLECTORS, Selector
from otelauto.discover.watch import Changes, Discovery, Target
from otelauto.errors import KernelError, OtelautoError
from otelauto.flows.vocabulary import Verdict
from otelauto.kernel.capture import Capture, Wanted
from otelauto.kernel.objects import ProgramCost
from otelauto.kernel.ring import Take
from otelauto.plaintext import Plaintext
from otelauto.services import Services
from otelauto.spans.span import Service
from otelauto.totals import KERNEL_COUNTERS, PROGRAM_MISSES, RECORDS_DELIVERED, RECORDS_DROPPED
from otelauto.verdicts import put_verdict

log = logging.getLogger("otelauto")

# To see which sockets and which program other users' processes have.
DISCOVERY_CAPABILITIES: Final = ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
LEARNING_WAIT_S: Final = 0.05
WAIT_S: Final = 0.2  # the rest of a turn costs as much as some hundred plain exchanges
METRICS_WAIT_S: Final = 0.4  # where nothing is to be queued for export
LEARNING_TURNS: Final = 5  # short ones, after each sign of something new
QUIET_TURNS: Final = 5  # without a record, before it is worth it: waking up is paid by the service
URGENT: Final = (abi.ProcessEventKind.PROCESS_LISTEN, abi.ProcessEventKind.PROCESS_TLS)
EVENTS_BUDGET_S: Final = 0.05  # of a turn
COUNT_S: Final = 5.0  # with the scans
NEARLY_FULL: Final = 0.9  # of the data ring: records may have been dropped
WARN_INTERVAL_S: Final = 60.0
LIBRARIES_WAIT_S: Final = 5.0  # at start, for probes in what is mapped already
DOUBTED_MAX: Final = 1000

TARGETS_REFUSED: Final = Meaning(
    "targets_refused",
    "Processes that match and could not be watched at once: the table of targets was full.",
)


def selector_of(config: Config) -> Selector:
    """What the configuration selects."""
    ebpf = config.ebpf
    return Selector(
        open_ports=tuple(ebpf.open_port.ranges),
        executable_name=ebpf.executable_name or None,
        pids=frozenset(ebpf.pids),
        system_wide=ebpf.system_wide,
        exclude=COLLECTORS if ebpf.system_wide else (),
    )


def no_plaintext(config: Config) -> str:
    """Why the configuration wants no plaintext of TLS; empty if it does."""
    if not config.ebpf.tls_plaintext:
        return "ebpf.tls_plaintext is off"
    if config.ebpf.system_wide:
        return "with ebpf.system_wide no process's text is changed"
    return ""


def naming_of(config: Config, cluster: Cluster) -> Naming:
    """What the configuration and Kubernetes say of service names."""
    return Naming(
        service_name=config.service_name or None,
        namespace=config.service_namespace or None,
        resource_attributes=config.resource_attributes,
        host=config.attributes.kubernetes.node_name or socket.gethostname(),
        describe=cluster.describe,
    )


def turn_seconds(config: Config) -> float:
    """How long a turn may last.

    Spans are to be queued for export within 0.25 s, and a program that is selected by its name is
    to be watched as soon. Metrics are read when somebody asks for them.
    """
    has_spans = config.otel_traces_export.endpoint is not None or config.trace_printer != "disabled"
    by_name = config.ebpf.executable_name or config.ebpf.system_wide
    return WAIT_S if has_spans or config.noop or by_name else METRICS_WAIT_S


class Watcher:
    """Discovery and capture, kept in step.

    ``on_target(tgid, service)`` is told when a process is watched or described anew,
    ``on_gone(tgid)`` when the last record of one was read. Under traffic a turn lasts ``turn_s``,
    less while something is learnt. Raises KernelError from the constructor when the kernel, the
    permissions or /proc do not allow it.
    """

    def __init__(
        self,
        config: Config,
        counters: Counters,
        *,
        on_target: Callable[[int, Service], None] = lambda tgid, service: None,
        on_gone: Callable[[int], None] = lambda tgid: None,
        turn_s: float = WAIT_S,
    ) -> None:
        check_environment()
        procfs = ProcFs(counters=counters)
        own = procfs.own_tgid()
        if own is None:
            raise KernelError("/proc does not show otelauto itself", "mount the host's /proc")
        selector = selector_of(config)
        self._selector = selector
        self._counters = counters
        self._on_target = on_target
        self._on_gone = on_gone
        self._turn_s = turn_s
        self.capture = Capture(
            Wanted(
                system_wide=selector.system_wide,
                # Only a choice of process ids needs no news of programs that are started.
                report_all_execs=bool(
                    selector.open_ports or selector.executable_name or selector.system_wide
                ),
                excluded=(own,),
                listen_ports=[(0, 65535)] if selector.system_wide else selector.open_ports,
                libraries=not no_plaintext(config),
            )
        )
        why = no_plaintext(config) or self.capture.libraries_refused
        go = self.capture.go, why or self.capture.go_refused
        self.plaintext = Plaintext(self.capture.libraries, why, counters, go=go)
        self.services = Services()
        self.cluster = Cluster(config, counters, self.capture.wake)
        naming = naming_of(config, self.cluster)
        self.discovery = Discovery(selector, procfs, naming, own, counters=counters)
        self._awaited: dict[int, float] = {}  # until when more is expected to be said of a process
        self._existing_sdk = config.existing_sdk
        self._doubted: set[str] = set()
        self._events: deque[abi.ProcessEvent] = deque()
        self._gone: list[int] = []
        self._renamed: list[Target] = []
        self._refused: dict[int, Target | None] = {}  # no room for them; None: to be excluded
        self._delivered = 0
        self._totals: dict[str, int] = {}
        self.costs: list[ProgramCost] = []  # when the kernel's totals were taken over last
        self._next_count = 0.0
        self._next_warning = 0.0
        self._warned_drops = 0
        self._lost_events = 0
        self._idle = False
        self._learning_turns = LEARNING_TURNS
        self._quiet_turns = 0

    def start(self) -> None:
        """The first look at /proc; raises KernelError if it can find nothing, now or later."""
        self.cluster.start()
        self._apply(self.discovery.scan(deep=True))
        self.plaintext.settle(LIBRARIES_WAIT_S)
        if not self.discovery.targets():
            self._check_that_waiting_helps()

    def _check_that_waiting_helps(self) -> None:
        missing = [name for name in DISCOVERY_CAPABILITIES if not held(name)]
        if missing:
            raise KernelError(
                f"nothing that this user may inspect matches the selection, and {missing[0]} is"
                " missing to see other users' processes",
                f"run as root, or grant {' and '.join(missing)} too",
            )
        if self._selector == Selector(pids=self._selector.pids):
            pids = ", ".join(map(str, sorted(self._selector.pids)))
            raise OtelautoError(f"no process has the id {pids}", "see `otelauto doctor`")

    def wait(self, spare_s: Callable[[], float] = lambda: 0.0) -> None:
        """Sleep until the next turn is due.

        ``spare_s`` is asked after some time without records: for how many seconds nothing has to be
        done if nothing comes.
        """
        seconds = spare_s() if self._idle and self._quiet_turns >= QUIET_TURNS else 0.0
        if seconds > WAIT_S:
            self._rest(seconds)
        elif self._idle or not self._learning_turns:
            self.capture.wait(self._turn_s)
        else:  # verdicts are to be expected: until they come, much is copied of each turn
            self.capture.wait(LEARNING_WAIT_S)

    def turn(self, take: Take) -> int:
        """Drain what came; returns the number of records."""
        self.poll_processes()
        self._poll_cluster()
        gone, self._gone = self._gone, []
        renamed, self._renamed = self._renamed, []
        fill = self.capture.ring_fill
        taken = self.drain(take)
        if max(fill, self.capture.ring_fill) > NEARLY_FULL:
            self._next_count = 0.0
        for tgid in gone:  # only now have its last records been read
            self._on_gone(tgid)
        for target in renamed:  # what was drained is of the program that it was before
            self._name(target)
        self._stop_waiting()
        was_idle, self._idle = self._idle, taken == 0 and not self._events
        if was_idle or self._events:
            self._learning_turns = LEARNING_TURNS
        elif self._learning_turns:
            self._learning_turns -= 1
        self._quiet_turns = 0 if taken else self._quiet_turns + 1
        self._look_around(time.monotonic())
        return taken

    def _look_around(self, now: float) -> None:
        """What is done now and then."""
        if now >= self._next_count:
            self._next_count = now + COUNT_S
            self.count()
            self._warn(now)
        if self.discovery.due(now):
            self._apply(self.discovery.scan(deep=self._events_are_missing()))
            self._retry_refused()
            self.plaintext.scan()

    def _rest(self, seconds: float) -> None:
        """Sleep until something comes; programs that start wait a little longer.

        Most of them are gone by then, and one that is gone is soon looked at.
        """
        self.capture.rest(seconds)
        events = self.capture.drain_events()
        self._events.extend(events)
        urgent = any(event.kind in URGENT for event in events)
        if events and not urgent and not self.capture.ring_fill:
            self.capture.wait(WAIT_S)

    def drain(self, take: Take) -> int:
        """Drain what waits now."""
        taken = self.capture.drain_records(take)
        self._delivered += taken
        return taken

    def service_of(self, tgid: int) -> Service | None:
        """The service of a process id; looks for news if it is not known."""
        found = self.services.of(tgid)
        if found is None:
            self.poll_processes()
            found = self.services.of(tgid)
        return found

    def put_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Tell the kernel what was learnt; it acts on it from the next segment on."""
        changed = False
        for verdict in verdicts:
            put_verdict(self.capture, verdict)
            changed = True
        if changed:
            self._learning_turns = LEARNING_TURNS
            self.capture.publish()

    # ---- processes ----

    def poll_processes(self) -> None:
        """Act on the process events that wait, for a while: records must not wait for /proc."""
        self._events.extend(self.capture.drain_events())
        give_up_at = time.monotonic() + EVENTS_BUDGET_S
        while self._events and time.monotonic() < give_up_at:
            event = self._events.popleft()
            forked = event.kind == abi.ProcessEventKind.PROCESS_FORK
            self._apply(self._changes(event), were_watched=forked)
            self._look_again(event)

    def _look_again(self, event: abi.ProcessEvent) -> None:
        """A target that runs another program, or listens now, may have other libraries."""
        if event.kind == abi.ProcessEventKind.PROCESS_TLS:
            self.plaintext.called()
            return
        target = self.discovery.targets().get(event.tgid)
        if target is None:
            return
        if event.kind == abi.ProcessEventKind.PROCESS_EXEC:
            self.plaintext.forget(event.tgid)  # links know it by the thread that it was
        elif event.kind != abi.ProcessEventKind.PROCESS_LISTEN:
            return
        self.plaintext.look(event.tgid, target.identity.language)

    def _changes(self, event: abi.ProcessEvent) -> Changes:
        match event.kind:
            case abi.ProcessEventKind.PROCESS_EXEC:
                return self.discovery.on_exec(event.tgid)
            case abi.ProcessEventKind.PROCESS_FORK:
                return self.discovery.on_fork(event.parent, event.tgid)
            case abi.ProcessEventKind.PROCESS_EXIT:
                return self.discovery.on_exit(event.tgid)
            case abi.ProcessEventKind.PROCESS_LISTEN:
                return self.discovery.on_listen(event.tgid, event.port, event.netns)
        return Changes()

    def _apply(self, changes: Changes, *, were_watched: bool = False) -> None:
        """``were_watched``: the kernel half told of all children of what started."""
        for tgid in changes.excluded:
            self._watch(tgid, None)
        for tgid in changes.stopped:
            self._refused.pop(tgid, None)
            self.capture.unwatch(tgid)
            self.plaintext.forget(tgid)
            self.services.remove(tgid)
            self._gone.append(tgid)
        for target in changes.started:
            if self._watch(target.tgid, target) and not were_watched:
                self._apply(self.discovery.on_watched(target.tgid))
        for target in changes.renamed:
            if target.tgid in self._refused:
                self._refused[target.tgid] = target
            else:
                self._name_when_drained(target)

    def _watch(self, tgid: int, target: Target | None) -> bool:
        """Watch ``target``, or exclude the process ``tgid``; ``False``: there is no room now."""
        try:
            if target is None:
                self.capture.exclude(tgid)
            else:
                self.capture.watch(tgid)
        except KernelError as error:
            if not self._counters.get(TARGETS_REFUSED):
                log.warning("%s; it is tried again", error.message)
            if tgid not in self._refused:
                self._counters.add(TARGETS_REFUSED)
            self._refused[tgid] = target
            return False
        self._refused.pop(tgid, None)
        if target is not None:
            self._name_when_drained(target)
            if self.cluster.lacks(target.identity.container):
                self._awaited[tgid] = time.monotonic() + HOLD_S
            self.plaintext.look(tgid, target.identity.language)
            log.info(
                "instrumenting service=%s pid=%d reason=%s ports=%s%s",
                target.service_name,
                target.tgid,
                target.reason,
                ",".join(map(str, target.ports)) or "-",
                f" sdk={target.identity.sdk!r}" if target.identity.sdk else "",
            )
            self._doubt_sdk(target)
        return True

    def targets(self) -> list[Target]:
        """What is watched now; what matches and is refused for now is not."""
        return [t for t in self.discovery.targets().values() if t.tgid not in self._refused]

    def _doubt_sdk(self, target: Target) -> None:
        """Say once of each service that its spans are left to an SDK on weak evidence."""
        name, variable = target.service_name, target.identity.sdk
        if self._existing_sdk == "ignore" or variable not in ENDPOINTS or name in self._doubted:
            return
        if len(self._doubted) < DOUBTED_MAX:
            self._doubted.add(name)
            log.warning(
                "service=%s is taken to have an OpenTelemetry SDK of its own, because of %s in its"
                " environment; if it has none, set existing_sdk: ignore",
                name,
                variable,
            )

    def refused(self) -> int:
        """How many targets there was no room for."""
        return sum(target is not None for target in self._refused.values())

    def _retry_refused(self) -> None:
        """Others may have ended since: watch as many of the refused as there is room for."""
        for tgid, target in list(self._refused.items()):
            if not self._watch(tgid, target):
                return

    def _name_when_drained(self, target: Target) -> None:
        """At once if the process id is new, else after the records that wait."""
        if self.services.of(target.tgid) is None:
            self._name(target)
        else:
            self._renamed.append(target)

    def _name(self, target: Target) -> None:
        self._on_target(target.tgid, self.services.add(target))

    # ---- Kubernetes ----

    def _poll_cluster(self) -> None:
        """Describe services anew of whose pods something else is said."""
        if changed := self.cluster.take_changed():
            self._apply(self.discovery.describe_again(changed))

    def _stop_waiting(self) -> None:
        """For what is described by now, or has had its time."""
        now = time.monotonic()
        for tgid, until in list(self._awaited.items()):
            target = self.discovery.targets().get(tgid)
            if target is None or not self.cluster.lacks(target.identity.container):
                del self._awaited[tgid]
            elif now >= until:
                del self._awaited[tgid]
                self.cluster.gave_up()

    def awaits(self, tgid: int) -> bool:
        """Whether a process is about to be described better: its exchanges may wait for that."""
        return tgid in self._awaited

    # ---- counting ----

    def count(self) -> None:
        """Take the kernel's totals over."""
        self._counters.set(RECORDS_DELIVERED, self._delivered)
        before, self._totals = self._totals, self.capture.counters()
        for name, total in self._totals.items():
            if total != before.get(name):
                meaning, label = KERNEL_COUNTERS[abi.Counter[name]]
                self._counters.set(meaning, total, label)
        self.costs = self.capture.costs()
        for cost in self.costs:
            self._counters.set(PROGRAM_MISSES, cost.missed, cost.name)

    def _events_are_missing(self) -> bool:
        """Lost since the last call, or never told: the kernel refuses a hook of theirs."""
        if self.capture.deaf:
            return True
        lost = self._counters.get(RECORDS_DROPPED, "event_ring_full")
        news, self._lost_events = lost > self._lost_events, lost
        return news

    def _warn(self, now: float) -> None:
        dropped = self._counters.get(RECORDS_DROPPED, "ring_full")
        if dropped > self._warned_drops and now >= self._next_warning:
            self._next_warning = now + WARN_INTERVAL_S
            log.warning(
                "%d records dropped because the ring was full: otelauto got too little CPU time, "
                "or the traffic is more than it can follow; the exchanges are counted as lost",
                dropped - self._warned_drops,
            )
            self._warned_drops = dropped

    def finish(self, take: Take) -> None:
        """Stop capturing, then read the last records and totals."""
        self.plaintext.close()
        self.capture.detach()
        self.poll_processes()
        self.drain(take)
        self.count()

    def close(self) -> None:
        """Detach and unload."""
        self.cluster.close()
        self.plaintext.close()
        self.capture.close()
