# SPDX-License-Identifier: Apache-2.0
"""Diagnostics with the lines that they are about, in which secrets are covered.

Error messages end in logs and tickets. Whatever is assigned to a name like ``password`` and what
stands before the ``@`` of a URL is shown as asterisks, as many as there were characters, so that
the mark below points where it should.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from otelauto.agent.river.diagnostics import Diagnostic, Source
from otelauto.agent.river.lexer import Kind, Lexer, Token
from otelauto.export.lines import printable

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)|(?<!is_)secret|token|api[-_]?key|key_pem|private|credential|authorization|cookie",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"://(?P<value>[^\s/@\"`]+)@")
_READS_VARIABLE = ("env", "(")
_SHOWN_MAX = 160  # characters of a line


def shown(diagnostics: Iterable[Diagnostic], prefix: str = "") -> str:
    """Each of ``diagnostics`` with its line, a mark below the place, and the hint."""
    return "\n".join(prefix + _one(diagnostic) for diagnostic in diagnostics)


def _one(diagnostic: Diagnostic) -> str:
    offset, _, column = diagnostic.position
    lines = covered(diagnostic.source)
    end = lines.find("\n", offset)
    line = lines[offset - (column - 1) : end if end >= 0 else None].rstrip("\r")
    begin = max(0, column - _SHOWN_MAX // 2)
    text = "".join(c if c.isprintable() else " " for c in line[begin : begin + _SHOWN_MAX])
    found = [str(diagnostic), f"    {text}", " " * (column + 3 - begin) + "^"]
    if diagnostic.hint:
        found.append(f"  -> {printable(diagnostic.hint)}")
    return "\n".join(found)


@lru_cache(maxsize=8)
def covered(source: Source) -> str:
    """The text of ``source`` with its secrets covered; every character stays where it was."""
    tokens = Lexer(source).tokens()
    parts, at = [], 0
    for token in _secrets(tokens):
        start = token.position.offset
        parts += [source.text[at:start], _asterisks(token.text)]
        at = token.end
    parts.append(source.text[at:])
    return _USERINFO.sub(lambda m: "://" + "*" * len(m["value"]) + "@", "".join(parts))


def _asterisks(text: str) -> str:
    return "".join(char if char == "\n" else "*" for char in text)


def _secrets(tokens: list[Token]) -> list[Token]:
    """The literals in what is assigned to a name like a secret's."""
    found = []
    inside = False
    depth = 0
    for number, token in enumerate(tokens):
        if token.kind is Kind.ASSIGN and number:
            named = _SECRET_NAME.search(tokens[number - 1].text) is not None
            inside, depth = (True, 0) if named else (inside and depth > 0, depth)
        elif token.kind in (Kind.LPAREN, Kind.LBRACK, Kind.LCURLY):
            depth += 1
        elif token.kind in (Kind.RPAREN, Kind.RBRACK, Kind.RCURLY):
            depth -= 1
        if token.kind is Kind.TERMINATOR or (token.kind is Kind.COMMA and depth <= 0) or depth < 0:
            inside = inside and depth > 0
        literal = token.kind in (Kind.STRING, Kind.NUMBER, Kind.FLOAT, Kind.ILLEGAL, Kind.COMMENT)
        names_variable = (
            tuple(t.text for t in tokens[max(0, number - 2) : number]) == _READS_VARIABLE
        )
        if inside and literal and not names_variable:
            found.append(token)
    return found
