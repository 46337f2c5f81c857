# SPDX-License-Identifier: Apache-2.0
"""``make demo-agent``: services, an instrumenter, an agent, and stores behind TLS and passwords.

After DEMO_SECONDS of load (20, if not given) it prints what the stores know: the answers to PromQL
queries, the service graph, and one trace. Exit codes: 0 all of it is there, 1 something lacks.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from customers import Load
from fleet import HERE, Fleet, base_environment
from processes import Child, DemoError, free_ports, listens, run_demo, wait_until
from screen import say
from stores import Stores
from watcher import PROGRAM

SECONDS = 20.0
READY_S = 30.0
SETTLE_S = 30.0
COUNT = "http_server_request_duration_seconds_count"
BY_ROUTE = "by (job, http_route)"
QUERIES = {
    "Requests per second": f"sum {BY_ROUTE} (rate({COUNT}[1m]))",
    "Share of errors": (
        f'sum {BY_ROUTE} (rate({COUNT}{{http_response_status_code=~"5.."}}[1m]))'
        f" / sum {BY_ROUTE} (rate({COUNT}[1m]))"
    ),
    "99th percentile, seconds": (
        f"histogram_quantile(0.99, sum {BY_ROUTE.replace(')', ', le)')} "
        "(rate(http_server_request_duration_seconds_bucket[1m])))"
    ),
}
RATE = QUERIES["Requests per second"]
GRAPH = "sum by (client, server) (traces_service_graph_request_total)"


def start_agent(directory: Path, stores: Stores, otlp: int, page: int) -> Child:
    """The agent; its configuration is agent.river."""
    words = [
        PROGRAM, "agent", "run", HERE / "agent.river", "--storage.path", directory / "data",
        "--server.http.listen-addr", f"127.0.0.1:{page}",
    ]  # fmt: skip
    env = {**base_environment(), **stores.environment, "DEMO_OTLP": str(otlp)}
    return Child(words, directory / "agent.err", env)


def start_instrumenter(directory: Path, fleet: Fleet, otlp: int) -> Child:
    """It knows the agent, and no password."""
    endpoint = {"endpoint": f"http://localhost:{otlp}"}
    settings = {
        "ebpf": {"open_port": sorted(fleet.ports.values())},
        "otel_traces_export": {**endpoint, "protocol": "http/protobuf"},
        "otel_metrics_export": {**endpoint, "protocol": "http/protobuf", "interval": "1s"},
        "control_socket": str(directory / "control.sock"),
        "state_directory": str(directory / "state"),
    }
    file = directory / "instrumenter.yml"
    file.write_text(json.dumps(settings, indent=2))  # JSON is YAML
    return Child([PROGRAM, "--config", file], directory / "instrumenter.err", base_environment())


def running(child: Child, name: str) -> None:
    """Raises DemoError if it has ended."""
    if child.ended:
        last = "\n".join(child.stderr().strip().splitlines()[-5:])
        raise DemoError(f"{name} ended with {child.popen.returncode}:\n{last}")


def answers(stores: Stores) -> Iterator[str]:
    """Lines for each query."""
    for title, query in QUERIES.items():
        yield f"\n{title}:  {query}\n"
        rows = stores.query(query)
        for row in sorted(rows, key=lambda row: sorted(row["metric"].items())):
            metric, value = row["metric"], float(row["value"][1])
            yield f"  {metric.get('job', ''):10} {metric.get('http_route', ''):28} {value:10.4f}"
    yield f"\nService graph:  {GRAPH}\n"
    yield "  (These services pass no traceparent on: who calls and who is called are not joined.)\n"
    for row in stores.query(GRAPH):
        metric = row["metric"]
        yield f"  {metric.get('client', ''):>10} -> {metric.get('server', ''):10} {row['value'][1]}"


def tree(spans: list[tuple[str, Any]]) -> Iterator[str]:
    """The trace with the most spans, as a tree."""
    sizes = Counter(span.trace_id for _, span in spans)
    if not sizes:
        return
    chosen = sizes.most_common(1)[0][0]
    members = [(name, span) for name, span in spans if span.trace_id == chosen]
    known = {span.span_id for _, span in members}
    yield f"\nA trace, {chosen.hex()}:\n"

    def below(parent: bytes | None, depth: int) -> Iterator[str]:
        for name, span in sorted(members, key=lambda each: each[1].start_time_unix_nano):
            above = span.parent_span_id if span.parent_span_id in known else None
            if above == parent:
                took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
                kind = "server" if span.kind == span.SPAN_KIND_SERVER else "client"
                yield f"  {'  ' * depth}{name}: {span.name} ({kind}, {took:.2f} ms)"
                yield from below(span.span_id, depth + 1)

    yield from below(None, 0)


def run(directory: Path, stopping: threading.Event, stack: contextlib.ExitStack) -> int:
    """The demo from start to end; ``stack`` ends what was started."""
    stores, fleet = Stores(directory), Fleet(directory)
    stack.callback(stores.stop)
    stack.callback(fleet.stop)
    for reason in fleet.left_out:
        say(f"without {reason}")
    say(f"starting the stores, an agent, {', '.join(fleet.names)} ...")
    stores.start(stopping)
    otlp, page = free_ports(2)
    agent = start_agent(directory, stores, otlp, page)
    stack.callback(agent.stop)
    wait_until(lambda: agent.ended or listens(otlp), "the agent listens", READY_S, stopping)
    running(agent, "the agent")
    fleet.start(stopping)
    instrumenter = start_instrumenter(directory, fleet, otlp)
    stack.callback(instrumenter.stop)

    def instruments() -> bool:
        running(instrumenter, "the instrumenter")
        return instrumenter.stderr().count('msg="instrumenting') >= len(fleet.names)

    wait_until(instruments, "the services are instrumented", READY_S, stopping)
    load = Load(fleet.ports["shop"])
    stack.callback(load.stop)
    load.start()
    seconds = float(os.environ.get("DEMO_SECONDS") or 0) or SECONDS
    say(f"load for {seconds:g} s; the agent's page is at http://127.0.0.1:{page}/")
    stopping.wait(seconds)

    def there() -> bool:
        running(agent, "the agent")
        return bool(stores.traces.spans and stores.query(GRAPH) and stores.query(RATE))

    wait_until(there, "the stores have it all", SETTLE_S, threading.Event())
    say("\n".join([*answers(stores), *tree(stores.traces.spans)]))
    load.stop()
    return 0


if __name__ == "__main__":
    sys.exit(run_demo(run))
