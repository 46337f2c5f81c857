# SPDX-License-Identifier: Apache-2.0
"""More traffic than otelauto can follow: losses are counted exactly, nothing is invented."""

from __future__ import annotations

import http.client
import re
import signal
import time
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.load import Growth, Wrk, served
from tests.e2e.harness.process import wait_until
from tests.e2e.harness.rig import Rig, accounts, ident_of, repeated, status_of, total
from tests.e2e.test_attach import BY_NAME

pytestmark = pytest.mark.e2e
STOPPED_S = 5.0
WHILE_STOPPED = 100_000  # requests: 20,000 a second
WARNING = "records dropped because the ring was full"


def test_a_stopped_consumer_loses_what_it_counts_and_recovers(tmp_path: Path) -> None:
    with servers.running(BY_NAME["c-epoll"], tmp_path) as running:
        with Rig(tmp_path, {"open_port": running.port}) as rig:
            with Wrk(tmp_path, running.port, "load") as wrk:
                rig.wait_for_spans(1)
                rig.process.popen.send_signal(signal.SIGSTOP)
                growth, until = Growth(running.log), time.monotonic() + STOPPED_S
                wait_until(
                    lambda: growth.lines() >= WHILE_STOPPED and time.monotonic() >= until,
                    f"{STOPPED_S} s and {WHILE_STOPPED} requests",
                    60.0,
                )
                rig.process.popen.send_signal(signal.SIGCONT)
                # The gap shows on connections that go on.
                rig.process.wait_for(lambda: rig.total("flows_records_lost") > 0, "it catches up")
                wrk.stop()
                assert wrk.failures() == []
            report = rig.wait_quiet()
            produced, delivered, dropped = accounts(report)
            assert dropped > 0
            assert produced == delivered + dropped
            again = [f"/items/again-{number}" for number in range(20)]
            ask(running.port, again)
            spans = rig.wait_for_paths(again)
            assert {(status_of(span), span["incomplete"]) for span in spans} == {(200, None)}
            report = rig.wait_quiet()
            warnings = [line for line in rig.process.stderr().splitlines() if WARNING in line]
            assert len(warnings) == 1, warnings
        log = served(running.log)
    # The printer's queue is bounded as well: what it gave up is counted as exactly. An exchange
    # whose end was lost may wait until otelauto's own end, so its last word counts.
    last = re.search(r"stopped spans=(\d+) dropped=(\d+)", rig.process.stderr())
    assert last is not None
    published, given_up = int(last[1]), int(last[2])
    assert len(rig.spans) + given_up == published >= total(report, "flows_exchanges")
    seen = [ident_of(span) for span in rig.spans]
    assert repeated(seen) == []
    assert not set(seen) - set(log), "invented"


def ask(port: int, paths: list[str]) -> None:
    """An exchange for each path, on a connection of its own."""
    for path in paths:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().read()
        connection.close()
