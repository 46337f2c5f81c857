# SPDX-License-Identifier: Apache-2.0
"""An otelauto with files of its own, and questions to it: status, Prometheus page, spans by id."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.harness.otelauto import PROGRAM, Otelauto, Span
from tests.e2e.harness.process import free_port, wait_until
from tests.scale import PATIENCE

from otelauto.control import ask

Tree = dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """An otelauto that has ended."""

    code: int
    output: str
    errors: str


def run(
    *words: str | Path,
    seconds: float = 30.0,
    program: Sequence[str | Path] = (PROGRAM,),
    **options: Any,
) -> Ran:
    """``otelauto`` with these words, to its end; ``options`` are those of ``subprocess.run``."""
    command = [str(word) for word in (*program, *words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds * PATIENCE, check=False, **options
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def settings(directory: Path, *, prometheus: int = 0, ebpf: Tree, **more: Any) -> str:
    """YAML that prints spans as JSON and keeps its control socket in ``directory``."""
    tree: Tree = {
        "trace_printer": "json",
        "control_socket": str(directory / "control.sock"),
        "ebpf": ebpf,
        **more,
    }
    if prometheus:
        tree["prometheus_export"] = {"port": prometheus}
    return json.dumps(tree)


class Rig(Otelauto):
    """A running otelauto. ``prometheus`` is the port of its page."""

    def __init__(
        self,
        directory: Path,
        ebpf: Tree,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str | Path] = (PROGRAM,),
        **more: Any,
    ) -> None:
        self.directory = directory
        self.prometheus = free_port()
        yaml = settings(directory, prometheus=self.prometheus, ebpf=ebpf, **more)
        super().__init__(directory, yaml, environment, program)

    def report(self) -> Tree:
        """What it says of itself."""
        return ask(self.directory / "control.sock")

    def total(self, name: str, label: str = "") -> int:
        """A counter of its, 0 if nothing was counted."""
        return total(self.report(), name, label)

    def page(self) -> str:
        """Its Prometheus page."""
        return page_of(self.prometheus)

    def wait_for_paths(self, paths: Sequence[str], seconds: float = 15.0) -> list[Span]:
        """The spans of ``paths``, one each, in this order; AssertionError if one lacks."""
        wanted = set(paths)
        self.wait_for_spans(len(paths), seconds, lambda span: path_of(span) in wanted)
        found = {path_of(span): span for span in tuple(self.spans) if path_of(span) in wanted}
        missing = [path for path in paths if path not in found]
        assert not missing, f"no span of {missing[:5]} (of {len(missing)}): {self.process.stderr()}"
        return [found[path] for path in paths]

    def wait_for_target(self, pid: int, seconds: float = 10.0) -> Tree:
        """The target of this process id, as soon as there is one."""
        found: list[Tree] = []

        def there() -> bool:
            found[:] = [row for row in self.report()["targets"] if row["pid"] == pid]
            return bool(found)

        self.process.wait_for(there, f"process {pid} is watched", seconds)
        return found[0]

    def wait_quiet(self) -> Tree:
        """The report when every record was read or dropped, and no more of them come."""
        reports: list[Tree] = []

        def quiet() -> bool:
            reports.append(self.report())
            balance = [accounts(report) for report in reports[-2:]]
            return len(reports) > 1 and balance[0] == balance[1] and balanced(balance[1])

        wait_until(quiet, "produced = delivered + dropped", 30.0)
        return reports[-1]


def page_of(port: int) -> str:
    """The Prometheus page on a port of 127.0.0.1."""
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/metrics", timeout=10 * PATIENCE
    ) as answer:
        text: str = answer.read().decode()
    return text


def total(report: Tree, name: str, label: str = "") -> int:
    """A counter of a report, 0 if nothing was counted."""
    return sum(row[2] for row in report["counters"] if (row[0], row[1]) == (name, label))


def accounts(report: Tree) -> tuple[int, int, int]:
    """Records: produced, delivered, dropped because the ring was full."""
    return (
        total(report, "kernel_records_produced"),
        total(report, "records_delivered"),
        total(report, "kernel_records_dropped", "ring_full"),
    )


def balanced(account: tuple[int, int, int]) -> bool:
    """Does the sum hold?"""
    produced, delivered, dropped = account
    return produced == delivered + dropped


def path_of(span: Span) -> str:
    return str(span["attributes"].get("url.path", ""))


def ident_of(span: Span) -> str:
    return path_of(span).rpartition("/")[2]


def repeated(words: Sequence[str]) -> list[str]:
    """What comes more than once."""
    return [word for word, count in Counter(words).items() if count > 1]


def status_of(span: Span) -> object:
    return span["attributes"].get("http.response.status_code")
