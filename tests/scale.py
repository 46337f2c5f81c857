# SPDX-License-Identifier: Apache-2.0
"""How long the long tests are: 1 in `make test`, more in `make soak`; the code is the same."""

from __future__ import annotations

import os

SCALE = int(os.environ.get("TEST_SCALE", "1"))
# How much slower than a real machine this one is: deadlines are longer by that, no test else.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
# To start a program is what an emulated machine is slowest at: the clients are fewer processes, and
# tests that repeat a thing thousands of times repeat it less often.
FEW_PROCESSES = os.environ.get("TEST_FEW_PROCESSES") == "1"
