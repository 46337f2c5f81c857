# SPDX-License-Identifier: Apache-2.0
"""What exchanges of HTTP/2 and calls of gRPC cost: by themselves, and between real programs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from tests.wire.http2 import (
    END_STREAM,
    GRPC_HEAD,
    asks,
    calls,
    data,
    grpc_trailers,
    hello,
    message,
    says,
)
from tests.wire.wire import CLIENT, SERVER, Wire

from benches.agent import AFTERWARDS_SECONDS
from benches.harness import (
    BUILT,
    SERVICE_CPU,
    Bench,
    BenchError,
    cpu_ns,
    memory_bytes,
    metrics_and_traces,
    metrics_only,
    otelauto,
    pinned,
    sink,
)
from benches.lane import CONNECTIONS, PATHS, SETTINGS, measure
from benches.report import Budget, Figure, Section
from benches.services import running

TITLE = "HTTP/2 and gRPC"
HOW = (
    "*By itself*: as an exchange by itself above, one stream after another on each of the"
    " connections, header fields as browsers and grpc-go send them; the general path is the one"
    " that makes Python objects. *Go*: a server of net/http (h2c) or grpc-go and a client of the"
    " same on one CPU, {connections} connections with {streams} requests at once on each, otelauto"
    " on the other CPU: its CPU time divided by the requests that the client counted. *Memory* is"
    " what its peak (`VmHWM`) grew by from {few} connections to {many}, divided by the difference."
)
HEADER = ("what", "exports", "us/exchange", "encode, us/exchange", "requests/s", "not reported")
BUDGET_US = 5.0
STREAMS = 8
LOAD_CONNECTIONS = 4
FEW, MANY = 10, 510
KINDS = {"http": "HTTP/2", "grpc": "gRPC"}


class _Peer:
    """A connection on which one stream follows another."""

    def __init__(self, number: int) -> None:
        self.wire = Wire(cookie=number + 1, remote=("10.0.0.1", 40000 + number)).open()
        self._client, self._server, begins, answers = hello()
        self._stream = -1
        self.wire.send(CLIENT, begins).send(SERVER, answers)

    def http(self, turn: int) -> None:
        """A request without a body, and a short response."""
        self._stream += 2
        wire, number = self.wire, self._stream
        fields = asks(f"/users/{turn % PATHS}", "GET", ("accept-encoding", "gzip"))
        wire.send(CLIENT, self._client.head(number, fields, END_STREAM))
        second = ("date", f"Sun, 22 Nov 2026 20:00:{turn % 60:02} GMT")
        head = self._server.head(number, says(200, ("content-type", "application/json"), second))
        wire.send(SERVER, head + data(number, b"x" * 27, END_STREAM))

    def grpc(self, turn: int) -> None:
        """A unary call with a deadline."""
        self._stream += 2
        wire, number = self.wire, self._stream
        head = self._client.head(number, calls("/shop.Cart/Add", ("grpc-timeout", f"{turn}m")))
        wire.send(CLIENT, head + data(number, message(30), END_STREAM))
        answer = self._server.head(number, GRPC_HEAD) + data(number, message(20))
        trailers = self._server.head(number, grpc_trailers(0), END_STREAM)
        wire.send(SERVER, answer + trailers)


def _laps(kind: str, turns: int) -> Iterator[list[bytes]]:
    """As :func:`benches.lane.laps`."""
    peers = [_Peer(number) for number in range(CONNECTIONS)]

    def taken() -> list[bytes]:
        records = []
        for peer in peers:
            records += peer.wire.records
            peer.wire.records.clear()
        return records

    yield taken()
    for count in (PATHS, *[turns] * 1000):
        for turn in range(count):
            for peer in peers:
                getattr(peer, kind)(turn)
        yield taken()


def _by_itself(section: Section) -> None:
    for kind, name in KINDS.items():
        for label, settings in SETTINGS.items():
            for general in (False, True):

                def traffic(turns: int, kind: str = kind) -> Iterator[list[bytes]]:
                    return _laps(kind, turns)

                drained, encoded = measure(settings, general, traffic)
                what = f"{name} by itself, {'general path' if general else 'fast lane'}"
                figures = (str(Figure([drained], digits=3)), str(Figure([encoded], digits=3)))
                section.rows.append((what, label, *figures, "", ""))
                if not general:
                    cost = Figure([drained + encoded], "us", 3)
                    section.budgets.append(Budget(f"{name} by itself, {label}", cost, BUDGET_US))


def _load(kind: str, port: int, seconds: int, connections: int, streams: int) -> tuple[int, float]:
    words = ("load", kind, str(port), str(seconds), str(connections), str(streams))
    done = subprocess.run(
        pinned(SERVICE_CPU, [BUILT / "http2", *words]),
        capture_output=True, text=True, check=False, timeout=seconds + 60,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"the client of HTTP/2 failed: {done.stderr}")
    answered, took = done.stdout.split()
    return int(answered), float(took)


def _between_programs(bench: Bench, section: Section, kind: str, traces: bool) -> None:
    with (
        running(lambda port, _: [BUILT / "http2", kind, str(port)], bench.directory, kind) as go,
        sink(bench.directory) as receiver,
        otelauto(
            bench.directory,
            [go.port],
            metrics_and_traces(receiver) if traces else metrics_only(),
        ) as agent,
    ):
        warm = _load(kind, go.port, 1, LOAD_CONNECTIONS, STREAMS)[0]
        first = agent.settle()["spans"]
        before = cpu_ns([agent.pid])
        answered, took = _load(kind, go.port, bench.settings.seconds, LOAD_CONNECTIONS, STREAMS)
        time.sleep(AFTERWARDS_SECONDS)
        used = cpu_ns([agent.pid]) - before
        lacking = answered - (agent.settle()["spans"] - first)
    if first > warm or lacking < 0:
        raise BenchError("otelauto has reported more than there was")
    cost = Figure([used / answered / 1000], "us")
    label = "metrics + traces" if traces else "metrics"
    rate = f"{answered / took:,.0f}"
    section.rows.append(
        (f"{KINDS[kind]}, Go", label, f"{cost.median:.2f}", "", rate, f"{lacking:,}")
    )
    section.budgets.append(Budget(f"{KINDS[kind]} between Go programs, {label}", cost, BUDGET_US))


def _memory(bench: Bench, section: Section) -> None:
    with (
        running(lambda port, _: [BUILT / "http2", "grpc", str(port)], bench.directory, "m") as go,
        otelauto(bench.directory, [go.port], metrics_only()) as agent,
    ):
        peaks = []
        for connections in (FEW, MANY):
            _load("grpc", go.port, bench.settings.seconds, connections, 1)
            agent.settle()
            peaks.append(memory_bytes(agent.pid, "VmHWM"))
    each = Figure([(peaks[1] - peaks[0]) / (MANY - FEW) / 1024], digits=1)
    section.rows.append(("memory of a connection, KiB", "metrics", str(each), "", "", ""))


def http2(bench: Bench) -> Section:
    """By itself, between Go programs, and the memory of a connection."""
    how = HOW.format(connections=LOAD_CONNECTIONS, streams=STREAMS, few=FEW, many=MANY)
    section = Section(TITLE, how, HEADER)
    _by_itself(section)
    for kind in KINDS:
        for traces in (False, True):
            _between_programs(bench, section, kind, traces)
    _memory(bench, section)
    return section
