# SPDX-License-Identifier: Apache-2.0
"""The syntax tree. Every node knows where it begins (``position``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from otelauto.agent.river.diagnostics import Position, Source
from otelauto.agent.river.lexer import Kind, Token


@dataclass(frozen=True, slots=True)
class Name:
    """An identifier where it stands; ``text`` without quotes if it was a quoted field name."""

    text: str
    position: Position


@dataclass(frozen=True, slots=True)
class Literal:
    """``kind`` is one of STRING, NUMBER, FLOAT, BOOL, NULL; ``text`` as in the file."""

    kind: Kind
    text: str
    position: Position


@dataclass(frozen=True, slots=True)
class Identifier:
    """A name used as a value."""

    name: str
    position: Position


@dataclass(frozen=True, slots=True)
class Paren:
    inner: Expr
    position: Position


@dataclass(frozen=True, slots=True)
class Array:
    elements: tuple[Expr, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Object:
    """Fields in their order; of two of one name the last counts."""

    fields: tuple[tuple[Name, Expr], ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Access:
    """``value.name``"""

    value: Expr
    name: Name
    position: Position


@dataclass(frozen=True, slots=True)
class Index:
    """``value[index]``"""

    value: Expr
    index: Expr
    position: Position


@dataclass(frozen=True, slots=True)
class Call:
    """``value(arguments...)``"""

    value: Expr
    arguments: tuple[Expr, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Unary:
    operator: Kind
    value: Expr
    position: Position


@dataclass(frozen=True, slots=True)
class Binary:
    """A run of operators: ``first``, then (operator, operand) applied from left to right.

    The operators of one run have one precedence, except that ``^`` stands alone: it associates to
    the right. Kept flat, so that a long concatenation makes no deep tree.
    """

    first: Expr
    rest: tuple[tuple[Kind, Expr], ...]
    position: Position


Expr = Literal | Identifier | Paren | Array | Object | Access | Index | Call | Unary | Binary


@dataclass(frozen=True, slots=True)
class Attribute:
    """``name = value``"""

    name: Name
    value: Expr

    @property
    def position(self) -> Position:
        return self.name.position


@dataclass(frozen=True, slots=True)
class Block:
    """``name.of.block "label" { body }``; ``label`` is empty if there is none."""

    name: str
    label: str
    body: tuple[Attribute | Block, ...]
    position: Position

    @property
    def id(self) -> str:
        """The name by which others refer to it."""
        return f"{self.name}.{self.label}" if self.label else self.name


Statement = Attribute | Block


@dataclass(frozen=True, slots=True)
class File:
    """A parsed file. ``tokens`` are all of it, with comments."""

    source: Source
    body: tuple[Statement, ...]
    tokens: tuple[Token, ...]


def children(expr: Expr) -> Iterator[Expr]:
    """The expressions directly in ``expr``, from left to right."""
    match expr:
        case Paren(inner):
            yield inner
        case Array(elements):
            yield from elements
        case Object(fields):
            yield from (value for _, value in fields)
        case Access(value) | Unary(_, value):
            yield value
        case Index(value, index):
            yield value
            yield index
        case Call(value, arguments):
            yield value
            yield from arguments
        case Binary(first, rest):
            yield first
            yield from (operand for _, operand in rest)


def expressions(body: tuple[Statement, ...]) -> Iterator[Expr]:
    """The value of every attribute in ``body`` and in its blocks."""
    for statement in body:
        if isinstance(statement, Block):
            yield from expressions(statement.body)
        else:
            yield statement.value
