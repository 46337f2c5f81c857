# SPDX-License-Identifier: Apache-2.0
"""Child processes that are always reaped, free ports, and waiting for conditions."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.scale import PATIENCE

FIRST_PORT = 10_000
_given: set[int] = set()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Returns as soon as ``condition()`` holds; AssertionError naming ``what`` at the deadline."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, never the same twice.

    It is none of those that the kernel gives to connections: one of them could be taken before it
    is listened on, or a look at it be answered by itself.
    """
    chosen = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    below = int(chosen.split()[0])
    while True:
        port = random.randrange(FIRST_PORT, below)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def accepts(address: int | Path) -> bool:
    """Whether someone listens on the port, or on the unix socket."""
    family = socket.AF_INET if isinstance(address, int) else socket.AF_UNIX
    with socket.socket(family) as probe:
        target = ("127.0.0.1", address) if isinstance(address, int) else str(address)
        return probe.connect_ex(target) == 0


class Process:
    """A process group of our own; leaving the ``with`` block ends and reaps it.

    stderr goes to ``errors``, a file, for messages about failures. ``stop`` sends SIGTERM, then
    SIGKILL to what is left of the group after ``patience`` seconds, and returns the exit code.
    """

    patience = 10.0 * PATIENCE

    def __init__(
        self,
        command: Sequence[str | Path],
        errors: Path,
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.DEVNULL,
    ) -> None:
        self.errors = errors
        with errors.open("wb") as stderr:
            self.popen = subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, **(env or {})},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def pids(self) -> list[int]:
        """The process and all its descendants, as /proc tells now."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text()
                except OSError:
                    continue  # it has ended
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
        found = [self.pid]
        for pid in found:
            found.extend(children.get(pid, []))
        return found

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        """Like :func:`wait_until`, but fails at once, with its stderr, when the process ends."""

        def alive_or_done() -> bool:
            if self.popen.poll() is not None:
                code, text = self.popen.returncode, self.stderr()
                raise AssertionError(f"ended with {code} before: {what}\n{text}")
            return condition()

        wait_until(alive_or_done, what, seconds)

    def stderr(self) -> str:
        return self.errors.read_text(errors="replace")

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(sent)
        try:
            return self.popen.wait(self.patience)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            self._kill_group()
            self.popen.wait()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nobody of the group is left

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
