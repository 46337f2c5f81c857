# SPDX-License-Identifier: Apache-2.0
"""How long the long tests are: 1 in `make test`, more in `make soak`; the code is the same."""

from __future__ import annotations

import os

SCALE = int(os.environ.get("TEST_SCALE", "1"))
