# SPDX-License-Identifier: Apache-2.0
"""The demo's Python services and customers alone, on fixed ports, to be watched by somebody else.

They run until SIGTERM or SIGINT: the sample of deploy/container/compose.yml. ``DEMO_FIRST_PORT``
is the first service's port (8080, if not given), the others follow.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

from customers import Load
from fleet import SAMPLES, Fleet
from processes import run_demo


def run(directory: Path, stopping: threading.Event, stack: contextlib.ExitStack) -> int:
    """Serve and ask; ``stack`` ends what was started."""
    fleet = Fleet(directory, [sample for sample in SAMPLES if not sample.runtime])
    first = int(os.environ.get("DEMO_FIRST_PORT", "8080"))
    fleet.ports = dict(zip(fleet.names, range(first, first + len(fleet.names)), strict=True))
    stack.callback(fleet.stop)
    fleet.start(stopping)
    load = Load(fleet.ports["shop"])
    stack.callback(load.stop)
    load.start()
    while not stopping.wait(1.0):
        fleet.check()
    return 0


if __name__ == "__main__":
    sys.exit(run_demo(run))
