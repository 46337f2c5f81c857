# SPDX-License-Identifier: Apache-2.0
"""What a real OpenTelemetry Collector compresses the agent reads, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from tests.e2e.harness.process import free_port, wait_until
from tests.interop.collector import running_collector
from tests.interop.pipelines import items
from tests.unit.agent_asks import BODY, RECEIVER, text
from tests.unit.agent_parts import Agent, agent
from tests.unit.test_otlp_http import Receiver

from otelauto.agent.running.unpacking import ENCODINGS
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.transport import Compression, Verdict

pytestmark = pytest.mark.interop
OVER_GRPC = "gzip over gRPC"
SPANS = items([BODY], TracesData)


@dataclass(frozen=True)
class Ways:
    """A Collector before the agent: it compresses what comes to each of these ports. What comes to
    ``plain`` goes to ``sink`` as it is.
    """

    agent: Agent
    ports: dict[str, int]
    plain: int
    sink: Receiver


def settings(agent: Agent, ports: dict[str, int], plain: int, sink: int) -> str:
    at = {name: f"127.0.0.1:{agent[RECEIVER].ports[name]}" for name in ("http", "grpc")}
    once = {"sending_queue": {"enabled": False}, "retry_on_failure": {"enabled": False}}
    exporters: dict[str, object] = {
        f"otlphttp/{number}": {"endpoint": f"http://{at['http']}", "compression": name, **once}
        for number, name in enumerate(ENCODINGS)
    }
    last = f"otlp/{len(ENCODINGS)}"
    exporters[last] = {"endpoint": at["grpc"], "tls": {"insecure": True}, **once}
    exporters["otlphttp/plain"] = {"endpoint": f"http://127.0.0.1:{sink}", "compression": "none"}
    listening = [*ports.values(), plain]
    receivers = {
        f"otlp/{number}": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}
        for number, port in enumerate(listening)
    }
    pipelines = {
        f"traces/{receiver.partition('/')[2]}": {"receivers": [receiver], "exporters": [exporter]}
        for receiver, exporter in zip(receivers, exporters, strict=True)
    }
    service = {"pipelines": pipelines, "telemetry": {"metrics": {"level": "none"}}}
    return json.dumps({"receivers": receivers, "exporters": exporters, "service": service})


@pytest.fixture(scope="module", name="ways")
def fixture_ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    directory = tmp_path_factory.mktemp("compressions")
    sink = Receiver()
    try:
        with agent(text(), directory) as made:
            ports = {name: free_port() for name in (*ENCODINGS, OVER_GRPC)}
            found = Ways(made, ports, free_port(), sink)
            written = settings(made, ports, found.plain, sink.port)
            with running_collector(directory, written, [*ports.values(), found.plain]):
                yield found
    finally:
        sink.close()


@pytest.mark.parametrize("name", [*ENCODINGS, OVER_GRPC])
def test_what_a_collector_compresses_is_read(ways: Ways, name: str) -> None:
    ways.agent.sink.payloads.clear()
    to = OtlpHttp(f"http://127.0.0.1:{ways.ports[name]}/v1/traces", version="1")
    assert to.post(BODY).verdict is Verdict.ACCEPTED
    to.close()
    wait_until(lambda: ways.agent.sink.items == 3, "the spans came")
    assert items([ways.agent.sink.payloads[0].encoded], TracesData) == SPANS


@pytest.mark.parametrize("compression", list(Compression))
def test_what_is_compressed_a_collector_reads(ways: Ways, compression: Compression) -> None:
    ways.sink.requests.clear()
    url = f"http://127.0.0.1:{ways.plain}/v1/traces"
    to = OtlpHttp(url, version="1", compression=compression)
    assert to.post(BODY).verdict is Verdict.ACCEPTED
    to.close()
    wait_until(lambda: ways.sink.requests, "the spans came")
    assert items([ways.sink.requests[0][2]], TracesData) == SPANS
