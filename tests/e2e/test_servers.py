# SPDX-License-Identifier: Apache-2.0
"""Real servers, three independent clients, 997 requests each: every exchange is one true span."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.harness import servers, traffic
from tests.e2e.harness.compare import (
    Expected,
    Record,
    Span,
    compare,
    expectations,
    logs_agree,
)
from tests.e2e.harness.first_call import make_a_first_tls_call
from tests.e2e.harness.otelauto import Otelauto, configuration
from tests.e2e.harness.servers import Running, Server
from tests.scale import FEW_PROCESSES, PATIENCE

pytestmark = pytest.mark.e2e
GENEROUS_NS = 5_000_000 * PATIENCE
# Their connections are proven by evidence, which may come too late for one of a single exchange.
HAND_CIPHERTEXT_OVER = ("uvicorn-fastapi-tls", "node-https")
UNPROVEN_MAX = 5


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    lacking = servers.missing()
    assert not lacking, f"run tests/e2e/install.sh: not built: {', '.join(lacking)}"


def spans_of(expected: list[Expected]) -> list[Span]:
    """The spans that a perfect observer would print: the comparison's own control."""
    spans = []
    for number, exchange in enumerate(expected, 1):
        attributes: dict[str, object] = {
            "http.request.method": exchange.method,
            "url.path": exchange.path,
            "http.response.status_code": exchange.status,
            "network.peer.port": exchange.peer_port,
        }
        sizes = (("request", exchange.request_size), ("response", exchange.response_size))
        for side, size in sizes:
            if size.exact:
                attributes[f"http.{side}.body.size"] = size.value
        duration = exchange.duration_ns or 1000
        spans.append(
            {
                "trace_id": f"{number:032x}",
                "span_id": f"{number:016x}",
                "parent_id": "",
                "name": exchange.method,
                "kind": "server",
                "start_unix_nano": 10**18,
                "end_unix_nano": 10**18 + duration,
                "duration_ns": duration,
                "attributes": attributes,
                "service": {"name": "perfect", "namespace": "", "instance_id": "1"},
                "incomplete": None,
                "error": exchange.status >= 500,
            }
        )
    return spans


def echo(spans: list[Span]) -> Span:
    """A span of which both body sizes must be known."""
    return next(span for span in spans if span["attributes"]["url.path"].startswith("/echo/"))


def attribute(name: str, value: object) -> Callable[[list[Span]], object]:
    return lambda spans: echo(spans)["attributes"].update({name: value})


FALSIFICATIONS: dict[str, Callable[[list[Span]], object]] = {
    "one dropped": lambda spans: spans.pop(500),
    "one doubled": lambda spans: spans.append({**spans[0], "span_id": "f" * 16}),
    "one identity twice": lambda spans: spans[0].update(
        trace_id=spans[1]["trace_id"], span_id=spans[1]["span_id"]
    ),
    "one status": attribute("http.response.status_code", 418),
    "one method": attribute("http.request.method", "PATCH"),
    "one path": attribute("url.path", "/items/nobody"),
    "one request size": attribute("http.request.body.size", 7_777),
    "one response size": attribute("http.response.body.size", 7_777),
    "one request size unset": attribute("http.request.body.size", None),
    "one response size unset": attribute("http.response.body.size", None),
    "one peer": attribute("network.peer.port", 1),
    "one incomplete": lambda spans: echo(spans).update(incomplete="lost"),
    "one error": lambda spans: echo(spans).update(error=True),
    "no durations": lambda spans: [
        span.update(duration_ns=0, end_unix_nano=span["start_unix_nano"]) for span in spans
    ],
}


def check_that_lies_show(expected: list[Expected], spans: list[Span]) -> None:
    """The negative control: every single falsification of good spans must be found."""
    exact = {one.path for one in expected if one.request_size.exact and one.response_size.exact}
    slept = any(one.slept for one in expected)
    for name, falsify in FALSIFICATIONS.items():
        if name == "no durations" and not slept:
            continue  # nginx serves files: nothing there takes a time that could be missed
        lying = copy.deepcopy(spans)
        lying.sort(key=lambda span: span["attributes"]["url.path"] not in exact)
        falsify(lying)
        assert not compare(expected, lying).ok, name


def exchange_all(server: Server, running: Running, directory: Path) -> list[Record]:
    """Sends the 997 requests; the clients' records, after the server's log agreed with them."""
    clients = traffic.send(running.port, directory, server.name, server.features, tls=server.tls)
    served = traffic.server_records(running.log, traffic.TOTAL)
    assert logs_agree(clients, served) == []
    return clients


def expected_of(server: Server, running: Running, clients: list[Record]) -> list[Expected]:
    served = traffic.read_lines(running.log)
    return expectations(clients, served, answers_early=server.features.answers_early)


@pytest.mark.parametrize("server", servers.ALL, ids=lambda server: server.name)
def test_clients_and_server_agree_and_the_comparison_finds_every_lie(
    server: Server, tmp_path: Path
) -> None:
    with servers.running(server, tmp_path) as running:
        clients = exchange_all(server, running, tmp_path)
        expected = expected_of(server, running, clients)
        spans = spans_of(expected)
        report = compare(expected, spans)
        assert report.ok, str(report)
        check_that_lies_show(expected, spans)
        assert sum(record["reused"] for record in clients) > traffic.TOTAL / 2


@pytest.mark.parametrize("server", servers.ALL + servers.TLS, ids=lambda server: server.name)
def test_every_exchange_is_one_true_span(
    server: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with servers.running(server, tmp_path) as running:
        upstream = running.upstream.pids() if running.upstream else []
        yaml = configuration(ports=[running.port], pids=upstream)
        with Otelauto(tmp_path, yaml) as otelauto:
            if server.tls:
                make_a_first_tls_call(running.port, otelauto)
            clients = exchange_all(server, running, tmp_path)
            sides = 3 if running.upstream else 1  # nginx as server, as client; the application
            otelauto.wait_for_spans(sides * traffic.TOTAL)
        expected = expected_of(server, running, clients)
        if running.upstream_log:
            check_both_sides_of_the_proxy(clients, running.upstream_log, otelauto.spans)
            spans = [span for span in otelauto.spans if is_proxys_server_side(span)]
        else:
            spans = otelauto.spans
    unproven_max = UNPROVEN_MAX if server.name in HAND_CIPHERTEXT_OVER else 0
    report = compare(expected, spans, unproven_max)
    record_property("durations", report.durations())
    unproven = [s for s in spans if "network.peer.port" not in s["attributes"]]
    record_property("unproven", [span["attributes"]["url.path"] for span in unproven])
    assert report.ok, str(report)
    assert report.median_ns() < GENEROUS_NS, str(report)
    proven = [span for span in spans if "network.peer.port" in span["attributes"]]
    paths = {span["attributes"]["url.path"] for span in proven}
    if not FEW_PROCESSES:  # a control of the comparison, long where the machine is emulated
        check_that_lies_show([one for one in expected if one.path in paths], proven)


def is_proxys_server_side(span: Span) -> bool:
    return (span["kind"], span["service"]["name"]) == ("server", "nginx")


def check_both_sides_of_the_proxy(clients: list[Record], log: Path, spans: list[Span]) -> None:
    """What nginx asked of the application, as nginx's client spans and as its server spans."""
    application = expectations(clients, traffic.read_lines(log), proxied=True)
    served = [span for span in spans if span["service"]["name"] != "nginx"]
    asked = [span for span in spans if span["service"]["name"] == "nginx"]
    asked = [span for span in asked if not is_proxys_server_side(span)]
    for half in (served, asked):
        report = compare(application, half)
        assert report.ok, str(report)
        assert {span["kind"] for span in half} == {"server" if half is served else "client"}
