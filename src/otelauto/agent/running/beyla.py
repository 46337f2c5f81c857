# SPDX-License-Identifier: Apache-2.0
"""``beyla.ebpf``: the instrumenter as a component, in a process of its own.

It sends what it sees by OTLP to a receiver here, which passes it on; back-pressure reaches it as
the receiver's answers.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from otelauto.agent.components.otelcol import RECEIVER_OTLP
from otelauto.agent.pipeline import Context, Health, Running
from otelauto.agent.river.values import Capsule, Value
from otelauto.agent.running.receiver_otlp import ReceiverOtlp
from otelauto.agent.schema import HANDLER, Block, Decoded
from otelauto.errors import ConfigError, OtelautoError

AGAIN_S: Final = 5.0  # after the instrumenter ended by itself
KEPT: Final = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")
UNMATCHED: Final = {"heuristic": "low-cardinality"}
# The instrumenter must end when the agent does, also by kill -9 (prctl(2), PR_SET_PDEATHSIG).
_START: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, "-m", "otelauto.cli", "--config", sys.argv[2]])
"""
_MESSAGE: Final = re.compile(r'level=(\w+) msg="((?:[^"\\]|\\.)*)"')


class _Token:
    """What the instrumenter has to send: the receiver's port is open to all of this machine."""

    def __init__(self) -> None:
        self._value = f"Bearer {secrets.token_urlsafe(24)}"

    def headers(self) -> Mapping[str, str]:
        """What the instrumenter sends."""
        return {"authorization": self._value}

    def checks(self) -> bool:
        """It is there to check who sends."""
        return True

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether it is the instrumenter that sends."""
        given = headers.get("authorization", "").encode("utf-8", "surrogateescape")
        return secrets.compare_digest(given, self._value.encode())


class BeylaEbpf(Running):
    """Runs an instrumenter, again if it ends by itself; its log is passed on."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        self._settings = settings_of(content)
        self._token = _Token()
        self._receiver = ReceiverOtlp(context, _receiver(content, Capsule(HANDLER, self._token)))
        self._page = _free_port()
        self._ended = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="otelauto-beyla", daemon=True)

    @property
    def exports(self) -> Mapping[str, Value]:
        """``targets``: the instrumenter's own page for Prometheus."""
        address = f"127.0.0.1:{self._page}"
        return {"targets": [{"__address__": address, "instance": socket.gethostname()}]}

    def start(self) -> None:
        """Begin to receive, then run the instrumenter."""
        self._receiver.start()
        try:
            file = self._write()
        except OSError as error:
            raise OtelautoError(
                f"{self.context.directory} cannot be written: {error.strerror}",
                "Give another --storage.path.",
            ) from error
        self._file = file
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """End the instrumenter, which sends what it has; then receive no more."""
        self._ended.set()
        with self._lock:
            child = self._child
        if child is not None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(deadline_s)
            except subprocess.TimeoutExpired:
                child.kill()
        if self._thread.ident is not None:
            self._thread.join()
        self._receiver.stop(deadline_s)

    def health(self) -> tuple[Health, str]:
        """Healthy while the instrumenter runs."""
        if self.last_error:
            return Health.UNHEALTHY, self.last_error
        return Health.HEALTHY, ""

    def status(self) -> Mapping[str, str | int | float]:
        """What came, and the process."""
        child = self._child
        return {**self._receiver.status(), "process": child.pid if child is not None else "none"}

    def _write(self) -> Path:
        """The instrumenter's configuration file."""
        endpoint = {"endpoint": f"http://127.0.0.1:{self._receiver.ports['http']}",
                    "protocol": "http/protobuf"}  # fmt: skip
        directory = self.context.directory
        tree: dict[str, Any] = {
            **self._settings,
            "control_socket": str(directory / "control.sock"),
            "state_directory": str(directory),
            "prometheus_export": {"port": self._page},
        }
        output = self.content.section("output")
        for name in ("metrics", "traces"):
            if output[name]:
                tree[f"otel_{name}_export"] = endpoint
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = directory / "instrumenter.yml"
        file.write_text(json.dumps(tree, indent=2))  # JSON is YAML
        return file

    def _run(self) -> None:
        """Runs it until the end; this thread is its parent for the kernel."""
        token = self._token.headers()["authorization"].replace(" ", "%20")
        environ = {name: os.environ[name] for name in KEPT if name in os.environ}
        environ["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization={token}"
        words = [sys.executable, "-c", _START, str(os.getpid()), str(self._file)]
        while not self._ended.is_set():
            with self._lock:
                child = self._child = subprocess.Popen(
                    words, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE, start_new_session=True,
                )  # fmt: skip
            if self._ended.is_set():
                child.terminate()
            last = self._pass_log_on(child)
            code = child.wait()
            with self._lock:
                self._child = None
            if not self._ended.is_set():
                self.last_error = f"the instrumenter ended with {code}: {last or 'no reason given'}"
                self.context.log.warning("%s; it is started again", self.last_error)
                self._ended.wait(AGAIN_S)

    def _pass_log_on(self, child: subprocess.Popen[bytes]) -> str:
        """Log what the instrumenter logs; gives its last line."""
        last = ""
        assert child.stderr is not None  # noqa: S101 - a pipe
        with child.stderr:
            for line in child.stderr:
                last = line.decode("utf-8", "replace").rstrip()
                found = _MESSAGE.search(last)
                level, text = found.groups() if found else ("WARN", last)
                number = {"DEBUG": 10, "INFO": 20, "ERROR": 40}.get(level, 30)
                self.context.log.log(number, "%s", text)
                if text.startswith("watching "):
                    self.last_error = ""
        return last


def settings_of(content: Decoded) -> dict[str, Any]:
    """The instrumenter's settings. Raises :class:`ConfigError` for what it does not have."""
    ebpf: dict[str, Any] = {}
    ports = [content["open_port"]] if content["open_port"] else []
    names = [content["executable_name"]] if content["executable_name"] else []
    discovery = content.section("discovery")
    if discovery.blocks.get("exclude_services"):
        raise ConfigError('"exclude_services" is not supported', "Name the services to watch.")
    for service in discovery.blocks.get("services", []):
        for name in ("name", "namespace"):
            if service[name]:
                raise ConfigError(
                    f'"{name}" of a service is not supported',
                    "Names are found for each process; leave it out.",
                )
        ports += [service["open_ports"]] if service["open_ports"] else []
        names += [service["exe_path"]] if service["exe_path"] else []
    if ports and names:
        raise ConfigError("services are selected by ports or by executables, not by both")
    if len(names) > 1:
        raise ConfigError("there can be one executable_name or exe_path only")
    if not ports and not names:
        raise ConfigError("nothing is to be watched", 'Give open_port = "8080".')
    if ports:
        ebpf["open_port"] = ",".join(ports)
    else:
        ebpf["executable_name"] = names[0]
    settings: dict[str, Any] = {"ebpf": ebpf, "log_level": "DEBUG" if content["debug"] else "INFO"}
    if content.blocks.get("routes"):
        settings["routes"] = _routes(content.section("routes"))
    return settings


def _routes(block: Decoded) -> dict[str, Any]:
    for name in ("ignored_patterns", "ignore_mode"):
        if block[name]:
            raise ConfigError(f'"{name}" of routes is not supported', "Leave it out.")
    unmatched = block["unmatched"]
    return {"unmatched": UNMATCHED.get(unmatched, unmatched), "patterns": block["patterns"]}


def _receiver(content: Decoded, handler: Capsule) -> Decoded:
    """The content of a receiver on a free port of this machine, with the same outputs."""
    schema: Block | None = RECEIVER_OTLP.block("http")
    assert schema is not None  # noqa: S101 - a receiver has one
    http = Decoded(schema, {"endpoint": "127.0.0.1:0", "auth": handler})
    return Decoded(RECEIVER_OTLP, {}, {"http": [http], "output": [content.section("output")]})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
