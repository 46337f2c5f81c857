# SPDX-License-Identifier: Apache-2.0
"""How connections end: each ending told once, in order, and nothing after CLOSED."""

from __future__ import annotations

import socket
import struct

import pytest
from tests.kernel.conftest import Connect, Pair
from tests.kernel.recorder import Recorder, Watched, cookie_of

from otelauto.abi import RecordKind, SegmentFlag

pytestmark = pytest.mark.kernel

RECEIVE_ENDED = SegmentFlag.FLAG_RECEIVE_ENDED
SEND_ENDED = SegmentFlag.FLAG_SEND_ENDED
CLOSED = SegmentFlag.FLAG_CLOSED
RESET = SegmentFlag.FLAG_RESET


def exchange(pair: Pair) -> None:
    client, server = pair
    client.sendall(b"request")
    assert server.recv(100) == b"request"
    server.sendall(b"response")
    assert client.recv(100) == b"response"


def closed(recorder: Recorder, cookie: int) -> Watched:
    """The connection once it is closed: CLOSED is there once, and last."""
    recorder.wait_for(
        lambda: bool(recorder.of(cookie).flagged(CLOSED)), f"connection {cookie} is closed"
    )
    watched = recorder.of(cookie)
    assert len(watched.flagged(CLOSED)) == 1
    assert watched.endings[-1].flags & CLOSED
    assert watched.kinds[-1] == RecordKind.RECORD_ENDING
    assert watched.sequences == list(range(len(watched.sequences)))
    return watched


def flags(watched: Watched) -> list[int]:
    return [ending.flags for ending in watched.endings]


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "mptcp"])
def test_close(recorder: Recorder, connect: Connect, kind: str) -> None:
    client, server = pair = connect(kind)
    exchange(pair)
    one, other = cookie_of(client), cookie_of(server)
    client.close()
    assert server.recv(100) == b""
    server.close()
    assert flags(closed(recorder, one)) == [SEND_ENDED, CLOSED]
    assert flags(closed(recorder, other)) == [RECEIVE_ENDED, SEND_ENDED, CLOSED]
    assert [e.offset for e in recorder.of(other).endings] == [7, 8, 8]
    assert [e.direction for e in recorder.of(other).endings] == [0, 1, 1]
    assert {e.length for e in recorder.of(other).endings} == {0}


@pytest.mark.parametrize("kind", ["tcp4", "mptcp"])
def test_shutdown_then_close(recorder: Recorder, connect: Connect, kind: str) -> None:
    client, server = pair = connect(kind)
    exchange(pair)
    one, other = cookie_of(client), cookie_of(server)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(100) == b""
    server.sendall(b"the rest")
    server.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b"the rest"
    assert client.recv(100) == b""
    client.close()
    server.close()
    assert flags(closed(recorder, one)) == [SEND_ENDED, RECEIVE_ENDED, CLOSED]
    assert flags(closed(recorder, other)) == [RECEIVE_ENDED, SEND_ENDED, CLOSED]


def test_end_of_file_is_told_once(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    exchange(tcp)
    client.close()
    for _ in range(5):
        assert server.recv(100) == b""
    assert flags(recorder.of(server)) == [RECEIVE_ENDED]


def test_bytes_read_after_the_handshake_of_the_end(recorder: Recorder, tcp: Pair) -> None:
    """Both FINs are through and the TCP state is CLOSE, but bytes wait: CLOSED comes after them."""
    client, server = tcp
    exchange(tcp)
    cookie = cookie_of(server)
    client.sendall(b"waiting bytes")
    client.close()
    recorder.wait_for(lambda: _state(server) == 8, "the client's FIN has arrived")
    server.shutdown(socket.SHUT_WR)
    recorder.wait_for(lambda: _state(server) == 7, "the server's socket is in CLOSE")
    assert flags(recorder.of(cookie)) == [SEND_ENDED]
    assert server.recv(100) == b"waiting bytes"
    assert server.recv(100) == b""
    server.close()
    watched = closed(recorder, cookie)
    assert flags(watched) == [SEND_ENDED, RECEIVE_ENDED, CLOSED]
    assert watched.pieces[-1].payload == b"waiting bytes"
    assert watched.pieces[-1].segment.offset == 7


def _state(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


@pytest.mark.parametrize("kind", ["tcp4", "mptcp"])
def test_reset_by_linger(recorder: Recorder, connect: Connect, kind: str) -> None:
    client, server = pair = connect(kind)
    exchange(pair)
    one, other = cookie_of(client), cookie_of(server)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(ConnectionResetError):
        server.recv(100)
    server.close()
    assert flags(closed(recorder, one)) == [CLOSED | RESET]
    assert flags(closed(recorder, other)) == [CLOSED | RESET]


def test_bytes_that_wait_when_the_reset_comes(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    exchange(tcp)
    cookie = cookie_of(server)
    client.sendall(b"before the reset")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    recorder.wait_for(lambda: _state(server) == 7, "the reset has arrived")
    assert not recorder.of(cookie).endings
    assert server.recv(100) == b"before the reset"
    with pytest.raises(ConnectionResetError):
        server.recv(100)
    server.close()
    watched = closed(recorder, cookie)
    assert watched.pieces[-1].payload == b"before the reset"
    assert flags(watched) == [CLOSED | RESET]


@pytest.mark.parametrize("kind", ["tcp4", "mptcp"])
def test_close_with_unread_bytes_is_a_reset(
    recorder: Recorder, connect: Connect, kind: str
) -> None:
    client, server = pair = connect(kind)
    exchange(pair)
    one, other = cookie_of(client), cookie_of(server)
    client.sendall(b"never read")
    recorder.wait_for(lambda: len(server.recv(100, socket.MSG_PEEK)) == 10, "bytes wait")
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    client.close()
    assert flags(closed(recorder, other)) == [CLOSED | RESET]
    assert flags(closed(recorder, one)) == [CLOSED | RESET]


def test_connections_without_bytes_leave_no_record(recorder: Recorder, connect: Connect) -> None:
    client, server = connect("tcp4")
    client.close()
    assert server.recv(1) == b""
    server.close()
    refused = socket.socket()
    with refused, pytest.raises(ConnectionRefusedError):
        refused.connect(("127.0.0.1", 1))
    recorder.drain()
    assert recorder.counters()["RECORDS_PRODUCED"] == 0


def test_unix_end_of_file(recorder: Recorder, connect: Connect) -> None:
    client, server = pair = connect("unix")
    exchange(pair)
    client.close()
    for _ in range(3):
        assert server.recv(100) == b""
    assert flags(recorder.of(server)) == [RECEIVE_ENDED]
    assert recorder.of(server).endings[0].offset == 7
