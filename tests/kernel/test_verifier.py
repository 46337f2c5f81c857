# SPDX-License-Identifier: Apache-2.0
"""The programs stay small: what the verifier walks through is on record; growth is decided."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kernel.recorder import Recorder

pytestmark = pytest.mark.kernel

TABLE = Path(__file__).parent / "verifier.tsv"
GROWTH = 1.1


def test_instructions_that_the_verifier_walks(recorder: Recorder, tmp_path: Path) -> None:
    costs = {cost.name: cost.verified_instructions for cost in recorder.capture.costs()}
    text = "program\tinstructions\n" + "".join(f"{n}\t{costs[n]}\n" for n in sorted(costs))
    now = tmp_path / TABLE.name
    now.write_text(text)
    rows = [line.split("\t") for line in TABLE.read_text().splitlines()[1:]]
    known = {program: int(instructions) for program, instructions in rows}
    remedy = f"if this is meant, take the new table over: cp {now} {TABLE}"
    assert set(costs) == set(known), remedy
    grown = {
        name: f"{known[name]} -> {costs[name]}"
        for name in costs
        if costs[name] > known[name] * GROWTH
    }
    assert not grown, f"programs grew by more than 10 %: {grown}; {remedy}"
