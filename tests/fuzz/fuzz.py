# SPDX-License-Identifier: Apache-2.0
"""Runs targets under atheris: ``python -m tests.fuzz.fuzz TARGET RUNS [SEED]``.

Ends with status 0 after RUNS inputs without a finding. Without arguments it reads lines of JSON,
``[TARGET, RUNS, FILE]``, and runs each in a child, whose output goes to FILE; it answers each with
a line, the target and the child's status. To import and instrument all takes longer than most runs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["otelauto", "tests.reference"]):
    from tests.fuzz.targets import TARGETS, seeds

INPUT_MAX = 4096


def fuzz(target: str, runs: int, corpus: Path, seed: int = 1) -> None:
    """Run it; the process ends with it."""
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(data[:INPUT_MAX])
    options = [f"-runs={runs}", f"-seed={seed}", f"-max_len={INPUT_MAX}"]
    findings = f"-artifact_prefix={tempfile.gettempdir()}/otelauto-fuzz-{target}-"
    words = [sys.argv[0], *options, "-timeout=10", findings, str(corpus)]
    atheris.Setup(words, TARGETS[target])
    atheris.Fuzz()


def in_child(target: str, runs: int, output: Path) -> int:
    """The status of a child that runs it. The corpus goes with it."""
    with tempfile.TemporaryDirectory() as corpus, output.open("wb") as said:
        child = os.fork()
        if not child:
            for fd in (1, 2):
                os.dup2(said.fileno(), fd)
            fuzz(target, runs, Path(corpus))
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    if sys.argv[1:]:
        target, runs, *seed = sys.argv[1:]
        with tempfile.TemporaryDirectory() as corpus:
            fuzz(target, int(runs), Path(corpus), *map(int, seed))
    for line in sys.stdin:
        target, runs, output = json.loads(line)
        sys.stdout.write(f"{target} {in_child(target, runs, Path(output))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
