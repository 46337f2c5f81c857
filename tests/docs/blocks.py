# SPDX-License-Identifier: Apache-2.0
"""The blocks of a page as steps: what a reader types, and what the page says one sees then.

A block ``sh`` is typed, line by line. A block without language is what the terminal shows then.
A comment before either says what prose cannot say to a program::

    <!-- docs: setup terminal=2 stays again numbers -->

``setup``: installs something; only run where nothing is installed. ``fresh``: takes what was
installed so, and is run there only, too. ``terminal``: which one (``1``).
``stays``: the last command does not end by itself. ``again``: typed until it succeeds, and until
one sees what the page says next.
``numbers``: each number stands for any. ``<!-- docs: ctrl-c=2 -->`` alone: Ctrl-C there.

What cannot be run says so to the reader, in its first line: ``# not tested: WHY``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NOT_TESTED = "# not tested: "
# Languages of blocks that are neither typed nor seen. What is typed and seen has none other.
OTHERS = frozenset({"mermaid", "yaml", "river"})
DIRECTIVE = re.compile(r"<!-- docs: (.+) -->")
WORDS = frozenset({"setup", "fresh", "stays", "again", "numbers"})


class BadPageError(ValueError):
    """A block or a comment that means nothing; the message begins with its line."""


@dataclass(frozen=True)
class Commands:
    """``lines`` as they are typed. ``line`` is where the block begins on the page."""

    line: int
    lines: tuple[str, ...]
    terminal: str = "1"
    setup: bool = False
    fresh: bool = False
    stays: bool = False
    again: bool = False


@dataclass(frozen=True)
class Output:
    """What the page says that ``terminal`` (the last that was typed in) shows."""

    line: int
    text: str
    terminal: str
    setup: bool = False
    fresh: bool = False
    numbers: bool = False


@dataclass(frozen=True)
class Interrupt:
    """Ctrl-C in ``terminal``."""

    line: int
    terminal: str
    setup: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class NotTested:
    """A block that says itself that it is not run."""

    line: int
    why: str


Step = Commands | Output | Interrupt | NotTested


class _Reader:
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._directive: dict[str, str] = {}
        self._last: Commands | NotTested | None = None
        self._typed: dict[str, Commands] = {}  # the last in each terminal

    def directive(self, line: int, text: str) -> None:
        found = dict(word.partition("=")[::2] for word in text.split())
        terminal = found.pop("ctrl-c", None)
        if terminal is not None and not found:
            typed = self._in(line, terminal)
            self.steps.append(Interrupt(line, terminal, typed.setup, typed.fresh))
            return
        if unknown := found.keys() - WORDS - {"terminal"}:
            raise BadPageError(f"{line}: unknown words {sorted(unknown)}")
        self._directive = found

    def block(self, line: int, language: str, text: str) -> None:
        said, self._directive = self._directive, {}
        if language == "sh":
            self._commands(line, text, said)
        elif not language:
            self._output(line, text, said)
        elif language not in OTHERS:
            raise BadPageError(f"{line}: a block of {language} is neither typed nor seen")

    def _commands(self, line: int, text: str, said: dict[str, str]) -> None:
        if text.startswith(NOT_TESTED):
            self._last = NotTested(line, text.splitlines()[0].removeprefix(NOT_TESTED))
        else:
            self._last = Commands(
                line,
                tuple(text.splitlines()),
                said.get("terminal", "1"),
                setup="setup" in said,
                fresh="setup" in said or "fresh" in said,
                stays="stays" in said,
                again="again" in said,
            )
            self._typed[self._last.terminal] = self._last
        self.steps.append(self._last)

    def _in(self, line: int, terminal: str) -> Commands:
        if terminal not in self._typed:
            raise BadPageError(f"{line}: nothing was typed in terminal {terminal}")
        return self._typed[terminal]

    def _output(self, line: int, text: str, said: dict[str, str]) -> None:
        if not isinstance(self._last, Commands):
            raise BadPageError(f"{line}: output of no commands")
        terminal = said.get("terminal", self._last.terminal)
        typed = self._in(line, terminal)
        fresh = typed.fresh or self._last.fresh
        self.steps.append(Output(line, text, terminal, typed.setup, fresh, "numbers" in said))


def steps(markdown: str) -> list[Step]:
    """The steps of a page, in order. Raises :class:`BadPageError`."""
    reader = _Reader()
    fence: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(markdown.splitlines(), 1):
        if fence is not None:
            if line.strip() == "```":
                reader.block(fence[0], fence[1], "".join(f"{each}\n" for each in fence[2]))
                fence = None
            else:
                fence[2].append(line)
        elif opened := re.fullmatch(r"\s*```(\w*).*", line):
            fence = (number, opened[1], [])
        elif match := DIRECTIVE.search(line):
            reader.directive(number, match[1])
    if fence is not None:
        raise BadPageError(f"{fence[0]}: a block that does not end")
    return reader.steps
