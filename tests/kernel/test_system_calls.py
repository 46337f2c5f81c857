# SPDX-License-Identifier: Apache-2.0
"""Tier C by itself: descriptors lead to sockets, and the table of connections does not fill."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.kernel.calls import Slots
from tests.kernel.conftest import Connect, Pair
from tests.kernel.kernel_objects import entries
from tests.kernel.recorder import RECEIVED, SENT, Recorder, give_cookies
from tests.one_tier import tiers_named

from otelauto.abi import SegmentFlag
from otelauto.kernel import capture
from otelauto.kernel.capture import Capture, Wanted

pytestmark = pytest.mark.kernel

ROOM = 16_384  # connections in bpf/connection_table.h
ADDED_UP = 64  # MESSAGES_MAX in bpf/calls.h


@pytest.fixture(scope="module")
def running() -> Iterator[Capture]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture, "TIERS", tiers_named("C"))
        held = Capture(Wanted())
    with closing(held):
        yield held


@pytest.fixture
def recorder(running: Capture) -> Iterator[Recorder]:
    with closing(Recorder(running=running)) as recording:
        yield recording


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_several_messages_are_one_unread_segment(
    recorder: Recorder, connect: Connect, kind: str
) -> None:
    client, server = connect(kind)
    whole = 10 + 20 + 30
    with recorder.counting() as grown:
        assert Slots([[b"a" * 10], [b"b" * 20], [b"c" * 30]]).send(client) == 3
        assert Slots([[whole // 2], [whole // 2]]).receive(server) == 2
    client.send(b"after")
    assert server.recv(100) == b"after"
    assert (grown["UNREAD_OTHER_CALL"], grown["BYTES_UNREAD"]) == (2, 2 * whole)
    for end, direction in ((client, SENT), (server, RECEIVED)):
        unread, read = recorder.of(end).of(direction)
        assert (unread.segment.length, unread.payload) == (whole, b"")
        assert unread.flags & SegmentFlag.FLAG_UNREAD
        assert (read.segment.offset, read.segment.unseen, read.payload) == (whole, 0, b"after")


def test_messages_beyond_those_that_are_added_up(recorder: Recorder, tcp: Pair) -> None:
    """What is not added is found missing by the TCP sequence number."""
    client, _ = tcp
    client.send(b"before")
    assert Slots([[b"m" * 10]] * (ADDED_UP + 6)).send(client) == ADDED_UP + 6
    client.send(b"after")
    _, unread, read = recorder.of(client).of(SENT)
    assert (unread.segment.unseen, unread.segment.length) == (60, ADDED_UP * 10)
    assert (read.segment.offset, read.segment.unseen, read.payload) == (706, 0, b"after")


def test_descriptors_that_are_no_sockets(recorder: Recorder, tmp_path: Path) -> None:
    source, sink = os.pipe()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDWR)
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as other:
        for descriptor in (sink, pipe, file.fileno()):
            os.write(descriptor, b"GET / HTTP/1.1\r\n\r\n")
        assert os.sendfile(other.fileno(), file.fileno(), 0, 9) == 9
        assert os.splice(source, file.fileno(), 9, offset_dst=0) == 9
        for descriptor in (source, pipe):
            os.read(descriptor, 100)
    for descriptor in (source, sink, pipe):
        os.close(descriptor)
    assert recorder.counters()["RECORDS_PRODUCED"] == 0


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """At least so many may be open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(before[1], count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(count, before[0]), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("number", [63, 64, 255, 256, 5000])
def test_high_descriptors(recorder: Recorder, tcp: Pair, number: int) -> None:
    """The table of descriptors moves when it grows."""
    client, server = tcp
    with descriptors(number + 100):
        high = fcntl.fcntl(server, fcntl.F_DUPFD_CLOEXEC, number)  # that, or the next free one
        try:
            client.send(b"to a high one")
            assert os.read(high, 100) == b"to a high one"
        finally:
            os.close(high)
    assert recorder.of(server).payload(RECEIVED) == b"to a high one"


@pytest.mark.parametrize("call", ["recvmsg", "recvmmsg"])
def test_peeks_by_other_calls(recorder: Recorder, tcp: Pair, call: str) -> None:
    client, server = tcp
    client.send(b"peeked")
    recorder.drain()
    with recorder.counting() as grown:
        if call == "recvmsg":
            assert server.recvmsg(100, 0, socket.MSG_PEEK)[0] == b"peeked"
        else:
            assert Slots([[100]]).receive(server, flags=socket.MSG_PEEK) == 1
    assert not grown


def test_unix_sockets_at_the_places_of_earlier_ones(recorder: Recorder) -> None:
    """No hook tells of their end, and the kernel uses the memory again: nothing is mixed up."""
    for number in range(2000):
        one, other = socket.socketpair()
        with one, other:
            give_cookies(one, other)
            text = b"pair %d" % number
            one.send(text)
            assert other.recv(100) == text
            for end, direction in ((one, SENT), (other, RECEIVED)):
                watched = recorder.of(end)
                assert len(watched.openings) == 1
                (piece,) = watched.pieces
                assert (piece.segment.offset, piece.payload) == (0, text)
                assert piece.segment.direction == direction
            recorder.connections.clear()
    assert entries(recorder.capture._sockets, "connections") <= ROOM


def test_the_table_is_bounded_and_the_newest_stay(recorder: Recorder) -> None:
    """More unix sockets open at once than there is room for: those in use are read."""
    pairs = []
    with descriptors(ROOM + 3000):
        try:
            for _ in range(ROOM // 2 + 1000):
                pairs.append(socket.socketpair())
                pairs[-1][0].send(b"x")
                pairs[-1][1].recv(1)
                if len(pairs) % 1000 == 0:
                    recorder.drain()
            recorder.drain()
            assert ROOM // 2 < entries(recorder.capture._sockets, "connections") <= ROOM
            recorder.connections.clear()
            one, other = pairs[-1]
            one.send(b"the newest")
            assert other.recv(100) == b"the newest"
            recorder.drain()
            payloads = {w.payload(SENT) for w in recorder.connections.values() if w.of(SENT)}
        finally:
            for pair in pairs:
                for end in pair:
                    end.close()
    assert payloads == {b"the newest"}
    assert recorder.counters()["DROP_STATE_REFUSED"] == 0
