# SPDX-License-Identifier: Apache-2.0
"""The wiring: read it from top to bottom. Only this module sees every room.

kernel -> records -> flows -> exchanges -> span stages -> spans -> exporters
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Final

from otelauto import doctor as support
from otelauto.capabilities import forbid_core_dumps, give_up_others, take_up
from otelauto.config import Config
from otelauto.control import Control, ask
from otelauto.counters import Counters, Meaning
from otelauto.errors import KernelError, OtelautoError
from otelauto.flows.flows import Flows
from otelauto.gauges import Gauges
from otelauto.governor import LOOK_INTERVAL_S, SPAN_SHARES, Governor, Meter, Step
from otelauto.instrument import Watcher, turn_seconds
from otelauto.kernel.ring import Take
from otelauto.memory import settle
from otelauto.notify import READY, STOPPING, notify
from otelauto.protocols import protocols
from otelauto.protocols.http1_redact import redact, unfinished
from otelauto.protocols.settings import ProtocolSettings
from otelauto.publish import Publisher
from otelauto.recording import Note, Reader, Writer
from otelauto.spans.clock import WallClock, boot_now_ns
from otelauto.spans.service import build_service
from otelauto.spans.span import Service
from otelauto.status import live_report
from otelauto.verdicts import beginnings

log = logging.getLogger("otelauto")

DEFECTS: Final = Meaning(
    "defects", "Records given up because of a defect of otelauto; the log has the first."
)
FIRST_HIGH_PORT: Final = 1024
REST_S: Final = 5.0  # what is done now and then is done as often, in the same turn


class Stop:
    """True once SIGINT or SIGTERM has come. The end is bounded in time; more change nothing."""

    def __init__(self) -> None:
        self.asked = False
        self.wake: Callable[[], None] = lambda: None  # what may sleep and has to look
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        self.wake()

    def __bool__(self) -> bool:
        return self.asked


class App:
    """An instrumenter: a watcher, the flows, a publisher and the control socket."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.counters = Counters()
        self.started = time.monotonic()
        self.clock = WallClock()
        self.gauges = Gauges()
        self.watcher = Watcher(
            config,
            self.counters,
            on_gone=self._on_gone,
            on_target=self._on_target,
            turn_s=turn_seconds(config),
        )
        self.publisher = Publisher(
            config,
            self.counters,
            self.watcher.service_of,
            self.clock,
            [self.gauges.families],
            self.watcher.awaits,
        )
        self.flows = make_flows(config, self.counters, self.publisher)
        self._take: Take = self._feed
        if self.flows.lane is not None:
            self.flows.lane.defect = self._defect
            self._take = self.flows.lane
        self.control = Control(Path(config.control_socket), self.watcher.capture.wake)
        overhead = config.max_overhead
        self.meter = Meter(self.watcher.capture.costs, overhead.programs > 0)
        self.governor = Governor(
            overhead.agent / 100,
            overhead.programs / 100,
            self.meter.read,
            self.counters,
            self._give_up,
        )
        self._next_expiry = 0.0
        self._told: set[tuple[str, str]] = set()
        self._unread_before: set[tuple[str, str]] = set()

    def run(self, stop: Stop) -> None:
        """Watch and publish until ``stop``."""
        stop.wake = self.watcher.capture.wake
        give_up_others(
            low_port=0 < self.config.prometheus_export.port < FIRST_HIGH_PORT,
            statistics=self.config.max_overhead.programs > 0,
        )
        self.publisher.start()
        self.control.start()
        self.watcher.start()
        self.watcher.put_verdicts(beginnings(self.flows.protocols))
        log.info("watching tier=%s targets=%d", self.watcher.capture.tier, self._target_count())
        for refusal in self.watcher.capture.refusals:
            log.info("no better tier: %s", refusal)
        if not self._target_count():
            log.warning("nothing matches the selection yet; waiting for it to start")
        settle()
        notify(READY)
        while not stop:
            self.watcher.wait(self._spare_s)
            self.publisher.follow_clock()
            self.watcher.turn(self._take)
            self._after_drain()
            if not self.publisher.has_audience():
                log.warning("nobody reads standard output any more, and nothing else is exported")
                return
            self._housekeeping(time.monotonic())

    def _feed(self, record: memoryview) -> None:
        """A defect of a parser costs one record, never the instrumenter."""
        try:
            self.flows.feed(record)
        except Exception as error:
            self._defect(error)

    def _defect(self, error: Exception) -> None:
        self.counters.add(DEFECTS)
        if self.counters.get(DEFECTS) == 1:
            message = "a record could not be read: a defect of otelauto, please report it"
            log.error(message, exc_info=error)

    def _after_drain(self) -> None:
        self.flows.tick(boot_now_ns())
        self.watcher.put_verdicts(self.flows.take_verdicts())
        self.publisher.flush()
        self.control.serve(lambda: live_report(self))

    def _give_up(self, step: Step) -> None:
        """Give detail up, or take it back; see docs/troubleshooting.md for the order."""
        self.flows.shorten_heads(step >= Step.SHORT_HEADS)
        self.publisher.keep_spans(SPAN_SHARES[step])
        capture = self.watcher.capture
        self.watcher.plaintext.pause(step is Step.DETACHED)
        if step is Step.DETACHED:
            capture.pause()
            self.flows.interrupt()
        elif not capture.resume():
            raise KernelError(
                "the kernel refuses a hook that it gave before", "see `otelauto doctor`"
            )

    def _spare_s(self) -> float:
        """For how long nothing has to be done if nothing comes."""
        if self.flows.waits():
            return 0.0
        return LOOK_INTERVAL_S if self.governor.has_limits else REST_S

    def _housekeeping(self, now: float) -> None:
        self.governor.look(now)
        if now >= self._next_expiry:
            self._next_expiry = now + REST_S
            for service in self.watcher.services.expire():
                self.publisher.forget(service)
            self.publisher.expire()
            self.gauges.take(self, now)
            self._tell_unread()

    def _tell_unread(self) -> None:
        """Say once of each endpoint that its traffic cannot be read, and why.

        Not at first sight: the plaintext may come beside it a moment later.
        """
        unread = {(row.carries, row.endpoint) for row in self.flows.connections().unread}
        for carries, endpoint in sorted((unread & self._unread_before) - self._told):
            log.warning("traffic of %s is not read: it carries %s", endpoint, carries)
        self._told |= unread & self._unread_before
        self._unread_before = unread

    def _on_target(self, _tgid: int, _service: Service) -> None:
        self.publisher.changed()

    def _on_gone(self, tgid: int) -> None:
        self.flows.forget(tgid)

    def _target_count(self) -> int:
        return len(self.watcher.targets())

    def close(self) -> None:
        """Stop capturing, deliver what is left, flush the exporters, unload. Each step is tried."""
        with ExitStack() as steps:  # the last one first
            steps.callback(self.watcher.close)
            steps.callback(self.control.close)
            steps.callback(self.publisher.close)
            steps.callback(self.flows.close)
            steps.callback(self.watcher.finish, self._take)
            steps.callback(self.meter.close)


def make_flows(config: Config, counters: Counters, publisher: Publisher) -> Flows:
    """The flows with every protocol, delivering to ``publisher``."""
    settings = ProtocolSettings(config.http.capture_query, config.http.named_operations)
    return Flows(
        protocols(settings),
        counters,
        publisher.deliver,
        config.limits.connections,
        publisher.lane,
        publisher.admit,
    )


@contextmanager
def closing(app: App) -> Iterator[App]:
    """Close ``app`` whatever happens."""
    try:
        yield app
    finally:
        app.close()


def run(config: Config) -> int:
    """``otelauto run``: watch and publish until a signal."""
    stop = Stop()
    forbid_core_dumps()
    take_up()
    with closing(App(config)) as app:
        app.run(stop)
        log.info("stopping")
        notify(STOPPING)
    log.info("stopped spans=%d dropped=%d", app.publisher.processed, app.publisher.dropped())
    return 0


def doctor(config: Config) -> int:
    """``otelauto doctor``: what works here, what does not, and why."""
    take_up()
    return support.examine(config)


def status(config: Config) -> int:
    """``otelauto status``: ask the running otelauto."""
    support.show(ask(Path(config.control_socket)))
    return 0


def record(config: Config, path: Path, raw: bool, seconds: float | None) -> int:
    """``otelauto record``: write the kernel's records to a file."""
    stop = Stop()
    forbid_core_dumps()
    take_up()
    give_up_at = time.monotonic() + seconds if seconds else float("inf")
    with Writer(path, None if raw else redact, unfinished) as writer:
        watcher = Watcher(
            config,
            Counters(),
            on_target=lambda tgid, service: writer.note(_note(tgid, service)),
        )
        give_up_others()
        try:
            watcher.start()
            watcher.put_verdicts(beginnings(protocols(ProtocolSettings())))
            log.info("recording file=%s", path)
            while not stop and time.monotonic() < give_up_at:
                watcher.wait()
                watcher.turn(writer.write)
                writer.flush()
            watcher.drain(writer.write)
        finally:
            watcher.close()
    log.info("recorded records=%d malformed=%d", writer.records, writer.malformed)
    return 0


def _note(tgid: int, service: Service) -> Note:
    return {
        "tgid": tgid,
        "service": [service.name, service.namespace, service.instance_id],
        "attributes": service.attributes,
        "sdk": service.sdk,
    }


def replay(config: Config, path: Path) -> int:
    """``otelauto replay``: publish what a recording holds."""
    forbid_core_dumps()
    services: dict[int, Service] = {}
    made: dict[tuple[str, str, str], Service] = {}

    def on_note(note: Note) -> None:
        name, namespace, instance_id = map(str, note["service"])
        key = (name, namespace, instance_id)
        if key not in made:
            sdk = str(note.get("sdk", ""))  # older recordings do not say
            attributes = {
                k: tuple(v) if isinstance(v, list) else v for k, v in note["attributes"].items()
            }
            made[key] = Service(name, namespace, instance_id, attributes, sdk)
        services[int(note["tgid"])] = made[key]

    reader = Reader(path, on_note)
    offset = reader.header.boot_to_wall_ns
    clock = WallClock(boot=lambda: 0, wall=lambda: offset)
    counters = Counters()
    unknown = build_service("unknown_service", version="")
    # Beside an otelauto that runs: the spool is that one's.
    config = replace(config, otel_traces_export=replace(config.otel_traces_export, spool="off"))
    publisher = Publisher(config, counters, lambda tgid: services.get(tgid, unknown), clock)
    last = 0
    flows = make_flows(config, counters, publisher)
    publisher.start()
    try:
        for taken in reader:
            flows.feed(taken)
            last = max(last, int.from_bytes(taken[16:24], "little"))
            flows.tick(last)
            publisher.flush()
        flows.close()
    except (KeyError, TypeError, ValueError) as error:
        raise OtelautoError(f"{path} holds a note that makes no sense: {error!r}") from error
    finally:
        publisher.close()
    if reader.torn_bytes:
        log.warning("the recording ends in the middle: %d bytes left out", reader.torn_bytes)
    log.info("replayed spans=%d", publisher.processed)
    return 0
