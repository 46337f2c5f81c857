# SPDX-License-Identifier: Apache-2.0
"""Remote write 2.0 to a real Prometheus that knows it, and to one that is told not to."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from tests.e2e.harness.process import wait_until
from tests.e2e.test_remote_write import RealPrometheus, metrics, writing
from tests.house.scan import ROOT
from tests.unit.prometheus_parts import content_of, context_of

from otelauto.agent.pipeline import Metrics
from otelauto.agent.prometheus.counted import SAMPLES_DROPPED
from otelauto.agent.running.exporter_prometheus import ExporterPrometheus

pytestmark = pytest.mark.interop

PROGRAM = ROOT / ".build" / "interop" / "prometheus"
V1, V2 = "prometheus.WriteRequest", "io.prometheus.write.v2.Request"
WANTS_2 = f'protobuf_message = "{V2}"\nsend_native_histograms = true'


@pytest.fixture(name="prometheus")
def fixture_prometheus(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RealPrometheus]:
    takes = getattr(request, "param", ())
    more = [f"--web.remote-write-receiver.accepted-protobuf-messages={each}" for each in takes]
    found = RealPrometheus(tmp_path, PROGRAM, *more)
    try:
        yield found
    finally:
        found.kill()


@pytest.mark.parametrize(
    ("prometheus", "spoken"), [((), V2), ((V2,), V2), ((V1,), V1)], indirect=["prometheus"]
)
def test_it_speaks_the_newest_that_the_server_knows(
    prometheus: RealPrometheus, tmp_path: Path, spoken: str
) -> None:
    """Whatever it is, everything arrives, and nothing of it is given up."""
    with writing(prometheus, tmp_path, WANTS_2) as writer:
        exporter = ExporterPrometheus(
            context_of(tmp_path),
            content_of('otelcol.exporter.prometheus "x" { forward_to = [STORE] }', STORE=writer),
        )
        exporter.metrics(Metrics(otlp.MetricsData, 5, metrics().SerializeToString()))
        whose = '{job="eu/shop",instance="7"}'
        prometheus.wait_for(f"messaging_client_sent_messages_total{whose}", 41)
        prometheus.wait_for('target_info{job="eu/shop",instance="7",host_name="web"}', 1)
        name = "http_server_request_duration_seconds"
        for suffix, value in (("_count", 10), ("_sum", 4.5), ('_bucket{le="10"}', 3)):
            prometheus.wait_for(name + suffix, value)
        prometheus.wait_for(f"histogram_count(db_duration_seconds{whose})", 10)
        prometheus.wait_for("histogram_sum(db_duration_seconds)", 50)
        prometheus.wait_for("round(histogram_fraction(0, 2, db_duration_seconds) * 10)", 6)
        asked = {"query": "messaging_client_sent_messages_total", "start": time.time() - 600,
                 "end": time.time() + 600}  # fmt: skip
        (series,) = prometheus.get(f"/api/v1/query_exemplars?{urllib.parse.urlencode(asked)}")
        (example,) = series["exemplars"]
        assert example["labels"] == {"trace_id": "ab" * 16, "span_id": "cd" * 8}
        assert writer.status()["endpoint protocol"] == spoken
        counters = writer.context.counters
        wait_until(lambda: writer.health()[1] == "", "nothing is wrong")
        assert not [each for each in counters.items() if each[0] is SAMPLES_DROPPED]
    assert prometheus.refused() == []
