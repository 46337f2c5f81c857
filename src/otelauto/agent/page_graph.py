# SPDX-License-Identifier: Apache-2.0
"""The components of an agent as a picture: boxes in the order of the data, and references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from otelauto import logs
from otelauto.agent.graph import Cell
from otelauto.agent.pipeline import Health
from otelauto.agent.schema import APPENDABLE, CONSUMER

WIDTH, HEIGHT = 250, 66  # of a box
ACROSS, DOWN = 70, 24  # between boxes
MARGIN: Final = 10
COLOURS: Final = {
    Health.HEALTHY: "#1a7f37",
    Health.UNHEALTHY: "#cf222e",
    Health.EXITED: "#6e7781",
}
_LETTERS: Final = 33  # that fit into a box


@dataclass(frozen=True, slots=True)
class Edge:
    """``data``: telemetry goes from ``source`` to ``target``; else a value of the configuration."""

    source: str
    target: str
    data: bool


def edges(cells: Mapping[str, Cell]) -> list[Edge]:
    """The references: a component refers to where it sends data, and to where values come from."""
    found = []
    for name, cell in cells.items():
        for need in cell.node.needs:
            if need in cells:
                kinds = {kind for _, kind in cells[need].node.schema.exports}
                data = bool(kinds & {CONSUMER, APPENDABLE})
                found.append(Edge(name, need, True) if data else Edge(need, name, False))
    return found


def columns(names: Sequence[str], links: Iterable[Edge]) -> list[list[str]]:
    """The ids from left to right; what is linked is in a later column than what it comes from."""
    links = list(links)
    depth = dict.fromkeys(names, 0)
    for _ in names:  # each pass makes at least one more right
        for link in links:
            depth[link.target] = max(depth[link.target], depth[link.source] + 1)
        if all(depth[link.target] > depth[link.source] for link in links):
            break
    for link in links:
        if not link.data:  # what gives values stands beside who uses them, not far left
            depth[link.source] = max(depth[link.source], depth[link.target] - 1)
    used = sorted(set(depth.values()))
    found = [[name for name in names if depth[name] == each] for each in used]
    return _untangled(found, links)


def _untangled(found: list[list[str]], links: list[Edge]) -> list[list[str]]:
    """Each column in the order of what leads to it: fewer arrows cross."""
    row = {name: number for column in found for number, name in enumerate(column)}
    for column in found[1:]:

        def place(name: str) -> float:
            before = [row[link.source] for link in links if link.target == name]
            return sum(before) / len(before) if before else row[name]

        column.sort(key=place)
        row.update({name: number for number, name in enumerate(column)})
    return found


def svg(cells: Mapping[str, Cell], rates: Mapping[str, str]) -> str:
    """The picture; each box leads to the component's section. ``rates`` is text by id."""
    links = edges(cells)
    placed = columns(list(cells), links)
    at = {
        name: (MARGIN + x * (WIDTH + ACROSS), MARGIN + y * (HEIGHT + DOWN))
        for x, column in enumerate(placed)
        for y, name in enumerate(column)
    }
    width = 2 * MARGIN + len(placed) * (WIDTH + ACROSS) - ACROSS
    height = 2 * MARGIN + max(map(len, placed), default=0) * (HEIGHT + DOWN) - DOWN
    begin = (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        ' aria-label="components and their references">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8"'
        ' markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#6e7781"/></marker></defs>'
    )
    parts = [begin, *(_arrow(link, at) for link in links)]
    for name, cell in cells.items():
        parts += _box(name, cell, at[name], rates.get(name, ""))
    return "\n".join([*parts, "</svg>"])


def _arrow(link: Edge, at: Mapping[str, tuple[int, int]]) -> str:
    (x1, y1), (x2, y2) = at[link.source], at[link.target]
    x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT // 2, y2 + HEIGHT // 2
    bend = max(30, abs(x2 - x1) // 2)
    dashes = "" if link.data else ' stroke-dasharray="5 4"'
    return (
        f'<path d="M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" fill="none"'
        f' stroke="#6e7781" stroke-width="1.5"{dashes} marker-end="url(#tip)"/>'
    )


def _box(name: str, cell: Cell, at: tuple[int, int], rate: str) -> Iterator[str]:
    x, y = at
    kind, _, label = name.rpartition(".")
    health, why = cell.health()
    said = escape(logs.masked(f"{name}: {health} {why}"))
    yield f'<a href="#{escape(name)}"><g><title>{said}</title>'
    yield (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" class="box"'
        f' stroke="{COLOURS[health]}"/>'
    )
    yield f'<circle cx="{x + WIDTH - 14}" cy="{y + 14}" r="5" fill="{COLOURS[health]}"/>'
    for line, (text, style) in enumerate(((kind, "kind"), (label, "label"), (rate, "rate"))):
        yield f'<text x="{x + 10}" y="{y + 18 + 19 * line}" class="{style}">{_cut(text)}</text>'
    yield "</g></a>"


def _cut(text: str) -> str:
    return escape(text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…")
