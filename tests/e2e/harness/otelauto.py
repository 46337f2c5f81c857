# SPDX-License-Identifier: Apache-2.0
"""otelauto as a user runs it, with its spans read from the JSON lines that it prints."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.harness.process import Process, wait_until

Span = dict[str, Any]

PROGRAM = Path(sys.executable).parent / "otelauto"
# What it writes on stderr when every target that is there is watched.
READY = 'msg="watching '


def configuration(*, ports: Sequence[int] = (), pids: Sequence[int] = ()) -> str:
    """The YAML that selects by port and by process id, and prints spans as JSON lines."""
    selected = {"open_port": ports, "pids": pids}
    ebpf = {key: list(values) for key, values in selected.items() if values}
    return json.dumps({"trace_printer": "json", "ebpf": ebpf})  # JSON is YAML


class Otelauto:
    """A running otelauto; ``spans`` grows as it prints. Ends with the ``with`` block.

    ``settings`` are environment variables, ``yaml`` the text of a configuration file (both may be
    given, as a user may); ``program`` are the words before its own. The block fails if otelauto
    ends by itself, or with another code than 0.
    """

    def __init__(
        self,
        directory: Path,
        yaml: str = "",
        settings: Mapping[str, str] | None = None,
        program: Sequence[str | Path] = (PROGRAM,),
    ) -> None:
        words = list(program)
        if yaml:
            file = directory / "otelauto.yml"
            file.write_text(yaml)
            words += ["--config", file]
        self.spans: list[Span] = []
        self.ended_by_itself = False
        self._code: int | None = None
        errors = directory / "otelauto.err"
        env = {"OTELAUTO_STATE_DIRECTORY": str(directory / "state"), **(settings or {})}
        self.process = Process(words, errors, env=env, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, name="otelauto stdout")
        self._reader.start()

    def _read(self) -> None:
        output = self.process.popen.stdout
        assert output is not None
        with output:
            # A line without an end is what a killed one had begun to print.
            self.spans.extend(json.loads(line) for line in output if line.endswith(b"\n"))

    def wait_ready(self, seconds: float = 20.0) -> None:
        self.process.wait_for(lambda: READY in self.process.stderr(), "otelauto is ready", seconds)

    def wait_for_spans(
        self,
        count: int,
        seconds: float = 15.0,
        wanted: Callable[[Span], bool] = lambda span: True,
    ) -> None:
        """Returns when ``count`` spans that are ``wanted`` came, or at the deadline: the comparison
        that follows says which ones are lacking."""

        def enough() -> bool:
            return sum(map(wanted, tuple(self.spans))) >= count

        try:
            self.process.wait_for(enough, f"{count} spans", seconds)
        except AssertionError:
            if self.process.popen.poll() is not None:
                raise

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Ends it, if that was not done; after that ``spans`` is everything that it printed."""
        if self._code is None:
            self.ended_by_itself = self.process.popen.poll() is not None
            self._code = self.process.stop(sent)
            self._reader.join(10)
            wait_until(lambda: not self._reader.is_alive(), "its output is read to the end")
        return self._code

    def __enter__(self) -> Otelauto:
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        code = self.stop()
        if error is None:
            assert not self.ended_by_itself, f"otelauto ended: {self.process.stderr()}"
            assert code == 0, f"exit code {code}: {self.process.stderr()}"
