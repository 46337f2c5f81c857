# SPDX-License-Identifier: Apache-2.0
"""Hold a process to one tier of capture, whatever else its kernel allows.

Whoever imports this is held to the tiers whose names begin with the variable TEST_TIER, if it is
set. The program: `python -m tests.one_tier TIER WORD...` is `otelauto WORD...`.
"""

from __future__ import annotations

import os
import sys

from otelauto.kernel import capture
from otelauto.kernel.tiers import TIERS, Tier

ONLY = os.environ.get("TEST_TIER", "")


def tiers_named(start: str) -> tuple[Tier, ...]:
    """The tiers whose names begin so, best first; raises ValueError if there is none."""
    found = tuple(tier for tier in TIERS if tier.name.startswith(start))
    if not found:
        raise ValueError(f"no tier {start!r}")
    return found


def hold_to(start: str) -> None:
    """From now on only these tiers are tried."""
    capture.TIERS = tiers_named(start)  # type: ignore[misc]


if __name__ == "__main__":
    from otelauto.cli import main

    hold_to(sys.argv.pop(1))
    sys.exit(main())
if ONLY:
    hold_to(ONLY)
