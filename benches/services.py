# SPDX-License-Identifier: Apache-2.0
"""The services that are measured. Each runs on the service's CPU and writes no access log."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import self_signed
from tests.e2e.harness.process import Process, accepts, free_port

from benches.harness import BENCHES, BUILT, ROOT, SERVICE_CPU, pinned

EPOLL = ROOT / ".build" / "e2e" / "epoll"
VENV = ROOT / ".build" / "bench-otel" / "bin"
ITEM = "/items/17"
START_SECONDS = 90.0  # a Java agent rewrites every class that it looks at
MODULES = BUILT / "node" / "node_modules"
JAVA = BUILT / "java"
Command = Callable[[int, Path], list[str | Path]]


@dataclass(frozen=True)
class Service:
    """``command(port, directory)`` gives the words to run it.

    ``with_sdk`` those with OpenTelemetry's own instrumentation of its language, as that is started
    by its documentation.
    """

    title: str
    command: Command
    with_sdk: Command | None = None
    path: str = ITEM  # what is asked for


def _nginx(port: int, directory: Path, ssl: str = "", files: str = "") -> list[str | Path]:
    (directory / "items").mkdir(exist_ok=True)
    (directory / "items" / "17").write_text("item 17\n")
    text = (BENCHES / "servers" / "nginx.conf").read_text()
    configuration = directory / "nginx.conf"
    marks = {"PORT": str(port), "DIR": str(directory), "SSL": ssl, "CERTIFICATE": files}
    for mark, value in marks.items():
        text = text.replace(f"@{mark}@", value)
    configuration.write_text(text)
    return ["nginx", "-p", directory, "-c", configuration]


def nginx_over_tls(port: int, directory: Path) -> list[str | Path]:
    """The same nginx, with a certificate of its own."""
    cert, key = self_signed(directory, "server")
    return _nginx(port, directory, " ssl", f"ssl_certificate {cert}; ssl_certificate_key {key};")


def _uvicorn(port: int, _: Path) -> list[str | Path]:
    words = "--no-access-log --log-level warning --app-dir"
    app: list[str | Path] = [BENCHES / "servers", "--port", str(port), "fastapi_app:application"]
    return [VENV / "uvicorn", *words.split(), *app]


def _gunicorn(port: int, _: Path) -> list[str | Path]:
    words = "--workers 1 --worker-class gthread --threads 4 --keep-alive 60 --log-level warning"
    app: list[str | Path] = ["--pythonpath", BENCHES / "servers", "--bind", f"127.0.0.1:{port}"]
    return [VENV / "gunicorn", *words.split(), *app, "flask_app:application"]


def _node(*options: str | Path) -> Command:
    return lambda port, _: ["node", *options, BENCHES / "servers" / "node" / "app.js", str(port)]


def _java(*options: str) -> Command:
    words = ["java", "-Xmx256m", "-Dsun.net.httpserver.nodelay=true", *options]
    return lambda port, _: [*words, "-cp", JAVA, "App", str(port)]


def _instrumented(command: Command) -> Command:
    return lambda port, directory: [VENV / "opentelemetry-instrument", *command(port, directory)]


REGISTER = MODULES / "@opentelemetry" / "auto-instrumentations-node" / "dist/register.cjs"
JAVA_AGENT = JAVA / "opentelemetry-javaagent-2.9.0.jar"
SERVICES = {
    "epoll": Service("C, epoll", lambda port, _: [EPOLL, "-p", str(port)]),
    "nginx": Service("nginx, static file, 1 worker", _nginx),
    "go": Service("Go net/http", lambda port, _: [BUILT / "nethttp", str(port)]),
    "fastapi": Service("FastAPI on uvicorn", _uvicorn, _instrumented(_uvicorn)),
    "flask": Service(
        "Flask on gunicorn (1 worker, 4 threads)", _gunicorn, _instrumented(_gunicorn)
    ),
    "node": Service("Node.js http", _node(), _node("--require", REGISTER)),
    "java": Service("JDK HttpServer (4 threads)", _java(), _java(f"-javaagent:{JAVA_AGENT}")),
}


@dataclass(frozen=True)
class Running:
    """A service that listens."""

    port: int
    process: Process
    directory: Path


@contextlib.contextmanager
def running(
    command: Command, directory: Path, name: str, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Start a service with its files in a directory of its own; end it after."""
    own, port = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=directory)), free_port()
    with Process(pinned(SERVICE_CPU, command(port, own)), own / "stderr", env=env) as process:
        process.wait_for(lambda: accepts(port), f"{name} listens", START_SECONDS)
        yield Running(port, process, own)


def sdk_environment(sink: int) -> dict[str, str]:
    """Metrics and traces by OTLP/HTTP, everything else as it comes."""
    return {
        "OTEL_SERVICE_NAME": "measured",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink}",
    }


def logging_epoll(port: int, directory: Path) -> list[str | Path]:
    """The C server with its own record of what it served."""
    return [EPOLL, "-p", str(port), "-l", directory / "access.log"]


def served(service: Running) -> int:
    """Requests that the log of the C server tells of: one line each."""
    with (service.directory / "access.log").open("rb") as lines:
        return sum(1 for _ in lines)
