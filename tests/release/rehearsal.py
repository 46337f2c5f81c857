# SPDX-License-Identifier: Apache-2.0
"""`make test-release`: a rehearsal of a release, for both machines; minutes.

That each wheel is built twice with the same bytes is checked by tools/release.py itself.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from otelauto import __version__

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = [
    f"otelauto-{__version__}-cp311-abi3-manylinux_2_28_{machine}"
    for machine in ("aarch64", "x86_64")
]
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module", name="released")
def fixture_released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("released")
    command = [sys.executable, "-m", "tools.release", "--rehearse", directory]
    subprocess.run(command, check=True, cwd=ROOT)
    return directory


def test_it_is_complete_and_the_sums_are_right(released: Path) -> None:
    wanted = {"SHA256SUMS"} | {f"{name}{end}" for name in NAMES for end in (".whl", ".cdx.json")}
    assert {path.name for path in released.iterdir()} == wanted
    lines = (released / "SHA256SUMS").read_text().splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    assert set(sums) == wanted - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((released / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("name", NAMES)
def test_bills_of_materials_are_valid_and_of_their_wheels(released: Path, name: str) -> None:
    text = (released / f"{name}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    (digest,) = json.loads(text)["metadata"]["component"]["hashes"]
    wheel = (released / f"{name}.whl").read_bytes()
    assert digest["content"] == hashlib.sha256(wheel).hexdigest()
