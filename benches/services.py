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
Command = Callable[[int, Path], list[str | Path]]


@dataclass(frozen=True)
class Service:
    """``command(port, directory)`` gives the words to run it."""

    title: str
    command: Command
    has_sdk: bool = False  # there is an `opentelemetry-instrument` for it
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


SERVICES = {
    "epoll": Service("C, epoll", lambda port, _: [EPOLL, "-p", str(port)]),
    "nginx": Service("nginx, static file, 1 worker", _nginx),
    "go": Service("Go net/http", lambda port, _: [BUILT / "nethttp", str(port)]),
    "fastapi": Service("FastAPI on uvicorn", _uvicorn, has_sdk=True),
    "flask": Service("Flask on gunicorn (1 worker, 4 threads)", _gunicorn, has_sdk=True),
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
        process.wait_for(lambda: accepts(port), f"{name} listens")
        yield Running(port, process, own)


def with_sdk(service: Service) -> Command:
    """The service under `opentelemetry-instrument`, as its documentation starts it."""

    def command(port: int, directory: Path) -> list[str | Path]:
        return [VENV / "opentelemetry-instrument", *service.command(port, directory)]

    return command


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
