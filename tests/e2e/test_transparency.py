# SPDX-License-Identifier: Apache-2.0
"""otelauto changes nothing: the same bytes with and without it, also where memory is short."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import random
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import servers, traffic
from tests.e2e.harness.compare import compare, expectations, logs_agree
from tests.e2e.harness.process import Process, accepts, free_port
from tests.e2e.harness.rig import Rig, path_of, total
from tests.e2e.harness.servers import PYTHON
from tests.e2e.test_attach import BY_NAME
from tests.scale import SCALE

pytestmark = pytest.mark.e2e
# Exchanges of each connection: so many that what is copied of them (at first everything, then 8 KiB
# of a request) fits in the ring, whenever it is read.
CONNECTIONS = (100, *[275] * (36 * SCALE))
EXCHANGES = sum(CONNECTIONS)
SIZES = (0, 1, 10, 255, 256, 257, 1000, 4096, 16_383, 16_384, 16_385, 50_000)
OPTMEM = Path("/proc/sys/net/core/optmem_max")
SMALL = "20480"

Digests = tuple[str, str]


@pytest.fixture
def little_option_memory() -> Iterator[None]:
    before = OPTMEM.read_text()
    OPTMEM.write_text(SMALL)
    yield
    OPTMEM.write_text(before)


def exchange_all(port: int, after: Callable[[int], None]) -> Digests:
    """Varied exchanges, the same ones on every call; SHA-256 of what was sent and received here.

    ``after`` gets the number of exchanges so far after each connection.
    """
    rng = random.Random("the same on every run")
    sent, received = hashlib.sha256(), hashlib.sha256()
    done = 0
    for count in CONNECTIONS:
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(count):
                exchange(connection, rng, number, sent, received)
        done += count
        after(done)
    return sent.hexdigest(), received.hexdigest()


def exchange(
    connection: socket.socket,
    rng: random.Random,
    number: int,
    sent: hashlib._Hash,
    received: hashlib._Hash,
) -> None:
    body = rng.randbytes(rng.choice(SIZES))
    size = rng.choice(SIZES)
    head = f"POST /hash/{number} HTTP/1.1\r\nHost: x\r\nX-Size: {size}\r\nContent-Length: "
    request = f"{head}{len(body)}\r\n\r\n".encode() + body
    connection.sendall(request)
    sent.update(request)
    answer = b""
    wanted = size
    while not answer or len(answer.partition(b"\r\n\r\n")[2]) < wanted:
        part = connection.recv(65536)
        assert part, "closed"
        answer += part
    received.update(answer)


def digests(port: int) -> Digests:
    """What the server received and sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/digests")
    first, second = json.loads(connection.getresponse().read())
    connection.close()
    return first, second


def hashed(directory: Path, watched: bool) -> Digests:
    """One run against a new server; both ends must agree."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        words = [sys.executable, PYTHON / "hashing.py", str(port)]
        server = stack.enter_context(Process(words, directory / "server.err"))
        server.wait_for(lambda: accepts(port), "it listens")
        rig = stack.enter_context(Rig(directory, {"open_port": port})) if watched else None

        def seen(count: int) -> None:
            if rig is not None:
                rig.process.wait_for(
                    lambda: rig.total("flows_exchanges") == count, f"it saw {count}"
                )

        mine = exchange_all(port, seen)
        theirs = digests(port)
        assert mine == theirs
        seen(EXCHANGES + 1)
    return theirs


def test_the_same_bytes_with_and_without(tmp_path: Path) -> None:
    assert hashed(tmp_path, watched=True) == hashed(tmp_path, watched=False)


def test_zero_copy_with_little_option_memory(little_option_memory: None, tmp_path: Path) -> None:
    server = BY_NAME["c-epoll-zerocopy"]
    with servers.running(server, tmp_path) as running:
        with Rig(tmp_path, {"open_port": running.port}) as rig:
            clients = traffic.send(running.port, tmp_path, server.name, server.features)
            served = traffic.server_records(running.log, traffic.TOTAL)
            assert logs_agree(clients, served) == []
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
            connection.request("GET", "/big/extra")
            assert connection.getresponse().read() == b"b" * 200_000
            connection.close()
            rig.wait_for_paths(["/big/extra"])
            rig.wait_for_spans(traffic.TOTAL + 1)
            refused = total(rig.wait_quiet(), "kernel_records_dropped", "state_refused")
        spans = [span for span in rig.spans if span["attributes"]["url.path"] != "/big/extra"]
    report = compare(expectations(clients, served), spans)
    # A connection that has no room for its state is not seen: lost, and counted segment by segment.
    # Room may come between a request and its response, so one segment is the least; exact below.
    lost = [problem for problem in report.problems if problem.startswith("lost: ")]
    assert report.problems == lost, str(report)
    assert len(lost) + len(spans) == traffic.TOTAL
    assert len(lost) <= refused, str(report)


def test_each_exchange_without_room_for_its_state_is_counted(
    little_option_memory: None, tmp_path: Path
) -> None:
    """On one connection of which nobody may note anything at first, and everything later."""
    lost, seen = ([f"/items/{name}-{number}" for number in range(25)] for name in ("lost", "seen"))
    server = BY_NAME["c-epoll-zerocopy"]
    with (
        servers.running(server, tmp_path) as running,
        Rig(tmp_path, {"open_port": running.port}) as rig,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        for room, paths in (("1", lost), (SMALL, seen)):
            OPTMEM.write_text(room)
            for path in paths:
                connection.request("GET", path)
                assert connection.getresponse().read()
        rig.wait_for_paths(seen)
        refused = total(rig.wait_quiet(), "kernel_records_dropped", "state_refused")
        connection.close()
    assert sorted(map(path_of, rig.spans)) == sorted(seen)
    assert refused == 2 * len(lost)  # a request and a response each, of one call each
