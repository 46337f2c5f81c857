# SPDX-License-Identifier: Apache-2.0
"""What `make test-kernels` runs under a kernel: nothing that must be shown on each is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.vm.parts import CALLS, CORE, KERNEL, LOCKED, PARTS, SERVICES, TLS, parts_of, tiers_of

TESTS = Path(__file__).parents[1]
IN_CI = ("5.10.0-46-cloud-amd64", "6.1.0-56-cloud-amd64", "6.12.117+deb13-cloud-amd64")


@pytest.mark.parametrize("release", IN_CI)
@pytest.mark.parametrize("whole", [False, True])
def test_each_kernel_shows_what_differs_by_kernel(release: str, whole: bool) -> None:
    parts = parts_of(release, whole)
    files = {file for part in parts for file in part.files}
    for needed in ("accounting", "calls", "lifecycle", "verifier"):
        assert f"kernel/test_{needed}.py" in files
    assert "vm/every_tier.py" in files
    assert set(parts) <= set(PARTS)


def test_objects_that_only_older_kernels_need_get_every_kernel_test() -> None:
    assert parts_of("5.10.0-1", False) == (KERNEL, SERVICES, CALLS)
    assert parts_of("6.1.0-1", False) == (KERNEL, SERVICES)
    assert parts_of("6.12.1", False) == (SERVICES, CORE)
    assert parts_of("6.12.1", True) == (KERNEL, SERVICES, CALLS, TLS)
    assert [tiers_of(release) for release in IN_CI] == ["BC", "BC", "ABC"]


def test_what_is_named_exists() -> None:
    """A name that matches nothing would leave out, or run, nothing without a word."""
    for part in (*PARTS, LOCKED):
        sources = ""
        for file in part.files:
            path, _, test = file.partition("::")
            text = (TESTS / path).read_text()
            assert not test or re.search(rf"^def {re.escape(test)}\(", text, re.MULTILINE), test
            sources += text
        for name in part.left_out:
            assert re.search(rf"^def test_\w*{name}", sources, re.MULTILINE), (part.name, name)
