# SPDX-License-Identifier: Apache-2.0
"""Follows a page as a reader would, and fails where it is not as the page says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tests.docs.blocks import Commands, NotTested, Output, Step
from tests.docs.places import Place
from tests.docs.seen import plain, shows
from tests.docs.terminal import INTERRUPTED, Terminal
from tests.e2e.harness.process import wait_until

COMMAND_S = 60.0
SETUP_S = 1500.0  # a fresh system installs packages of hundreds of megabytes
SEEN_S = 60.0


class Follower:
    """Terminals are opened when they are first typed in."""

    def __init__(self, place: Place, page: str, stack: contextlib.ExitStack, seen_s: float) -> None:
        self._place = place
        self._page = page
        self._stack = stack
        self._seen_s = seen_s
        self._terminals: dict[tuple[str, bool], Terminal] = {}
        self._since: dict[Terminal, int] = {}  # where the output of the last block begins
        self._typed: Commands | None = None  # last
        self._stays: set[Terminal] = set()
        self.followed: list[int] = []  # the lines of the steps

    def follow(self, steps: list[Step]) -> None:
        """Every step; those that install something only where nothing is installed."""
        for step in steps:
            if isinstance(step, NotTested) or (step.fresh and not self._place.fresh):
                continue
            if isinstance(step, Commands):
                self._type(step)
            elif isinstance(step, Output):
                self._look(step)
            else:
                self._end(self._terminal(step.terminal, step.setup), str(step.line))
            self.followed.append(step.line)
        for terminal in list(self._stays):
            self._end(terminal, "the end of the page")

    def _terminal(self, name: str, setup: bool) -> Terminal:
        key = (name, setup)
        if key not in self._terminals:
            made = Terminal(self._place.words(setup=setup), self._place.environment)
            self._terminals[key] = self._stack.enter_context(made)
        return self._terminals[key]

    def _type(self, step: Commands) -> None:
        terminal = self._terminal(step.terminal, step.setup)
        self._check(terminal not in self._stays, step, terminal, "its command still runs")
        self._typed = step
        self._enter(step)
        if step.again:
            self._until(lambda: self._succeeds(step), step, terminal, self._seen_s)

    def _enter(self, step: Commands) -> None:
        terminal = self._terminal(step.terminal, step.setup)
        self._since[terminal] = terminal.place()
        for number, line in enumerate(step.lines, 1):
            terminal.type(line)
            if step.stays and number == len(step.lines):
                self._stays.add(terminal)
                return
            self._until(terminal.free, step, terminal, SETUP_S if step.setup else COMMAND_S)
            right = step.again or terminal.code() == 0
            self._check(right, step, terminal, f"exit code {terminal.code()}")

    def _succeeds(self, step: Commands) -> bool:
        """Whether what was typed did what it was to do; if not it is typed once more."""
        if self._terminal(step.terminal, step.setup).code() == 0:
            return True
        self._enter(step)
        return False

    def _look(self, step: Output) -> None:
        terminal = self._terminal(step.terminal, step.setup)
        typed = self._typed

        def seen() -> bool:
            if shows(terminal.since(self._since[terminal]), step.text, numbers=step.numbers):
                return True
            if terminal in self._stays:
                self._check(not terminal.free(), step, terminal, "its command has ended")
            if typed is not None and typed.again:
                self._enter(typed)
            return False

        self._until(seen, step, terminal, SETUP_S if step.setup else self._seen_s)

    def _end(self, terminal: Terminal, where: str) -> None:
        self._check(terminal in self._stays, where, terminal, "nothing runs there")
        self._stays.discard(terminal)
        terminal.interrupt()
        self._until(terminal.free, where, terminal, COMMAND_S)
        wanted = terminal.code() in (0, INTERRUPTED)
        self._check(wanted, where, terminal, f"exit code {terminal.code()} after Ctrl-C")

    def _until(
        self, condition: Callable[[], bool], step: object, terminal: Terminal, seconds: float
    ) -> None:
        try:
            wait_until(condition, "what the page says", seconds)
        except AssertionError as error:
            if str(error).startswith(self._page):
                raise
            self._check(False, step, terminal, str(error))

    def _check(self, right: bool, step: object, terminal: Terminal, what: str) -> None:
        if right:
            return
        line = getattr(step, "line", step)
        said = f"\n--- the page:\n{step.text}" if isinstance(step, Output) else ""
        shown = plain(terminal.since(self._since.get(terminal, 0)))[-6000:]
        raise AssertionError(f"{self._page}:{line}: {what}{said}\n--- the terminal:\n{shown}")


@contextlib.contextmanager
def follower(place: Place, page: str, *, seen_s: float = SEEN_S) -> Iterator[Follower]:
    """Follows pages in ``place``; hangs up every terminal at the end.

    ``page`` is what messages call the page, ``seen_s`` how long one looks for what it says.
    """
    with contextlib.ExitStack() as stack:
        yield Follower(place, page, stack, seen_s)
