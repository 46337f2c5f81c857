# SPDX-License-Identifier: Apache-2.0
"""The stages from exchange to span, the clock and the resource."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from otelauto.flows.vocabulary import (
    Address,
    Exchange,
    Family,
    Instrument,
    Side,
    TraceContext,
)
from otelauto.spans.chain import to_span
from otelauto.spans.clock import WallClock
from otelauto.spans.naming import Naming2023
from otelauto.spans.parent import Ids
from otelauto.spans.select import Select
from otelauto.spans.service import build_service, host_attributes, identity_attributes
from otelauto.spans.span import Service

SERVICE = Service("shop", "", "1")
HERE = Address(Family.INET, "127.0.0.1", 80)
METHOD, STATUS = "http.request.method", "http.response.status_code"


def duration(side: Side) -> Instrument:
    attributes = [METHOD, "url.scheme", STATUS, "http.route", "error.type"]
    if side is Side.CLIENT:
        attributes += ["server.address", "server.port"]
    return Instrument(
        f"http.{side.value}.request.duration", "s", "d", (0.005, 10.0), tuple(attributes)
    )


def size(side: Side) -> Instrument:
    name = f"http.{side.value}.request.body.size"
    return Instrument(name, "By", "b", (0.0, 1024.0), (METHOD,), "http.request.body.size")


INSTRUMENTS = {side: (duration(side), size(side)) for side in Side}


def exchange(side: Side = Side.SERVER, **changes: object) -> Exchange:
    given: dict[str, object] = {
        "protocol": "http", "side": side, "connection": 1, "tgid": 2, "tid": 3, "start_ns": 10,
        "end_ns": 30, "local": HERE, "peer": HERE, "name": "GET", "path": "/a",
        "instruments": INSTRUMENTS[side],
        "attributes": {
            METHOD: "GET", STATUS: 200, "url.path": "/a", "url.scheme": "http",
            "server.address": "shop.example", "server.port": 80,
            "network.peer.address": "10.0.0.9", "network.peer.port": 4711,
            "http.request.body.size": 12, "custom": True,
        },
    }  # fmt: skip
    return Exchange(**{**given, **changes})  # type: ignore[arg-type]


def test_begin_copies_and_keeps_the_error() -> None:
    source = exchange(error=True)
    span = to_span(source, SERVICE, [])
    assert (span.name, span.side, span.start_ns, span.end_ns) == ("GET", Side.SERVER, 10, 30)
    assert span.error
    span.attributes["more"] = 1
    assert "more" not in source.attributes


def test_incomplete_is_said_and_leaves_the_status_unset() -> None:
    span = to_span(exchange(error=True, incomplete="aborted"), SERVICE, [])
    assert span.attributes["otelauto.incomplete"] == "aborted"
    assert span.incomplete == "aborted"
    assert not span.error
    assert "otelauto.incomplete" not in to_span(exchange(), SERVICE, []).attributes


def test_new_traces_have_distinct_sampled_ids() -> None:
    ids = Ids()
    spans = [to_span(exchange(), SERVICE, [ids]) for _ in range(5000)]
    assert len({s.trace_id for s in spans}) == 5000
    assert len({s.span_id for s in spans}) == 5000
    assert {(len(s.trace_id), len(s.span_id), s.parent_id, s.trace_flags) for s in spans} == {
        (16, 8, b"", 1)
    }


@pytest.mark.parametrize("flags", [0, 1, 0xFF])
def test_a_traceparent_is_the_parent(flags: int) -> None:
    parent = TraceContext(b"t" * 16, b"p" * 8, flags)
    span = to_span(exchange(parent=parent), SERVICE, [Ids()])
    assert (span.trace_id, span.parent_id, span.trace_flags) == (b"t" * 16, b"p" * 8, flags)
    assert span.span_id not in {b"", b"p" * 8}


def test_an_all_zero_id_is_never_given() -> None:
    pools = [bytes(4096), b"\x01" * 4096]
    span = to_span(exchange(), SERVICE, [Ids(lambda _size: pools.pop(0) if pools else b"x" * 4096)])
    assert span.span_id == b"\x01" * 8
    assert span.trace_id == b"\x01" * 16


@pytest.mark.parametrize(
    ("side", "settings", "expected"),
    [
        (Side.SERVER, {}, (METHOD, "url.scheme", STATUS, "http.route", "error.type")),
        (
            Side.SERVER,
            {"report_target": True, "report_peer": True},
            (METHOD, "url.scheme", STATUS, "http.route", "error.type", "url.path",
             "network.peer.address"),
        ),
        (Side.SERVER, {"as_2023": True}, (METHOD, STATUS, "http.route")),
        (
            Side.CLIENT,
            {"report_target": True, "report_peer": True},
            (METHOD, "url.scheme", STATUS, "http.route", "error.type", "server.address",
             "server.port", "network.peer.address"),
        ),
        (Side.CLIENT, {"as_2023": True}, (METHOD, STATUS, "http.route")),
    ],
)  # fmt: skip
def test_selected_attributes(
    side: Side, settings: dict[str, bool], expected: tuple[str, ...]
) -> None:
    select = Select(**settings)
    first, second = (to_span(exchange(side), SERVICE, [select]) for _ in range(2))
    assert first.instruments[0].attributes == expected
    assert first.instruments is second.instruments
    assert INSTRUMENTS[side][0].name == first.instruments[0].name


def test_2023_server() -> None:
    chain = [Select(report_target=True, report_peer=True, as_2023=True), Naming2023()]
    span = to_span(exchange(), SERVICE, chain)
    assert span.attributes == {
        "http.method": "GET", "http.status_code": 200, "http.target": "/a", "http.scheme": "http",
        "net.host.name": "shop.example", "net.host.port": 80, "net.sock.peer.addr": "10.0.0.9",
        "net.sock.peer.port": 4711, "http.request_content_length": 12, "custom": True,
    }  # fmt: skip
    took, request = span.instruments
    assert (took.name, took.unit, took.measures) == ("http.server.duration", "s", None)
    assert took.attributes == (
        "http.method", "http.status_code", "http.route", "http.target", "net.sock.peer.addr",
    )  # fmt: skip
    assert took.buckets[:2] == (0.0, 0.005)
    assert len(took.buckets) == 15
    assert (request.name, request.measures) == (
        "http.server.request.size",
        "http.request_content_length",
    )
    assert request.buckets == (0.0, 1024.0)


def test_2023_client() -> None:
    span = to_span(
        exchange(Side.CLIENT), SERVICE, [Select(report_peer=True, as_2023=True), Naming2023()]
    )
    took = span.instruments[0]
    assert took.name == "http.client.duration"
    assert took.attributes[-2:] == ("net.sock.peer.name", "net.sock.peer.port")
    assert all(name in span.attributes for name in took.attributes if name != "http.route")
    assert span.attributes["net.peer.name"] == span.attributes["net.sock.peer.name"]
    assert span.attributes["net.peer.port"] == 80


class Clocks:
    def __init__(self) -> None:
        self.boot = 1_000_000_000
        self.wall = 1_700_000_000_000_000_000

    def go(self, ns: int) -> None:
        self.boot += ns
        self.wall += ns


def test_the_clock_follows_a_step_but_not_a_slew() -> None:
    clocks = Clocks()
    clock = WallClock(lambda: clocks.boot, lambda: clocks.wall)
    begun = clock.wall_ns(clocks.boot)
    assert begun == clocks.wall
    clocks.go(2_000_000_000)
    clocks.wall += 400_000
    clock.track()
    assert clock.wall_ns(1_000_000_000) == begun
    clocks.go(100)
    clocks.wall -= 3_600_000_000_000
    clock.track()  # too early to be measured again
    assert clock.wall_ns(1_000_000_000) == begun
    clocks.go(2_000_000_000)
    clock.track()
    assert clock.wall_ns(clocks.boot) == clocks.wall == clock.now_ns()


def test_the_least_interrupted_measurement_counts() -> None:
    boot = iter([0, 1000, 2000, 2010, 3000, 3900, 4000])
    wall = iter([50_500, 52_005, 50_000])
    clock = WallClock(lambda: next(boot), lambda: next(wall))
    assert clock.wall_ns(0) == 50_000


def test_the_real_clock_is_near_the_wall_clock() -> None:
    assert abs(WallClock().now_ns() - time.time_ns()) < 1_000_000_000


def test_service(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("abc123\n")
    host = host_attributes("web-1", (tmp_path / "none", tmp_path / "machine-id"))
    assert host == {"host.name": "web-1", "host.id": "abc123"}
    service = build_service(
        "shop", "eu", "7", version="1.2", host=host, pid=42, executable="/opt/shop/bin/shop",
        language="go", extra={"service.name": "x", "deployment": "prod", "host.name": "other"},
    )  # fmt: skip
    assert service.attributes == {
        "os.type": "linux", "host.name": "other", "host.id": "abc123", "process.pid": 42,
        "process.executable.name": "shop", "process.executable.path": "/opt/shop/bin/shop",
        "telemetry.sdk.name": "otelauto", "telemetry.sdk.version": "1.2",
        "telemetry.sdk.language": "go", "deployment": "prod",
    }  # fmt: skip
    assert identity_attributes(service) == {
        "service.name": "shop", "service.namespace": "eu", "service.instance.id": "7",
    }  # fmt: skip
    assert identity_attributes(build_service("a", version="1")) == {"service.name": "a"}


def test_no_machine_id_is_no_host_id(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("uninitialized\n")
    assert set(host_attributes(None, (tmp_path / "machine-id",))) == {"host.name"}
