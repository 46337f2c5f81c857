# SPDX-License-Identifier: Apache-2.0
"""otelauto costs more than it may: it gives detail up in order, says so, and harms nobody."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.load import Wrk
from tests.e2e.harness.rig import Rig, accounts, total
from tests.e2e.test_attach import BY_NAME

pytestmark = pytest.mark.e2e
ORDER = ["short_heads", "sampled_spans", "metrics_only", "detached"]
STEP = re.compile(r'msg="overhead step (\w+) -> (\w+): agent ([\d.]+)%')


def test_detail_is_given_up_until_nothing_is_left(tmp_path: Path) -> None:
    with servers.running(BY_NAME["c-epoll"], tmp_path) as running:
        with (
            Rig(tmp_path, {"open_port": running.port}, max_overhead={"agent": 1}) as rig,
            Wrk(tmp_path, running.port, "load") as wrk,
        ):
            rig.process.wait_for(
                lambda: rig.report()["overhead_step"] == "detached", "it detaches", 60.0
            )
            report = rig.wait_quiet()  # although the load goes on
            wrk.stop()
            assert wrk.failures() == []
            assert total(report, "spans_sampled_out") > 0
            for step in ORDER:
                assert total(report, "overhead_steps", step) == 1
            produced, delivered, dropped = accounts(report)
            assert produced == delivered + dropped
        steps = STEP.findall(rig.process.stderr())
    assert [(before, after) for before, after, _ in steps] == list(
        zip(["full", *ORDER], ORDER, strict=False)
    )
    assert all(float(share) > 1 for _, _, share in steps)
