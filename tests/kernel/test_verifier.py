# SPDX-License-Identifier: Apache-2.0
"""The programs stay small: what the verifier walks through is on record; growth is decided."""

from __future__ import annotations

from collections import defaultdict

import pytest
from tests.kernel.verified import KERNEL, TABLE, Walked, objects, read_table, rows, table, walked

from otelauto.kernel import capture

pytestmark = pytest.mark.kernel

GROWTH = 1.1


def grown(known: Walked, now: Walked) -> dict[str, str]:
    """The programs that grew by more than 10 %."""
    return {
        name: f"{known[name]} -> {now[name]}" for name in now if now[name] > known[name] * GROWTH
    }


def test_instructions_that_the_verifier_walks() -> None:
    now, known = walked(), read_table(TABLE.read_text())
    assert objects(now) & {tier.object for tier in capture.TIERS}, "no tier loads"
    if KERNEL not in known:  # nobody put it on record: no worse than the worst of those
        worst: Walked = defaultdict(int)
        for row in known.values():
            for name, instructions in row.items():
                worst[name] = max(worst[name], instructions)
        assert not grown(worst, now)
        return
    here = {name: n for name, n in known[KERNEL].items() if objects([name]) <= objects(now)}
    remedy = f"if this is meant, these are the rows for {TABLE}:\n{rows(KERNEL, now)}"
    assert set(now) == set(here), remedy
    assert not grown(here, now), remedy


def test_growth_is_found() -> None:
    assert grown({"a": 1000, "b": 1000}, {"a": 1101, "b": 1100}) == {"a": "1000 -> 1101"}


def test_the_table_is_written_as_it_is_read() -> None:
    text = TABLE.read_text()
    assert table(read_table(text)) == text
