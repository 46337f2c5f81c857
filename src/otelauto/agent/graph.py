# SPDX-License-Identifier: Apache-2.0
"""The components at work: made in the order of their references, changed while others run, stopped.

One thread calls what changes the graph; any thread may look at it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from otelauto.agent.check import Configuration, Node, evaluated
from otelauto.agent.pipeline import Context, Health, Running
from otelauto.agent.relay import RELAYS, HandlerRelay, Relay
from otelauto.agent.river.values import Capsule, Value
from otelauto.agent.running import runner
from otelauto.agent.schema import Decoded
from otelauto.counters import Counters
from otelauto.errors import ConfigError, OtelautoError

log = logging.getLogger("otelauto.agent")

STOP_S: Final = 10.0  # for a component that is made anew to deliver or store what it holds
SETTLE_S: Final = 5.0  # for calls in progress to end before it is stopped

Runner = Callable[[str], type[Running]]


@dataclass(slots=True)
class Cell:
    """A component at work. ``problem``: why it does not do what the configuration says."""

    node: Node
    content: Decoded
    running: Running
    started: bool = False
    problem: str = ""

    def health(self) -> tuple[Health, str]:
        """How it is, with a sentence."""
        return (Health.UNHEALTHY, self.problem) if self.problem else self.running.health()


@dataclass(slots=True)
class _Plan:
    """What the components are to be. ``made`` are those that do not run yet."""

    cells: dict[str, Cell] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    exports: dict[str, Value] = field(default_factory=dict)


class Graph:
    """The components of one configuration after another. ``storage`` has a directory for each."""

    def __init__(
        self,
        storage: Path,
        changed: Callable[[str], None],
        environ: Mapping[str, str] = os.environ,
        runners: Runner = runner,
    ) -> None:
        self._storage = storage
        self._changed = changed
        self._environ = environ
        self._runners = runners
        self._lock = threading.Lock()
        self._cells: dict[str, Cell] = {}  # in the order of references: what is needed comes first
        self._relays: dict[tuple[str, str, str], Relay] = {}
        self._counters: dict[str, Counters] = {}  # of components that are gone, too

    # ---- looking ----

    def cells(self) -> dict[str, Cell]:
        """The components by id, those that others need first."""
        with self._lock:
            return dict(self._cells)

    def counters(self) -> dict[str, Counters]:
        """What the components counted, by id."""
        with self._lock:
            return dict(self._counters)

    # ---- changing ----

    def load(self, configuration: Configuration) -> None:
        """Run ``configuration``: what is the same goes on, the rest is stopped and made anew.

        Raises:
            OtelautoError: it is wrong, and nothing was changed. (What cannot be started, because
                a port is taken, is unhealthy instead, and tried again by :meth:`retry`.)
        """
        nodes = {name: node for name, node in configuration.nodes.items() if node.schema.labelled}
        plan = _Plan()
        for name in ordered(nodes):
            self._plan(nodes[name], plan)
        self._carry_out(plan)

    def refresh(self) -> None:
        """Some component exports other values now: make those anew that use them.

        What cannot use the new values keeps the old ones and is unhealthy.
        """
        plan = _Plan()
        for name, cell in self.cells().items():
            try:
                self._plan(cell.node, plan)
                cell.problem = cell.problem if not cell.started else ""
            except OtelautoError as error:
                cell.problem = f"it goes on with earlier values: {error.message}"
                log.warning("%s: %s", name, cell.problem)
                self._keep(name, cell, plan)
        self._carry_out(plan)

    def retry(self) -> None:
        """Try again to start what could not be, made anew."""
        for name, cell in self.cells().items():
            if not cell.started:
                kind = self._runners(cell.node.schema.name)
                try:
                    cell.running = kind(self._context(name), cell.content)
                except OtelautoError as error:
                    cell.problem = error.message
                else:
                    self._start(cell)

    def must_run(self) -> None:
        """Raises :class:`OtelautoError` with the first component that could not be started."""
        for name, cell in self.cells().items():
            if not cell.started:
                raise OtelautoError(f"{name}: {cell.problem}")

    def stop(self, deadline_s: float) -> None:
        """Stop all: first what others do not need (receivers), then what is behind them."""
        until = time.monotonic() + deadline_s
        for cell in reversed(self.cells().values()):
            self._stop(cell, max(0.0, until - time.monotonic()))

    # ---- planning: nothing is started or stopped ----

    def _plan(self, node: Node, plan: _Plan) -> None:
        name = node.block.id
        content = evaluated(node, plan.exports, self._environ)
        old = self._cells.get(name)
        if old is not None and old.started and same(old.content, content):
            old.node = node
            self._keep(name, old, plan)
            return
        try:
            kind = self._runners(node.schema.name)
            running = kind(self._context(name), content)
        except OtelautoError as error:
            raise ConfigError(f"{_where(node)}: {error.message}", error.remedy) from error
        except Exception as error:  # a defect of one component must not end the others
            log.exception("%s could not be made", name)
            raise OtelautoError(f"{_where(node)}: internal error: {error!r}") from error
        plan.cells[name] = Cell(node, content, running)
        plan.made.append(name)
        plan.exports[name] = self._exported(name, running)
        for export, value in running.exports.items():
            relay = plan.exports[name][export].inner if isinstance(value, Capsule) else None
            if isinstance(relay, HandlerRelay):
                relay.announce(value.inner)

    def _keep(self, name: str, cell: Cell, plan: _Plan) -> None:
        plan.cells[name] = cell
        plan.exports[name] = self._exported(name, cell.running)

    def _context(self, name: str) -> Context:
        directory = self._storage / name
        return Context(name, self._count(name), directory, lambda: self._changed(name))

    def _count(self, name: str) -> Counters:
        with self._lock:
            return self._counters.setdefault(name, Counters())

    def _exported(self, name: str, running: Running) -> dict[str, Value]:
        """The exports as others see them: capsules that stay the same."""
        found = dict(running.exports)
        for export, value in found.items():
            if isinstance(value, Capsule) and value.kind in RELAYS:
                found[export] = Capsule(value.kind, self._relay(name, export, value.kind))
        return found

    def _relay(self, name: str, export: str, kind: str) -> Relay:
        key = (name, export, kind)
        if key not in self._relays:
            self._relays[key] = RELAYS[kind](name, self._count(name))
        return self._relays[key]

    # ---- carrying out ----

    def _carry_out(self, plan: _Plan) -> None:
        old = self.cells()
        leaving = [n for n in reversed(old) if n not in plan.cells or plan.cells[n] is not old[n]]
        for name in leaving:
            for relay in self._relays_of(name):
                relay.hold(SETTLE_S)
            self._stop(old[name], STOP_S)
        with self._lock:
            self._cells = plan.cells
        for name in set(leaving) - set(plan.cells):
            for relay in self._relays_of(name):
                relay.cut("it is no part of the configuration any more")
        for name in plan.made:
            self._start(plan.cells[name])

    def _relays_of(self, name: str) -> Iterator[Relay]:
        return (relay for (owner, _, _), relay in self._relays.items() if owner == name)

    def _start(self, cell: Cell) -> None:
        name = cell.node.block.id
        try:  # a defect of one component must not end the others
            cell.running.start()
        except Exception as error:
            cell.problem = error.message if isinstance(error, OtelautoError) else repr(error)
            log.warning("%s could not be started: %s", name, cell.problem)
            cell.started = True  # a part of it may be
            self._stop(cell, 0.0)
            for relay in self._relays_of(name):
                relay.cut(cell.problem)
            return
        cell.started, cell.problem = True, ""
        for export, value in cell.running.exports.items():
            if isinstance(value, Capsule) and value.kind in RELAYS:
                self._relay(name, export, value.kind).connect(value.inner)

    def _stop(self, cell: Cell, deadline_s: float) -> None:
        try:
            if cell.started:
                cell.running.stop(deadline_s)
        except Exception as error:
            log.warning("%s could not be stopped: %r", cell.node.block.id, error)
        cell.started = False


def ordered(nodes: Mapping[str, Node]) -> list[str]:
    """The ids, those that others need before them. There are no cycles."""
    found: dict[str, None] = {}
    way = [(name, iter(nodes[name].needs)) for name in reversed(list(nodes))]
    while way:
        name, needs = way[-1]
        needed = next((n for n in needs if n in nodes and n not in found), None)
        if name in found:
            way.pop()
        elif needed is not None:
            way.append((needed, iter(nodes[needed].needs)))
        else:
            found[name] = None
            way.pop()
    return list(found)


def same(one: Value, other: Value) -> bool:
    """Whether two contents mean the same. ``True`` is not 1, as it is for ``==``."""
    if isinstance(one, Decoded) and isinstance(other, Decoded):
        return same(one.arguments, other.arguments) and same(one.blocks, other.blocks)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _where(node: Node) -> str:
    line, column = node.block.position.line, node.block.position.column
    return f"{node.source.name}:{line}:{column}: {node.block.id}"
