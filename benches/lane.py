# SPDX-License-Identifier: Apache-2.0
"""What an exchange costs from the ring to the histogram and to the OTLP message, by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tests.wire.wire import CLIENT, SERVER, Wire

from benches.harness import Bench, BenchError
from benches.report import Budget, Figure, Section
from otelauto.app import make_flows
from otelauto.config import Purpose, load
from otelauto.counters import Counters
from otelauto.flows.flows import Flows
from otelauto.hot.ring import walk
from otelauto.publish import Publisher
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Service

CONNECTIONS, TURNS = 64, 50
PATHS = 8  # different ones
RECORDS_EACH = 2
LAPS = 10  # the quickest counts: others shared the processor with something
RING: Final = 4 << 20
HEADER: Final = 8
SHOP: Final = Service("shop", "", "1")
REQUEST = (
    b"GET /users/%d HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl/8.5.0\r\n"
    b"Accept: */*\r\nAccept-Encoding: gzip\r\n%b\r\n"
)
PARENT = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 20:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 27\r\nConnection: keep-alive\r\n\r\n"
    b'{"status": "ok", "id": 123}'
)
TITLE = "An exchange by itself"
HOW = (
    f"An image of the ring in memory: {CONNECTIONS} connections, {TURNS} requests of {PATHS} paths"
    " on each in turns, two records each. Time is that of one thread from the walk over the ring to"
    f" the end of the turn, divided by the exchanges; the least of {LAPS} laps, as the machine does"
    " other things too. *Encode* is the exporter's thread making the message, sending left out. The"
    " general path is what takes the exchanges that are not plain. *Drained* is how many records a"
    " second the thread takes with nothing else to do: beyond that the ring fills, and drops are"
    " counted."
)
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "metrics": {"--prometheus-port": "9"},
    "metrics + traces": {"--otlp-endpoint": "http://127.0.0.1:1"},
}
BUDGETS: Final = {"metrics": 0.5, "metrics + traces": 2.0}


@dataclass
class Image:
    """A ring's two positions and its data, mapped twice in a row."""

    consumer: memoryview
    producer: memoryview
    data: memoryview

    @classmethod
    def of(cls, records: list[bytes]) -> Image:
        words = bytearray()
        for record in records:
            words += len(record).to_bytes(HEADER, "little") + record + bytes(-len(record) % 8)
        if len(words) > RING:
            raise BenchError("the records do not fit into the ring")
        data = bytes(words).ljust(RING, b"\0")
        positions = (bytearray(8), bytearray(len(words).to_bytes(8, "little")))
        consumer, producer = (memoryview(each).cast("Q") for each in positions)
        return cls(consumer, producer, memoryview(data * 2))


def laps(turns: int) -> Iterator[list[bytes]]:
    """The opening records and a few exchanges first; then laps of the same traffic."""
    wires = [Wire(cookie=number + 1, remote=("10.0.0.1", 40000 + number)) for number in range(64)]
    first = []
    for wire in wires:
        first += wire.open().records
        wire.records.clear()
    yield first
    yield _traffic(wires, PATHS)
    while True:
        yield _traffic(wires, turns)


def _traffic(wires: list[Wire], turns: int) -> list[bytes]:
    records = []
    for turn in range(turns):
        for wire in wires:
            wire.send(CLIENT, REQUEST % (turn % PATHS, PARENT if turn % 2 else b""))
            wire.send(SERVER, RESPONSE)
            records += wire.records
            wire.records.clear()
    return records


def agent(settings: Mapping[str, str], general: bool) -> tuple[Flows, Publisher]:
    """The product's flows and publisher; nothing is started."""
    config = load(None, {}, {"--open-port": "80", **settings}, Purpose.RUN).config
    counters = Counters()
    publisher = Publisher(config, counters, lambda _: SHOP, WallClock())
    if general:
        publisher._desk = None
    return make_flows(config, counters, publisher), publisher


def measure(
    settings: Mapping[str, str],
    general: bool = False,
    traffic: Callable[[int], Iterator[list[bytes]]] = laps,
) -> tuple[float, float]:
    """Microseconds of an exchange: to the end of the turn, and for encoding."""
    flows, publisher = agent(settings, general)
    take = flows.feed if flows.lane is None else flows.lane
    traces = publisher._traces
    drained, encoded = [], []
    for number, records in zip(range(LAPS + 2), traffic(TURNS), strict=False):
        image = Image.of(records)
        before = publisher.processed
        began = time.perf_counter_ns()
        walk(image.consumer, image.producer, image.data, RING, take)
        flows.tick(0)
        publisher.flush()
        ended = time.perf_counter_ns()
        if traces is not None:
            batch = traces._worker._queue.take(1 << 20, 0) if traces._worker.queued() else []
            traces._encoder.encode(batch or [])
        exchanges = publisher.processed - before
        if number >= 2 and exchanges != CONNECTIONS * TURNS:
            raise BenchError(f"{exchanges} exchanges instead of {CONNECTIONS * TURNS}")
        if number >= 2:
            drained.append((ended - began) / exchanges / 1000)
            encoded.append((time.perf_counter_ns() - ended) / exchanges / 1000)
    return min(drained), min(encoded)


def lane(_bench: Bench) -> Section:
    """The compiled path, and the general one beside it."""
    header = ("exports", "path", "us/exchange", "encode, us/exchange", "drained, records/s")
    section = Section(TITLE, HOW, header)
    for label, settings in SETTINGS.items():
        for general in (False, True):
            drained, encoded = measure(settings, general)
            path = "general" if general else "fast lane"
            figures = (str(Figure([drained], digits=3)), str(Figure([encoded], digits=3)))
            capacity = Figure([RECORDS_EACH * 1e6 / drained], digits=0)
            section.rows.append((label, path, *figures, str(capacity)))
            if not general:
                cost = Figure([drained + encoded], "us", 3)
                what = f"an exchange by itself, {label}"
                section.budgets.append(Budget(what, cost, BUDGETS[label]))
    return section
