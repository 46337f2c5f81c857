# SPDX-License-Identifier: Apache-2.0
"""A terminal with bash in it, typed into as a person does, who waits for the prompt."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType

from tests.e2e.harness.process import wait_until

# The prompt tells how the last command ended; no program prints these.
PROMPT = re.compile("\x1e(\\d+)\x1f")
MORE = "\x1d"
VARIABLES = {"PS1": "\x1e$?\x1f", "PS2": MORE, "TERM": "xterm", "LANG": "C.UTF-8", "HISTFILE": ""}
BASH = ("bash", "--noprofile", "--norc", "--noediting", "+o", "histexpand", "-i")
ROWS, COLUMNS = 60, 160
INTERRUPTED = 128 + 2  # by SIGINT
END_S = 5.0


class Terminal:
    """``words`` run bash: they end with :data:`BASH`. Leaving the ``with`` block hangs up."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        attributes = termios.tcgetattr(theirs)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, **VARIABLES},
        )
        os.close(theirs)
        self._text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._typed = 0
        wait_until(self.free, "a prompt")

    def _read(self) -> None:
        kept = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while data := os.read(self._ours, 1 << 16):
                kept += data
                with contextlib.suppress(UnicodeDecodeError):  # in the middle of a character
                    self._text += kept.decode()
                    kept = b""

    def type(self, line: str) -> None:
        """A line and Enter."""
        self._typed = len(self._text)
        os.write(self._ours, f"{line}\n".encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._typed = len(self._text)
        os.write(self._ours, b"\x03")

    def free(self) -> bool:
        """Whether there is a prompt since something was typed, or a wish for more lines."""
        new = self._text[self._typed :]
        return MORE in new or PROMPT.search(new) is not None

    def code(self) -> int:
        """The exit code of the last command that ended; 0 before the first."""
        codes = PROMPT.findall(self._text[self._typed :])
        return int(codes[-1]) if codes else 0

    def place(self) -> int:
        """Where in the output one is now; for :meth:`since`."""
        return len(self._text)

    def since(self, place: int) -> str:
        """What was shown since, without prompts."""
        return PROMPT.sub("", self._text[place:]).replace(MORE, "")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up; bash does so to its jobs, too."""
        self._process.send_signal(signal.SIGHUP)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(END_S)  # what was left running may keep its end open
        os.close(self._ours)
