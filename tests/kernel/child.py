# SPDX-License-Identifier: Apache-2.0
"""A process for tests: python -c with the parent's lines on stdin, answers on stdout."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Child:
    """A Python child that runs one line at a time."""

    LOOP = (
        "import sys, os, socket, threading\n"
        "print(os.getpid(), flush=True)\n"
        "for line in sys.stdin:\n"
        "    exec(line, globals())\n"
        "    print('done', flush=True)\n"
    )

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout
        self.pid = int(self.process.stdout.readline())
        assert self.pid == self.process.pid

    def run(self, line: str) -> str:
        """Run ``line``; what it printed before it was done (one line at most)."""
        self.tell(line)
        assert self.process.stdout
        answer = self.process.stdout.readline().strip()
        if answer != "done":
            assert self.process.stdout.readline().strip() == "done", answer
        return answer

    def tell(self, line: str) -> None:
        """Run ``line`` without waiting for it."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()


@contextmanager
def running() -> Iterator[Child]:
    child = Child()
    try:
        yield child
    finally:
        child.kill()
