# SPDX-License-Identifier: Apache-2.0
"""Durations of spans against those that the servers themselves wrote down: within 1 ms at p99.

A span runs from the return of the receive call to the return of the send call, a server's own
figure from the begin of its handler to the answer's end: parsing and sending lie between the two,
and so does whatever time other threads had that processor in between, which has no bound on a busy
machine (a JVM compiles at first) and nothing to do with either clock. So requests come one at a
time, and the best of a few batches counts. A wrong clock or unit, or an end taken at another call,
is wrong in every batch.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.harness import servers, traffic
from tests.e2e.harness.compare import SLEEP_NS, Record, Report, Span, compare, expectations
from tests.e2e.harness.otelauto import Otelauto, configuration
from tests.e2e.harness.rig import ident_of
from tests.e2e.harness.servers import Server

pytestmark = pytest.mark.e2e
BATCH, BATCHES = 200, 12
SLOW_EACH = 20  # so that sleeps are more than the 1 % that may be off
WITHIN_NS = 1_000_000
# nginx logs whole milliseconds of a clock that it looks at once in a turn of its event loop.
NGINX_CLOCK_NS = 1_000_000


def ask(port: int, idents: list[str]) -> list[Record]:
    """One request after the other on a kept connection; what their client knows of them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    records = []
    for number, ident in enumerate(idents):
        path = f"/items/{ident}" if number % SLOW_EACH else f"/slow/{ident}"
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        framing = "chunked" if answer.headers.get("Transfer-Encoding") else "length"
        record = {"id": ident, "method": "GET", "path": path, "status": answer.status}
        request = {"style": "whole", "request_bytes": 0, "request_framing": "none"}
        response = {"response_bytes": len(body), "response_framing": framing, "local_port": 0}
        records.append({**record, **request, **response})
    connection.close()
    return records


def p99_ns(report: Report) -> int:
    """How far the spans are off, either way, the worst 1 % left out."""
    return sorted(map(abs, report.differences_ns))[BATCH * 99 // 100 - 1]


@pytest.mark.parametrize("server", servers.ALL, ids=lambda server: server.name)
def test_durations_are_the_servers_own(
    server: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    within_ns = WITHIN_NS + (NGINX_CLOCK_NS if server.name.startswith("nginx") else 0)
    reports: list[Report] = []
    with (
        servers.running(server, tmp_path) as running,
        Otelauto(tmp_path, configuration(ports=[running.port])) as otelauto,
    ):
        while not reports or (p99_ns(reports[-1]) > within_ns and len(reports) < BATCHES):
            idents = [f"d{len(reports)}-{number:03}" for number in range(BATCH)]

            def asked(span: Span, idents: frozenset[str] = frozenset(idents)) -> bool:
                return span["kind"] == "server" and ident_of(span) in idents

            clients = ask(running.port, idents)
            lines = traffic.server_records(running.log, BATCH * (len(reports) + 1))
            otelauto.wait_for_spans(BATCH, wanted=asked)
            expected = expectations(clients, lines)
            reports.append(compare(expected, list(filter(asked, otelauto.spans))))
            assert reports[-1].ok, str(reports[-1])
            assert len(reports[-1].differences_ns) == BATCH
            if server.name != "nginx-static":  # which serves a file at once
                slow = [one for one in expected if (one.duration_ns or 0) >= SLEEP_NS]
                assert len(slow) >= BATCH // SLOW_EACH
    record_property("durations", [report.durations() for report in reports])
    assert p99_ns(reports[-1]) <= within_ns, "\n".join(map(str, reports))
