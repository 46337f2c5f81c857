# SPDX-License-Identifier: Apache-2.0
"""Lines and the printer, with real pipes."""

from __future__ import annotations

import json
import os
import re
import threading
import time

import pytest

from otelauto.counters import Counters
from otelauto.export.exporter import PRINTER, Reason, dropped
from otelauto.export.lines import go_duration, json_line, text_line
from otelauto.export.printer import LineFormat, Printer
from otelauto.flows.vocabulary import Attributes, Side
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Service, Span

SERVICE = Service("shop", "eu", "7", {"host.name": "web-1"})
WALL = 1_687_435_445_123_456_789
CLOCK = WallClock(lambda: 0, lambda: WALL)
ATTRIBUTES: Attributes = {
    "http.request.method": "GET", "http.response.status_code": 200, "url.path": "/",
    "client.address": "172.17.0.1", "server.address": "localhost", "server.port": 18443,
}  # fmt: skip


def span(
    attributes: Attributes | None = None, took_ns: int = 19_066_625, **changes: object
) -> Span:
    given: dict[str, object] = {
        "service": SERVICE, "name": "GET /", "side": Side.SERVER, "trace_id": bytes(range(16)),
        "span_id": b"s" * 8, "parent_id": b"", "trace_flags": 1, "start_ns": 0,
        "end_ns": took_ns, "attributes": ATTRIBUTES if attributes is None else attributes,
        "error": False, "incomplete": None, "instruments": (),
    }  # fmt: skip
    return Span(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"), (1, "1ns"), (999, "999ns"), (1000, "1µs"), (942_583, "942.583µs"),
        (19_066_625, "19.066625ms"), (1_000_000, "1ms"), (1_500_000_000, "1.5s"),
        (10**9, "1s"), (60 * 10**9, "1m0s"), (3_723_000_000_001, "1h2m3.000000001s"),
        (-1500, "-1.5µs"), (999_999_999, "999.999999ms"), (36_000 * 10**9, "10h0m0s"),
    ],
)  # fmt: skip
def test_durations_are_those_of_go(ns: int, text: str) -> None:
    assert go_duration(ns) == text


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_the_2023_line(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        line = text_line(span(), CLOCK)
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    when = {"UTC": "2023-06-22 12:04:05", "Asia/Kolkata": "2023-06-22 17:34:05"}[zone]
    assert line == (
        f"{when}.12345 (19.066625ms[19.066625ms]) 200 GET / [172.17.0.1]->[localhost:18443]"
        " size:0B comm=[shop]"
    )


def test_the_line_with_2023_names_sizes_and_clients() -> None:
    line = text_line(
        span(
            {
                "http.method": "PUT", "http.status_code": 201, "http.target": "/a",
                "net.peer.name": "db", "net.peer.port": 80, "http.request_content_length": 12,
                "net.sock.peer.addr": "10.0.0.1",
            },
            side=Side.CLIENT,
        ),
        CLOCK,
    )  # fmt: skip
    assert line.endswith("201 PUT /a []->[db:80] size:12B comm=[shop]")


def test_what_is_unknown_is_not_invented() -> None:
    line = text_line(span({"http.request.method": "GET"}, incomplete="aborted"), CLOCK)
    assert line.endswith(" - GET - []->[:] size:0B comm=[shop] incomplete=[aborted]")


def test_captured_bytes_do_not_steer_the_terminal() -> None:
    line = text_line(span({**ATTRIBUTES, "url.path": "/\x1b[2J\nevil\udcff"}), CLOCK)
    assert line.isprintable()
    assert r"/\x1b[2J\nevil\udcff" in line


def test_json_carries_everything() -> None:
    found = json.loads(json_line(span(parent_id=b"p" * 8, error=True, incomplete="lost"), CLOCK))
    assert found == {
        "trace_id": "000102030405060708090a0b0c0d0e0f", "span_id": "73" * 8,
        "parent_id": "70" * 8, "trace_flags": 1, "name": "GET /", "kind": "server",
        "start_unix_nano": WALL, "end_unix_nano": WALL + 19_066_625, "duration_ns": 19_066_625,
        "attributes": ATTRIBUTES,
        "service": {
            "name": "shop", "namespace": "eu", "instance_id": "7",
            "attributes": {"host.name": "web-1"},
        },
        "error": True, "incomplete": "lost",
    }  # fmt: skip


def test_printing_to_a_pipe() -> None:
    counters = Counters()
    reader, writer = os.pipe()
    printer = Printer(LineFormat.JSON, CLOCK, counters, fd=writer)
    received: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as pipe:
            received.extend(pipe)

    thread = threading.Thread(target=read)
    thread.start()
    printer.start()
    spans = [span({**ATTRIBUTES, "n": n, "long": "x" * 3000}) for n in range(1000)]
    for first in range(0, 1000, 100):
        printer.offer(spans[first : first + 100])
    printer.close(30)
    os.close(writer)
    thread.join(20)
    assert [json.loads(line)["attributes"]["n"] for line in received] == list(range(1000))
    assert counters.get(PRINTER.sent) == 1000
    assert printer.status()["last_error"] is None


def test_a_reader_that_goes_away_stops_the_printing_only() -> None:
    counters = Counters()
    reader, writer = os.pipe()
    printer = Printer(LineFormat.TEXT, CLOCK, counters, fd=writer)
    printer.start()
    os.close(reader)
    printer.offer([span()] * 5)
    printer.offer([span()] * 5)
    printer.close(20)
    os.close(writer)
    assert counters.get(PRINTER.dropped, Reason.PIPE_CLOSED) == 10
    assert counters.get(PRINTER.sent) == 0
    assert printer.status()["last_error"] == "standard output cannot be written: Broken pipe"


def test_a_reader_that_stops_reading_does_not_hold_the_shutdown() -> None:
    counters = Counters()
    reader, writer = os.pipe()
    printer = Printer(LineFormat.TEXT, CLOCK, counters, fd=writer)
    printer.start()
    printer.offer([span()] * 10_000)
    printer.close(0.2)
    printer._worker._thread.join(20)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        lines = pipe.read().count(b"\n")
    assert 0 < lines < 10_000
    assert counters.get(PRINTER.sent) == lines
    assert lines + dropped(counters, PRINTER) == 10_000
    assert counters.get(PRINTER.dropped, Reason.SHUTDOWN) == 10_000 - lines


def test_a_full_disk_is_counted_and_does_not_stop_the_printing() -> None:
    counters = Counters()
    full = os.open("/dev/full", os.O_WRONLY)
    printer = Printer(LineFormat.TEXT, CLOCK, counters, fd=full)
    printer.start()
    printer.offer([span()] * 3)
    printer.close(20)
    os.close(full)
    assert counters.get(PRINTER.dropped, Reason.UNWRITABLE) == 3
    assert re.search("No space left", str(printer.status()["last_error"]))
