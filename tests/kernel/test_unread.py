# SPDX-License-Identifier: Apache-2.0
"""Bytes that pass without being read are counted by name, and show: unread, or unseen."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.kernel.conftest import Connect, Pair
from tests.kernel.recorder import RECEIVED, SENT, Recorder, cookie_of, copy_everything
from tests.kernel.tier import HAS_TABLES
from tests.unsupported import Unsupported

from otelauto.abi import SegmentFlag

pytestmark = pytest.mark.kernel

MSG_ZEROCOPY = 0x4000000
SO_ZEROCOPY = 60


@pytest.mark.parametrize("kind", ["tcp4", "mptcp", "unix"])
def test_a_peek_leaves_no_record(recorder: Recorder, connect: Connect, kind: str) -> None:
    client, server = connect(kind)
    client.send(b"peeked")
    recorder.drain()
    with recorder.counting() as grown:
        assert server.recv(100, socket.MSG_PEEK) == b"peeked"
        assert server.recv(3, socket.MSG_PEEK) == b"pee"
    assert not grown
    assert not recorder.of(server).kinds
    assert server.recv(100) == b"peeked"
    (piece,) = recorder.of(server).pieces
    assert (piece.segment.offset, piece.segment.unseen, piece.payload) == (0, 0, b"peeked")


def test_thrown_away_bytes(recorder: Recorder, tcp: Pair) -> None:
    """recv(MSG_TRUNC) on TCP discards: the buffer holds something else."""
    client, server = tcp
    client.send(b"0123456789")
    buffer = bytearray(b"not from the wire")
    with recorder.counting() as grown:
        assert server.recv_into(buffer, 6, socket.MSG_TRUNC) == 6
    assert server.recv(100) == b"6789"
    thrown, read = recorder.of(server).pieces
    assert (thrown.segment.length, thrown.payload) == (6, b"")
    assert thrown.flags == SegmentFlag.FLAG_UNREAD | SegmentFlag.FLAG_TURN_START
    assert (grown["UNREAD_MESSAGE_TRUNC"], grown["BYTES_UNREAD"]) == (1, 6)
    assert (read.segment.offset, read.payload) == (6, b"6789")


def test_urgent_byte(recorder: Recorder, tcp: Pair) -> None:
    """The receiver's stream jumps over it; reading it is counted and moves nothing."""
    client, server = tcp
    client.send(b"abc")
    assert server.recv(10) == b"abc"
    client.send(b"U", socket.MSG_OOB)
    with recorder.counting() as grown:
        recorder.wait_for(lambda: _urgent(server) == b"U", "the urgent byte is read")
    assert (grown["UNREAD_OTHER_CALL"], grown["BYTES_UNREAD"]) == (1, 1)
    client.send(b"def")
    assert server.recv(10) == b"def"
    first, second = recorder.of(server).of(RECEIVED)
    assert (first.segment.offset, first.payload) == (0, b"abc")
    assert (second.segment.offset, second.segment.unseen, second.payload) == (4, 1, b"def")
    # For the sender it is a byte like any other.
    assert recorder.of(client).payload(SENT) == b"abcUdef"
    assert [p.segment.unseen for p in recorder.of(client).pieces] == [0, 0, 0]


def _urgent(sock: socket.socket) -> bytes:
    with at_once(sock):
        try:
            return sock.recv(1, socket.MSG_OOB)
        except OSError as error:  # not there yet, or only announced
            if error.errno not in (errno.EAGAIN, errno.EINVAL):
                raise
            return b""


@contextmanager
def at_once(sock: socket.socket) -> Iterator[None]:
    """Calls on ``sock`` do not wait."""
    limit = sock.gettimeout()
    sock.setblocking(False)
    try:
        yield
    finally:
        sock.settimeout(limit)


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_calls_that_move_nothing(recorder: Recorder, connect: Connect, kind: str) -> None:
    client, server = connect(kind)
    with recorder.counting() as grown:
        assert client.send(b"") == 0
        assert os.write(client.fileno(), b"") == 0
        assert client.sendmsg([b"", b""]) == 0
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(10)
        assert os.read(server.fileno(), 0) == b""
    assert not grown
    assert not recorder.of(client).kinds
    assert not recorder.of(server).kinds


def test_reading_nothing_is_not_the_end(recorder: Recorder, tcp: Pair) -> None:
    """recv(0) after the peer's FIN, with bytes still waiting."""
    client, server = tcp
    client.send(b"waiting")
    server.recv(4)
    client.close()
    server.recv_into(bytearray(0), 0)
    assert not recorder.of(server).endings
    assert server.recv(100) == b"ing"
    assert server.recv(100) == b""
    watched = recorder.of(server)
    assert watched.kinds == [1, 2, 2, 3]
    assert watched.endings[0].flags == SegmentFlag.FLAG_RECEIVE_ENDED
    assert watched.endings[0].offset == 7


@pytest.mark.parametrize("kind", ["tcp4", "mptcp", "unix"])
def test_sendfile(recorder: Recorder, connect: Connect, kind: str) -> None:
    client, server = connect(kind)
    with tempfile.TemporaryFile() as file:
        file.write(b"f" * 5000)
        file.flush()
        client.send(b"head")
        with recorder.counting() as grown:
            moved = 0
            while moved < 5000:
                moved += os.sendfile(client.fileno(), file.fileno(), moved, 5000 - moved)
        client.send(b"tail")
    pieces = recorder.of(client).of(SENT)
    assert (pieces[0].payload, pieces[-1].payload) == (b"head", b"tail")
    for piece in pieces[1:-1]:
        assert piece.payload == b""
        assert piece.flags == SegmentFlag.FLAG_UNREAD
    assert sum(piece.segment.length for piece in pieces[1:-1]) == 5000
    assert pieces[-1].segment.offset == 5004
    assert grown["BYTES_UNREAD"] == 5000
    assert grown["UNREAD_OTHER_CALL"] == len(pieces) - 2
    assert server.recv(4) == b"head"


def test_splice_to_a_socket(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    source, sink = os.pipe()
    try:
        os.write(sink, b"spliced bytes")
        with recorder.counting() as grown:
            assert os.splice(source, client.fileno(), 13) == 13
    finally:
        os.close(source)
        os.close(sink)
    (piece,) = recorder.of(client).pieces
    assert (piece.segment.length, piece.payload) == (13, b"")
    assert piece.flags & SegmentFlag.FLAG_UNREAD
    assert (grown["UNREAD_OTHER_CALL"], grown["BYTES_UNREAD"]) == (1, 13)
    assert server.recv(100) == b"spliced bytes"


def test_splice_from_a_socket_passes_unseen(recorder: Recorder, tcp: Pair) -> None:
    """No hook sees it; the next receive proves it by its TCP sequence number."""
    client, server = tcp
    client.send(b"seen")
    assert server.recv(4) == b"seen"
    client.send(b"x" * 777)
    source, sink = os.pipe()
    try:
        moved = 0
        while moved < 777:
            moved += os.splice(server.fileno(), sink, 777 - moved)
    finally:
        os.close(source)
        os.close(sink)
    client.send(b"again")
    with recorder.counting() as grown:
        assert server.recv(100) == b"again"
    first, second = recorder.of(server).pieces
    assert (first.segment.offset, first.payload) == (0, b"seen")
    assert (second.segment.offset, second.segment.unseen, second.payload) == (781, 777, b"again")
    assert grown["BYTES_UNSEEN"] == 777


@contextmanager
def optmem(size: int) -> Iterator[None]:
    """net.core.optmem_max at ``size`` for a while."""
    knob = Path("/proc/sys/net/core/optmem_max")
    before = knob.read_text()
    try:
        knob.write_text(str(size))
    except OSError as error:
        raise Unsupported(f"net.core.optmem_max cannot be set: {error}") from error
    try:
        yield
    finally:
        knob.write_text(before)


def test_zero_copy_sends_with_little_option_memory(recorder: Recorder, connect: Connect) -> None:
    """The state of a connection takes its place in optmem; the service's zero-copy sends go on."""
    with optmem(20_480):
        client, server = connect("tcp4")
        client.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        copy_everything(recorder, client, server)
        expected = b""
        for number in range(64):
            data = bytes([number]) * 3000
            client.sendall(data, MSG_ZEROCOPY)
            expected += data
            got = 0
            while got < len(data):
                got += len(server.recv(1 << 16))
            _read_notifications(client)
    assert recorder.of(client).payload(SENT) == expected
    assert recorder.of(server).payload(RECEIVED) == expected
    assert recorder.counters()["DROP_STATE_REFUSED"] == 0


def _read_notifications(sock: socket.socket) -> None:
    """Completions of zero-copy sends come through the error queue."""
    with at_once(sock), suppress(BlockingIOError):
        while True:
            sock.recvmsg(0, 1024, socket.MSG_ERRQUEUE)


def test_refused_state_is_counted_and_harmless(recorder: Recorder, connect: Connect) -> None:
    if HAS_TABLES:
        raise Unsupported("socket state is not charged to the socket here")
    with optmem(64):
        client, server = connect("tcp4")
        with recorder.counting() as grown:
            client.send(b"through all the same")
            assert server.recv(100) == b"through all the same"
        assert not recorder.of(cookie_of(client)).kinds
        assert grown == {"DROP_STATE_REFUSED": 2}
