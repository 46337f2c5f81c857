# SPDX-License-Identifier: Apache-2.0
"""`make test-docs`: the README and the tutorial, word for word, in a system that has nothing.

The system is .build/roots/bookworm (tests/roots/install.sh fresh): Debian with Python, git, make
and curl. It runs on this machine's kernel, and installs from its package registries.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.blocks import NotTested, steps
from tests.docs.follow import follower
from tests.docs.places import ROOT, fresh
from tests.docs.test_pages import PAGES
from tests.roots.system import FRESH

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_is_so(page: str, tmp_path: Path) -> None:
    todo = steps((ROOT / page).read_text())
    with fresh(FRESH, tmp_path) as place, follower(place, page) as reader:
        reader.follow(todo)
        left_out = [step for step in todo if step.line not in reader.followed]
    assert all(isinstance(step, NotTested) for step in left_out)
