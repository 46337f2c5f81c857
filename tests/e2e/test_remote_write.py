# SPDX-License-Identifier: Apache-2.0
"""Samples into a real Prometheus, which is killed, by a writer that is killed: none is lost, and
none comes out of order.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from tests.e2e.harness.process import free_port, wait_until
from tests.e2e.harness.remote_writer import STEP_MS
from tests.house.scan import ROOT
from tests.scale import SCALE
from tests.unit.prometheus_parts import content_of, context_of

from otelauto.agent.pipeline import STALE, Metrics, Sample
from otelauto.agent.running.exporter_prometheus import ExporterPrometheus
from otelauto.agent.running.remote_write import RemoteWrite
from otelauto.agent.running.scrape import Scrape

pytestmark = pytest.mark.e2e

SERIES = 2000
# A million samples from a scale of 5 on.
NUMBERS = min(500, 100 * SCALE)


class RealPrometheus:
    """A Prometheus that takes remote write; can be killed and started again."""

    def __init__(self, directory: Path, program: str | Path = "prometheus", *more: str) -> None:
        self.directory = directory
        self._words = [str(program), *more]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (directory / "prometheus.yml").write_text("{}")
        self.log = directory / "prometheus.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [
                    *self._words, f"--config.file={self.directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--web.enable-remote-write-receiver",
                    "--enable-feature=exemplar-storage,native-histograms",
                    "--query.lookback-delta=1h",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str, **more: str) -> list[Any]:
        asked = urllib.parse.urlencode({"query": expression, **more})
        found: list[Any] = self.get(f"/api/v1/query?{asked}")["result"]
        return found

    def value(self, expression: str) -> float | None:
        """The one value of an expression; ``None``: it does not answer, or with nothing."""
        try:
            found = self.query(expression)
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None

    def wait_for(self, expression: str, expected: float) -> None:
        wait_until(lambda: self.value(expression) == expected, f"{expression} is {expected}", 60)

    def refused(self) -> list[str]:
        """Lines of its log about samples that it did not take."""
        words = ("out of order", "out of bounds", "duplicate sample")
        return [line for line in self.log.read_text().splitlines() if any(w in line for w in words)]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[RealPrometheus]:
    found = RealPrometheus(tmp_path)
    try:
        yield found
    finally:
        found.kill()


class Writer:
    """A running harness/remote_writer.py; ``taken`` is the last number that was."""

    def __init__(self, directory: Path, url: str, start_ms: int, first: int, last: int) -> None:
        words = [directory / "agent", f"{url}/api/v1/write", SERIES, start_ms, first, last]
        self._errors = (directory / "writer.err").open("ab")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.harness.remote_writer", *map(str, words)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self.taken = first - 1
        self.counters: dict[str, int] = {}
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def go(self, number: int, until: int) -> None:
        """Let it append as far as ``number``, and wait for ``until`` to be taken."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(b"%d\n" % number)
        self.popen.stdin.flush()
        wait_until(lambda: self.taken >= until, f"number {until} is taken", 60)

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout:
            for line in self.popen.stdout:
                if line.startswith(b"{"):
                    self.counters = json.loads(line)
                elif line.endswith(b"\n"):
                    self.taken = int(line)

    def end(self, *, kill: bool = False) -> int:
        """Wait for its end; returns its status."""
        if kill:
            self.popen.kill()
        status = self.popen.wait(300)
        self._thread.join()
        if self.popen.stdin is not None:
            self.popen.stdin.close()
        self._errors.close()
        return status


def check_all_arrived(prometheus: RealPrometheus, numbers: int) -> None:
    """Each sample is there, once, with its value."""
    whole = f"count_over_time(written[{numbers * STEP_MS // 1000 + 3600}s])"
    prometheus.wait_for(f"sum({whole})", float(SERIES * numbers))
    assert prometheus.value(f"count({whole} == {numbers})") == SERIES
    expected = sum(range(numbers))
    spoken = whole.replace("count_over", "sum_over")
    assert prometheus.value(f"count({spoken} == {expected})") == SERIES
    assert prometheus.refused() == []
    with urllib.request.urlopen(f"{prometheus.url}/metrics", timeout=30) as answer:
        page = answer.read().decode()
    wrong = [
        line for line in page.splitlines()
        if line.startswith("prometheus_tsdb_out_of_") and not line.endswith(" 0")
    ]  # fmt: skip
    assert wrong == []


def test_killed_servers_and_writers_lose_nothing(
    prometheus: RealPrometheus, tmp_path: Path
) -> None:
    """Prometheus is killed twice, then the writer is, twice, and starts again behind what it said
    that it had taken.
    """
    start_ms = time.time_ns() // 1_000_000 - NUMBERS * STEP_MS
    phase = NUMBERS // 5
    writer = Writer(tmp_path, prometheus.url, start_ms, 0, NUMBERS - 1)
    for number in (phase, 2 * phase):
        writer.go(number + phase - 1, number)
        wait_until(lambda: (prometheus.value("count(written)") or 0) > 0, "some", 60)
        prometheus.kill()
        prometheus.start()
    for number in (3 * phase, 4 * phase):
        writer.go(number + phase - 1, number)
        writer.end(kill=True)
        writer = Writer(tmp_path, prometheus.url, start_ms, writer.taken + 1, NUMBERS - 1)
    writer.go(NUMBERS - 1, NUMBERS - 1)
    assert writer.end() == 0
    check_all_arrived(prometheus, NUMBERS)
    dropped = {k: v for k, v in writer.counters.items() if "samples_dropped" in k}
    # What was in the log, but not said to be taken, was appended again.
    assert set(dropped) <= {"agent_remote_write_samples_dropped repeated"}
    assert sum(dropped.values()) <= SERIES


@contextlib.contextmanager
def writing(prometheus: RealPrometheus, tmp_path: Path, more: str = "") -> Iterator[RemoteWrite]:
    text = f"""prometheus.remote_write "x" {{
  endpoint {{
    url = "{prometheus.url}/api/v1/write"
    {more}
    queue_config {{
      batch_send_deadline = "10ms"
    }}
    metadata_config {{
      send_interval = "100ms"
    }}
  }}
}}
"""
    writer = RemoteWrite(context_of(tmp_path / "own"), content_of(text))
    writer.start()
    try:
        yield writer
    finally:
        writer.stop(30)


def metrics() -> otlp.MetricsData:
    """One metric of each kind, of one resource, now."""
    data = otlp.MetricsData()
    resource = data.resource_metrics.add()
    for key, value in (("service.name", "shop"), ("service.namespace", "eu"),
                       ("service.instance.id", "7"), ("host.name", "web")):  # fmt: skip
        resource.resource.attributes.add(key=key).value.string_value = value
    found = resource.scope_metrics.add().metrics
    now = time.time_ns()
    calls = found.add(name="messaging.client.sent.messages", unit="{message}", description="Sent.")
    calls.sum.aggregation_temporality, calls.sum.is_monotonic = 2, True
    exemplar = otlp.Exemplar(
        as_double=1.0, time_unix_nano=now, trace_id=b"\xab" * 16, span_id=b"\xcd" * 8
    )
    calls.sum.data_points.add(as_int=41, time_unix_nano=now, exemplars=[exemplar])
    cpu = found.add(name="process.cpu.utilization", unit="1")
    cpu.gauge.data_points.add(as_double=0.25, time_unix_nano=now)
    gone = found.add(name="gone")
    gone.gauge.data_points.add(flags=1, time_unix_nano=now)
    duration = found.add(name="http.server.request.duration", unit="s", description="Duration.")
    duration.histogram.aggregation_temporality = 2
    duration.histogram.data_points.add(
        count=10, sum=4.5, explicit_bounds=[0.005, 10.0], bucket_counts=[1, 2, 7],
        time_unix_nano=now,
    )  # fmt: skip
    native = found.add(name="db.duration", unit="s")
    native.exponential_histogram.aggregation_temporality = 2
    buckets = otlp.ExponentialHistogramDataPoint.Buckets(offset=0, bucket_counts=[4, 0, 0, 0, 0, 4])
    native.exponential_histogram.data_points.add(
        count=10, sum=50.0, scale=0, zero_count=2, positive=buckets, time_unix_nano=now
    )
    return data


@pytest.mark.parametrize("protocol", ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"])
def test_what_prometheus_makes_of_otlp(
    prometheus: RealPrometheus, tmp_path: Path, protocol: str
) -> None:
    """Names, labels, exemplars, native histograms; Prometheus 2.42 makes us fall back to 1.0."""
    own = f'protobuf_message = "{protocol}"\nsend_native_histograms = true'
    with writing(prometheus, tmp_path, own) as writer:
        exporter = ExporterPrometheus(
            context_of(tmp_path),
            content_of('otelcol.exporter.prometheus "x" { forward_to = [STORE] }', STORE=writer),
        )
        data = metrics()
        exporter.metrics(Metrics(otlp.MetricsData, 5, data.SerializeToString()))
        whose = '{job="eu/shop",instance="7"}'
        prometheus.wait_for(f"messaging_client_sent_messages_total{whose}", 41)
        prometheus.wait_for(f"process_cpu_utilization_ratio{whose}", 0.25)
        prometheus.wait_for('target_info{job="eu/shop",instance="7",host_name="web"}', 1)
        name = "http_server_request_duration_seconds"
        for suffix, value in (
            ("_count", 10), ("_sum", 4.5), ('_bucket{le="0.005"}', 1), ('_bucket{le="10"}', 3),
            ('_bucket{le="+Inf"}', 10),
        ):  # fmt: skip
            prometheus.wait_for(name + suffix, value)
        prometheus.wait_for(f"histogram_count(db_duration_seconds{whose})", 10)
        prometheus.wait_for("histogram_sum(db_duration_seconds)", 50)
        # 4 in (1, 2], 4 in (32, 64]: the fraction of those up to 2 is 6 of 10.
        prometheus.wait_for("round(histogram_fraction(0, 2, db_duration_seconds) * 10)", 6)
        assert prometheus.query("gone") == []
        asked = {"query": "messaging_client_sent_messages_total", "start": time.time() - 600,
                 "end": time.time() + 600}  # fmt: skip
        (series,) = prometheus.get(f"/api/v1/query_exemplars?{urllib.parse.urlencode(asked)}")
        (example,) = series["exemplars"]
        assert example["labels"] == {"trace_id": "ab" * 16, "span_id": "cd" * 8}
        wait_until(lambda: writer.health()[1] == "", "nothing is wrong")
    assert prometheus.refused() == []


def test_a_scraped_page_arrives_and_ends(prometheus: RealPrometheus, tmp_path: Path) -> None:
    """Prometheus's own page is scraped into itself; then it has an address that nobody is at."""
    with writing(prometheus, tmp_path) as writer:
        text = f"""prometheus.scrape "self" {{
  targets         = [{{ "__address__" = "127.0.0.1:{prometheus.port}", "env" = "test" }}]
  forward_to      = [STORE]
  job_name        = "self"
  scrape_interval = "200ms"
  scrape_timeout  = "200ms"
}}"""
        scrape = Scrape(context_of(tmp_path), content_of(text, STORE=writer))
        prometheus.wait_for("vector(1)", 1)
        scrape.start()
        try:
            prometheus.wait_for('max_over_time(up{job="self",env="test"}[1h])', 1)
            expression = 'count(prometheus_build_info{job="self",env="test",version=~"2.*"})'
            prometheus.wait_for(expression, 1)
            prometheus.wait_for('count(scrape_samples_scraped{job="self"} > 100)', 1)
        finally:
            scrape.stop(10)
        now_ms = time.time_ns() // 1_000_000 + 1000
        info = prometheus.query('prometheus_build_info{job="self"}')[0]["metric"]
        writer.append([Sample(tuple(sorted(info.items())), STALE, now_ms)])
        wait_until(
            lambda: prometheus.query("prometheus_build_info", time=str(now_ms / 1000 + 1)) == [],
            "it is stale", 60,
        )  # fmt: skip
    assert prometheus.refused() == []
