# SPDX-License-Identifier: Apache-2.0
"""Where something stands in a file, and what is wrong there: ``file:line:col: message``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from otelauto.errors import ConfigError
from otelauto.export.lines import printable


class Position(NamedTuple):
    """``line`` and ``column`` count from 1, in characters; ``offset`` from 0."""

    offset: int
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Source:
    """A file's name, as messages give it, and its text."""

    name: str
    text: str = field(repr=False)

    @classmethod
    def decode(cls, name: str, data: bytes) -> Source:
        """Bytes that are no UTF-8 stay as surrogates; the lexer reports them."""
        return cls(name, data.decode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong, and where. ``hint`` says what to write instead, if it is known."""

    source: Source
    position: Position
    message: str
    hint: str = ""

    def __str__(self) -> str:
        name, (_, line, column) = self.source.name, self.position
        return f"{printable(name)}:{line}:{column}: {printable(self.message)}"


class RiverError(ConfigError):
    """Everything that is wrong with a configuration of the agent, reported at once."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        distinct = dict.fromkeys(diagnostics)
        self.diagnostics = tuple(sorted(distinct, key=lambda d: (d.source.name, d.position)))
        super().__init__("\n".join(map(str, self.diagnostics)))
