# SPDX-License-Identifier: Apache-2.0
"""Starts what is measured, loads it, and reads what it cost.

CPU 0 belongs to the service, CPU 1 to everything else; all share the one CPU of an emulated
machine. CPU time comes from the scheduler's own account (``/proc/PID/task/TID/schedstat``, ns) of
every thread of a process and its descendants.
Everything that is started is ended by its process id when its ``with`` block ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.harness.process import Process, accepts, free_port

from otelauto.control import ask
from otelauto.errors import OtelautoError

BENCHES = Path(__file__).resolve().parent
ROOT = BENCHES.parent
RESULTS = BENCHES / "RESULTS.md"
BUILT = ROOT / ".build" / "bench"
OTELAUTO = Path(sys.executable).parent / "otelauto"
READY = 'msg="watching '
SERVICE_CPU, OTHER_CPU = 0, min(1, (os.cpu_count() or 1) - 1)
SETTLE_SECONDS = 60.0
QUIET_SECONDS = 0.3  # longer than the time between two drains
NORMAL_SECONDS = 3
CONNECTIONS = 16


class BenchError(Exception):
    """A measurement that would mean nothing: the load failed, or a process ended."""


@dataclass(frozen=True)
class Settings:
    """How much to measure. ``BENCH_SECONDS=1 BENCH_PAIRS=1`` only shows that all benches run."""

    seconds: int  # one measurement under load
    pairs: int

    @classmethod
    def from_environment(cls, seconds: int = NORMAL_SECONDS, pairs: int = 5) -> Settings:
        """What the environment says, and the arguments where it says nothing."""
        read = os.environ.get
        return cls(int(read("BENCH_SECONDS", seconds)), int(read("BENCH_PAIRS", pairs)))

    @property
    def rest_seconds(self) -> int:
        """A process at rest does so little that it takes long to see."""
        return 20 if self.seconds >= NORMAL_SECONDS else self.seconds

    @property
    def only_shows(self) -> bool:
        """Whether nobody reads the figures: of what differs in numbers only, one will do."""
        return self.seconds == self.pairs == 1

    def __str__(self) -> str:
        return f"{self.pairs} pairs of {self.seconds} s (`BENCH_PAIRS`, `BENCH_SECONDS`)"


@dataclass(frozen=True)
class Bench:
    """What every bench gets: how much to measure, and a directory for its files."""

    settings: Settings
    directory: Path


# ---- cost ----


def cpu_ns(pids: Sequence[int]) -> int:
    """CPU time that the living threads of the processes have used, in ns."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((thread / "schedstat").read_text().split()[0])
    return total


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """A field of /proc/PID/status that is given in kB."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s*(\d+) kB$", text, flags=re.MULTILINE)
    if found is None:
        raise BenchError(f"process {pid} tells no {field}")
    return int(found[1]) * 1024


# ---- processes ----


def pinned(cpu: int, command: Sequence[str | Path]) -> list[str | Path]:
    """The command on one CPU; taskset becomes the command, so the process id is the same."""
    return ["taskset", "-c", str(cpu), *command]


class Otelauto:
    """A running otelauto. ``stdout`` is a pipe if asked for."""

    def __init__(
        self,
        directory: Path,
        ports: Sequence[int],
        settings: Mapping[str, str],
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        self._socket = directory / "control.sock"
        words: list[str | Path] = [OTELAUTO, "--open-port", ",".join(map(str, ports))]
        env = {
            "OTELAUTO_CONTROL_SOCKET": str(self._socket),
            "OTELAUTO_STATE_DIRECTORY": str(directory / "state"),
            **settings,
        }
        self.process = Process(
            pinned(OTHER_CPU, words), directory / "otelauto.err", env=env, stdout=stdout
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_ready(self) -> None:
        self.process.wait_for(lambda: READY in self.process.stderr(), "otelauto is ready")

    def status(self) -> dict[str, Any]:
        """Its own report. One that is busy answers late: it is asked again."""
        give_up_at = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                return ask(self._socket)
            except OtelautoError:
                if time.monotonic() > give_up_at or self.process.popen.poll() is not None:
                    raise

    def settle(self) -> dict[str, Any]:
        """Wait until it has worked off what it took; its report then."""
        give_up_at = time.monotonic() + SETTLE_SECONDS
        last = self.status()
        while True:
            time.sleep(QUIET_SECONDS)
            before, last = last, self.status()
            idle = not last["ring_fill"] and not waiting(last)
            if idle and before["spans"] == last["spans"]:
                return last
            if time.monotonic() > give_up_at:
                raise BenchError(f"otelauto does not come to rest: {last}")


def waiting(report: Mapping[str, Any]) -> int:
    """Spans that wait for an exporter."""
    return sum(each.get("queued") or 0 for each in report["exporters"].values())


def given_up(report: Mapping[str, Any]) -> int:
    """Spans that an exporter dropped."""
    return sum(each.get("dropped") or 0 for each in report["exporters"].values())


def _total(report: Mapping[str, Any], counter: str, reason: str = "") -> int:
    rows = report["counters"]
    return sum(total for name, label, total in rows if name == counter and reason in ("", label))


def dropped(report: Mapping[str, Any]) -> int:
    """Records that the kernel had no room for, as otelauto counts them."""
    return _total(report, "kernel_records_dropped")


def uncounted(report: Mapping[str, Any]) -> int:
    """Records made, but neither delivered nor counted as dropped."""
    known = _total(report, "records_delivered")
    known += _total(report, "kernel_records_dropped", "ring_full")
    return abs(_total(report, "kernel_records_produced") - known)


@contextlib.contextmanager
def otelauto(
    directory: Path, ports: Sequence[int], settings: Mapping[str, str]
) -> Iterator[Otelauto]:
    """An otelauto that watches the ports."""
    running = Otelauto(directory, ports, settings)
    with running.process:
        running.wait_ready()
        yield running


def metrics_only() -> dict[str, str]:
    """RED metrics on a Prometheus page."""
    return {"OTEL_EXPORTER_PROMETHEUS_PORT": str(free_port())}


def metrics_and_traces(sink: int) -> dict[str, str]:
    """RED metrics and every span, by OTLP/HTTP."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink}"}


@contextlib.contextmanager
def sink(directory: Path) -> Iterator[int]:
    """The port of an OTLP/HTTP receiver that discards what comes."""
    port = free_port()
    command = pinned(OTHER_CPU, [BUILT / "sink", str(port)])
    with Process(command, directory / "sink.err") as process:
        process.wait_for(lambda: accepts(port), "the sink listens")
        yield port


def sink_bytes(port: int) -> int:
    """Bytes of OTLP messages that the sink has taken."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return int(answer.read().split()[1])


# ---- load ----


@dataclass(frozen=True)
class Load:
    """What a load generator got answered."""

    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def wrk(
    port: int, path: str, seconds: int, connections: int = CONNECTIONS, scheme: str = "http"
) -> Load:
    """As many requests as the service answers, over kept connections."""
    url = f"{scheme}://127.0.0.1:{port}{path}"
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url]
    said = subprocess.run(
        pinned(OTHER_CPU, words), capture_output=True, text=True, check=True, timeout=seconds + 60
    ).stdout
    total = re.search(r"(\d+) requests in ", said)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
    if total is None or rate is None or "Socket errors" in said or "Non-2xx" in said:
        raise BenchError(f"wrk had trouble:\n{said}")
    if not int(total[1]):
        raise BenchError("wrk got no answer")
    return Load(int(total[1]), int(total[1]) / float(rate[1]))


def load_command(
    rate: int, seconds: float, path: str, ports: Sequence[int], connections: int = CONNECTIONS
) -> list[str | Path]:
    """The paced client, on the service's CPU: the other one is otelauto's."""
    words = (str(rate), str(seconds), str(connections), path, *map(str, ports))
    return pinned(SERVICE_CPU, [BUILT / "load", *words])


def paced(rate: int, seconds: float, path: str, ports: Sequence[int]) -> Load:
    """``rate`` requests per second in all; a busy machine may not reach it: look at the result."""
    with background_load(rate, seconds, path, ports) as finish:
        return finish()


@contextlib.contextmanager
def background_load(
    rate: int, seconds: float, path: str, ports: Sequence[int]
) -> Iterator[Callable[[], Load]]:
    """The paced client beside what the block does; the function given waits for its end."""
    command = [str(word) for word in load_command(rate, seconds, path, ports)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:

        def finish() -> Load:
            said, errors = client.communicate()
            if client.returncode:
                raise BenchError(f"the load generator failed: {errors}")
            result = json.loads(said)
            return Load(result["requests"], result["seconds"])

        try:
            yield finish
        finally:
            client.kill()
