# SPDX-License-Identifier: Apache-2.0
"""A service's own SDK, known by what it exports, over HTTP or gRPC."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.wire.http2 import END_STREAM, GRPC_HEAD, calls, data, grpc_trailers, hello, message
from tests.wire.transcripts import answer, get, post
from tests.wire.wire import CLIENT, SERVER, Wire, read

from otelauto.counters import Counters
from otelauto.flows.vocabulary import Exchange
from otelauto.spans.chain import to_span
from otelauto.spans.existing_sdk import ExistingSdk, Mode
from otelauto.spans.span import Fate, Service

SERVICE = Service("shop", "", "1")
SERVICES = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}


def by_http(signal: str, view: str) -> Exchange:
    wire = Wire(view=view).open().send(CLIENT, post(f"/v1/{signal}", b"x"))
    return read(wire.send(SERVER, answer(200)))[0]


def by_grpc(signal: str, view: str) -> Exchange:
    c, s, begins, answers = hello()
    head = c.head(1, calls(f"/{SERVICES[signal]}/Export"))
    wire = Wire(view=view).open().send(CLIENT, begins + head + data(1, message(9), END_STREAM))
    said = s.head(1, [*GRPC_HEAD, *grpc_trailers(0)], END_STREAM)
    return read(wire.send(SERVER, answers + said))[0]


def request() -> Exchange:
    return read(Wire().open().send(CLIENT, get("/a")).send(SERVER, answer(200)))[0]


@pytest.mark.parametrize("export", [by_http, by_grpc], ids=["HTTP", "gRPC"])
def test_it_is_found_by_its_first_export_of_traces(export: Callable[[str, str], Exchange]) -> None:
    found: list[Service] = []
    stage = ExistingSdk(Counters(), Mode.COMPLEMENT, found.append)
    for signal in ("metrics", "logs"):
        to_span(export(signal, CLIENT), SERVICE, [stage])
    assert to_span(request(), SERVICE, [stage]).fate is not Fate.LEFT_TO_SDK
    assert not found
    for _ in range(2):
        assert to_span(export("traces", CLIENT), SERVICE, [stage]).fate is Fate.LEFT_TO_SDK
    assert found == [SERVICE]
    assert stage.evidence(SERVICE) == "OTLP traffic"
    assert to_span(request(), SERVICE, [stage]).fate is Fate.LEFT_TO_SDK
    for signal in ("metrics", "logs"):
        assert to_span(export(signal, CLIENT), SERVICE, [stage]).fate is Fate.LEFT_TO_SDK


@pytest.mark.parametrize("export", [by_http, by_grpc], ids=["HTTP", "gRPC"])
def test_who_takes_exports_forwards_them(export: Callable[[str, str], Exchange]) -> None:
    found: list[Service] = []
    stage = ExistingSdk(Counters(), Mode.COMPLEMENT, found.append)
    to_span(export("traces", SERVER), SERVICE, [stage])
    assert to_span(export("traces", CLIENT), SERVICE, [stage]).fate is not Fate.LEFT_TO_SDK
    assert not found
