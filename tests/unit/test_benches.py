# SPDX-License-Identifier: Apache-2.0
"""The benchmarks: what the page of results says of figures. That each runs, tests/e2e shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benches.compare import Cell, Compared
from benches.counted import ROWS as COUNTED_ROWS
from benches.harness import Load, cpu_ns, dropped, uncounted
from benches.plots import RESULTS, PlotError, agent_cost, numbers, service_cost
from benches.report import Budget, Figure, Section, merged, page, table
from benches.vm import agent_section, service_section

ROOT = Path(__file__).resolve().parent.parent.parent


def test_an_unknown_row_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benches", "epol"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no such row: epol (there are: epoll nginx" in done.stderr


def test_a_figure_is_a_median_with_its_spread() -> None:
    assert str(Figure([3.0, 1.0, 2000.0], "us")) == "3.00 us (1.00 to 2,000.00)"
    assert str(Figure([2.25], digits=1)) == "2.2"


def test_a_budget_is_judged_by_the_median() -> None:
    figure = Figure([0.5, 0.7, 9.0], "us")
    assert Budget("cost", figure, 0.7).cells()[2:] == ("at most 0.7 us", "met")
    assert Budget("cost", figure, 0.69).cells()[3] == "**not met**"
    assert Budget("left", figure, 0.7, at_least=True).cells()[2:] == ("at least 0.7 us", "met")
    assert not Budget("left", figure, 0.71, at_least=True).met


def test_sections_of_one_title_are_one() -> None:
    def section(title: str, cell: str) -> Section:
        return Section(title, "how", ("what",), [(cell,)], [Budget(cell, Figure([1]), 1)])

    found = merged([section("a", "1"), section("b", "2"), section("a", "3")])
    assert [(each.title, each.rows) for each in found] == [("a", [("1",), ("3",)]), ("b", [("2",)])]
    text = page("python -m benches", [("kernel", "6")], found)
    assert text.index("## Budgets") < text.index("## a") < text.index("## b")
    assert table(("x", "yy"), [("1", "2")]) == "| x | yy |\n| - | -- |\n| 1 | 2  |"


def test_plots_are_of_what_the_page_of_results_says() -> None:
    text = RESULTS.read_text()
    each, share = agent_cost(text).axes
    labels = [label.get_text() for label in each.get_legend().get_texts()]
    assert labels == ["metrics", "metrics + traces"]
    (first, *_) = share.containers[0].lines[0].get_xdata()
    assert first == 1000
    (bars,) = service_cost(text).axes
    assert {tick.get_text() for tick in bars.get_yticklabels()} >= {
        "C, epoll",
        "FastAPI on uvicorn",
    }
    assert bars.patches
    assert numbers("1.20 us (1.17 to 1,240.5)") == (1.2, 1.17, 1240.5)
    with pytest.raises(PlotError):
        agent_cost("# nothing")


def test_differences_are_those_of_the_pairs() -> None:
    pairs = [
        (Cell(Load(100, 1), 10.0), Cell(Load(90, 1), 11.0)),
        (Cell(Load(50, 1), 20.0), Cell(Load(50, 1), 22.0)),
        (Cell(Load(200, 1), 5.0), Cell(Load(100, 1), 10.0, uncounted=3)),
    ]
    compared = Compared("service", "with", pairs)
    assert compared.added.values == [1.0, 2.0, 5.0]
    assert compared.ratio.values == [0.9, 1.0, 0.5]
    assert compared.cpu_ratio.median == pytest.approx(10 / 11)
    assert compared.uncounted.values == [0, 0, 3]


def test_records_must_add_up() -> None:
    counters = [
        ["kernel_records_produced", "", 100],
        ["records_delivered", "", 90],
        ["kernel_records_dropped", "ring_full", 7],
        ["kernel_records_dropped", "target_refused", 2],
    ]
    assert dropped({"counters": counters}) == 9
    assert uncounted({"counters": counters}) == 3


WORKER = """
import sys, threading, time
def work():
    sum(range(5 * 10**6))
    print(time.thread_time_ns(), flush=True)
    sys.stdin.read()
threading.Thread(target=work).start()
"""


def test_cpu_time_is_that_of_all_threads() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        by_worker_ns = int(child.stdout.readline())
        every_ns = cpu_ns([child.pid])
        main_ns = int(Path(f"/proc/{child.pid}/task/{child.pid}/schedstat").read_text().split()[0])
        child.communicate()
    assert every_ns >= by_worker_ns
    assert every_ns > main_ns


# As benches.counted prints them.
WITHOUT = {"requests": 100, "rate": 100.0, "service": 21_000.0}
WITH = {
    "requests": 90, "rate": 90.0, "service": 24_000.0, "agent": 3_500.0, "spans": 1.0, "dropped": 0,
    "given_up": 0, "rss": 40_000_000, "kernel_memory": 6 << 20, "maps": 13, "programs": 8,
}  # fmt: skip


def test_instructions_are_judged_by_what_was_added() -> None:
    section = service_section("nginx", {"none": [WITHOUT], "metrics": [WITH]})
    (row,) = section.rows
    assert len(row) == len(section.header)
    assert row[1:8] == ("Prometheus", "100", "90", "21.00", "24.00", "3.00 thousand", "3.50")
    assert [budget.met for budget in section.budgets] == [False, True, True]
    assert [budget.limit for budget in section.budgets] == [2.5, 4, 4]


def test_every_span_has_a_limit_of_its_own() -> None:
    figures = {"none": [WITHOUT], "metrics": [WITH], "traces": [WITH | {"agent": 9_900.0}]}
    section = service_section("go", figures)
    assert [row[1] for row in section.rows] == ["Prometheus", "Prometheus + OTLP traces"]
    assert section.budgets[-1].limit == 10
    assert section.budgets[-1].met


def test_a_late_start_is_not_met() -> None:
    figures = {"first_span": [0.9, 1.3, 1.2], "start": [1e9], "at_rest": 5e5, **WITH}
    section = agent_section(figures)
    assert len(section.rows[0]) == len(section.header)
    assert section.rows[0][:3] == ("1.20 s (0.90 to 1.30)", "1,000 million", "500 thousand/s")
    assert [budget.met for budget in section.budgets] == [False, True]


def test_an_unknown_row_of_the_counted_ones_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benches.vm"],
        cwd=ROOT,
        env={**os.environ, "BENCH_ROWS": "ngin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"no ngin (there are: {' '.join(COUNTED_ROWS)})" in done.stderr
