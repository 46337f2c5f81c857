# SPDX-License-Identifier: Apache-2.0
"""``python -m benches.counted ROW COLUMN...``: inside the counting guest of `make bench-vm`.

The guest has one CPU, and its clock is a count of instructions: one is a nanosecond. So the CPU
time of a control group, in ns, is a number of instructions. The last line of the output is the
figures as JSON; BENCH_SECONDS (of that clock) and BENCH_PAIRS say how much is measured.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.e2e.harness.bpf_ids import owned_by

from benches.compare import warm_up
from benches.harness import (
    BENCHES,
    Bench,
    BenchError,
    Otelauto,
    Settings,
    dropped,
    given_up,
    memory_bytes,
    metrics_only,
    otelauto,
    sink,
    sink_bytes,
    waiting,
    wrk,
)
from benches.services import SERVICES, Running, Service, running
from benches.startup import first_span

CGROUPS = Path("/sys/fs/cgroup")
CONNECTIONS: Final = 4
# Idle seconds pass at once. Long enough for the exporters' batches to be gone.
WORKED_OFF_SECONDS: Final = 3
REST_SECONDS: Final = 60
METRICS, TRACES = "metrics", "traces"
COLUMNS: Final = (METRICS, TRACES)
SERVED: Final = {
    "epoll": SERVICES["epoll"],
    "nginx": replace(SERVICES["nginx"], title="nginx, text, 1 worker", path="/short"),
    "file": SERVICES["nginx"],
    "go": SERVICES["go"],
    "python": Service(
        "Python http.server",
        lambda port, _: [sys.executable, BENCHES / "servers" / "http_server.py", str(port)],
    ),
}
AGENT: Final = "agent"  # the row of what otelauto needs whatever the service
ROWS: Final = (*SERVED, AGENT)
Figures = dict[str, Any]


class Account:
    """A control group for some processes and their children. It goes with the guest."""

    def __init__(self, name: str, pids: list[int]) -> None:
        self._path = CGROUPS / name
        self._path.mkdir()
        for pid in pids:
            (self._path / "cgroup.procs").write_text(str(pid))

    def instructions(self) -> int:
        """What they have executed since they are in it, in user space and in the kernel."""
        rows = dict(line.split() for line in (self._path / "cpu.stat").read_text().splitlines())
        return int(rows["usage_usec"]) * 1000


@dataclass(frozen=True)
class Subject:
    """A service that runs, and its account."""

    bench: Bench
    service: Running
    path: str
    spent: Account

    def by_itself(self) -> Figures:
        """The service as it is, under load."""
        before = self.spent.instructions()
        load = wrk(self.service.port, self.path, self.bench.settings.seconds, CONNECTIONS)
        used = self.spent.instructions() - before
        return {"requests": load.requests, "rate": load.rate, "service": used / load.requests}

    def watched(self, export: dict[str, str], name: str) -> Figures:
        """The same while otelauto watches, and what that took in its control group ``name``.

        It is not asked for its report between the two readings: the answer is work too.
        """
        with otelauto(self.bench.directory, [self.service.port], export) as agent:
            first = warm_up(self.service, self.path).requests
            own = Account(name, agent.process.pids())
            agent.settle()
            before = own.instructions()
            figures = self.by_itself()
            time.sleep(WORKED_OFF_SECONDS)
            used = own.instructions() - before
            report = agent.status()
            if report["ring_fill"] or waiting(report):
                raise BenchError(f"otelauto is not done after {WORKED_OFF_SECONDS} s: {report}")
            if report["spans"] <= first:
                raise BenchError(f"otelauto saw nothing: {agent.process.stderr()}")
            return figures | {
                "agent": used / figures["requests"],
                "spans": (report["spans"] - first) / figures["requests"],
                "dropped": dropped(report),
                "given_up": given_up(report),
                **_memory(agent, report),
            }


def _memory(agent: Otelauto, report: dict[str, Any]) -> Figures:
    kinds = [kind for kind, _ in owned_by(agent.pid)]
    return {
        "rss": memory_bytes(agent.pid),
        "kernel_memory": report["kernel_memory_bytes"],
        "maps": kinds.count("map"),
        "programs": kinds.count("prog"),
    }


def count(bench: Bench, name: str, columns: list[str]) -> Figures:
    """The service without, and with each of the columns, in alternating turns: each its list."""
    figures: dict[str, list[Figures]] = {column: [] for column in ("none", *columns)}
    with (
        sink(bench.directory) as receiver,
        running(SERVED[name].command, bench.directory, name) as service,
    ):
        path, spent = SERVED[name].path, Account(name, service.process.pids())
        subject = Subject(bench, service, path, spent)
        warm_up(service, path)
        for turn in range(bench.settings.pairs):
            figures["none"].append(subject.by_itself())
            for column in columns:
                export = metrics_only()
                if column == TRACES:
                    export["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"http://127.0.0.1:{receiver}"
                before = sink_bytes(receiver)
                figures[column].append(subject.watched(export, f"{column}-{turn}"))
                if (sink_bytes(receiver) > before) != (column == TRACES):
                    raise BenchError(f"{column}: what came by OTLP is not what was asked for")
    return figures


def agent_alone(bench: Bench) -> Figures:
    """How long it takes to start, and what it spends when nothing happens."""
    # Files of the host come slowly and idle time passes at once: the first start tells nothing.
    started = [first_span(bench) for _ in range(bench.settings.pairs + 1)][1:]
    with (
        running(SERVICES["epoll"].command, bench.directory, "rest") as service,
        otelauto(bench.directory, [service.port], metrics_only()) as agent,
    ):
        own = Account("rest", agent.process.pids())
        time.sleep(1)  # the first second is still the start
        before = own.instructions()
        time.sleep(REST_SECONDS)
        used = own.instructions() - before
        memory = _memory(agent, agent.status())
    return {
        "first_span": [seconds for seconds, _ in started],
        "start": [cpu_seconds * 1e9 for _, cpu_seconds in started],
        "at_rest": used / REST_SECONDS,
        **memory,
    }


def main(row: str, columns: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="otelauto-bench-") as directory:
        bench = Bench(Settings.from_environment(), Path(directory))
        figures = agent_alone(bench) if row == AGENT else count(bench, row, columns)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
