# SPDX-License-Identifier: Apache-2.0
"""What an agent's pipeline costs: OTLP in, a batch processor, OTLP out; beside the Collector."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from tests.e2e.harness.process import Process, accepts, free_port
from tests.unit.agent_parts import attributes, message, span

from benches.harness import (
    OTELAUTO,
    OTHER_CPU,
    ROOT,
    Bench,
    BenchError,
    cpu_ns,
    memory_bytes,
    pinned,
    sink,
    sink_bytes,
)
from benches.report import Budget, Figure, Section
from otelauto.export.otlp_grpc import OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.transport import Transport, Verdict

COLLECTOR = ROOT / ".build" / "interop" / "otelcol"
SPANS = 500  # of a message; ten attributes each
MESSAGES = 8
PROTOCOLS = ("grpc", "http")
SETTLE_SECONDS = 30.0
BUDGET_RATE, BUDGET_MB = 50_000, 150
TITLE = "Agent: spans through a pipeline"
HOW = (
    f"A client on CPU 0 sends messages of {SPANS} spans of ten attributes, one after another,"
    " without compression; the program on CPU 1 receives, batches and sends them on by OTLP/HTTP to"
    " a receiver that discards them. CPU time is that of all its threads until everything has"
    " arrived. *p99* is how long the sender waits for an answer, *added* how much longer that is"
    " than when it sends the same messages straight to the discarding receiver over HTTP. The"
    " OpenTelemetry Collector is that of `make interop`, with the same components."
)
HEADER = (
    "program", "protocol", "spans/s sent", "spans per CPU second", "RSS, MB", "p99, ms",
    "added, ms",
)  # fmt: skip
COLLECTOR_NAME = "Collector"
NOT_BUILT = (COLLECTOR_NAME, "not built: run tests/interop/install.sh", *5 * ("-",))
RIVER = """
otelcol.receiver.otlp "in" {{
  grpc {{ endpoint = "127.0.0.1:{grpc}" }}
  http {{ endpoint = "127.0.0.1:{http}" }}
  output {{ traces = [otelcol.processor.batch.all.input] }}
}}
otelcol.processor.batch "all" {{
  output {{ traces = [otelcol.exporter.otlphttp.out.input] }}
}}
otelcol.exporter.otlphttp "out" {{
  client {{
    endpoint    = "http://127.0.0.1:{sink}"
    compression = "none"
  }}
}}
"""


@dataclass(frozen=True)
class Run:
    """One measurement of one program."""

    rate: float
    per_cpu: float
    rss: float
    p99_ms: float
    added_ms: float


def messages() -> list[bytes]:
    """Different ones, as a service's spans are."""
    described = attributes(
        http_request_method="GET", url_path="/items/42", url_scheme="http", http_route="/items/#",
        http_response_status_code=200, network_protocol_version="1.1", server_port=8080,
        server_address="10.0.0.7", user_agent_original="curl/8.1", client_address="10.1.2.3",
    )  # fmt: skip
    return [
        message(
            [
                span(n + 1, trace_id=os.urandom(16), name="GET /items/#", attributes=described)
                for n in range(SPANS)
            ],
            zone="eu",
        ).SerializeToString()
        for _ in range(MESSAGES)
    ]


def collector_settings(ports: dict[str, int]) -> str:
    """The same pipeline for the Collector."""
    listen = {each: {"endpoint": f"127.0.0.1:{ports[each]}"} for each in PROTOCOLS}
    out = {"endpoint": f"http://127.0.0.1:{ports['sink']}", "compression": "none"}
    pipeline = {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlphttp"]}
    return json.dumps({
        "receivers": {"otlp": {"protocols": listen}}, "processors": {"batch": {}},
        "exporters": {"otlphttp": out},
        "service": {"pipelines": {"traces": pipeline}, "telemetry": {"metrics": {"level": "none"}}},
    })  # fmt: skip


@contextlib.contextmanager
def program(name: str, directory: Path, to: int) -> Iterator[tuple[int, dict[str, int]]]:
    """Its process id and ports."""
    ports = {each: free_port() for each in PROTOCOLS} | {"sink": to}
    file = directory / f"{name}.river"
    command: list[str | Path] = [COLLECTOR, "--config", file]
    file.write_text(collector_settings(ports) if name == COLLECTOR_NAME else RIVER.format(**ports))
    if name != COLLECTOR_NAME:
        command = [OTELAUTO, "agent", "run", "--server.http.listen-addr", "127.0.0.1:0",
                   "--storage.path", directory / "data-agent", file]  # fmt: skip
    with Process(pinned(OTHER_CPU, command), directory / f"{name}.err") as process:
        process.wait_for(lambda: all(accepts(ports[p]) for p in PROTOCOLS), f"{name} listens", 30)
        yield process.pid, ports


def transport(protocol: str, port: int) -> Transport:
    if protocol == "grpc":
        return OtlpGrpc("http", "127.0.0.1", port, "traces", version="bench")
    return OtlpHttp(f"http://127.0.0.1:{port}/v1/traces", version="bench")


@dataclass(frozen=True)
class Sent:
    """What a sender did in the time of a measurement."""

    messages: int
    size: int  # bytes
    rate: float  # spans per second
    p99_ms: float


def send(to: Transport, bench: Bench, bodies: list[bytes]) -> Sent:
    """Send one message after another."""
    waits, size = [], 0
    began = time.monotonic()
    while time.monotonic() - began < bench.settings.seconds:
        body = bodies[len(waits) % MESSAGES]
        asked = time.monotonic()
        _accepted(to, body)
        waits.append((time.monotonic() - asked) * 1000)
        size += len(body)
    rate = len(waits) * SPANS / (time.monotonic() - began)
    return Sent(len(waits), size, rate, quantiles(waits, n=100)[98])


def straight(bench: Bench, bodies: list[bytes]) -> float:
    """The 99th percentile of the wait, in ms, with nothing between."""
    with sink(bench.directory) as port:
        to = transport("http", port)
        for body in bodies:
            _accepted(to, body)
        found = send(to, bench, bodies).p99_ms
        to.close()
        return found


def run(name: str, protocol: str, bench: Bench, bodies: list[bytes], straight_ms: float) -> Run:
    """Send for the time of a measurement, and wait until everything is through."""
    with sink(bench.directory) as port, program(name, bench.directory, port) as (pid, ports):
        to = transport(protocol, ports[protocol])
        for body in bodies:
            _accepted(to, body)
        before, cpu = _settled(port, 0), cpu_ns([pid])
        sent = send(to, bench, bodies)
        # Whoever writes the messages anew may need some bytes less.
        _settled(port, before + 0.9 * sent.size)
        used, rss = (cpu_ns([pid]) - cpu) / 1e9, memory_bytes(pid) / 1e6
        to.close()
        per_cpu = sent.messages * SPANS / used
        return Run(sent.rate, per_cpu, rss, sent.p99_ms, sent.p99_ms - straight_ms)


def _accepted(to: Transport, body: bytes) -> None:
    answer = to.post(body)
    if answer.verdict is not Verdict.ACCEPTED:
        raise BenchError(f"spans were not taken: {answer.error}")


def _settled(port: int, at_least: float) -> int:
    """Bytes that have arrived, when there are enough and no more come."""
    give_up_at = time.monotonic() + SETTLE_SECONDS
    last = -1
    while True:
        now = sink_bytes(port)
        if now == last and now >= at_least:
            return now
        if time.monotonic() > give_up_at:
            raise BenchError(f"{now} bytes have arrived instead of {at_least:.0f}")
        last = now
        time.sleep(0.1)


def pipeline(bench: Bench) -> Section:
    """Each program in turn, so that both have the same machine."""
    section = Section(TITLE, HOW, HEADER)
    bodies = messages()
    names = ["otelauto", *([COLLECTOR_NAME] if COLLECTOR.exists() else [])]
    for protocol in PROTOCOLS:
        runs: dict[str, list[Run]] = {name: [] for name in names}
        for _ in range(bench.settings.pairs):
            straight_ms = straight(bench, bodies)
            for name in names:
                runs[name].append(run(name, protocol, bench, bodies, straight_ms))
        for name, found in runs.items():
            per_cpu = Figure([each.per_cpu for each in found], "spans/s", 0)
            rss = Figure([each.rss for each in found], "MB", 0)
            rate = Figure([each.rate for each in found], digits=0)
            p99 = Figure([each.p99_ms for each in found])
            added = Figure([each.added_ms for each in found])
            plain = (Figure(per_cpu.values, digits=0), Figure(rss.values, digits=0))
            shown = (rate, *plain, p99, added)
            section.rows.append((name, protocol, *map(str, shown)))
            if name == "otelauto":
                what = f"agent, {protocol}"
                section.budgets.append(
                    Budget(f"{what}, spans of a CPU second", per_cpu, BUDGET_RATE, at_least=True)
                )
                section.budgets.append(Budget(f"{what}, memory", rss, BUDGET_MB))
    if len(names) == 1:
        section.rows.append(NOT_BUILT)
    return section
