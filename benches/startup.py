# SPDX-License-Identifier: Apache-2.0
"""How soon there is something to see: after otelauto starts, and after a service starts."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from tests.e2e.harness.process import Process, free_port, wait_until

from benches.harness import (
    SERVICE_CPU,
    Bench,
    BenchError,
    Otelauto,
    cpu_ns,
    load_command,
    pinned,
)
from benches.report import Budget, Figure, Section
from benches.services import EPOLL, SERVICES, running

TITLE = "Start"
HOW = (
    "*First span*: from the start of the otelauto process to the first JSON line on its standard"
    " output, while a client sends 200 requests per second. *New process*: otelauto runs and waits"
    " for a port; a C server starts to listen on it and gets a request every 2 ms on one"
    " connection. The figure is the time from when the server accepts to when the first request"
    " began for which there is a span: what came before it was not seen."
)
LINE_SECONDS = 20.0
PRINTER = {"OTELAUTO_TRACE_PRINTER": "json"}


def first_line(agent: Otelauto) -> dict[str, Any]:
    """The first span that it prints."""
    output = agent.process.popen.stdout
    assert output is not None
    if not select.select([output], [], [], LINE_SECONDS)[0]:
        raise BenchError(f"otelauto printed no span: {agent.process.stderr()}")
    line: dict[str, Any] = json.loads(output.readline())
    return line


@contextlib.contextmanager
def printing(bench: Bench, port: int) -> Iterator[Otelauto]:
    """An otelauto that prints its spans into a pipe."""
    agent = Otelauto(bench.directory, [port], PRINTER, stdout=subprocess.PIPE)
    assert agent.process.popen.stdout is not None
    with agent.process, agent.process.popen.stdout:
        yield agent


def first_span(bench: Bench) -> tuple[float, float]:
    """From the start of otelauto to its first span: seconds, and seconds of its own CPU time."""
    with running(SERVICES["epoll"].command, bench.directory, "first") as it:
        command = load_command(200, 3600, "/items/#", [it.port], connections=4)
        with Process(command, bench.directory / "load.err"):
            started = time.monotonic()
            with printing(bench, it.port) as agent:
                first_line(agent)
                return time.monotonic() - started, cpu_ns([agent.pid]) / 1e9


def _connect(port: int) -> tuple[socket.socket, int]:
    """A connection, as soon as someone listens, and the time when that was (ns of the wall)."""
    give_up_at = time.monotonic() + LINE_SECONDS
    while True:
        connection = socket.socket()
        if connection.connect_ex(("127.0.0.1", port)) == 0:
            return connection, time.time_ns()
        connection.close()
        if time.monotonic() > give_up_at:
            raise BenchError("the server does not listen")


def new_process(bench: Bench) -> float:
    """Seconds from when a server listens to the first request that is seen."""
    port = free_port()
    with printing(bench, port) as agent:
        agent.wait_ready()
        with Process(pinned(SERVICE_CPU, [EPOLL, "-p", str(port)]), bench.directory / "new.err"):
            connection, listens_ns = _connect(port)
            output = agent.process.popen.stdout
            assert output is not None

            def asked() -> bool:
                connection.sendall(b"GET /items/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                connection.recv(4096)
                return bool(select.select([output], [], [], 0.002)[0])

            with connection:
                wait_until(asked, "a request to a new process is seen")
            began_ns = int(first_line(agent)["start_unix_nano"])
            return (began_ns - listens_ns) / 1e9


def startup(bench: Bench) -> Section:
    """Both times, as often as pairs are measured."""
    turns = range(bench.settings.pairs)
    first = Figure([first_span(bench)[0] for _ in turns], "s")
    new = Figure([new_process(bench) * 1000 for _ in turns], "ms", 1)
    rows: list[tuple[str, ...]] = [("first span", str(first)), ("new process", str(new))]
    budgets = [
        Budget("from start to the first span published", first, 1),
        Budget("a new process instrumented after it listens", new, 250),
    ]
    return Section(TITLE, HOW, ("what", "time"), rows, budgets)
