# SPDX-License-Identifier: Apache-2.0
"""Child processes that are always ended and reaped, and waiting for what they do."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PATIENCE_S = 10.0
POLL_S = 0.02


class DemoError(Exception):
    """What keeps the demo from going on; ``code`` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(Exception):  # noqa: N818 - not an error
    """The user asked for the end while something was waited for."""


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float, stopping: threading.Event
) -> None:
    """Return when ``condition()`` holds. Raises DemoError at the deadline, Interrupted to stop."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"not within {seconds:g} s: {what}")
        if stopping.wait(POLL_S):
            raise Interrupted


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def listens(port: int) -> bool:
    """Whether someone accepts connections on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Child:
    """A process in a session of its own: a terminal's Ctrl-C reaches the demo, which ends it."""

    def __init__(
        self,
        command: Sequence[str | Path],
        errors: Path,
        env: Mapping[str, str],
        *,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        self._errors = errors
        with errors.open("wb") as stderr:
            self.popen = subprocess.Popen(
                [str(word) for word in command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether it is no longer running."""
        return self.popen.poll() is not None

    def stderr(self) -> str:
        """What it has written on standard error."""
        return self._errors.read_text(errors="replace")

    def stop(self) -> int:
        """End it, by force after PATIENCE_S, and return its exit code."""
        if not self.ended:
            self.popen.terminate()
        try:
            return self.popen.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)
            return self.popen.wait()


def run_demo(run: Callable[[Path, threading.Event, contextlib.ExitStack], int]) -> int:
    """The exit code of ``run``, which gets a directory of its own, what says that the user wants
    the end, and a stack for what is to be undone.
    """
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="otelauto-demo-"))
        try:
            return run(Path(directory), stopping, stack)
        except Interrupted:
            return 0
        except DemoError as error:
            sys.stderr.write(f"{error}\n")
            return error.code
