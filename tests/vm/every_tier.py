# SPDX-License-Identifier: Apache-2.0
"""Python, nginx and Go, started after otelauto: every exchange is one true span, on each tier."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.e2e.harness import servers, traffic
from tests.e2e.harness.compare import compare
from tests.e2e.harness.otelauto import Otelauto
from tests.e2e.harness.process import free_port, wait_until
from tests.e2e.harness.rig import accounts, balanced
from tests.e2e.harness.servers import Running, Server
from tests.e2e.test_servers import exchange_all, expected_of
from tests.e2e.test_tiers import alike, otelauto_of, tiers_here

from otelauto.control import ask

NAMES = {"python-http.server": "http_server", "nginx-static": "nginx", "go-net/http": "nethttp"}
SERVED = [server for server in servers.ALL if server.name in NAMES]
# What every tier watches; the others are watched on the best one only.
COMPARED = "go-net/http"


class Watching:
    """An otelauto on one tier, and where its files are."""

    def __init__(self, otelauto: Otelauto, directory: Path) -> None:
        self.otelauto, self._control = otelauto, directory / "control.sock"

    def wait_for_all_of(self, server: Running) -> None:
        """Returns when each process of ``server`` is watched."""

        def watched() -> bool:
            targets = {row["pid"] for row in ask(self._control)["targets"]}
            return set(server.process.pids()) <= targets

        self.otelauto.process.wait_for(watched, f"{server.process.pids()} are watched")

    def wait_until_balanced(self) -> None:
        """Returns when every record that was produced is delivered or counted as dropped."""
        wait_until(lambda: balanced(accounts(ask(self._control))), "produced = delivered + dropped")

    def check(self, server: Server, running: Running, clients: list[traffic.Record]) -> None:
        """Its spans of ``server`` are those exchanges, one to one."""
        name = NAMES[server.name]
        self.otelauto.wait_for_spans(
            traffic.TOTAL, wanted=lambda span: bool(span["service"]["name"] == name)
        )
        spans = [span for span in self.otelauto.spans if span["service"]["name"] == name]
        report = compare(expected_of(server, running, clients), spans)
        assert report.ok, f"{self.otelauto.process.stderr()}\n{report}"


def test_every_exchange_of_what_starts_later_is_one_true_span(tmp_path: Path) -> None:
    letters = os.environ.get("TEST_TIERS") or "".join(tier[0] for tier in tiers_here())
    assert len(letters) > 1
    ports = {server.name: free_port() for server in SERVED}
    with contextlib.ExitStack() as stack:
        watching = []
        for tier in letters:
            wanted = [ports[COMPARED]] if watching else list(ports.values())
            otelauto = stack.enter_context(otelauto_of(tier, tmp_path / tier, *wanted))
            watching.append(Watching(otelauto, tmp_path / tier))
        for server in SERVED:
            directory = tmp_path / NAMES[server.name]
            directory.mkdir()
            observers = watching if server.name == COMPARED else watching[:1]
            with servers.running(server, directory, ports[server.name]) as running:
                for observer in observers:
                    observer.wait_for_all_of(running)
                clients = exchange_all(server, running, directory)
                for observer in observers:
                    observer.check(server, running, clients)
        for observer in watching:
            observer.wait_until_balanced()
    names = [{span["service"]["name"] for span in each.otelauto.spans} for each in watching]
    assert names == [set(NAMES.values())] + [{NAMES[COMPARED]}] * (len(letters) - 1)
    best, *others = (
        alike([span for span in each.otelauto.spans if span["service"]["name"] == NAMES[COMPARED]])
        for each in watching
    )
    assert len(best) == traffic.TOTAL
    for other in others:
        assert other == best
