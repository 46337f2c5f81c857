# SPDX-License-Identifier: Apache-2.0
"""Sends the planned requests with all clients; reads what they and the server wrote down."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from tests.e2e.harness.plan import Features, make_plan
from tests.e2e.harness.process import Process, wait_until
from tests.e2e.harness.servers import BUILT, HERE
from tests.scale import FEW_PROCESSES, PATIENCE

Record = dict[str, Any]
TOTAL = 997  # a prime
RAW_REQUESTS, CURL_REQUESTS = 333, 5 if FEW_PROCESSES else 332
GO_REQUESTS = TOTAL - RAW_REQUESTS - CURL_REQUESTS


def read_lines(path: Path) -> list[Record]:
    """The records of a log in JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def send(
    port: int, directory: Path, seed: str, features: Features, *, tls: bool = False
) -> list[Record]:
    """All clients at once against ``port``; returns their records, :data:`TOTAL` of them.

    Over TLS they take any certificate.
    """
    environment = {"CLIENT_TLS": "1"} if tls else {}
    raw = [sys.executable, HERE / "clients" / "raw.py"]
    curl = [sys.executable, HERE / "clients" / "curl.py"]
    clients = (
        ("raw", raw, RAW_REQUESTS, True),
        ("go", [BUILT / "client"], GO_REQUESTS, False),
        ("curl", curl, CURL_REQUESTS, False),
    )
    with contextlib.ExitStack() as stack:
        started = []
        for name, command, count, is_raw in clients:
            plan, log = directory / f"{name}.plan", directory / f"{name}.log"
            requests = make_plan(f"{seed} {name}", name[0], count, features, raw=is_raw)
            plan.write_text("".join(json.dumps(request) + "\n" for request in requests))
            words = [*command, plan, log, str(port)]
            process = Process(words, directory / f"{name}.err", env=environment)
            started.append((process, log))
            stack.enter_context(started[-1][0])
        for process, _ in started:
            code = process.popen.wait(90 * PATIENCE)
            assert code == 0, process.stderr()
        records = [record for _, log in started for record in read_lines(log)]
    assert len(records) == TOTAL
    return records


def server_records(log: Path, count: int) -> list[Record]:
    """The server's own records; waits until at least ``count`` are written.

    Servers write a line after the answer, so the last ones may come after the client has ended.
    """

    def enough() -> bool:
        return log.exists() and log.read_bytes().count(b"\n") >= count

    wait_until(enough, f"{count} lines in the server's log")
    return read_lines(log)
