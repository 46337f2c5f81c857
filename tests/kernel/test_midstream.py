# SPDX-License-Identifier: Apache-2.0
"""Sockets older than the watching say so, fresh ones never do; holes show, numbers are true."""

from __future__ import annotations

import os
import socket
import threading
from itertools import pairwise

import pytest
from tests.kernel.conftest import Connect, Pair
from tests.kernel.recorder import RECEIVED, SENT, Recorder, cookie_of

from otelauto.abi import SegmentFlag

pytestmark = pytest.mark.kernel

MIDSTREAM = SegmentFlag.FLAG_MIDSTREAM


def exchange(pair: Pair, data: bytes, rounds: int = 1) -> None:
    for _ in range(rounds):
        for sender, receiver in (pair, pair[::-1]):
            sender.sendall(data)
            got = 0
            while got < len(data):
                got += len(receiver.recv(1 << 16))


def marks(recorder: Recorder, sock: socket.socket, direction: int) -> list[bool]:
    return [bool(piece.flags & MIDSTREAM) for piece in recorder.of(sock).of(direction)]


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "mapped"])
@pytest.mark.parametrize("size", [1, 2, 100, 50_000])
def test_fresh_sockets_are_not_midstream(
    recorder: Recorder, connect: Connect, kind: str, size: int
) -> None:
    pair = connect(kind)
    exchange(pair, b"f" * size, rounds=3)
    for end in pair:
        watched = recorder.of(end)
        assert not any(piece.flags & MIDSTREAM for piece in watched.pieces)
        assert not any(piece.segment.unseen for piece in watched.pieces)


def test_many_fresh_sockets_under_load(recorder: Recorder, connect: Connect) -> None:
    """The kernel moves its counters in softirqs meanwhile; 2,000 connections, none in doubt."""
    for _ in range(2000):
        client, server = connect("tcp4")
        with client, server:
            client.sendall(b"q" * 40)
            server.sendall(b"early answer")  # both directions are under way at once
            server.recv(100)
            client.recv(100)
    recorder.drain()
    pieces = [piece for watched in recorder.connections.values() for piece in watched.pieces]
    assert len(pieces) == 8000
    assert not [piece.segment for piece in pieces if piece.flags & MIDSTREAM]
    assert not [piece.segment for piece in pieces if piece.segment.unseen]


@pytest.mark.parametrize("size", [2, 100, 50_000])
def test_older_sockets_are_midstream_once_a_direction(
    recorder: Recorder, connect: Connect, size: int
) -> None:
    recorder.capture.unwatch(os.getpid())
    pair = connect("tcp4")
    exchange(pair, b"o" * size)
    recorder.capture.watch(os.getpid())
    exchange(pair, b"n" * 10, rounds=3)
    for end in pair:
        assert not recorder.of(end).payload(SENT).strip(b"n")
        for direction in (SENT, RECEIVED):
            assert marks(recorder, end, direction) == [True, False, False]
            assert [p.segment.offset for p in recorder.of(end).of(direction)] == [0, 10, 20]


def test_each_direction_for_itself(recorder: Recorder, connect: Connect) -> None:
    """Bytes that passed one way only make only that way midstream."""
    recorder.capture.unwatch(os.getpid())
    client, server = connect("tcp4")
    client.sendall(b"unseen request")
    server.recv(100)
    recorder.capture.watch(os.getpid())
    exchange((server, client), b"both ways")
    assert marks(recorder, client, SENT) == [True]
    assert marks(recorder, client, RECEIVED) == [False]
    assert marks(recorder, server, RECEIVED) == [True]
    assert marks(recorder, server, SENT) == [False]


def test_waiting_and_unacknowledged_bytes_are_not_earlier_ones(
    recorder: Recorder, connect: Connect
) -> None:
    """Bytes in the queues when the first call is seen: some read later, some not acknowledged."""
    client, server = connect("tcp4")
    recorder.capture.unwatch(os.getpid())
    client.sendall(b"w" * 30_000)  # waits in the server's queue, unread
    recorder.capture.watch(os.getpid())
    assert server.recv(1000) == b"w" * 1000
    assert marks(recorder, server, RECEIVED) == [False]
    server.sendall(b"a" * 30_000)  # nobody reads it
    server.sendall(b"b" * 30_000)
    assert set(marks(recorder, server, SENT)) == {False}
    client.sendall(b"more")
    assert marks(recorder, client, SENT) == [True]


def test_bytes_read_by_a_process_that_is_not_watched(recorder: Recorder, tcp: Pair) -> None:
    """A hole in mid-stream: the offset jumps by exactly what passed."""
    client, server = tcp
    client.send(b"seen")
    assert server.recv(10) == b"seen"
    client.send(b"h" * 500)
    recorder.capture.unwatch(os.getpid())
    assert server.recv(1000) == b"h" * 500
    server.send(b"s" * 70)
    recorder.capture.watch(os.getpid())
    server.send(b"later")
    client.send(b"after")
    with recorder.counting() as grown:
        assert server.recv(1000) == b"after"
    received = recorder.of(server).of(RECEIVED)
    assert [(p.segment.offset, p.segment.unseen) for p in received] == [(0, 0), (504, 500)]
    assert grown["BYTES_UNSEEN"] == 500
    (sent,) = recorder.of(server).of(SENT)
    assert sent.flags & MIDSTREAM  # the first that was seen of this direction


@pytest.mark.parametrize("later", [False, True], ids=["first segment", "later segment"])
def test_the_peers_fin_is_not_a_byte(recorder: Recorder, tcp: Pair, later: bool) -> None:
    """A read that reaches the end moves copied_seq past the FIN; offset and number stay true."""
    client, server = tcp
    if later:
        exchange(tcp, b"first")
    server.sendall(b"x" * 100)
    server.close()
    recorder.wait_for(lambda: recorder_has_fin(client), "the FIN has arrived")
    assert client.recv(1000) == b"x" * 100
    assert client.recv(1000) == b""
    watched = recorder.of(client)
    piece = watched.of(RECEIVED)[-1]
    at = 5 if later else 0
    assert (piece.segment.offset, piece.segment.unseen) == (at, 0)
    assert not piece.flags & MIDSTREAM
    first = watched.of(RECEIVED)[0].segment
    assert piece.segment.tcp_sequence == (first.tcp_sequence + at) % (1 << 32)
    assert watched.flagged(SegmentFlag.FLAG_RECEIVE_ENDED)[0].offset == at + 100
    peer = recorder.of(cookie_of_pieces(recorder, client))
    assert peer.of(SENT)[-1].segment.tcp_sequence == piece.segment.tcp_sequence


def recorder_has_fin(sock: socket.socket) -> bool:
    """Whether the socket is in CLOSE_WAIT (tcp_info.tcpi_state)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x08"


def cookie_of_pieces(recorder: Recorder, sock: socket.socket) -> int:
    """The cookie of the other connection that was recorded."""
    (other,) = set(recorder.connections) - {cookie_of(sock)}
    return other


def test_shutting_down_reads_moves_no_offset(recorder: Recorder, tcp: Pair) -> None:
    """RCV_SHUTDOWN without a FIN: what waits is read with its true offsets."""
    client, server = tcp
    exchange(tcp, b"12345")
    server.sendall(b"y" * 60)
    recorder.wait_for(lambda: len(client.recv(100, socket.MSG_PEEK)) == 60, "bytes wait")
    client.shutdown(socket.SHUT_RD)
    assert client.recv(60) == b"y" * 60
    piece = recorder.of(client).of(RECEIVED)[-1]
    assert (piece.segment.offset, piece.segment.unseen, piece.payload) == (5, 0, b"y" * 60)


def test_two_readers_never_misplace_bytes_in_silence(recorder: Recorder, tcp: Pair) -> None:
    """Whose bytes came first is not known: what is contiguous is true, the rest shows a hole."""
    client, server = tcp
    total, unit = 400_000, 4
    stream = b"".join(number.to_bytes(unit, "big") for number in range(total // unit))

    def read() -> None:
        while server.recv(unit, socket.MSG_WAITALL):
            pass

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for at in range(0, total, 4000):
        client.sendall(stream[at : at + 4000])
        recorder.drain()
    client.shutdown(socket.SHUT_WR)
    recorder.wait_for(lambda: not any(reader.is_alive() for reader in readers), "all is read")
    assert not recorder.counters()["DROP_RING_FULL"]
    end, certain = 0, 0
    for piece in recorder.of(server).of(RECEIVED):
        segment = piece.segment
        if segment.offset != end:
            break  # a hole or an overlap: from here on nothing claims to be in its place
        assert not segment.unseen
        assert piece.payload == stream[end : end + segment.length]
        end += segment.length
        certain += 1
    doubts = [
        (before.segment, after.segment)
        for before, after in pairwise(recorder.of(server).of(RECEIVED))
        if before.segment.offset + before.segment.length != after.segment.offset
    ]
    assert doubts or end == total
    assert certain > 0 or doubts
