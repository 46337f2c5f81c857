# SPDX-License-Identifier: Apache-2.0
"""Runs one target under atheris: ``python -m tests.fuzz.fuzz TARGET RUNS [SEED]``.

Ends with status 0 after RUNS inputs without a finding.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["otelauto", "tests.reference"]):
    from tests.fuzz.targets import TARGETS, seeds

INPUT_MAX = 4096


def main() -> None:
    target, runs, *seed = sys.argv[1:]
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(target)):
            (Path(corpus) / f"seed-{number}").write_bytes(data[:INPUT_MAX])
        options = [f"-runs={runs}", f"-seed={seed[0] if seed else 1}", f"-max_len={INPUT_MAX}"]
        findings = f"-artifact_prefix={tempfile.gettempdir()}/otelauto-fuzz-{target}-"
        atheris.Setup([sys.argv[0], *options, "-timeout=10", findings, corpus], TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
