# SPDX-License-Identifier: Apache-2.0
"""What a running otelauto may still do: what its work needs, in every thread, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.harness.process import free_port
from tests.e2e.harness.rig import Rig
from tests.e2e.test_lifecycle import ask, epoll

pytestmark = pytest.mark.e2e
# CAP_CHECKPOINT_RESTORE, CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH in
# <linux/capability.h>
NEEDED = 1 << 40 | 1 << 39 | 1 << 38 | 1 << 19 | 1 << 2
SETS = ("CapInh", "CapPrm", "CapEff")


def privileges(status: str) -> tuple[list[int], int]:
    """Inheritable, permitted and effective capabilities, and no_new_privs, of /proc/*/status."""
    rows = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return [int(rows[name], 16) for name in SETS], int(rows["NoNewPrivs"])


def test_only_what_is_needed_is_kept_and_is_enough(tmp_path: Path) -> None:
    port, later = free_port(), free_port()
    with epoll(tmp_path, port) as server, Rig(tmp_path, {"open_port": [port, later]}) as rig:
        rig.wait_for_target(server.pid)
        ask(port, ["/items/early"])
        rig.wait_for_paths(["/items/early"])
        threads = list(Path(f"/proc/{rig.process.pid}/task").iterdir())
        assert len(threads) > 1
        for thread in threads:
            assert privileges((thread / "status").read_text()) == ([0, NEEDED, NEEDED], 1)
        assert "privileges" not in rig.process.stderr()
        # A process that comes later is still found, inspected and watched.
        with epoll(tmp_path, later) as second:
            rig.wait_for_target(second.pid)
            ask(later, ["/items/late"])
            rig.wait_for_paths(["/items/late"])
        assert rig.page()


def test_privileges_are_read() -> None:
    status = "CapInh:\t0\nCapPrm:\t1c000080004\nCapEff:\tf\nNoNewPrivs:\t0\n"
    assert privileges(status) == ([0, NEEDED, 15], 0)
