# SPDX-License-Identifier: Apache-2.0
"""More traffic than otelauto can follow: losses are counted exactly, nothing is invented."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.load import Growth, Wrk, served
from tests.e2e.harness.process import wait_until
from tests.e2e.harness.rig import Rig, accounts, ident_of, repeated, status_of, total
from tests.e2e.test_attach import BY_NAME
from tests.scale import PATIENCE
from tests.wire import http2

from otelauto.errors import OtelautoError

pytestmark = pytest.mark.e2e
STOPPED_S = 5.0
STOPS, KEPT = 2, 12  # connections of each protocol
FILLS = 16_000  # requests: more than the ring has room for
WHILE_STOPPED = 100_000  # requests: 20,000 a second
WARNING = "records dropped because the ring was full"


def test_a_stopped_consumer_loses_what_it_counts_and_recovers(tmp_path: Path) -> None:
    with servers.running(BY_NAME["c-epoll"], tmp_path) as running:
        with Rig(tmp_path, {"open_port": running.port}) as rig:
            with Wrk(tmp_path, running.port, "load") as wrk:
                rig.wait_for_spans(1)
                rig.process.popen.send_signal(signal.SIGSTOP)
                growth, until = Growth(running.log), time.monotonic() + STOPPED_S
                wait_until(
                    lambda: growth.lines() >= WHILE_STOPPED and time.monotonic() >= until,
                    f"{STOPPED_S} s and {WHILE_STOPPED} requests",
                    60.0,
                )
                rig.process.popen.send_signal(signal.SIGCONT)
                # The gap shows on connections that go on.
                rig.process.wait_for(lambda: lost_records(rig) > 0, "it catches up", 120)
                wrk.stop()
                assert wrk.failures() == []
            lost_records(rig)
            report = rig.wait_quiet()
            produced, delivered, dropped = accounts(report)
            assert dropped > 0
            assert produced == delivered + dropped
            again = [f"/items/again-{number}" for number in range(20)]
            ask(running.port, again)
            spans = rig.wait_for_paths(again)
            assert {(status_of(span), span["incomplete"]) for span in spans} == {(200, None)}
            report = rig.wait_quiet()
            warnings = [line for line in rig.process.stderr().splitlines() if WARNING in line]
            assert len(warnings) == 1, warnings
        log = served(running.log)
    # The printer's queue is bounded as well: what it gave up is counted as exactly. An exchange
    # whose end was lost may wait until otelauto's own end, so its last word counts.
    last = re.search(r"stopped spans=(\d+) dropped=(\d+)", rig.process.stderr())
    assert last is not None
    published, given_up = int(last[1]), int(last[2])
    assert len(rig.spans) + given_up == published >= total(report, "flows_exchanges")
    seen = [ident_of(span) for span in rig.spans]
    assert repeated(seen) == []
    assert not set(seen) - set(log), "invented"


def ask(port: int, paths: list[str]) -> None:
    """An exchange for each path, on a connection of its own."""
    for path in paths:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().read()
        connection.close()


class Kept1:
    """A kept connection of HTTP/1."""

    def __init__(self, port: int, _: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60 * PATIENCE)

    def ask(self, path: str) -> None:
        self._connection.request("GET", path)
        assert self._connection.getresponse().read()

    def close(self) -> None:
        self._connection.close()


class Kept2:
    """A kept connection of HTTP/2, with a table of header fields as clients have it."""

    def __init__(self, port: int, number: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60 * PATIENCE)
        self._end, _, begins, _ = http2.hello()
        self._host, self._stream = f"kept-{number}.example", -1
        self._socket.sendall(begins + http2.frame(http2.SETTINGS, 1, 0))
        self._file = self._socket.makefile("rb")

    def ask(self, path: str) -> None:
        self._stream += 2
        fields = [(":method", "GET"), (":scheme", "http"), (":path", path),
                  (":authority", self._host)]  # fmt: skip
        self._socket.sendall(self._end.head(self._stream, fields, http2.END_STREAM))
        kind, flags, stream = 0, 0, 0
        while (stream, flags & http2.END_STREAM) != (self._stream, 1) or kind > http2.HEADERS:
            head = self._file.read(9)
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
            assert kind != http2.GOAWAY
            self._file.read(int.from_bytes(head[:3]))

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def lost_records(rig: Rig) -> int:
    """How many it says, once it has the time to answer."""
    found: list[int] = []

    def answers() -> bool:
        with contextlib.suppress(OtelautoError):
            found.append(rig.total("flows_records_lost"))
        return bool(found)

    rig.process.wait_for(answers, "it answers", 120)
    return found[0]


@contextlib.contextmanager
def stopped(rig: Rig) -> Iterator[None]:
    """It stands still meanwhile; afterwards it has seen that records are missing."""
    before = lost_records(rig)
    rig.process.popen.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        rig.process.popen.send_signal(signal.SIGCONT)
    rig.process.wait_for(lambda: lost_records(rig) > before, "it catches up", 120)


def test_kept_connections_are_read_on_after_every_stop(tmp_path: Path) -> None:
    """However often records of a connection are lost, what it speaks is not doubted for it."""
    directories = [tmp_path / name for name in ("one", "two")]
    for directory in directories:
        directory.mkdir()
    h2c = next(server for server in servers.HTTP2 if server.name == "go-h2c")
    with (
        servers.running(BY_NAME["c-epoll"], directories[0]) as one,
        servers.running(h2c, directories[1]) as two,
        Rig(tmp_path, {"open_port": f"{one.port},{two.port}"}) as rig,
        contextlib.ExitStack() as stack,
    ):
        kept: list[Kept1 | Kept2] = [Kept1(one.port, number) for number in range(KEPT)]
        kept += [Kept2(two.port, number) for number in range(KEPT)]
        for connection in kept:
            stack.callback(connection.close)

        def ask_each(word: str) -> list[str]:
            paths = [f"/items/{word}-{number}" for number in range(len(kept))]
            for connection, path in zip(kept, paths, strict=True):
                connection.ask(path)
            return paths

        rig.wait_for_paths(ask_each("first"))
        for stop in range(STOPS):
            with Wrk(tmp_path, one.port, f"load-{stop}") as wrk:
                with stopped(rig):
                    growth = Growth(one.log)
                    wait_until(lambda g=growth: g.lines() >= FILLS, "the ring is full", 60)  # type: ignore[misc]
                    for turn in range(2):
                        ask_each(f"lost-{stop}-{turn}")
                wrk.stop()
                assert wrk.failures() == []
            lost_records(rig)
            assert rig.wait_quiet()["unread"] == []
            ask_each(f"first-{stop}")  # its response may belong to a request before the hole
            paths = [path for turn in range(4) for path in ask_each(f"later-{stop}-{turn}")]
            spans = rig.wait_for_paths(paths, 60)
            known = {(status_of(span), span["incomplete"]) for span in spans}
            assert known == {(200, None)}
        assert rig.report()["unread"] == []
