# SPDX-License-Identifier: Apache-2.0
"""Every system call that carries user bytes, over every kind of stream: exact bytes and facts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.kernel.calls import LIBC, RECEIVES, SENDS
from tests.kernel.conftest import Connect
from tests.kernel.recorder import (
    IPPROTO_MPTCP,
    KINDS,
    RECEIVED,
    SENT,
    Recorder,
    Watched,
    cookie_of,
    give_cookies,
)

from otelauto.abi import Opening, SegmentFlag, SocketRole

pytestmark = pytest.mark.kernel

REQUEST = bytes(range(256)) + b"a request of odd length"
ANSWER = b"the answer" * 41 + bytes(reversed(range(256)))


def check_stream(watched: Watched, direction: int, expected: bytes) -> None:
    """One whole segment a call, offsets contiguous from 0, no flag that says otherwise."""
    at = 0
    for piece in watched.of(direction):
        segment = piece.segment
        assert (segment.offset, segment.unseen) == (at, 0)
        assert segment.captured == segment.length == len(piece.payload)
        assert not piece.flags & ~SegmentFlag.FLAG_TURN_START
        at += segment.length
    assert watched.payload(direction) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("send", "receive"), list(zip(SENDS, RECEIVES, strict=True)))
def test_bytes_of_each_call(
    recorder: Recorder, connect: Connect, kind: str, send: str, receive: str
) -> None:
    client, server = connect(kind)
    assert SENDS[send](client, REQUEST) == len(REQUEST)
    assert RECEIVES[receive](server, len(REQUEST)) == len(REQUEST)
    assert SENDS[send](server, ANSWER) == len(ANSWER)
    assert RECEIVES[receive](client, len(ANSWER)) == len(ANSWER)
    for end, sent, received in ((client, REQUEST, ANSWER), (server, ANSWER, REQUEST)):
        watched = recorder.of(end)
        assert len(watched.openings) == 1
        assert watched.sequences == [0, 1, 2]
        check_stream(watched, SENT, sent)
        check_stream(watched, RECEIVED, received)
        assert all(piece.flags & SegmentFlag.FLAG_TURN_START for piece in watched.pieces)
    assert recorder.counters()["RECORDS_PRODUCED"] == recorder.delivered == 6


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "mapped"])
def test_raw_tcp_sequence_numbers_are_those_of_the_peer(
    recorder: Recorder, connect: Connect, kind: str
) -> None:
    client, server = connect(kind)
    for size in (1, 300, 20_000):
        client.sendall(b"q" * size)
        got = 0
        while got < size:
            got += len(server.recv(7001))
        server.sendall(b"a" * size)
        got = 0
        while got < size:
            got += len(client.recv(7001))
    ends = recorder.of(client), recorder.of(server)
    for sender, receiver in (ends, ends[::-1]):
        (first, *_) = sender.of(SENT)
        base = first.segment.tcp_sequence
        assert base
        for piece in sender.of(SENT) + receiver.of(RECEIVED):
            segment = piece.segment
            assert segment.tcp_sequence == (base + segment.offset) % (1 << 32)


def _address(opening: Opening, which: str) -> tuple[str, int]:
    raw, port = getattr(opening, which), getattr(opening, f"{which}_port")
    if opening.family == socket.AF_INET:
        assert raw[4:] == bytes(12)
        return socket.inet_ntop(socket.AF_INET, raw[:4]), port
    return socket.inet_ntop(socket.AF_INET6, raw), port


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "mapped", "mptcp"])
def test_opening_has_addresses_and_identity(
    recorder: Recorder, connect: Connect, kind: str
) -> None:
    client, server = connect(kind)
    client.send(b"x")
    server.recv(1)
    for end in (client, server):
        ((opening, path),) = recorder.of(end).openings
        assert path == b""
        assert opening.family == end.family
        assert _address(opening, "local") == end.getsockname()[:2]
        assert _address(opening, "remote") == end.getpeername()[:2]
        assert opening.protocol == (IPPROTO_MPTCP if kind == "mptcp" else socket.IPPROTO_TCP)
        assert opening.connection == cookie_of(end)
        assert opening.inode == int(Path(f"/proc/self/fd/{end.fileno()}").stat().st_ino)
        assert opening.netns == Path("/proc/self/ns/net").stat().st_ino
        assert opening.tgid == int(Path("/proc/self").readlink().name)
    assert recorder.of(client).openings[0][0].role == SocketRole.ROLE_CLIENT
    assert recorder.of(server).openings[0][0].role != SocketRole.ROLE_CLIENT


@pytest.mark.parametrize(
    "name", ["a path", "/tmp/otelauto-test-" + "p" * 80, "\0abstract name"], ids=repr
)
def test_unix_path_at_both_ends(recorder: Recorder, tmp_path: Path, name: str) -> None:
    address = str(tmp_path / "s") if name == "a path" else name
    path = Path(address) if not address.startswith("\0") else None
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(address)
        try:
            listening.listen()
            client.connect(address)
            server, _ = listening.accept()
        finally:
            if path:
                path.unlink()
        with server:
            give_cookies(client, server)
            client.send(b"x")
            server.recv(1)
            for end in (client, server):
                ((opening, found),) = recorder.of(end).openings
                assert opening.family == socket.AF_UNIX
                assert opening.protocol == 0
                assert found.rstrip(b"\0") == address.encode()


def test_unnamed_unix_pair_has_no_path(recorder: Recorder) -> None:
    one, other = socket.socketpair()
    with one, other:
        give_cookies(one, other)
        one.send(b"hello")
        other.recv(5)
        for end in (one, other):
            ((opening, path),) = recorder.of(end).openings
            assert (opening.path_length, path) == (0, b"")


@pytest.mark.parametrize("kind", ["datagram", "seqpacket", "unix datagram"])
def test_what_is_no_stream_is_not_recorded(recorder: Recorder, kind: str) -> None:
    if kind == "datagram":
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("127.0.0.1", 0))
        one.connect(other.getsockname())
    else:
        form = socket.SOCK_SEQPACKET if kind == "seqpacket" else socket.SOCK_DGRAM
        one, other = socket.socketpair(socket.AF_UNIX, form)
    with one, other:
        one.send(b"datagram")
        assert other.recv(100) == b"datagram"
        assert not recorder.of(one).kinds
        assert not recorder.of(other).kinds
    assert recorder.counters()["RECORDS_PRODUCED"] == 0


def test_a_socket_connected_again_is_a_new_connection(recorder: Recorder, connect: Connect) -> None:
    client, server = connect("tcp4")
    client.send(b"first")
    server.recv(5)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        unspecified = bytes(16)
        assert LIBC.connect(client.fileno(), unspecified, 16) == 0  # AF_UNSPEC: disconnect
        client.connect(listening.getsockname())
        again, _ = listening.accept()
        with again:
            client.send(b"second")
            again.recv(6)
            watched = recorder.of(client)
            assert [o.remote_port for o, _ in watched.openings] == [
                server.getsockname()[1],
                listening.getsockname()[1],
            ]
            assert [(p.segment.offset, p.payload) for p in watched.pieces] == [
                (0, b"first"),
                (0, b"second"),
            ]
            assert watched.pieces[1].flags == SegmentFlag.FLAG_TURN_START
            (closed,) = watched.endings
            assert closed.flags == SegmentFlag.FLAG_CLOSED | SegmentFlag.FLAG_RESET
            assert watched.sequences == list(range(5))
