# SPDX-License-Identifier: Apache-2.0
"""``otelcol.receiver.otlp`` and what is hostile, broken or slow."""

from __future__ import annotations

import http.client
import json
import random
import resource
import socket
import threading
from collections.abc import Iterator

import grpc
import pytest
from tests.e2e.harness.process import wait_until
from tests.scale import SCALE
from tests.unit.agent_asks import (
    BODY,
    LIMIT,
    RECEIVER,
    ask,
    call,
    forget,
    raw,
    read_all,
    text,
)
from tests.unit.agent_parts import Agent, agent

from otelauto.agent.running import http_server, otlp_grpc_door
from otelauto.agent.running.otlp_intake import (
    ITEMS_ACCEPTED,
    REQUESTS_REJECTED,
)
from otelauto.export.otlp_grpc import METHODS
from otelauto.export.protobuf import sized
from otelauto.export.transport import rpc_status


@pytest.fixture(scope="module", name="shared")
def fixture_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with agent(text(), tmp_path_factory.mktemp("agent")) as made:
        yield made


@pytest.fixture(name="made")
def fixture_made(shared: Agent) -> Agent:
    forget(shared)
    return shared


@pytest.mark.parametrize("body", [b"\xff" * 30, BODY[:-1], b"\n\x05abcde"])
@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_malformed_protobuf(made: Agent, body: bytes, signal: str) -> None:
    status, _, said = ask(made, body, f"/v1/{signal}")
    assert status == 400
    assert "OTLP" in rpc_status(said)[0]
    assert call(made, body, METHODS[signal])[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert made.sink.payloads == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"[" * 900, b'{"resourceSpans": 7}',
     b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}',
      b"\xff\xfe", b'{"a":          ' * 2000 + b"1" + b"}" * 2000,
     b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":1e400}]}]}]}'],
)  # fmt: skip
def test_malformed_json(made: Agent, body: bytes) -> None:
    status, _, said = ask(made, body, content_type="application/json")
    assert status == 400
    assert json.loads(said)["message"]
    assert made.sink.payloads == []


def test_what_is_too_large(made: Agent) -> None:
    large = bytes(LIMIT + 1)
    assert ask(made, large)[0] == 413
    assert call(made, large)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    # Chunked, so that nothing is said before.
    client = http.client.HTTPConnection("127.0.0.1", made[RECEIVER].ports["http"], timeout=30)
    client.request(
        "POST", "/v1/traces", iter([bytes(8192)] * (LIMIT // 8192 + 4)),
        {"content-type": "application/x-protobuf"},
    )  # fmt: skip
    assert client.getresponse().status == 413
    client.close()
    wait_until(lambda: made[RECEIVER].room_left == made[RECEIVER].room, "all room is given back")


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_bomb_of_a_call_is_too_large(made: Agent, packing: grpc.Compression) -> None:
    code, said, _ = call(made, bytes(64 * LIMIT), compression=packing)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "decompressed" in said


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("x-protobuf", b"\n\0" * 100_000),
        ("x-protobuf", sized(1, b"\x12\0" * 100_000)),
        ("x-protobuf", sized(1, sized(2, b"\x12\0" * 100_000))),
        ("json", b'{"resourceSpans":[' + b"[]," * 60_000 + b"[]]}"),
        ("json", b'{"x":[' + b"{}," * 60_000 + b"{}]}"),
    ],
    ids=["resources", "scopes", "items", "lists", "objects"],
)
@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_what_is_made_of_nothing_but_parts(
    made: Agent, kind: str, body: bytes, signal: str
) -> None:
    """It would be a thousand times as large, and busy everybody who looks at each of them."""
    status, _, said = ask(made, body, f"/v1/{signal}", content_type=f"application/{kind}")
    assert (status, b"parts" in said) == (400, True)


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
     b"\x16\x03\x01\x02\x00\x01\x00\x01" * 9 + b"\r\n",
     b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
     b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_gets_an_answer_and_is_closed(made: Agent, data: bytes) -> None:
    assert read_all(raw(made, data)).startswith(b"HTTP/1.1 4")


def test_requests_one_behind_another(made: Agent) -> None:
    head = b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n"
    one = head + b"Content-Length: %d\r\n" % len(BODY)
    data = (one + b"\r\n" + BODY) * 9 + one + b"Connection: close\r\n\r\n" + BODY
    assert read_all(raw(made, data)).count(b"HTTP/1.1 200 OK") == 10
    assert made.sink.items == 30


def test_a_client_that_waits_for_leave(made: Agent) -> None:
    head = b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n"
    head += b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    connection = raw(made, head)
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    connection.sendall(BODY)
    assert read_all(connection).startswith(b"HTTP/1.1 200")


def test_slow_senders_are_given_up(made: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.2)
    monkeypatch.setattr(otlp_grpc_door, "RECEIVE_S", 0.2)
    head = b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n"
    for part in (head, head + b"Content-Length: 100\r\n\r\nabc"):
        before = made.count(RECEIVER, REQUESTS_REJECTED, "slow")
        connection = raw(made, part)
        assert read_all(connection).startswith(b"HTTP/1.1 408")
        assert made.count(RECEIVER, REQUESTS_REJECTED, "slow") == before + 1
    with grpc.insecure_channel(f"127.0.0.1:{made[RECEIVER].ports['grpc']}") as channel:
        release = threading.Event()

        def nothing() -> Iterator[bytes]:
            release.wait(30)
            yield BODY

        slow = channel.stream_unary(METHODS["traces"])
        with pytest.raises(grpc.RpcError) as caught:
            slow(nothing(), timeout=30)
        release.set()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert caught.value.details() == "the request took too long"
    wait_until(lambda: made[RECEIVER].room_left == made[RECEIVER].room, "all room is given back")


def test_ten_thousand_idle_connections_need_no_thread(made: Agent) -> None:
    """With ``TEST_SCALE=20``. Some have begun a request."""
    threads = threading.active_count()
    started = [raw(made, b"POST /v1/tr") for _ in range(100)]
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (descriptors - 2000) // 2  # both ends of each connection are this process's
    idle = [raw(made, b"") for _ in range(min(500 * SCALE, 10_000, most))]
    count = len(started) + len(idle)
    wait_until(lambda: made[RECEIVER].status()["HTTP connections"] >= count, "all are there")
    assert threading.active_count() <= threads + 5
    assert ask(made)[0] == 200
    for each in (*idle, *started):
        each.close()
    wait_until(lambda: made[RECEIVER].status()["HTTP connections"] == 0, "all are gone")
    assert made.count(RECEIVER, ITEMS_ACCEPTED, "traces") > 0


def test_the_connection_that_rests_for_longest_makes_room(
    made: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 20)
    before = made.count(RECEIVER, REQUESTS_REJECTED, "connections")
    idle = [raw(made, b"") for _ in range(25)]
    for _ in range(3):
        assert ask(made)[0] == 200
    assert made.count(RECEIVER, REQUESTS_REJECTED, "connections") >= before + 6
    assert made[RECEIVER].status()["HTTP connections"] <= 20
    for each in idle:
        each.close()
    wait_until(lambda: made[RECEIVER].status()["HTTP connections"] == 0, "all are gone")


def test_whatever_comes_is_answered_or_closed(made: Agent) -> None:
    """Requests with bytes changed, left out and doubled; the receiver is there after them."""
    head = b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY
    chunked += b"\r\n0\r\n\r\n"
    chance = random.Random(7)
    for number in range(200 * SCALE):
        data = bytearray(chance.choice((whole, chunked)))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data))
            change = (chance.randbytes(1), b"", bytes(data[at : at + 9]) * 2)
            data[at : at + 1] = change[number % 3]
        connection = raw(made, bytes(data))
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = read_all(connection)
        except ConnectionResetError:
            continue
        assert answer.startswith(b"HTTP/1.1 ") or not answer
        assert b"HTTP/1.1 500" not in answer
    assert ask(made)[0] == 200
    wait_until(lambda: made[RECEIVER].room_left == made[RECEIVER].room, "all room is given back")
