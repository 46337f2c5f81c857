# SPDX-License-Identifier: Apache-2.0
"""A seeded run of each fuzzer; TEST_FUZZ_RUNS makes it a long one (``make fuzz``)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.targets import TARGETS, check, seeds
from tests.wire.transcripts import answer as answered
from tests.wire.transcripts import get
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


Fuzzer = subprocess.Popen[str]


@pytest.fixture(scope="module", name="fuzzer")
def fixture_fuzzer() -> Iterator[Fuzzer]:
    """A process that has everything instrumented, and runs what it is told."""
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.fuzz"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as fuzzer:
        yield fuzzer
        assert fuzzer.stdin is not None
        fuzzer.stdin.close()
        assert fuzzer.wait() == 0


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_raises(fuzzer: Fuzzer, target: str, tmp_path: Path) -> None:
    runs = RUNS // 10 if target in SLOW else RUNS
    output = tmp_path / "said"
    assert fuzzer.stdin is not None
    assert fuzzer.stdout is not None
    fuzzer.stdin.write(f"{json.dumps([target, runs, str(output)])}\n")
    fuzzer.stdin.flush()
    # A test that ran into its time limit has left its answer behind.
    answer = next((line for line in fuzzer.stdout if line.startswith(f"{target} ")), "")
    said = output.read_text(errors="replace")
    assert answer == f"{target} 0\n", said[-4000:]
    done_runs = re.search(r"^Done (\d+) runs", said, re.MULTILINE)
    assert done_runs is not None
    assert int(done_runs[1]) >= runs, "and each seed once"


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_is_read(target: str) -> None:
    assert len(seeds(target)) > 5
    for seed in seeds(target):
        TARGETS[target](seed)


def test_a_wrong_exchange_would_be_found() -> None:
    wire = Wire().open().send(CLIENT, get("/a")).send(SERVER, answered(200))
    (exchange,) = Reader().feed(wire.records).exchanges
    check(exchange)
    exchange.attributes["http.response.status_code"] = 99
    with pytest.raises(AssertionError):
        check(exchange)
