# SPDX-License-Identifier: Apache-2.0
"""Services with a live OpenTelemetry SDK of their own: never two server spans of one request."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.e2e.harness.otelauto import Otelauto
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.e2e.harness.receiver import GrpcReceiver, Receiver, attributes
from tests.e2e.harness.servers import BUILT, SERVERS

from otelauto.control import ask

pytestmark = pytest.mark.e2e
SDK = SERVERS / "sdk"
REQUESTS = 23
DURATION = "http.server.request.duration"
PROGRAMS = Path(sys.executable).parent
ENVIRON = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
    "OTEL_SERVICE_NAME": "shop",
}
Seen = Counter[tuple[str, str, str]]  # by whom, span kind, kind of path


@dataclass
class Live:
    """A server with an SDK, what it asks, and what was received of whom."""

    port: int
    receiver: Receiver
    process: Process

    def ask(self, path: str, count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        for number in range(count):
            connection.request("GET", f"/{path}/{number}")
            assert connection.getresponse().read()
        connection.close()

    def seen(self) -> Seen:
        found: Seen = Counter()
        for resource, span in self.receiver.spans():
            who = str(attributes(resource.attributes)["telemetry.sdk.name"])
            said = attributes(span.attributes)
            url = str(said.get("url.path") or said.get("http.target") or said.get("url.full")
                      or said.get("http.url") or "")  # fmt: skip
            path = url.partition("127.0.0.1")[2].partition("/")[2] if "://" in url else url[1:]
            found[who, {2: "server", 3: "client"}.get(span.kind, "other"), path.split("/")[0]] += 1
        return found

    def wait_for(self, key: tuple[str, str, str], count: int) -> None:
        self.process.wait_for(lambda: self.seen()[key] >= count, f"{count} of {key}", 60)


@contextlib.contextmanager
def backend() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def live(language: str, directory: Path) -> Iterator[Live]:
    with backend() as asked, Receiver() as receiver, GrpcReceiver(receiver.exports) as by_grpc:
        port, url = free_port(), f"http://127.0.0.1:{receiver.port}"
        words: dict[str, list[str | Path]] = {
            "python": [PROGRAMS / "opentelemetry-instrument", sys.executable, SDK / "app.py"],
            "python, gRPC": [sys.executable, SDK / "own.py"],
            "node": ["node", SDK / "app.js"],
            "java": [
                "java", f"-javaagent:{BUILT}/sdk/opentelemetry-javaagent.jar", "-Xmx256m",
                "-cp", BUILT / "sdk", "App",
            ],
        }  # fmt: skip
        by_itself = language in ("node", "python, gRPC")  # no variable tells of it
        environ = {**ENVIRON, "OTEL_EXPORTER_OTLP_ENDPOINT": url}
        target = f"http://127.0.0.1:{by_grpc.port}" if "gRPC" in language else f"{url}/v1/traces"
        command = [*words[language], str(port), str(asked), target]
        errors = directory / "server.err"
        with Process(command, errors, env={} if by_itself else environ) as process:
            process.wait_for(lambda: accepts(port), "it listens", 90)
            yield Live(port, receiver, process)


@contextlib.contextmanager
def watching(one: Live, directory: Path, mode: str) -> Iterator[Otelauto]:
    endpoint = {"endpoint": f"http://127.0.0.1:{one.receiver.port}"}
    yaml = {
        "ebpf": {"open_port": one.port},
        "control_socket": str(directory / "control"),
        "otel_traces_export": {**endpoint, "batch_timeout": "50ms"},
        "otel_metrics_export": {**endpoint, "interval": "200ms"},
        **({"existing_sdk": mode} if mode else {}),
    }
    with Otelauto(directory, json.dumps(yaml)) as otelauto:
        yield otelauto


def counted(one: Live) -> int:
    return sum(point.count for point in one.receiver.points(DURATION))


OURS, THEIRS = "otelauto", "opentelemetry"


@pytest.mark.parametrize(
    ("language", "evidence"), [("python", "agent in PYTHONPATH"), ("java", "agent in arguments")]
)
def test_found_at_discovery(tmp_path: Path, language: str, evidence: str) -> None:
    with live(language, tmp_path) as one:
        # The default is to complement.
        with watching(one, tmp_path, ""):
            (target,) = ask(tmp_path / "control")["targets"]
            assert target["sdk"] == evidence
            one.ask("call", REQUESTS)
            one.ask("items", REQUESTS)
            one.wait_for((THEIRS, "server", "items"), REQUESTS)
            one.wait_for((OURS, "client", "plain"), REQUESTS)
            wait_until(lambda: counted(one) == 2 * REQUESTS, "all are measured", 60)
        seen = one.seen()
        for path in ("items", "call"):
            assert seen[THEIRS, "server", path] == REQUESTS
        assert seen[THEIRS, "client", "traced"] == REQUESTS
        ours = {key: count for key, count in seen.items() if key[0] == OURS}
        assert ours == {(OURS, "client", "plain"): REQUESTS}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live("python", tmp_path_factory.mktemp("python")) as one:
        yield one


def counter(directory: Path, name: str) -> int:
    counters = ask(directory / "control")["counters"]
    return sum(total for counted, _, total in counters if counted == name)


@pytest.mark.parametrize("mode", ["metrics", "skip", "ignore"])
def test_modes(tmp_path: Path, python: Live, mode: str) -> None:
    before, exports = python.seen(), len(python.receiver.exports)
    with watching(python, tmp_path, mode):
        python.ask("call", REQUESTS)
        python.wait_for((THEIRS, "server", "call"), before[THEIRS, "server", "call"] + REQUESTS)
        if mode == "ignore":
            python.wait_for((OURS, "client", "plain"), REQUESTS)
            python.wait_for((OURS, "server", "call"), REQUESTS)
        if mode == "skip":
            left = "exchanges_not_measured"
            wait_until(lambda: counter(tmp_path, left) >= 3 * REQUESTS, "all were seen", 60)
        else:
            wait_until(lambda: counted(python) == REQUESTS, "all are measured", 60)
    told = {path for path, _, _ in python.receiver.exports[exports:]}
    assert ("/v1/metrics" in told) is (mode != "skip")
    ours = {key: n for key, n in (python.seen() - before).items() if key[0] == OURS}
    ours.pop((OURS, "client", "v1"), None)  # the SDK's exports, in mode ignore
    everything = {
        (OURS, "server", "call"): REQUESTS,
        (OURS, "client", "traced"): REQUESTS,
        (OURS, "client", "plain"): REQUESTS,
    }
    assert ours == (everything if mode == "ignore" else {})


def test_a_variable_alone_is_believed_with_a_warning(tmp_path: Path) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "ACCESS_LOG": str(tmp_path / "access.log"),
    }
    script, port = SERVERS / "python" / "http_server.py", free_port()
    words = [sys.executable, script, str(port)]
    with Receiver() as receiver, Process(words, tmp_path / "server.err", env=environ) as process:
        process.wait_for(lambda: accepts(port), "it listens")
        one = Live(port, receiver, process)
        with watching(one, tmp_path, "") as otelauto:
            one.ask("items", REQUESTS)
            wait_until(lambda: counted(one) == REQUESTS, "all are measured", 60)
            assert "if it has none, set existing_sdk: ignore" in otelauto.process.stderr()
        assert receiver.spans() == []
        with watching(one, tmp_path, "ignore") as otelauto:
            one.ask("items", REQUESTS)
            one.wait_for((OURS, "server", "items"), REQUESTS)
            assert "existing_sdk" not in otelauto.process.stderr()


@pytest.mark.parametrize("language", ["node", "python, gRPC"])
def test_found_by_its_traffic(tmp_path: Path, language: str) -> None:
    """Until its first export nothing tells; from then on the server spans are the SDK's alone."""
    with live(language, tmp_path) as one, watching(one, tmp_path, "complement"):
        (target,) = ask(tmp_path / "control")["targets"]
        assert target["sdk"] == ""
        one.ask("items", 1)

        def known() -> bool:
            (target,) = ask(tmp_path / "control")["targets"]
            return bool(target["sdk"] == "OTLP traffic")

        wait_until(known, "it is known", 60)
        assert one.seen()[OURS, "server", "items"] <= 1
        one.ask("call", REQUESTS)
        one.wait_for((THEIRS, "server", "call"), REQUESTS)
        one.wait_for((OURS, "client", "plain"), REQUESTS)
        wait_until(lambda: counted(one) == REQUESTS + 1, "all are measured", 60)
        seen = one.seen()
        assert seen[THEIRS, "server", "call"] == seen[OURS, "client", "plain"] == REQUESTS
        assert seen[THEIRS, "client", "traced"] == REQUESTS
        assert seen[OURS, "server", "call"] == seen[OURS, "client", "traced"] == 0
