# SPDX-License-Identifier: Apache-2.0
"""WebSocket inside TLS: one span of the real length at either end, whatever passes inside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.otelauto import Otelauto, Span, configuration
from tests.e2e.harness.process import Process
from tests.e2e.harness.servers import HERE, Server
from tests.e2e.test_long_exchanges import problem
from tests.scale import PATIENCE, SCALE

pytestmark = pytest.mark.e2e
COUNT, AT_ONCE = 40 * SCALE, 5
READING = 'msg="reading plaintext'


@pytest.mark.parametrize("server", servers.WEBSOCKET_TLS, ids=lambda server: server.name)
def test_every_websocket_inside_tls_is_one_span_at_either_end(
    server: Server, tmp_path: Path
) -> None:
    words = [sys.executable, HERE / "clients" / "websocket.py"]
    with servers.running(server, tmp_path) as running:
        numbers = [str(running.port), "0", str(COUNT), str(AT_ONCE)]
        pipe = subprocess.PIPE
        with Process([*words, *numbers], tmp_path / "err", stdin=pipe, stdout=pipe) as client:
            watched = configuration(ports=[running.port], pids=[client.pid])
            with Otelauto(tmp_path, watched) as otelauto:
                otelauto.process.wait_for(
                    lambda: otelauto.process.stderr().count(READING) == 2, "both are read"
                )
                said, _ = client.popen.communicate(b"\n", 120 * PATIENCE)
                assert client.popen.returncode == 0, client.stderr()
                otelauto.wait_for_spans(2 * COUNT)
    asked = [json.loads(line) for line in said.splitlines()]
    assert len(asked) == COUNT
    for kind in ("server", "client"):
        spans = [span for span in otelauto.spans if span["kind"] == kind]
        found: dict[str, Span] = {span["attributes"]["url.path"]: span for span in spans}
        assert len(found) == len(spans) == COUNT
        wrong = [each for record in asked if (each := problem(found.get(record["path"]), record))]
        assert not wrong, f"{kind}: {len(wrong)} of {COUNT}: {wrong[:3]}"
        ports = {span["attributes"].get("server.port") for span in spans}
        assert ports == {running.port}
    assert len(otelauto.spans) == 2 * COUNT
