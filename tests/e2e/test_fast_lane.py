# SPDX-License-Identifier: Apache-2.0
"""Real servers under load with nothing printed: the fast lane publishes, exactly and once."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.load import Wrk, served
from tests.e2e.harness.otelauto import Otelauto
from tests.e2e.harness.process import wait_until
from tests.e2e.harness.receiver import Receiver, attributes
from tests.e2e.test_attach import BY_NAME

from otelauto.control import ask

pytestmark = pytest.mark.e2e
REQUESTS = 5_000
CONNECTIONS = 8
DURATION = "http.server.request.duration"


@pytest.mark.parametrize("name", ["c-epoll", "go-net/http", "node-https"])
def test_every_request_is_one_span_and_one_measurement(tmp_path: Path, name: str) -> None:
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        server = BY_NAME[name]
        running = stack.enter_context(servers.running(server, tmp_path))
        endpoint = {"endpoint": f"http://127.0.0.1:{receiver.port}"}
        socket = tmp_path / "control"
        yaml = json.dumps(
            {
                "ebpf": {"open_port": running.port},
                "control_socket": str(socket),
                "otel_traces_export": {**endpoint, "max_queue_size": 1_000_000},
                "otel_metrics_export": {**endpoint, "interval": "200ms"},
            }
        )
        otelauto = stack.enter_context(Otelauto(tmp_path, yaml))
        with Wrk(tmp_path, running.port, "load", tls=server.tls) as wrk:
            wait_until(lambda: len(served(running.log)) >= REQUESTS, f"{REQUESTS} requests", 60)
            wrk.stop()
            assert wrk.failures() == []
        # The last answers may have been written to closed connections: those are spans as well.
        otelauto.process.wait_for(
            lambda: len(receiver.spans()) >= len(served(running.log)), "every span came", 60
        )
        report = ask(socket)
        counters = {(name, label): total for name, label, total in report["counters"]}
        assert ("kernel_records_dropped", "ring_full") not in counters
        assert report["fast_lane"] > 0.5 * report["spans"]  # a busy machine learns late
        assert otelauto.stop() == 0
        spans = [attributes(span.attributes) for _, span in receiver.spans()]
        idents = Counter(span["url.path"].rpartition("/")[2] for span in spans)
        assert idents == Counter(served(running.log))
        ports = {span.get("network.peer.port") for span in spans}
        # A session that hands ciphertext over has no peer before it is proven which socket is its.
        unproven = {None} if server.tls else set()
        assert len(ports - unproven) == CONNECTIONS, "each of them with its peer"
        whole = sum("http.response.status_code" in span for span in spans)
        assert sum(point.count for point in receiver.points(DURATION)) in (whole, whole - 8)
