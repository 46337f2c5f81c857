# SPDX-License-Identifier: Apache-2.0
"""Something that watches, switched by signals: SIGUSR1 on, SIGUSR2 off.

    python -m benches.switched otelauto [FLAG...]
    python -m benches.switched empty DIRECTORY       # where empty.bpf.o is

What it has become is written on standard output, a word a line. Off, otelauto is as in the last
step of `max_overhead`: it has left the hooks of bytes, and all else goes on. So the cost of
watching can be measured in turns of a fraction of a second, between which a noisy machine hardly
changes.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from otelauto import app, cli
from otelauto.governor import Step
from otelauto.kernel import objects

ON, OFF = signal.SIGUSR1, signal.SIGUSR2
WORDS = {ON: "on", OFF: "off"}


def say(number: int) -> None:
    """The switch is thrown."""
    os.write(sys.stdout.fileno(), f"{WORDS[signal.Signals(number)]}\n".encode())


class Switched(app.App):
    """The real one, but for who decides about detaching."""

    def run(self, stop: app.Stop) -> None:
        self._asked: list[int] = []
        for number in WORDS:
            signal.signal(number, self._ask)
        super().run(stop)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self._asked.append(number)
        self.watcher.capture.wake()

    def _housekeeping(self, now: float) -> None:
        super()._housekeeping(now)
        while self._asked:
            number = self._asked.pop(0)
            self._give_up(Step.FULL if number == ON else Step.DETACHED)
            say(number)


def empty(directory: Path) -> int:
    """Programs that do nothing, on the same hooks."""
    objects.OBJECTS = directory  # type: ignore[misc]
    programs = objects.BpfObject("empty")
    programs.load()
    signal.pthread_sigmask(signal.SIG_BLOCK, [*WORDS, signal.SIGTERM])
    say(OFF)
    while (number := signal.sigwait([*WORDS, signal.SIGTERM])) != signal.SIGTERM:
        if number == OFF:
            programs.detach()
        elif any(probe.state != "attached" for probe in programs.attach()):
            return 1
        say(number)
    programs.close()
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "empty":
        sys.exit(empty(Path(sys.argv[2])))
    app.App = Switched  # type: ignore[misc]
    sys.exit(cli.main(sys.argv[2:]))
