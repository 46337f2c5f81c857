# SPDX-License-Identifier: Apache-2.0
"""``otelauto agent run``: a configuration at work until a signal ends it."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import queue
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from otelauto import logs
from otelauto.agent.check import Configuration, check, evaluated
from otelauto.agent.commands import STANDARD_INPUT, files, read
from otelauto.agent.graph import Graph
from otelauto.agent.page import Page
from otelauto.agent.river.covering import shown
from otelauto.agent.river.diagnostics import RiverError
from otelauto.agent.secrets import secrets
from otelauto.counters import Counters, Meaning
from otelauto.errors import ConfigError, OtelautoError
from otelauto.notify import READY, STOPPING, notify

log = logging.getLogger("otelauto.agent")

STOP_S: Final = 15.0  # for all components to deliver or store what they hold
RETRY_S: Final = 5.0  # between tries to start what could not be started

RELOADS = Meaning("agent_reloads", "Times that the configuration was read again.", "result")


class Agent:
    """Runs the configuration at ``path``. All but :meth:`ask` is for one thread."""

    def __init__(
        self, path: str, storage: Path, environ: Mapping[str, str] = os.environ, *,
        debug: bool = False,
    ) -> None:  # fmt: skip
        self.path = path
        self._environ = environ
        self._debug = debug
        self._said: set[str] = set()
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self.graph = Graph(storage, lambda _: self._events.put(_Event("refresh")), environ)
        self.counters = Counters()
        self.reload_error = ""

    def start(self) -> None:
        """Read the configuration and run it.

        Raises:
            OtelautoError: it is wrong, or something of it could not be started.
        """
        self._load()
        self.graph.must_run()

    def serve(self) -> None:
        """Do what is asked for, until :meth:`stop_soon`."""
        while True:
            try:
                event = self._events.get(timeout=RETRY_S)
            except queue.Empty:
                self.graph.retry()
                continue
            if event.kind == "stop":
                return
            if event.kind == "refresh":
                self.graph.refresh()
                self._hide()
            else:
                event.done.set_result(self._reload())

    def stop_soon(self) -> None:
        """End :meth:`serve`. From any thread, or a signal's handler."""
        self._events.put(_Event("stop"))

    def reload_soon(self) -> concurrent.futures.Future[str]:
        """Read the configuration again, soon; gives what is wrong with it, or nothing. From any
        thread, or a signal's handler.
        """
        event = _Event("reload")
        self._events.put(event)
        return event.done

    def stop(self) -> None:
        """Stop all components; what they hold is delivered or stored."""
        self.graph.stop(STOP_S)

    def _reload(self) -> str:
        """What is wrong with the new configuration; then the old one goes on."""
        try:
            if self.path == STANDARD_INPUT:
                raise ConfigError("Standard input cannot be read again.", "Give a file.")
            self._load()
        except OtelautoError as error:
            said = error.diagnostics if isinstance(error, RiverError) else ()
            self.reload_error = logs.masked(shown(said) if said else str(error))
            self.counters.add(RELOADS, 1, "failed")
            log.warning("the configuration is not used, the earlier one goes on: %s", error.message)
        else:
            self.reload_error = ""
            self.counters.add(RELOADS, 1, "done")
            log.info("the configuration was read again")
        return self.reload_error

    def _load(self) -> None:
        configuration = check(read(files(self.path)), self._environ)
        self._warn(configuration)
        contents = [cell.content for cell in self.graph.cells().values()]
        contents += [node.content for node in configuration.nodes.values()]
        logs.hide(secrets(contents))
        self.graph.load(configuration)
        self._log_as_told(configuration)
        self._hide()

    def _warn(self, configuration: Configuration) -> None:
        for warning in configuration.warnings:
            if str(warning) not in self._said:
                self._said.add(str(warning))
                log.warning("%s (better: %s)", warning, warning.hint)

    def _log_as_told(self, configuration: Configuration) -> None:
        node = configuration.nodes.get("logging")
        level, form = "info", "logfmt"
        if node is not None:
            content = evaluated(node, {}, self._environ)
            level, form = content["level"], content["format"]
        logs.setup("DEBUG" if self._debug else level.upper(), as_json=form == "json")

    def _hide(self) -> None:
        logs.hide(secrets(cell.content for cell in self.graph.cells().values()))


class _Event:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.done: concurrent.futures.Future[str] = concurrent.futures.Future()


@contextmanager
def _signals(agent: Agent) -> Iterator[None]:
    def stop(*_: Any) -> None:
        agent.stop_soon()

    def reload(*_: Any) -> None:
        agent.reload_soon()

    wanted = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(path: str, listen: str, storage: Path, *, debug: bool = False) -> int:
    """Run the configuration at ``path`` until SIGTERM or SIGINT; gives the exit code.

    ``listen`` is the address of the page, ``storage`` a directory that need not exist yet.
    """
    logs.setup("DEBUG" if debug else "INFO")
    agent = Agent(path, storage, debug=debug)
    page = Page(agent, listen) if listen else None
    with _signals(agent):
        try:
            if page is not None:
                page.start()
            agent.start()
            if page is not None:
                page.ready = True
            log.info("running %d components", len(agent.graph.cells()))
            notify(READY)
            agent.serve()
            notify(STOPPING)
        finally:
            if page is not None:
                page.ready = False
            agent.stop()
            if page is not None:
                page.stop()
    return 0
