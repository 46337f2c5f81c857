# SPDX-License-Identifier: Apache-2.0
"""Load: wrk with an id in every request, and kept connections that note what they did when."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.harness.process import Process, wait_until
from tests.e2e.harness.servers import HERE

SERVED = re.compile(rb'"id": ?"([^"]+)"')
TIMEOUT_S = 20.0
LONG_S = 120


def served(log: Path) -> list[str]:
    """The ids in a server's own log, in order."""
    return [ident.decode() for ident in SERVED.findall(log.read_bytes())]


class Growth:
    """How many lines a log has grown by since this was made."""

    def __init__(self, log: Path) -> None:
        self._log, self._at, self._lines = log, log.stat().st_size, 0

    def lines(self) -> int:
        with self._log.open("rb") as file:
            file.seek(self._at)
            news = file.read()
        self._at += len(news)
        self._lines += news.count(b"\n")
        return self._lines


class Wrk:
    """wrk, until it is stopped. ``failures`` is what it complained of."""

    def __init__(
        self, directory: Path, port: int, prefix: str, connections: int = 8, *, tls: bool = False
    ) -> None:
        self._output = (directory / f"{prefix}.wrk").open("w+")
        words = f"wrk -t1 -c{connections} -d{LONG_S} -s {HERE / 'clients' / 'ids.lua'}"
        self.process = Process(
            [*words.split(), f"{'https' if tls else 'http'}://127.0.0.1:{port}", "--", prefix],
            directory / f"{prefix}.err",
            stdout=self._output.fileno(),
        )

    def __enter__(self) -> Wrk:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if not self._output.closed:
            self.process.popen.send_signal(signal.SIGINT)  # it prints its summary
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.popen.wait(10)
            self.process.stop()
            self._output.seek(0)
            self.summary = self._output.read()
            self._output.close()

    def failures(self) -> list[str]:
        words = ("Socket errors", "Non-2xx", "unable", "error")
        assert "requests in" in self.summary, self.summary + self.process.stderr()
        return [line for line in self.summary.splitlines() if any(word in line for word in words)]


@dataclass
class Kept:
    """A kept connection that rests ``pause_s`` after each exchange.

    ``done`` holds (id, began, ended) of each exchange, times in ns of CLOCK_MONOTONIC.
    """

    number: int
    port: int
    pause_s: float
    done: list[tuple[str, int, int]] = field(default_factory=list)
    failed: str = ""

    def run(self, stop: threading.Event, more: int) -> None:
        """Exchange until ``stop``, then ``more`` times."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S) as connection:
                while not stop.is_set():
                    self._exchange(connection)
                for _ in range(more):
                    self._exchange(connection)
        except (OSError, EOFError) as error:
            self.failed = repr(error)

    def _exchange(self, connection: socket.socket) -> None:
        ident = f"k{self.number}-{len(self.done)}"
        began = time.monotonic_ns()
        connection.sendall(f"GET /items/{ident} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        data = b""
        while ident.encode() not in data.partition(b"\r\n\r\n")[2]:
            part = connection.recv(4096)
            if not part:
                raise EOFError(f"closed at {ident}")
            data += part
        self.done.append((ident, began, time.monotonic_ns()))
        time.sleep(self.pause_s)


class KeptConnections:
    """Busy kept connections, each with a thread, for the ``with`` block and ``more`` exchanges."""

    def __init__(self, port: int, count: int, more: int, pause_s: float = 0.0) -> None:
        self.all = [Kept(number, port, pause_s) for number in range(count)]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=kept.run, args=(self._stop, more)) for kept in self.all
        ]

    def __enter__(self) -> KeptConnections:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: all(len(kept.done) > 1 for kept in self.all), "all are busy")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def failures(self) -> list[str]:
        return [kept.failed for kept in self.all if kept.failed]

    def began_after(self, moment_ns: int) -> list[str]:
        return [i for kept in self.all for i, began, _ in kept.done if began > moment_ns]
