# SPDX-License-Identifier: Apache-2.0
"""The page of an agent for people: one document without scripts, made anew for each request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Final

from otelauto import __version__, logs
from otelauto.agent.graph import Cell
from otelauto.agent.page_graph import COLOURS, svg
from otelauto.agent.page_metrics import Rates, State
from otelauto.agent.relay import TAKEN
from otelauto.agent.running.otlp_intake import ITEMS_ACCEPTED
from otelauto.agent.schema import Decoded
from otelauto.agent.secrets import harmless
from otelauto.counters import Counters

REFRESH_S: Final = 5
_STYLE: Final = """
:root{color-scheme:light dark;--line:#d0d7de;--soft:#f6f8fa;--text:#1f2328;--dim:#59636e}
@media(prefers-color-scheme:dark){:root{--line:#3d444d;--soft:#151b23;--text:#f0f6fc;--dim:#9198a1}}
body{font:14px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1280px;padding:16px}
body{color:var(--text)}
h1{font-size:20px;margin:0}h2{font-size:15px;margin:0 0 6px;font-family:ui-monospace,monospace}
header{display:flex;gap:16px;align-items:baseline;flex-wrap:wrap;margin-bottom:12px}
header span,.dim{color:var(--dim)}form{margin-left:auto}
.graph{overflow-x:auto;border:1px solid var(--line);border-radius:8px;margin-bottom:16px}
.box{fill:var(--soft);stroke-width:1.5}svg text{fill:var(--text);font-size:13px}
svg .kind{font-size:12px;fill:var(--dim)}svg .label{font-weight:600}svg .rate{font-size:12px}
section{border:1px solid var(--line);border-radius:8px;padding:12px;margin-bottom:12px}
section:target{outline:2px solid #0969da}
.state{color:#fff;border-radius:10px;padding:1px 8px;font:12px system-ui}
pre{background:var(--soft);border-radius:6px;padding:8px;overflow-x:auto;margin:6px 0}
.wrong{border:1px solid #cf222e;border-radius:8px;padding:8px 12px;margin-bottom:12px}
table{border-collapse:collapse}td,th{text-align:left;padding:2px 16px 2px 0}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
"""
_FOR_PEOPLE: Final = {
    "samples": "samples",
    "spans": "spans",
    "traces": "spans",
    "points": "data points",
    "metrics": "data points",
}


def page(state: State, rates: Rates) -> str:
    """The whole document."""
    cells = state.graph.cells()
    measured = rates.rates()
    flows = {name: _flow(name, measured) for name in cells}
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>otelauto agent</title>',
        f'<meta http-equiv="refresh" content="{REFRESH_S}"><style>{_STYLE}</style></head><body>',
        f"<header><h1>otelauto agent</h1><span>{escape(__version__)}</span>",
        f"<span>{escape(state.path)}</span>",
        f'<span>{len(cells)} components</span><form method="post" action="/-/reload">',
        "<button>Read the configuration again</button></form></header>",
    ]
    if state.reload_error:
        parts.append(
            '<div class="wrong"><b>The configuration was read again and is not used; the earlier '
            f"one goes on.</b><pre>{escape(state.reload_error)}</pre></div>"
        )
    parts.append(f'<div class="graph">{svg(cells, flows)}</div>')
    counters = state.graph.counters()
    for name, cell in reversed(cells.items()):  # receivers first
        parts += _section(name, cell, counters.get(name, Counters()), measured)
    return logs.masked("\n".join([*parts, "</body></html>"]))


def _flow(name: str, measured: Mapping[tuple[str, str, str], float]) -> str:
    """What a component takes, from others or from outside, in a few words."""
    found = [
        f"{_rate(rate)} {_FOR_PEOPLE[kind]}/s"
        for (owner, counter, kind), rate in sorted(measured.items())
        if owner == name and counter in (TAKEN.name, ITEMS_ACCEPTED.name)
    ]
    return ", ".join(found)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _section(
    name: str, cell: Cell, counters: Counters, measured: Mapping[tuple[str, str, str], float]
) -> Iterator[str]:
    health, why = cell.health()
    yield f'<section id="{escape(name)}"><h2>{escape(name)} '
    yield f'<span class="state" style="background:{COLOURS[health]}">{health}</span></h2>'
    if why:
        yield f"<pre>{escape(logs.masked(why))}</pre>"
    where = cell.node.block.position
    yield f'<div class="dim">{escape(cell.node.source.name)}:{where.line}</div>'
    lines = "\n".join(_arguments(cell.content, ""))
    if lines:
        yield f"<pre>{escape(lines)}</pre>"
    status = cell.running.status()
    if status:
        said = ", ".join(f"{key}: {value}" for key, value in status.items())
        yield f"<div>{escape(said)}</div>"
    rows = list(counters.items())
    if rows:
        yield '<table><tr><th>counted</th><th></th><th class="number">total</th>'
        yield '<th class="number">per second</th></tr>'
        for meaning, label, total in rows:
            rate = measured.get((name, meaning.name, label))
            yield (
                f'<tr><td title="{escape(meaning.help)}">{escape(meaning.name)}</td>'
                f'<td>{escape(label)}</td><td class="number">{total:,}</td>'
                f'<td class="number">{_rate(rate) if rate else ""}</td></tr>'
            )
        yield "</table>"
    yield "</section>"


def _arguments(content: Decoded, indent: str) -> Iterator[str]:
    """What is configured, as River shows it; durations as seconds, secrets as ``(secret)``."""
    for name, value in content.arguments.items():
        argument = content.schema.argument(name)
        shown = harmless(value, name)
        if argument is not None and argument.type == "duration" and isinstance(value, int):
            text = f"{value / 1e9:g}s"
        else:
            text = json.dumps(shown, ensure_ascii=False, default=str)
        yield f"{indent}{name} = {text}"
    for name, blocks in content.blocks.items():
        for block in blocks:
            inner = list(_arguments(block, indent + "  "))
            yield f"{indent}{name} {{" if inner else f"{indent}{name} {{ }}"
            yield from inner
            if inner:
                yield f"{indent}}}"
