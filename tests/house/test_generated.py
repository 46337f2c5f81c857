# SPDX-License-Identifier: Apache-2.0
"""Generated files are what their generators would write now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.house.scan import PACKAGE, ROOT


def generated(*command: str | Path) -> str:
    """What a generator of the package writes on standard output."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    ).stdout


def test_the_contract_is_that_of_the_sources(tmp_path: Path) -> None:
    """That the objects are too, and the same wherever they are built, tests/kernel shows."""
    build = [sys.executable, ROOT / "bpf" / "build.py", tmp_path, "bpf/sockets.bpf.c"]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT)
    fresh = generated("otelauto.kernel.contract", tmp_path / "sockets.bpf.o")
    assert "class Counter(" in fresh
    assert fresh == (PACKAGE / "abi.py").read_text(), "run `make abi`"


def test_the_page_of_settings_is_fresh() -> None:
    fresh = generated("otelauto.config.docs")
    assert "## Settings" in fresh
    assert fresh == (ROOT / "docs" / "config.md").read_text(), "run `make abi`"
