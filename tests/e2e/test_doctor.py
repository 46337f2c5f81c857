# SPDX-License-Identifier: Apache-2.0
"""The doctor beside a running otelauto: its report, and what its programs cost."""

from __future__ import annotations

import http.client
import re
import threading
from pathlib import Path

import pytest
from tests.e2e.harness.process import Process, accepts, free_port
from tests.e2e.harness.rig import Rig, run
from tests.e2e.harness.servers import BUILT

pytestmark = pytest.mark.e2e
COST = re.compile(
    r"^  sock_(recv|send) +(\d+) runs/s +(\d+) ns a run +\d+\.\d+% of a CPU$", re.MULTILINE
)


def test_the_doctor_measures_what_each_program_costs(tmp_path: Path) -> None:
    port, stop = free_port(), threading.Event()

    def ask_on() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while not stop.is_set():
            connection.request("GET", "/item")
            connection.getresponse().read()
        connection.close()

    with (
        Process([BUILT / "epoll", "-p", str(port)], tmp_path / "server.err") as server,
        Rig(tmp_path, {"open_port": port}) as rig,
    ):
        server.wait_for(lambda: accepts(port), "it listens")
        rig.wait_for_target(server.popen.pid)
        client = threading.Thread(target=ask_on)
        client.start()
        try:
            ran = run("doctor", "--config", tmp_path / "otelauto.yml")
        finally:
            stop.set()
            client.join()
    assert ran.code == 0, ran.errors
    costs = {match[1]: (int(match[2]), int(match[3])) for match in COST.finditer(ran.output)}
    assert set(costs) == {"recv", "send"}, ran.output
    assert all(runs > 0 and each > 0 for runs, each in costs.values()), costs
