# SPDX-License-Identifier: Apache-2.0
"""The agent with the document's own pipeline, from a service to real stores."""

from __future__ import annotations

import contextlib
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.backends import Gate, Prometheus
from tests.e2e.harness.otelauto import PROGRAM, Otelauto
from tests.e2e.harness.process import Process, free_port, wait_until
from tests.e2e.harness.receiver import GrpcReceiver, Receiver, attributes
from tests.e2e.test_attach import BY_NAME
from tests.e2e.test_otlp import CLEAR, REQUESTS, ask
from tests.house.scan import ROOT
from tests.scale import PATIENCE

pytestmark = pytest.mark.e2e
RIVER = (ROOT / "examples" / "agent-config.river").read_text()
INSTRUMENTER = (ROOT / "examples" / "instrumenter-config.yml").read_text()
KEY, WRONG = "VHJhbGFyw60gcXVlIHRlIHbD=", "Zm9yZ290dGVu"
MIMIR, TEMPO = "734432", "99"
PUSHED = "sum(http_server_request_duration_seconds_count)"


BEYLA = """
beyla.ebpf "here" {
  open_port = "%d"
  output { traces = [otelcol.exporter.otlphttp.there.input] }
}
otelcol.exporter.otlphttp "there" {
  client { endpoint = "http://127.0.0.1:%d" }
}
"""


class Agent:
    """``otelauto agent run`` of a file."""

    def __init__(self, directory: Path, text: str, variables: Mapping[str, str]) -> None:
        self.page = free_port()
        self._directory = directory
        self._variables = variables
        self._file = directory / "agent-config.river"
        self._file.write_text(text)

    @contextlib.contextmanager
    def running(self, ends_with: int = 0) -> Iterator[Process]:
        words = [
            PROGRAM, "agent", "run", self._file, "--storage.path", self._directory / "data",
            "--server.http.listen-addr", f"127.0.0.1:{self.page}",
        ]  # fmt: skip
        with Process(words, self._directory / "agent.err", env=self._variables) as process:
            process.wait_for(lambda: self.ask("/-/ready").startswith("Agent is R"), "ready", 30)
            yield process
            assert process.stop() == ends_with, process.stderr()

    def ask(self, path: str = "/") -> str:
        """A page; that of an error, too."""
        url = f"http://127.0.0.1:{self.page}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10 * PATIENCE) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except urllib.error.URLError:
            return ""

    def counted(self, name: str, component: str, label: str = "") -> int:
        """A counter of a component; 0 if nothing was counted."""
        start = f'otelauto_agent_{name}_total{{component_id="{component}"'
        rows = [line for line in self.ask("/metrics").splitlines() if line.startswith(start)]
        return sum(int(float(row.rpartition(" ")[2])) for row in rows if label in row)


class DocumentsAgent(Agent):
    """That of the document's file; the receiver's ports are free ones."""

    def __init__(self, directory: Path, gate: Gate, key: str) -> None:
        self.grpc, self.http = free_port(), free_port()
        text = RIVER
        for kind, port in (("grpc", self.grpc), ("http", self.http)):
            bound = f'{kind} {{\n    endpoint = "127.0.0.1:{port}"\n  }}'
            assert f"{kind} {{}}" in text
            text = text.replace(f"{kind} {{}}", bound)
        variables = {
            "MIMIR_USER": MIMIR,
            "MIMIR_ENDPOINT": f"localhost:{gate.mimir}",
            "GRAFANA_API_KEY": key,
            "TEMPO_ENDPOINT": f"localhost:{gate.tempo}",
            "TEMPO_USER": TEMPO,
            "SSL_CERT_FILE": gate.certificate,
        }
        super().__init__(directory, text, variables)


@contextlib.contextmanager
def instrumented(directory: Path, agent: DocumentsAgent) -> Iterator[int]:
    """The port of a service that an instrumenter watches, with the document's configuration."""
    with servers.running(BY_NAME["c-epoll"], directory) as service:
        yaml = INSTRUMENTER.replace("443", str(service.port)).replace("4318", str(agent.http))
        with Otelauto(directory, yaml, {**CLEAR, "OTEL_METRIC_EXPORT_INTERVAL": "200"}):
            yield service.port


def settled(agent: Agent, count: int) -> None:
    """Wait until the exporter of the agent has so many spans."""

    def enough() -> bool:
        return agent.counted("items_taken", "otelcol.exporter.otlp.tempo", "spans") >= count

    wait_until(enough, "the agent has the spans", 30)


def check(receiver: GrpcReceiver, prometheus: Prometheus) -> None:
    """Each request is one span, and counted once."""
    paths = [attributes(span.attributes)["url.path"] for _, span in receiver.spans()]
    assert sorted(paths) == sorted([*(f"/items/{n}" for n in range(REQUESTS)), "/status/500"])
    for _, metadata, _ in receiver.exports:
        assert metadata["user-agent"].startswith("OTel-OTLP-Exporter-otelauto")
    wait_until(lambda: prometheus.total(PUSHED) == REQUESTS + 1, "all requests are counted", 40)
    errors = '{http_response_status_code="500"}'
    counted = f"http_server_request_duration_seconds_count{errors}"
    (row,) = prometheus.query(counted)
    assert row["metric"]["job"] == "epoll"
    assert row["value"][1] == "1"
    assert prometheus.total("count(target_info)") == 1
    quantile = "histogram_quantile(0.99, sum by (le) (http_server_request_duration_seconds_bucket))"
    assert 0 < prometheus.total(quantile) < 60


def test_a_wrong_key_is_seen_and_loses_nothing(tmp_path: Path) -> None:
    """Corrected for the metrics while the agent runs, for the traces while it is down."""
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(GrpcReceiver())
        prometheus = stack.enter_context(Prometheus(tmp_path))
        gate = stack.enter_context(Gate(tmp_path, prometheus.port, receiver.port).open())
        gate.admit({MIMIR: WRONG, TEMPO: WRONG})
        agent = DocumentsAgent(tmp_path, gate, KEY)
        with agent.running() as process:
            with instrumented(tmp_path, agent) as port:
                ask(port, REQUESTS)
                settled(agent, REQUESTS + 1)
                trouble = ("HTTP 401", "UNAUTHENTICATED")
                wait_until(lambda: all(t in agent.ask("/-/healthy") for t in trouble), "unhealthy")
            page, log = agent.ask(), process.stderr()
            for text in trouble:
                assert text in page
                assert text in log
            for text in (page, log, agent.ask("/metrics")):
                assert KEY not in text
            assert agent.counted("exporter_attempts_failed", "otelcol.exporter.otlp.tempo")
            assert agent.counted("remote_write_requests_failed", "prometheus.remote_write.mimir")
            assert receiver.exports == []
            gate.admit({MIMIR: KEY, TEMPO: WRONG})
            wait_until(lambda: prometheus.total(PUSHED) == REQUESTS + 1, "the metrics came", 40)
        gate.admit({MIMIR: KEY, TEMPO: KEY})
        with agent.running() as process:
            process.popen.send_signal(signal.SIGHUP)
            done = 'otelauto_agent_reloads_total{result="done"} 1'
            wait_until(lambda: done in agent.ask("/metrics").splitlines(), "it was read again")
            wait_until(lambda: len(receiver.spans()) >= REQUESTS + 1, "the spans came", 30)
            check(receiver, prometheus)
            assert agent.counted("exporter_items_recovered", "otelcol.exporter.otlp.tempo")
            assert not agent.counted("exporter_items_dropped", "otelcol.exporter.otlp.tempo")
            assert not agent.counted(
                "remote_write_samples_dropped", "prometheus.remote_write.mimir"
            )
            assert agent.ask("/-/healthy") == "All components are healthy.\n"
    assert "401" in gate.statuses()


def test_the_instrumenter_as_a_component(tmp_path: Path) -> None:
    """It is watched, and does not outlive the agent, not even a killed one."""
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        service = stack.enter_context(servers.running(BY_NAME["c-epoll"], tmp_path))
        agent = Agent(tmp_path, BEYLA % (service.port, receiver.port), {})
        with agent.running(ends_with=-signal.SIGKILL) as process:
            process.wait_for(lambda: "watching " in process.stderr(), "it watches", 30)
            ask(service.port, REQUESTS)
            wait_until(lambda: len(receiver.spans()) >= REQUESTS + 1, "the spans came", 30)
            assert agent.ask("/-/healthy") == "All components are healthy.\n"
            (_, child) = process.pids()
            process.popen.kill()
            wait_until(lambda: not Path(f"/proc/{child}").exists(), "it ended, too", 30)
        paths = [attributes(span.attributes)["url.path"] for _, span in receiver.spans()]
        assert len(set(paths)) == len(paths) == REQUESTS + 1
