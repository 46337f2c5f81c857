# SPDX-License-Identifier: Apache-2.0
"""What the user asked to watch, and what is never watched."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Programs that hold listening sockets for others: they start the service and hand the socket over,
# so they are neither the service nor its name. Process 1 is one whatever it is called.
_ACTIVATORS: Final = frozenset(
    {"systemd", "systemd-executor", "systemd-socket-activate", "init", "inetd", "xinetd"}
    | {"s6-svscan", "s6-supervise", "supervisord", "circusd", "einhorn"}
    | {"tini", "dumb-init", "docker-init", "catatonit"}
)

# Telemetry collectors: watching the one that otelauto exports to would report the reports. Meant
# for ``exclude`` where everything is watched.
COLLECTORS: Final = (
    "otelcol*",
    "*otelcol-contrib",
    "alloy",
    "grafana-agent*",
    "*beyla",
    "ebpf-instrument",
    "obi",
)


def is_activator(tgid: int, name: str) -> bool:
    """Does this process hold listening sockets on behalf of services it starts?"""
    return tgid == 1 or name in _ACTIVATORS


@dataclass(frozen=True, slots=True)
class Selector:
    """The user's choice. Any of the criteria selects a process.

    ``open_ports`` are inclusive ranges. ``executable_name`` is a suffix of the executable's path,
    or a shell pattern when it holds ``*``, ``?`` or ``[``: one with a slash is matched with the
    whole path, one without with the file name. It is ignored if there are ``open_ports``, as it
    was in 2023. An interpreter is also found by the name it was typed by and by the script, module
    or jar that it runs: ``app.py`` finds ``python3 app.py``; ``python3`` finds every Python
    program, and each is named after its own script. ``exclude`` takes names of the same form and
    wins over everything. ``pids`` are of the initial PID namespace.
    """

    open_ports: tuple[tuple[int, int], ...] = ()
    executable_name: str | None = None
    pids: frozenset[int] = frozenset()
    system_wide: bool = False
    exclude: tuple[str, ...] = ()

    def wants_port(self, port: int) -> bool:
        """Is the port one of ``open_ports``?"""
        return any(low <= port <= high for low, high in self.open_ports)

    def wants_executable(self, names: Iterable[str]) -> bool:
        """Does ``executable_name`` apply, and match one of a process's names?"""
        wanted = self.executable_name
        if not wanted or self.open_ports:
            return False
        return any(_matches(wanted, name) for name in names)

    def excludes(self, names: Iterable[str]) -> bool:
        """Does an entry of ``exclude`` match one of a process's names?"""
        return any(_matches(pattern, name) for name in names for pattern in self.exclude)


def _matches(wanted: str, name: str) -> bool:
    if not any(wildcard in wanted for wildcard in "*?["):
        return name.endswith(wanted)
    return fnmatch.fnmatchcase(name if "/" in wanted else posixpath.basename(name), wanted)
