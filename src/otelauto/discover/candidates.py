# SPDX-License-Identifier: Apache-2.0
"""What could be watched: everything that listens, with the setting that selects it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from otelauto.discover.names import Naming
from otelauto.discover.procfs import ProcFs
from otelauto.discover.select import Selector, is_activator
from otelauto.discover.watch import Discovery, Target


@dataclass(frozen=True, slots=True)
class Candidate:
    """A listener and the processes that share it.

    ``port`` is 0 for a unix socket, whose ``path`` is given instead. ``setting`` is a line of the
    configuration's section ``ebpf`` that selects the service.
    """

    port: int
    path: str
    executable: str
    summary: str
    service_name: str
    tgids: tuple[int, ...]
    setting: str


def candidates(procfs: ProcFs, naming: Naming, own_tgid: int) -> list[Candidate]:
    """All listeners of the host but otelauto's own, by port and then by path."""
    discovery = Discovery(Selector(system_wide=True), procfs, naming, own_tgid)
    discovery.scan()
    sharing: dict[tuple[int, str, int], list[Target]] = {}
    for target in discovery.targets().values():
        if is_activator(target.tgid, posixpath.basename(target.executable)):
            continue
        for port in target.ports:
            sharing.setdefault((port, "", target.group), []).append(target)
        for path in target.paths:
            sharing.setdefault((0, path, target.group), []).append(target)
    found = [_candidate(port, path, targets) for (port, path, _), targets in sharing.items()]
    return sorted(found, key=lambda found: (found.port == 0, found.port, found.path, found.tgids))


def _candidate(port: int, path: str, targets: list[Target]) -> Candidate:
    eldest = min(targets, key=lambda target: (target.starttime, target.tgid))
    program = eldest.summary.rpartition(" ")[2]
    return Candidate(
        port=port,
        path=path,
        executable=eldest.executable,
        summary=eldest.summary,
        service_name=eldest.service_name,
        tgids=tuple(sorted(target.tgid for target in targets)),
        setting=f"open_port: {port}" if port else f"executable_name: {program}",
    )
