# SPDX-License-Identifier: Apache-2.0
"""Which components an expression refers to, and which of them need each other in a circle."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import NamedTuple

from otelauto.agent.river import ast
from otelauto.agent.river.diagnostics import Position


class Reference(NamedTuple):
    """``target`` is the id of a component, or the whole dotted name if there is no such one."""

    target: str
    position: Position


def references(
    body: tuple[ast.Statement, ...], ids: Container[str], library: Mapping[str, object]
) -> Iterator[Reference]:
    """The references in ``body``. Of a dotted name the shortest beginning that is an id counts; a
    name of the standard library refers to nothing.
    """
    for expr in ast.expressions(body):
        yield from _in_expression(expr, ids, library)


def _in_expression(
    expr: ast.Expr, ids: Container[str], library: Mapping[str, object]
) -> Iterator[Reference]:
    names = _dotted(expr)
    if names is None:
        for child in ast.children(expr):
            yield from _in_expression(child, ids, library)
        return
    prefixes = (".".join(names[:count]) for count in range(1, len(names) + 1))
    target = next((prefix for prefix in prefixes if prefix in ids), None)
    if target is not None:
        yield Reference(target, expr.position)
    elif names[0] not in library:
        yield Reference(".".join(names), expr.position)


def _dotted(expr: ast.Expr) -> list[str] | None:
    """The names of ``a.b.c``; ``None`` if ``expr`` is something else."""
    names: list[str] = []
    while isinstance(expr, ast.Access):
        names.append(expr.name.text)
        expr = expr.value
    if not isinstance(expr, ast.Identifier):
        return None
    return [expr.name, *reversed(names)]


def cycles(edges: Mapping[str, Sequence[Reference]]) -> list[list[tuple[str, Reference]]]:
    """Circles of two or more: each as (component, its reference to the next) from the first in the
    order of ``edges`` on. Every component is in at most one of them.
    """
    found: list[list[tuple[str, Reference]]] = []
    done: set[str] = set()
    for start in edges:
        way: list[tuple[str, Iterator[Reference]]] = []
        on_way: dict[str, int] = {}
        taken: list[Reference] = []
        if start not in done:
            way.append((start, iter(edges[start])))
            on_way[start] = 0
        while way:
            name, rest = way[-1]
            reference = next(rest, None)
            if reference is None:
                way.pop()
                on_way.pop(name)
                done.add(name)
                if taken:
                    taken.pop()
            elif reference.target in on_way:
                first = on_way[reference.target]
                names = [each for each, _ in way[first:]]
                if len(names) > 1:
                    links = [*taken[first:], reference]
                    found.append(list(zip(names, links, strict=True)))
            elif reference.target not in done:
                taken.append(reference)
                on_way[reference.target] = len(way)
                way.append((reference.target, iter(edges[reference.target])))
    return found
