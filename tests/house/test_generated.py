# SPDX-License-Identifier: Apache-2.0
"""Generated files are what their generators would write now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.house.scan import PACKAGE, ROOT

OBJECT = PACKAGE / "kernel" / "objects" / "sockets.bpf.o"


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


@pytest.fixture(scope="module", name="objects")
def fixture_objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The BPF objects, compiled now from the sources in the checkout."""
    directory = tmp_path_factory.mktemp("objects")
    subprocess.run(
        [sys.executable, ROOT / "bpf" / "build.py", directory], check=True, capture_output=True
    )
    return directory


def test_the_contract_is_that_of_the_sources(objects: Path) -> None:
    fresh = generated("otelauto.kernel.contract", objects / "sockets.bpf.o")
    assert "class Counter(" in fresh
    assert fresh == (PACKAGE / "abi.py").read_text(), "run `make abi`"


def test_the_objects_are_those_of_the_sources(objects: Path) -> None:
    """Also: the compiler gives the same bytes each time."""
    for fresh in objects.glob("*.bpf.o"):
        used = OBJECT.parent / fresh.name
        assert used.read_bytes() == fresh.read_bytes(), "run `make bpf`"


def test_the_page_of_settings_is_fresh() -> None:
    fresh = generated("otelauto.config.docs")
    assert "## Settings" in fresh
    assert fresh == (ROOT / "docs" / "config.md").read_text(), "run `make abi`"
