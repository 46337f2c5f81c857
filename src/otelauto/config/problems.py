# SPDX-License-Identifier: Apache-2.0
"""Where a value came from, and what is wrong with it."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from otelauto.errors import ConfigError


class Source(enum.IntEnum):
    """Where values come from, weakest first."""

    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    FLAG = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """``where`` is what a user can look at: ``file:line``, a variable's name, a flag.

    ``literal`` is false for a value that was taken from a variable, a file or a credential that
    the configuration file only names.
    """

    source: Source
    where: str = ""
    literal: bool = True


DEFAULT = Origin(Source.DEFAULT, "default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in one sentence, and what to do about it."""

    where: str
    sentence: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.sentence}"


class InvalidConfig(ConfigError):  # noqa: N818 - reads as what it says
    """Everything that is wrong with a configuration, reported at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))

    def __str__(self) -> str:
        return "\n".join(f"{problem}\n  -> {problem.remedy}" for problem in self.problems)


@dataclass(slots=True)
class Findings:
    """Problems and warnings gathered while a configuration is read."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def problem(self, where: str, sentence: str, remedy: str) -> None:
        self.problems.append(Problem(where, sentence, remedy))

    def warn(self, where: str, sentence: str) -> None:
        text = f"{where}: {sentence}" if where else sentence
        if text not in self.warnings:
            self.warnings.append(text)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be, or ``None``."""
    words = sorted(known)
    longer = [item for item in words if len(word) > 3 and item.startswith(word.lower())]
    close = longer or difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return close[0] if close else None
