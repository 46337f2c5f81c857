# SPDX-License-Identifier: Apache-2.0
"""Attaching to connections that are busy already, and sockets that two threads use at once."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from pathlib import Path

import pytest
from tests.e2e.harness import servers, traffic
from tests.e2e.harness.load import KeptConnections, served
from tests.e2e.harness.process import Process
from tests.e2e.harness.rig import Rig, ident_of, repeated, status_of, total
from tests.e2e.harness.servers import BUILT, Server

pytestmark = pytest.mark.e2e
CONNECTIONS = 50
AFTER_ATTACH = 10
BY_NAME = {server.name: server for server in servers.ALL + servers.TLS}
# So many exchanges that their records (under 512 bytes each, two an exchange) fit in the ring even
# if nobody reads it: nothing may be lost.
FITTING = 4001


@pytest.mark.parametrize("name", ["c-epoll", "go-net/http"])
def test_the_first_exchange_after_the_attach_is_seen_on_each_connection(
    name: str, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(servers.running(BY_NAME[name], tmp_path))
        load = stack.enter_context(KeptConnections(running.port, CONNECTIONS, AFTER_ATTACH))
        rig = stack.enter_context(Rig(tmp_path, {"open_port": running.port}))
        attached_ns = time.monotonic_ns()
        load.stop()
        assert load.failures() == []
        wanted = load.began_after(attached_ns)
        rig.wait_for_paths([f"/items/{ident}" for ident in wanted])
        rig.stop()
    assert {ident.split("-")[0] for ident in wanted} == {f"k{n}" for n in range(CONNECTIONS)}
    seen = [ident_of(span) for span in rig.spans if span["incomplete"] is None]
    assert repeated(seen) == []
    assert not set(seen) - set(served(running.log)), "invented"


@pytest.mark.parametrize("name", ["c-epoll-two-threads", "go-net/http", "go-gin"])
def test_accounting_is_exact_when_two_threads_use_a_socket(name: str, tmp_path: Path) -> None:
    server = BY_NAME[name]
    with servers.running(server, tmp_path) as running:
        with Rig(tmp_path, {"open_port": running.port}) as rig:
            idents = ask_with_go(server, running.port, tmp_path)
            rig.wait_for_spans(len(idents))
            report = rig.wait_quiet()
        log = served(running.log)
    assert sorted(log) == sorted(idents)
    seen = [ident_of(span) for span in rig.spans]
    assert sorted(seen) == sorted(idents)
    assert {(status_of(span), span["incomplete"]) for span in rig.spans} == {(200, None)}
    assert total(report, "flows_exchanges") == len(idents)
    losses = ("flows_records_lost", "flows_desyncs", "flows_responses_unmatched")
    assert {name: total(report, name) for name in losses} == dict.fromkeys(losses, 0)


def ask_with_go(server: Server, port: int, directory: Path) -> list[str]:
    """The Go client's kept connections; the ids that it sent."""
    plan, log = directory / "load.plan", directory / "load.log"
    idents = [f"g{number}" for number in range(FITTING)]
    ways = itertools.cycle(("keep",) * 9 + ("new",))
    plan.write_text(
        "".join(
            json.dumps(
                {"id": ident, "method": "GET", "path": f"/items/{ident}", "body": 0,
                 "framing": "none", "connection": way, "style": "whole"}
            ) + "\n"
            for ident, way in zip(idents, ways, strict=False)
        )
    )  # fmt: skip
    with Process([BUILT / "client", plan, log, str(port)], directory / "client.err") as client:
        assert client.popen.wait(60) == 0, client.stderr()
    assert len(traffic.read_lines(log)) == FITTING
    return idents
