# SPDX-License-Identifier: Apache-2.0
"""The plots of docs/performance.md, from benches/RESULTS.md.

They are made from the tables of that page, so they show what it says and nothing else.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import matplotlib as mpl

mpl.use("svg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benches.agent import RATE_TITLE, RATES
from benches.harness import RESULTS, ROOT
from benches.saturation import SDK, TITLE, TRACES

PLOTS: Final = ROOT / "docs" / "plots"
# The same bytes for the same figures, and text that stays text.
STYLE: Final = {"svg.hashsalt": "otelauto", "svg.fonttype": "none", "font.size": 10}
NUMBER: Final = re.compile(r"-?[\d,]+(?:\.\d+)?")
Row = dict[str, str]


class PlotError(Exception):
    """The page of results does not hold what is to be drawn."""


def table(text: str, title: str) -> list[Row]:
    """The rows of the table below a heading, by column. PlotError if there is none."""
    _, _, section = text.partition(f"\n## {title}\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if len(cells) < 3:
        raise PlotError(f"no table below '{title}'")
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def numbers(cell: str) -> tuple[float, float, float]:
    """Median, smallest and largest of a figure."""
    found = [float(number.replace(",", "")) for number in NUMBER.findall(cell)]
    if not found:
        raise PlotError(f"no figure in '{cell}'")
    return (found[0], found[1], found[2]) if len(found) >= 3 else (found[0], found[0], found[0])


def _line(axes: Axes, x: Sequence[float], y: Sequence[tuple[float, ...]], label: str) -> None:
    middle = [each[0] for each in y]
    spread = [[each[0] - each[1] for each in y], [each[2] - each[0] for each in y]]
    axes.errorbar(x, middle, yerr=spread, marker="o", capsize=3, label=label)


def agent_cost(text: str) -> Figure:
    """CPU of otelauto per request, and as a share of one CPU, against the rate."""
    by_label: defaultdict[str, list[Row]] = defaultdict(list)
    for row in table(text, RATE_TITLE):
        by_label[row["exports"]].append(row)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    each, share = figure.subplots(1, 2)
    for label, rows in by_label.items():
        rates = [numbers(row["rate"])[0] for row in rows]
        costs = [numbers(row["agent CPU, us/request"]) for row in rows]
        _line(each, rates, costs, label)
        parts = [
            tuple(c * rate / 1e4 for c in cost) for rate, cost in zip(rates, costs, strict=True)
        ]
        _line(share, rates, parts, label)
    for rate, traces, limit in RATES:
        if limit is not None:
            name = f"budget, metrics{' + traces' if traces else ''}"
            each.plot([rate], [limit], marker="_", ms=18, ls="", color="black")
            each.annotate(
                name, (rate, limit), xytext=(-12, -3), textcoords="offset points", ha="right"
            )
    for axes, what in (
        (each, "CPU of otelauto, us per request"),
        (share, "CPU of otelauto, % of one CPU"),
    ):
        axes.set(xlabel="requests per second", ylabel=what, xscale="log")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    each.set_yscale("log")
    share.set_ylim(bottom=0)
    return figure


def service_cost(text: str) -> Figure:
    """Throughput that the service's own CPU time allows, with each of what may watch it."""
    rows = [row for row in table(text, TITLE) if row["with"] in (TRACES, SDK)]
    titles = list(dict.fromkeys(row["service"] for row in rows))
    figure = Figure(figsize=(9, 0.6 + 0.55 * len(titles)), layout="constrained")
    axes = figure.subplots()
    for shift, label in ((0.2, TRACES), (-0.2, SDK)):
        mine = [row for row in rows if row["with"] == label]
        places = [len(titles) - titles.index(row["service"]) + shift for row in mine]
        axes.barh(places, [numbers(row["ratio of CPU"])[0] for row in mine], 0.38, label=label)
    axes.set_yticks([len(titles) - at for at in range(len(titles))], titles)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xlabel("throughput that the service's CPU time allows (1: as without)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def draw_all() -> None:
    """Draw what benches/RESULTS.md says into docs/plots. PlotError if it does not say it."""
    text = RESULTS.read_text()
    PLOTS.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in (("agent-cost", agent_cost), ("service-cost", service_cost)):
            path = PLOTS / f"{name}.svg"
            draw(text).savefig(path, metadata={"Date": None})
            # Trailing spaces and no line end are not how files end here.
            lines = [line.rstrip() for line in path.read_text().splitlines()]
            path.write_text("\n".join(lines) + "\n")
