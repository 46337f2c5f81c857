# SPDX-License-Identifier: Apache-2.0
"""``python -m benches [-o FILE] [ROW...]``: measure, print the tables and write them to FILE.

Without rows all are measured, FILE is benches/RESULTS.md, and the plots of docs/plots are drawn
from it; with rows nothing is written unless FILE is given. BENCH_SECONDS and BENCH_PAIRS say how
long. Needs root and two CPUs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benches.agent import at_rates, growth, memory, rest
from benches.aggregation import aggregation
from benches.harness import BENCHES, RESULTS, Bench, BenchError, Settings
from benches.http2 import http2
from benches.lane import lane
from benches.pipeline import pipeline
from benches.programs import programs
from benches.report import Section, facts, merged, page
from benches.saturation import saturation
from benches.scrape import encode, scrapes
from benches.services import SERVICES
from benches.startup import startup
from benches.steady import steady
from benches.tls import tls

COMMAND: Final = "python -m benches"
ROWS: Final[dict[str, Callable[[Bench], Section]]] = {
    **{name: saturation(name) for name in SERVICES},
    "tls": tls,
    "steady": steady,
    "lane": lane,
    "http2": http2,
    "aggregation": aggregation,
    "rates": at_rates,
    "memory": memory,
    "growth": growth,
    "rest": rest,
    "startup": startup,
    "agent": pipeline,
    "scrape": scrapes,
    "encode": encode,
    "programs": programs,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Measure otelauto.")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=" ".join(ROWS))
    given = parser.parse_args()
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"no such row: {' '.join(sorted(unknown))} (there are: {' '.join(ROWS)})")
    if not given.rows:
        given.rows = list(ROWS)
        given.output = given.output or RESULTS
    return given


def measure(rows: list[str], settings: Settings) -> list[Section]:
    """Each row with a directory of its own, which goes with it."""
    sections = []
    for number, row in enumerate(rows, 1):
        print(f"{number}/{len(rows)} {row} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="otelauto-bench-") as directory:
            sections.append(ROWS[row](Bench(settings, Path(directory))))
    return merged(sections)


def main() -> int:
    given = arguments()
    if os.geteuid() != 0 or (os.cpu_count() or 1) < 2:
        print("the benchmarks need root and at least two CPUs", file=sys.stderr)
        return 1
    subprocess.run([BENCHES / "install.sh"], check=True, stdout=sys.stderr)
    settings = Settings.from_environment()
    command = " ".join([COMMAND, *given.rows] if set(given.rows) != set(ROWS) else [COMMAND])
    machine = facts(command, str(settings))
    try:
        sections = measure(given.rows, settings)
    except BenchError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    text = page(command, machine, sections)
    print(text)
    if given.output:
        given.output.write_text(text)
    if given.output == RESULTS:
        from benches import plots  # noqa: PLC0415 - matplotlib takes longer to load than some rows

        plots.draw_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
