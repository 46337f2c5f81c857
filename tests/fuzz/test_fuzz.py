# SPDX-License-Identifier: Apache-2.0
"""A seeded run of each fuzzer; TEST_FUZZ_RUNS makes it a long one (``make fuzz``)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz.targets import TARGETS, check, seeds
from tests.wire.transcripts import answer, get
from tests.wire.wire import CLIENT, SERVER, Reader, Wire

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = int(os.environ.get("TEST_FUZZ_RUNS", "1500"))


# A whole configuration, process directory or conversation of many streams takes milliseconds to
# read, a connection to answer.
SLOW = {
    "agent_configuration", "calls", "configuration", "http2", "others", "proc", "request",
    "variables",
    "web_configuration",
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_raises(target: str) -> None:
    runs = RUNS // 10 if target in SLOW else RUNS
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz", target, str(runs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    done_runs = re.search(r"^Done (\d+) runs", done.stdout, re.MULTILINE)
    assert done_runs is not None
    assert int(done_runs[1]) >= runs, "and each seed once"


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_is_read(target: str) -> None:
    assert len(seeds(target)) > 5
    for seed in seeds(target):
        TARGETS[target](seed)


def test_a_wrong_exchange_would_be_found() -> None:
    wire = Wire().open().send(CLIENT, get("/a")).send(SERVER, answer(200))
    (exchange,) = Reader().feed(wire.records).exchanges
    check(exchange)
    exchange.attributes["http.response.status_code"] = 99
    with pytest.raises(AssertionError):
        check(exchange)
