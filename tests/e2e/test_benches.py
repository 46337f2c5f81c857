# SPDX-License-Identifier: Apache-2.0
"""Each benchmark runs on this machine. How long anything took is no concern of these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benches.__main__ import ROWS

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = {"BENCH_SECONDS": "1", "BENCH_PAIRS": "1"}


def run_benches(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benches", *words],
        cwd=ROOT,
        env={**os.environ, **QUICK},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.e2e
@pytest.mark.parametrize("row", ROWS)
def test_a_bench_runs(row: str, tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    done = run_benches("-o", results, row)
    assert done.returncode == 0, done.stderr
    text = results.read_text()
    assert text == done.stdout.removesuffix("\n")
    tables = [part for part in text.split("\n\n") if part.startswith("|")]
    assert tables
    for lines in map(str.splitlines, tables):
        assert len(lines) > 2, "a table without rows"
        assert len({line.count("|") for line in lines}) == 1
