# SPDX-License-Identifier: Apache-2.0
"""Ten thousand secrets pass by, or lie where otelauto looks: none comes out anywhere."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.otelauto import Otelauto
from tests.e2e.harness.process import Process, free_port, wait_until
from tests.e2e.harness.rig import PROGRAM, page_of, run
from tests.e2e.test_attach import BY_NAME
from tests.house.scan import ROOT
from tests.scale import PATIENCE
from tests.unit.test_otlp_http import Receiver

from otelauto.control import ask
from otelauto.export.spool import DiskSpool

pytestmark = pytest.mark.e2e

MARK = b"canary-"
KINDS = 7  # secrets of one request
REQUESTS = 480  # of each of three runs: 10,080 secrets
# The mark in base64, wherever in a text it begins.
HIDDEN = [
    base64.b64encode(b"x" * shift + MARK)[-(-shift * 8 // 6) : (shift + len(MARK)) * 8 // 6]
    for shift in range(3)
]


def leaks(name: str, data: bytes) -> list[str]:
    """Where ``data`` holds a secret, plain or in base64."""
    pattern = b"|".join([re.escape(MARK), *map(re.escape, HIDDEN)])
    found = re.findall(b".{0,40}(?:" + pattern + b").{0,20}", data, re.DOTALL | re.IGNORECASE)
    return [f"{name}: {each!r}" for each in found]


def secret(number: int, kind: str) -> str:
    return f"{MARK.decode()}{number}-{kind}"


def request(number: int) -> bytes:
    """One request with a secret in each place that has some."""
    basic = base64.b64encode(f"user:{secret(number, 'basic')}".encode()).decode()
    body = f"password={secret(number, 'body')}"
    userinfo, query = f"user:{secret(number, 'userinfo')}", f"token={secret(number, 'query')}"
    lines = (
        f"POST http://{userinfo}@localhost/items/{number}?{query} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Basic {basic}",
        f"Cookie: sid={secret(number, 'cookie')}",
        f"X-Api-Key: {secret(number, 'key')}",
        f"Referer: http://localhost/?reset={secret(number, 'referer')}",
        f"Content-Length: {len(body)}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def ask_all(port: int, first: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        answers = connection.makefile("rb")
        for number in range(first, first + REQUESTS):
            connection.sendall(request(number))
            assert answers.readline().startswith(b"HTTP/1.1 ")
            length = 0
            while (line := answers.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            answers.read(length)


@pytest.fixture(name="served")
def fixture_served(tmp_path: Path) -> Iterator[servers.Running]:
    """A server whose environment has secrets too, such as a collector's password."""
    environment = {
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={secret(0, 'environment')}",
        "DATABASE_URL": f"postgres://u:{secret(0, 'database')}@db/shop",
        "OTEL_RESOURCE_ATTRIBUTES": "team=shop",
    }
    server = dataclasses.replace(BY_NAME["c-epoll"], env=environment)
    with servers.running(server, tmp_path) as running:
        yield running


def config(directory: Path, served: servers.Running, port: int, page: int) -> str:
    login = f"otel:{secret(0, 'endpoint')}@"
    return json.dumps(
        {
            "log_level": "DEBUG",
            "state_directory": str(directory / "state"),
            "control_socket": str(directory / "control.sock"),
            "ebpf": {"open_port": served.port},
            "otel_traces_export": {
                "endpoint": f"http://{login}127.0.0.1:{port}",
                "headers": {"x-scope": secret(0, "header")},
            },
            "otel_metrics_export": {
                "endpoint": f"http://127.0.0.1:{port}",
                "interval": "200ms",
                "headers": {"x-api-key": "${COLLECTOR_KEY}"},
            },
            "prometheus_export": {"port": page},
        }
    )


def spooled(directory: Path) -> bytes:
    found = []
    spool = DiskSpool(directory / "state/spool/traces", 1 << 30, lambda *_: None, lambda _: None)
    spool.open()
    while (entry := spool.head()) is not None:
        found.append(entry.data)
        spool.acknowledge(entry)
    spool.close()
    return b"".join(found)


def test_no_secret_comes_out(tmp_path: Path, served: servers.Running) -> None:
    port, page = free_port(), free_port()
    yaml = config(tmp_path, served, port, page)
    key = {"COLLECTOR_KEY": secret(0, "variable")}
    found: list[str] = []
    with Otelauto(tmp_path, yaml, key) as otelauto:  # nobody takes what it sends
        ask_all(served.port, 0)
        status = lambda: ask(tmp_path / "control.sock")  # noqa: E731
        kept = lambda: status()["exporters"]["otlp_traces"]["spooled"] == REQUESTS  # noqa: E731
        wait_until(kept, "all spans are on disk")
        found += leaks("status", json.dumps(status()).encode())
        began = time.monotonic()
        assert otelauto.stop() == 0
        assert time.monotonic() - began < 5 * PATIENCE
    log = otelauto.process.stderr().encode()
    assert b"level=DEBUG" in log or b"trying again" in log
    found += leaks("log", log)
    disk = spooled(tmp_path)
    assert disk.count(b"/items/") >= REQUESTS
    found += leaks("spool", disk)

    receiver = Receiver(port=port)
    try:
        with Otelauto(tmp_path, yaml, key) as otelauto:
            ask_all(served.port, REQUESTS)
            bodies = lambda: b"".join(body for _, _, body in receiver.requests)  # noqa: E731
            wait_until(lambda: bodies().count(b"/items/") >= REQUESTS, "all spans are sent")
            text = page_of(page)
            assert "http_server_request_duration_seconds_count" in text
            assert "otelauto_otlp_traces_spans_spooled 0" in text
            found += leaks("page", text.encode())
            otelauto.stop()
        assert any(path == "/v1/metrics" for path, _, _ in receiver.requests)
        assert any(secret(0, "header") in str(headers) for _, headers, _ in receiver.requests)
        found += leaks("OTLP", bodies())
        found += leaks("log", otelauto.process.stderr().encode())
    finally:
        receiver.close()

    file = tmp_path / "recording"
    command = [PROGRAM, "record", "-o", file, "--open-port", str(served.port), "--debug"]
    with Process(command, tmp_path / "record.err") as recorder:
        recorder.wait_for(lambda: "recording file=" in recorder.stderr(), "it records")
        ask_all(served.port, 2 * REQUESTS)
        assert recorder.stop() == 0
    content = file.read_bytes()
    assert content.count(b"/items/") >= REQUESTS
    found += leaks("recording", content)
    found += leaks("log", recorder.stderr().encode())
    shown = run("config", "--print", "--config", tmp_path / "otelauto.yml", env={**key})
    assert "otel_traces_export" in shown.output
    found += leaks("config", (shown.output + shown.errors).encode())
    assert not found, f"{len(found)} of {3 * KINDS * REQUESTS}: {found[:10]}"


def test_a_leak_would_be_found() -> None:
    sent = request(1)
    assert len(leaks("plain", sent)) >= 1
    for shift in range(3):
        text = b"u" * shift + b":" + secret(1, "basic").encode()
        assert leaks("base64", base64.b64encode(text))
    assert not leaks("page", b"canaries GET /items/1 Y2Fu")


CORE = """
import ctypes, sys
from otelauto import app

class Told(Exception):
    pass

def tell(*_, **__):
    sys.stdout.write(str(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)))  # PR_GET_DUMPABLE
    sys.stdout.flush()
    raise Told

app.App = app.Watcher = app.Reader = app.Writer = tell
command, *rest = sys.argv[1:]
arguments = {"run": (None,), "record": (None, None, True, None), "replay": (None, None)}[command]
try:
    getattr(app, command)(*arguments)
except Told:
    pass
"""


@pytest.mark.parametrize("command", ["run", "record", "replay"])
def test_no_core_is_dumped(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CORE, command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0"


def test_what_waits_is_delivered_after_a_restart(tmp_path: Path) -> None:
    """Also after a kill: the spool is read, and nothing comes twice."""
    port, page = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(servers.running(BY_NAME["c-epoll"], tmp_path))
        yaml = config(tmp_path, served, port, page)
        killed = Otelauto(tmp_path, yaml, {"COLLECTOR_KEY": "x"})
        stack.callback(killed.stop)
        killed.wait_ready()
        ask_all(served.port, 0)
        kept = lambda: ask(tmp_path / "control.sock")["exporters"]["otlp_traces"]["spooled"]  # noqa: E731
        wait_until(lambda: kept() == REQUESTS, "all spans are on disk")
        killed.stop(signal.SIGKILL)
        receiver = Receiver(port=port)
        stack.callback(receiver.close)
        with Otelauto(tmp_path, yaml, {"COLLECTOR_KEY": "x"}):
            ask_all(served.port, REQUESTS)
            paths = lambda: re.findall(  # noqa: E731
                rb"/items/\d+", b"".join(body for _, _, body in receiver.requests)
            )
            wait_until(lambda: len(set(paths())) == 2 * REQUESTS, "all spans arrive")
        assert len(paths()) == 2 * REQUESTS
