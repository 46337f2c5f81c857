# SPDX-License-Identifier: Apache-2.0
"""Syntax trees and files to text again.

:func:`formatted` works on tokens: it chooses the white space between them and nothing else, so the
meaning and the comments stay. Line breaks within a value stay where they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from otelauto.agent.river import ast
from otelauto.agent.river.diagnostics import Source
from otelauto.agent.river.lexer import LITERALS, Kind, Token
from otelauto.agent.river.parser import parse_file

INDENT = "\t"
_OPENING = frozenset({Kind.LCURLY, Kind.LPAREN, Kind.LBRACK})
_COVERED = frozenset({Kind.STRING, Kind.NUMBER, Kind.FLOAT})
_CLOSING = frozenset({Kind.RCURLY, Kind.RPAREN, Kind.RBRACK})
_VALUE_END = LITERALS | {Kind.IDENT, Kind.RPAREN, Kind.RBRACK, Kind.RCURLY}


def expression_text(expr: ast.Expr, *, covered: bool = False, levels: int = 8) -> str:
    """``expr`` on one line; deeper than ``levels`` it is ``...``. With ``covered`` literals are
    ``(secret)``.
    """
    if not levels:
        return "..."

    def text(part: ast.Expr) -> str:
        return expression_text(part, covered=covered, levels=levels - 1)

    match expr:
        case ast.Literal(kind, found):
            return "(secret)" if covered and kind in _COVERED else found
        case ast.Identifier(name):
            return name
        case ast.Paren(inner):
            return f"({text(inner)})"
        case ast.Array(elements):
            return "[" + ", ".join(map(text, elements)) + "]"
        case ast.Object(fields):
            inside = ", ".join(f"{name.text} = {text(value)}" for name, value in fields)
            return f"{{ {inside} }}" if fields else "{}"
    return _operation_text(expr, text)


def _operation_text(expr: ast.Expr, text: Callable[[ast.Expr], str]) -> str:
    match expr:
        case ast.Access(value, name):
            return f"{text(value)}.{name.text}"
        case ast.Index(value, index):
            return f"{text(value)}[{text(index)}]"
        case ast.Call(value, arguments):
            return f"{text(value)}({', '.join(map(text, arguments))})"
        case ast.Unary(operator, value):
            return f"{operator}{text(value)}"
        case ast.Binary(first, rest):
            return text(first) + "".join(f" {operator} {text(right)}" for operator, right in rest)
    raise TypeError(expr)


@dataclass(slots=True)
class _Line:
    """A line of output. ``assign`` is the length of the name before its ``=``, if it begins with a
    name and may be aligned with its neighbours; -1 if not. ``text`` may hold newlines.
    """

    indent: int
    text: str = ""
    count: int = 0  # of tokens
    assign: int = -1


@dataclass(slots=True)
class _Bracket:
    """An open bracket and the line that it is on."""

    block: bool
    line: _Line


class _Formatter:
    def __init__(self, file: ast.File) -> None:
        self._source = file.source.text
        self._tokens = file.tokens
        self._starts: set[int] = set()  # offsets at which statements begin
        self._collect(file.body)
        self._lines: list[_Line] = [_Line(0)]
        self._open: list[_Bracket] = []
        self._previous: Token | None = None
        self._unary = False  # whether the previous token is an operator of one operand
        self._head = False  # between the beginning of a statement and its "=" or "{"
        self._value_line: _Line | None = None  # where the attribute began that is being read

    def _collect(self, body: tuple[ast.Statement, ...]) -> None:
        for statement in body:
            self._starts.add(statement.position.offset)
            if isinstance(statement, ast.Block):
                self._collect(statement.body)

    def text(self) -> str:
        """The whole file, formatted."""
        for token in self._tokens:
            if token.kind is Kind.TERMINATOR:
                if self._in_block():
                    self._value_line = None
            elif token.kind is not Kind.EOF:
                self._token(token)
        _align(self._lines)
        found = "\n".join(
            INDENT * line.indent + line.text if line.text else "" for line in self._lines
        )
        found = found.strip("\n")
        return found + "\n" if found else ""

    def _in_block(self) -> bool:
        """Whether the innermost bracket, if there is one, is a block's."""
        return not self._open or self._open[-1].block

    def _token(self, token: Token) -> None:
        starts = token.position.offset in self._starts
        if self._previous is not None:
            newlines = self._source.count("\n", self._previous.end, token.position.offset)
            if self._breaks(token, newlines, starts):
                self._break(token, newlines, starts)
            elif self._spaced(self._previous, token):
                self._lines[-1].text += " "
        line = self._lines[-1]
        block = self._head and token.kind is Kind.LCURLY
        if starts:
            self._head = True
            self._value_line = line
        elif self._head and token.kind in (Kind.ASSIGN, Kind.LCURLY):
            self._head = False
        if token.kind is Kind.ASSIGN and line.count == 1 and "\n" not in line.text:
            line.assign = len(line.text) - 1
        line.text += token.text.rstrip(" \t\r") if token.text.startswith("//") else token.text
        line.count += 1
        if token.kind in _OPENING:
            self._open.append(_Bracket(block, line))
            if block:
                self._value_line = None
        elif token.kind in _CLOSING:
            closed = self._open.pop()
            self._value_line = None if closed.block else self._value_line
        if token.kind is not Kind.COMMENT:
            before = self._previous.kind if self._previous else Kind.EOF
            self._unary = token.kind is Kind.NOT or (
                token.kind is Kind.SUB and (before not in _VALUE_END)
            )
        self._previous = token

    def _breaks(self, token: Token, newlines: int, starts: bool) -> bool:
        """Whether ``token`` begins a line."""
        previous = self._previous
        assert previous is not None  # noqa: S101 - the first token breaks nothing
        if token.kind in _CLOSING:
            if previous.kind in _OPENING:
                return False
            if self._open[-1].block:
                return True
        return starts or newlines > 0

    def _break(self, token: Token, newlines: int, starts: bool) -> None:
        previous = self._previous
        closing = token.kind in _CLOSING
        opened = previous is not None and previous.kind in _OPENING
        if newlines > 1 and not closing and not opened:
            self._lines.append(_Line(0))
        bracket = self._open[-1] if self._open else None
        indent = bracket.line.indent if bracket else -1
        if bracket is not None and not bracket.block:
            bracket.line.assign = -1  # a value of several lines is not aligned
        if not closing:
            indent += 1
            if self._in_block() and not starts and self._value_line is not None:
                self._value_line.assign = -1
                indent += 1
        self._lines.append(_Line(indent))

    def _spaced(self, previous: Token, token: Token) -> bool:
        """Whether a space is between two tokens of a line."""
        before, kind = previous.kind, token.kind
        if kind in (Kind.COMMA, Kind.RPAREN, Kind.RBRACK) or before in (Kind.LPAREN, Kind.LBRACK):
            return False
        if Kind.COMMENT in (before, kind):
            return True
        if before is Kind.LCURLY and kind is Kind.RCURLY:
            return self._open[-1].block
        if before is Kind.DOT or self._unary:
            return False
        if kind is Kind.DOT:
            return before in (Kind.NUMBER, Kind.FLOAT)  # "1 .a" and "1.a" are not the same
        return not (kind in (Kind.LPAREN, Kind.LBRACK) and before in _VALUE_END)


def _align(lines: list[_Line]) -> None:
    """Give the ``=`` of neighbouring lines one column."""
    run: list[_Line] = []
    for line in [*lines, _Line(-1)]:
        fits = line.assign >= 0 and "\n" not in line.text
        if run and (not fits or line.indent != run[-1].indent):
            width = max(each.assign for each in run)
            for each in run:
                each.text = each.text[: each.assign].ljust(width) + each.text[each.assign :]
            run = []
        if fits:
            run.append(line)


def formatted(source: Source) -> str:
    """``source`` in the standard form: tabs, aligned ``=``, one statement a line, at most one blank
    line. Raises :class:`RiverError` if it cannot be parsed.
    """
    return _Formatter(parse_file(source)).text()
