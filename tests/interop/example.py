# SPDX-License-Identifier: Apache-2.0
"""examples/collector-config.yaml in a real OpenTelemetry Collector, before real stores."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import pytest
from tests.e2e.harness.backends import Gate, Prometheus
from tests.e2e.harness.process import free_port, wait_until
from tests.e2e.harness.receiver import GrpcReceiver
from tests.house.scan import ROOT
from tests.interop.collector import PROGRAM, running_collector
from tests.unit.agent_parts import message, spans, sums

from otelauto.export.otlp_grpc import OtlpGrpc
from otelauto.export.transport import Verdict

pytestmark = pytest.mark.interop
EXAMPLE = ROOT / "examples" / "collector-config.yaml"
KEY = "VHJhbGFyw60gcXVlIHRlIHbD=/?#"  # in a block of its own it may hold any character
USERS = {"MIMIR_USER": "734432", "TEMPO_USER": "99"}


def test_it_is_valid() -> None:
    stores = {"MIMIR_ENDPOINT": "mimir.example", "TEMPO_ENDPOINT": "tempo.example:443"}
    subprocess.run(
        [PROGRAM, "validate", "--config", EXAMPLE],
        env={**USERS, **stores, "GRAFANA_API_KEY": KEY},
        check=True,
    )


def test_metrics_and_spans_come_to_the_stores(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(GrpcReceiver())
        prometheus = stack.enter_context(Prometheus(tmp_path))
        gate = stack.enter_context(Gate(tmp_path, prometheus.port, receiver.port).open())
        gate.admit(dict.fromkeys(USERS.values(), KEY))
        text, ports = EXAMPLE.read_text(), []
        for default in ("4317", "4318"):
            ports.append(free_port())
            assert text.count(f":{default}\n") == 1
            text = text.replace(f":{default}\n", f":{ports[-1]}\n")
        variables = {
            **USERS,
            "MIMIR_ENDPOINT": f"localhost:{gate.mimir}",
            "TEMPO_ENDPOINT": f"localhost:{gate.tempo}",
            "GRAFANA_API_KEY": KEY,
            "SSL_CERT_FILE": gate.certificate,
        }
        stack.enter_context(running_collector(tmp_path, text, ports, variables))
        metrics = sums(5).message
        for point in metrics.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points:
            point.time_unix_nano = time.time_ns()
        for signal, sent in (("traces", message(spans(7))), ("metrics", metrics)):
            to = OtlpGrpc("http", "127.0.0.1", ports[0], signal, version="1")
            assert to.post(sent.SerializeToString()).verdict is Verdict.ACCEPTED
            to.close()
        wait_until(lambda: len(receiver.spans()) == 7, "the spans came", 30)
        wait_until(lambda: prometheus.total("sum(requests_total)") == 10, "the points came", 30)
