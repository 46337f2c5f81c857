# SPDX-License-Identifier: Apache-2.0
"""otelauto as the demo runs it: a configuration file, and spans read from its JSON lines."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from fleet import base_environment
from processes import Child, DemoError, free_ports, wait_until
from tally import Span

PROGRAM = Path(sys.executable).parent / "otelauto"
READY_S = 20.0
READ_S = 10.0
COMPLAINT = ("otelauto: ", "  -> ")  # how its one-sentence errors and their remedies begin


class Watcher:
    """A running otelauto. ``spans`` holds all that it printed; ``taken`` also gets each of them."""

    def __init__(
        self, directory: Path, ports: Sequence[int], taken: Callable[[Span], None]
    ) -> None:
        self.spans: list[Span] = []
        self._taken = taken
        self._ports = set(ports)
        self.prometheus_port = free_ports(1)[0]
        settings = {
            "ebpf": {"open_port": sorted(ports)},
            "trace_printer": "json",
            "prometheus_export": {"port": self.prometheus_port},
            # Its own: another otelauto may run on this machine.
            "control_socket": str(directory / "control.sock"),
        }
        file = directory / "otelauto.yml"
        file.write_text(json.dumps(settings, indent=2))  # JSON is YAML
        self._child = Child(
            [PROGRAM, "--config", file],
            directory / "otelauto.err",
            base_environment(),
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, name="otelauto's spans")
        self._reader.start()

    @property
    def url(self) -> str:
        """Where Prometheus would scrape."""
        return f"http://127.0.0.1:{self.prometheus_port}/metrics"

    def _read(self) -> None:
        output = self._child.popen.stdout
        if output is None:
            raise RuntimeError("otelauto was started without a pipe")
        with output:
            for line in output:
                span = json.loads(line)
                self.spans.append(span)
                self._taken(span)

    def wait_ready(self, services: int, stopping: threading.Event) -> None:
        """Return when it instruments so many services. Raises DemoError with what it said."""
        what = f"otelauto instruments {services} services"
        try:
            wait_until(lambda: self._instrumented() >= services, what, READY_S, stopping)
        except DemoError as error:
            if self._child.ended:
                raise
            raise DemoError(f"{error}; it said:\n{self._child.stderr()}") from error

    def _instrumented(self) -> int:
        self.check()
        return self._child.stderr().count('msg="instrumenting')

    def check(self) -> None:
        """Raises DemoError, with its sentence and its exit code, if it has ended."""
        if self._child.ended:
            raise self._ended(self._child.popen.returncode)

    def _ended(self, code: int) -> DemoError:
        said = self._child.stderr().strip().splitlines()
        complaint = [line for line in said if line.startswith(COMPLAINT)]
        lines = complaint or [f"otelauto ended with {code}; its last words:", *said[-5:]]
        return DemoError("\n".join(lines), code if code > 0 else 1)

    def stop(self) -> None:
        """End it; after that ``spans`` is complete. Raises DemoError unless it stopped as asked."""
        ended_before = self._child.ended
        code = self._child.stop()
        self._reader.join(READ_S)
        if self._reader.is_alive():
            raise DemoError("otelauto has ended, but its output has not")
        if code or ended_before:
            raise self._ended(code)

    def kill(self) -> None:
        """End it whatever state it is in."""
        self._child.stop()
        self._reader.join(READ_S)
