# SPDX-License-Identifier: Apache-2.0
"""The programs stay small: what the verifier walks through is on record; growth is decided."""

from __future__ import annotations

import platform
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from tests.kernel.recorder import Recorder
from tests.unsupported import Unsupported

from otelauto.kernel.capture import Capture, Wanted
from otelauto.kernel.objects import BpfObject

pytestmark = pytest.mark.kernel

TABLE = Path(__file__).parent / "verifier.tsv"
GROWTH = 1.1
_NUMBERS = re.match(r"\d+\.\d+", platform.release())
KERNEL = _NUMBERS[0] if _NUMBERS else ""


def read_table(text: str) -> dict[str, dict[str, int]]:
    """Instructions by kernel and object/program; 0 where the kernel does not count them."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for line in text.splitlines()[1:]:
        kernel, program, instructions = line.split("\t")
        found[kernel][program] = int(instructions)
    return found


def grown(known: dict[str, int], now: dict[str, int]) -> dict[str, str]:
    """The programs that grew by more than 10 %."""
    return {
        name: f"{known[name]} -> {now[name]}" for name in now if now[name] > known[name] * GROWTH
    }


def compare(objects: Sequence[BpfObject]) -> None:
    """Hold what the verifier walked through against what is on record."""
    now = {
        f"{one.name}/{cost.name}": cost.verified_instructions
        for one in objects
        for cost in one.costs()
    }
    table = read_table(TABLE.read_text())
    names = {one.name for one in objects}
    known = {k: n for k, n in table[KERNEL].items() if k.split("/")[0] in names}
    if not known:  # a kernel that nobody put on record: no worse than the worst of those
        worst: dict[str, int] = defaultdict(int)
        for row in table.values():
            for name, instructions in row.items():
                worst[name] = max(worst[name], instructions)
        assert not grown(worst, now)
        return
    rows = "".join(f"{KERNEL}\t{name}\t{now[name]}\n" for name in sorted(now))
    remedy = f"if this is meant, these are the rows for {TABLE}:\n{rows}"
    assert set(now) == set(known), remedy
    assert not grown(known, now), remedy


def test_instructions_that_the_verifier_walks(recorder: Recorder) -> None:
    compare((recorder.capture._sockets, recorder.capture._processes))


def test_those_of_the_probes_for_plaintext() -> None:
    with closing(Capture(Wanted(libraries=True))) as capture:
        if not capture._plaintext:
            raise Unsupported(capture.libraries_refused)
        compare([probes._object for probes in capture._plaintext])


def test_growth_is_found() -> None:
    assert grown({"a": 1000, "b": 1000}, {"a": 1101, "b": 1100}) == {"a": "1000 -> 1101"}
