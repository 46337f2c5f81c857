# SPDX-License-Identifier: Apache-2.0
"""WebSocket and server-sent events: one span of the real length, whatever passes inside."""

from __future__ import annotations

import contextlib
import http.client
import random
import signal
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import servers, traffic
from tests.e2e.harness.otelauto import Otelauto, configuration
from tests.e2e.harness.servers import Server
from tests.scale import PATIENCE, SCALE
from websockets.sync.client import ClientConnection, connect

pytestmark = pytest.mark.e2e
COUNT, AT_ONCE = 40 * SCALE, 5
SIZES = (0, 1, 100, 125, 126, 1000, 65535, 65536, 100_000)
DECOY = "GET /inside HTTP/1.1\r\nHost: x\r\n\r\n"
Record = dict[str, Any]
every = pytest.mark.parametrize("server", servers.WEBSOCKET, ids=lambda server: server.name)


def opened(port: int, path: str) -> ClientConnection:
    """Without TLS: this client's two threads use one session, which Python does not guard."""
    return connect(
        f"ws://127.0.0.1:{port}{path}", compression=None, max_size=None,
        origin="http://127.0.0.1", open_timeout=30 * PATIENCE, close_timeout=30 * PATIENCE,  # type: ignore[arg-type]
    )  # fmt: skip


def chat(port: int, number: int) -> Record:
    """One WebSocket, from its handshake to its close, and what the client knows of it.

    The server has the first byte of the request after ``begin`` and answers before the client is
    ``open``; it gets the Close frame after ``closing`` and answers that before the end.
    """
    choice = random.Random(number)
    path = f"/chat/{number}"
    messages = choice.randint(0, 12)
    size = 0
    begin = time.monotonic_ns()
    connection = opened(port, path)
    is_open = time.monotonic_ns()
    for _ in range(messages):
        said = choice.choice([DECOY, "x" * choice.choice(SIZES)])
        connection.send(said)
        assert connection.recv(60 * PATIENCE) == said
        size += len(said)
    code = choice.choice((1000, 1001, 4000))
    closing = time.monotonic_ns()
    connection.close(code)
    end = time.monotonic_ns()
    return {"path": path, "messages": messages, "size": size, "code": code,
            "least": closing - is_open, "most": end - begin}  # fmt: skip


def problem(span: Record | None, asked: Record) -> str:
    """What is wrong with the span of a WebSocket, if anything is."""
    if span is None:
        return f"no span: {asked}"
    get = span["attributes"].get
    sizes = [get(f"otelauto.websocket.{half}.{what}") for half in ("request", "response")
             for what in ("messages", "size")]  # fmt: skip
    right = (
        get("http.request.method") == "GET"
        and get("http.response.status_code") == 101
        and get("otelauto.websocket.close_code") == asked["code"]
        and sizes == 2 * [asked["messages"], asked["size"]]
        and asked["least"] <= span["duration_ns"] <= asked["most"]
        and 0 < get("otelauto.http.upgrade.duration") * 1e9 < span["duration_ns"] + 1
        and span["incomplete"] is None
        and not span["error"]
    )
    return "" if right else f"wrong: {span} {asked}"


@every
def test_every_websocket_is_one_span(server: Server, tmp_path: Path) -> None:
    with (
        servers.running(server, tmp_path) as running,
        Otelauto(tmp_path, configuration(ports=[running.port])) as otelauto,
    ):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = list(pool.map(lambda n: chat(running.port, n), range(COUNT)))
        otelauto.wait_for_spans(COUNT)
    found = {span["attributes"]["url.path"]: span for span in otelauto.spans}
    assert len(found) == len(otelauto.spans) == COUNT
    problems = [each for record in asked if (each := problem(found.get(record["path"]), record))]
    assert not problems, f"{len(problems)} of {COUNT}: {problems[:3]}"


def test_the_comparison_finds_lies() -> None:
    asked = {"path": "/a", "messages": 2, "size": 9, "code": 1000, "least": 10, "most": 20}
    attributes = {"http.request.method": "GET", "http.response.status_code": 101,
                  "otelauto.websocket.close_code": 1000, "otelauto.http.upgrade.duration": 5e-9,
                  "otelauto.websocket.request.messages": 2, "otelauto.websocket.request.size": 9,
                  "otelauto.websocket.response.messages": 2, "otelauto.websocket.response.size": 9,
                  }  # fmt: skip
    span = {"attributes": attributes, "duration_ns": 15, "incomplete": None, "error": False}
    assert not problem(span, asked)
    assert problem(None, asked)
    for name in attributes:
        assert problem({**span, "attributes": {**attributes, name: 77}}, asked), name
    for name, lie in (
        ("duration_ns", 9),
        ("duration_ns", 21),
        ("incomplete", "lost"),
        ("error", True),
    ):
        assert problem({**span, name: lie}, asked), name


def reset(connection: ClientConnection) -> None:
    linger = struct.pack("ii", 1, 0)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    finish(connection)


def finish(connection: ClientConnection) -> None:
    with contextlib.suppress(OSError):  # the server was first
        connection.socket.shutdown(socket.SHUT_RDWR)


def broken_off(otelauto: Otelauto, paths: set[str]) -> None:
    """Each is one span that says how it ended and claims no more than what passed."""
    assert {span["attributes"]["url.path"] for span in otelauto.spans} == paths
    assert len(otelauto.spans) == len(paths)
    for span in otelauto.spans:
        assert span["incomplete"] == "aborted"
        assert span["attributes"]["http.response.status_code"] == 101
        assert span["attributes"]["otelauto.websocket.response.messages"] == 1
        assert "otelauto.websocket.close_code" not in span["attributes"]


def hold(port: int, number: int) -> ClientConnection:
    connection = opened(port, f"/chat/{number}")
    connection.send(DECOY)
    assert connection.recv(60 * PATIENCE) == DECOY
    return connection


@every
def test_a_client_that_breaks_off(server: Server, tmp_path: Path) -> None:
    with (
        servers.running(server, tmp_path) as running,
        Otelauto(tmp_path, configuration(ports=[running.port])) as otelauto,
    ):
        for number in range(6):
            (reset, finish)[number % 2](hold(running.port, number))
        otelauto.wait_for_spans(6)
    broken_off(otelauto, {f"/chat/{number}" for number in range(6)})


def test_the_end_of_the_server_or_of_otelauto(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        running = []
        for server in servers.WEBSOCKET:
            (tmp_path / server.name).mkdir()
            running.append(stack.enter_context(servers.running(server, tmp_path / server.name)))
        ports = [each.port for each in running]
        with Otelauto(tmp_path, configuration(ports=ports)) as otelauto:
            held = [hold(ports[number % 2], number) for number in range(6)]
            running[0].process.stop(signal.SIGKILL)
            otelauto.wait_for_spans(3)
            assert len(otelauto.spans) == 3
        for connection in held:
            finish(connection)
    broken_off(otelauto, {f"/chat/{number}" for number in range(6)})


def test_joined_in_the_middle_nothing_is_invented(tmp_path: Path) -> None:
    with servers.running(servers.WEBSOCKET[0], tmp_path) as running:
        connection = hold(running.port, 1)
        with Otelauto(tmp_path, configuration(ports=[running.port])) as otelauto:
            for _ in range(20):
                connection.send(DECOY)
                assert connection.recv(60 * PATIENCE) == DECOY
            assert chat(running.port, 2)["path"] == "/chat/2"
            otelauto.wait_for_spans(1)
            connection.close()
    assert [span["attributes"]["url.path"] for span in otelauto.spans] == ["/chat/2"]


# ---- server-sent events ----


def listen(port: int, numbers: range) -> None:
    """Streams of events, one after another on one connection."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60 * PATIENCE)
    for number in numbers:
        client.request("GET", f"/events/{number % 20 + 1}/s{number}")
        with client.getresponse() as answer:
            assert answer.read().count(b"\n\n") == number % 20 + 1
    client.close()


def test_every_stream_of_events_is_one_span(tmp_path: Path) -> None:
    with (
        servers.running(servers.EVENTS, tmp_path) as running,
        Otelauto(tmp_path, configuration(ports=[running.port])) as otelauto,
    ):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            lists = (range(n, COUNT, AT_ONCE) for n in range(AT_ONCE))
            list(pool.map(lambda numbers: listen(running.port, numbers), lists))
        otelauto.wait_for_spans(COUNT)
        served = traffic.server_records(running.log, COUNT)
    found = {span["attributes"]["url.path"].split("/")[3]: span for span in otelauto.spans}
    assert len(found) == len(otelauto.spans) == len(served) == COUNT
    for line in served:
        span = found[line["id"]]
        assert span["duration_ns"] >= line["took"]
        assert span["incomplete"] is None
        assert span["attributes"]["http.response.status_code"] == 200
        # Events that were not copied whole leave the framing open; then no size is claimed.
        assert span["attributes"].get("http.response.body.size") in (line["bytes"], None)


def begin_stream(client: socket.socket, port: int, name: str) -> None:
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET /events/0/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    said = b""
    while b"id: 0" not in said:
        said += client.recv(4096)


def test_streams_of_events_that_are_broken_off(tmp_path: Path) -> None:
    with (
        servers.running(servers.EVENTS, tmp_path) as running,
        socket.socket() as gone,
        socket.socket() as held,
    ):
        with Otelauto(tmp_path, configuration(ports=[running.port])) as otelauto:
            begin_stream(gone, running.port, "gone")
            begin_stream(held, running.port, "held")
            gone.close()
            otelauto.wait_for_spans(1)
        paths = sorted(span["attributes"]["url.path"] for span in otelauto.spans)
    assert paths == ["/events/0/gone", "/events/0/held"]
    for span in otelauto.spans:
        assert span["incomplete"] == "aborted"
        assert span["attributes"]["http.response.status_code"] == 200
