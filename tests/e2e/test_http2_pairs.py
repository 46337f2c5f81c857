# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 inside TLS and without: six servers, 997 requests of three clients each, both ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.harness import http2_clients, servers, traffic
from tests.e2e.harness.compare import Record, compare, expectations, logs_agree
from tests.e2e.harness.first_call import Caller
from tests.e2e.harness.http2_clients import Client, Job
from tests.e2e.harness.otelauto import Otelauto, configuration
from tests.e2e.harness.rig import ident_of
from tests.e2e.harness.servers import Server
from tests.e2e.harness.traffic import TOTAL

pytestmark = pytest.mark.e2e
# Who sends how many.
WITH_TLS = {http2_clients.go: 333, http2_clients.curl: 332, http2_clients.nghttp: 332}
WITHOUT = {http2_clients.python_h2: 640, http2_clients.curls: 25, http2_clients.nghttp: 332}
# Their connections are proven by evidence, which may come too late for one of a single exchange.
HAND_CIPHERTEXT_OVER = ("node-http2-tls", "hypercorn-fastapi-tls")
UNPROVEN_MAX = 5


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    lacking = servers.missing()
    assert not lacking, f"run tests/e2e/install.sh: not built: {', '.join(lacking)}"


def exchange_all(clients: list[Client], log: Path, otelauto: Otelauto) -> dict[str, list[Record]]:
    """Let the clients go, each when the spans of the one before it are there.

    Their records by their names, after the server's log agreed with them. What port a client had
    that does not tell is in the server's log.
    """
    records, count = {}, 0
    for client in clients:
        client.begin()
        records[client.name] = client.finish()
        count += len(records[client.name]) * (1 if client.process is None else 2)
        otelauto.wait_for_spans(count)
    together = [record for name in records for record in records[name]]
    served = traffic.server_records(log, TOTAL)
    assert logs_agree(together, served) == []
    ports = {record["id"]: int(record["peer_port"]) for record in served}
    for record in together:
        assert record["local_port"] in (0, ports[record["id"]])
        record["local_port"] = ports[record["id"]]
    return records


@pytest.mark.parametrize("server", servers.HTTP2_PAIRS, ids=lambda server: server.name)
def test_every_exchange_is_one_true_span(
    server: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    makers = WITH_TLS if server.tls else WITHOUT
    assert sum(makers.values()) == TOTAL
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(servers.running(server, tmp_path))
        clients = []
        for maker, count in makers.items():
            job = Job(tmp_path, running.port, server.tls, count, server.features)
            clients.append(stack.enter_context(maker(job)))
        watched = {client.name: client.process.pid for client in clients if client.process}
        caller = stack.enter_context(Caller(running.port, tmp_path / "caller.err"))
        pids = [*watched.values(), *([caller.process.pid] if server.tls else [])]
        yaml = configuration(ports=[running.port], pids=pids)
        with Otelauto(tmp_path, yaml) as otelauto:
            if server.tls:
                caller.call(otelauto)
            records = exchange_all(clients, running.log, otelauto)
        served = traffic.read_lines(running.log)
    assert {span["attributes"].get("network.protocol.version") for span in otelauto.spans} == {"2"}
    together = [record for name in records for record in records[name]]
    early = server.features.answers_early
    if early:  # over when it is answered, though more of the request may come
        for record in together:
            record["request_framing"] = "chunked"
    expected = expectations(together, served, answers_early=early)
    spans = [span for span in otelauto.spans if span["kind"] == "server"]
    unproven = [span for span in spans if "network.peer.port" not in span["attributes"]]
    record_property("unproven", [span["attributes"]["url.path"] for span in unproven])
    limit = UNPROVEN_MAX if server.name in HAND_CIPHERTEXT_OVER else 0
    report = compare(expected, spans, limit)
    assert report.ok, str(report)
    asked = [span for span in otelauto.spans if span["kind"] == "client"]
    for name in watched:
        mine = [{**record, "local_port": running.port} for record in records[name]]
        idents = {record["id"] for record in mine}
        theirs = [span for span in asked if ident_of(span) in idents]
        asked = [span for span in asked if ident_of(span) not in idents]
        report = compare(expectations(mine, answers_early=early), theirs)
        assert report.ok, f"{name}: {report}"
    assert not asked, "spans of no client"
