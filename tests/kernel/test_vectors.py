# SPDX-License-Identifier: Apache-2.0
"""Vectors of every shape, cuts and tails: the right bytes, and a flag wherever some are missing."""

from __future__ import annotations

import random
import select
import socket

import pytest
from tests.kernel.conftest import Pair
from tests.kernel.recorder import (
    RECEIVED,
    SENT,
    Piece,
    Recorder,
    copy_everything,
)
from tests.kernel.tier import PARTS_MAX, VECTORS_MAX

from otelauto.abi import AbiLimit, SegmentFlag

pytestmark = pytest.mark.kernel

CAPTURE_MAX = int(AbiLimit.CAPTURE_MAX)
NOISE = random.Random(7).randbytes(1 << 18)


def room(recorder: Recorder, pair: Pair) -> Pair:
    """Large buffers: what one call sends, one call moves. All of it is to be copied."""
    copy_everything(recorder, *pair)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
    return pair


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return parts


def check(pieces: list[Piece], data: bytes) -> None:
    """All of ``data``, in parts of CAPTURE_MAX bytes; the last that may be has the rest."""
    at = 0
    flags = SegmentFlag.FLAG_TRUNCATED | SegmentFlag.FLAG_TAIL
    begin, number = pieces[0].segment.offset, pieces[0].segment.tcp_sequence
    assert len(pieces) == min(PARTS_MAX, -(-len(data) // CAPTURE_MAX))
    for piece in pieces:
        rest = data[at:]
        is_last = piece is pieces[-1]
        assert piece.segment.offset == begin + at
        assert piece.segment.tcp_sequence == (number + at) % (1 << 32)
        assert piece.segment.length == (len(rest) if is_last else CAPTURE_MAX)
        assert piece.payload == rest[:CAPTURE_MAX]
        if len(rest) <= CAPTURE_MAX or not is_last:
            assert not piece.flags & flags
            assert piece.segment.tail == bytes(8)
        else:
            assert piece.flags & SegmentFlag.FLAG_TRUNCATED
            assert PARTS_MAX > 1 or piece.segment.tail == data[-8:]
        at += CAPTURE_MAX


SHAPES = {
    "one": [300],
    "empty first": [0, 0, 50, 0, 7],
    "empty last": [5, 0, 0],
    "sixteen": [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3],
    "sixteen, mostly empty": [0] * 15 + [11],
    "exactly the limit": [CAPTURE_MAX],
    "one over the limit": [CAPTURE_MAX + 1],
    "limit, then a byte": [CAPTURE_MAX, 1],
    "a byte, then the limit": [1, CAPTURE_MAX],
    "head and long body": [200, 65_536],
    "three that pass the limit": [10_000, 10_000, 10_000],
    "one beyond twice the limit": [2 * CAPTURE_MAX + 5],
    "each at the limit": [CAPTURE_MAX] * 4,
    "tail across two": [20_000, 3],
    "tail across three": [20_000, 3, 2],
    "tail across nine": [20_000] + [1] * 9,
    "tail across the last eight of sixteen": [20_000, 0, 0, 0, 0, 0, 0] + [1] * 9,
}


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES.keys())
def test_sent_vectors(recorder: Recorder, tcp: Pair, sizes: list[int]) -> None:
    client, server = room(recorder, tcp)
    data = NOISE[: sum(sizes)]
    with recorder.counting() as grown:
        assert client.sendmsg(split(data, sizes)) == len(data)
    pieces = recorder.of(client).of(SENT)
    check(pieces, data)
    assert grown == {"RECORDS_PRODUCED": 1 + len(pieces)}
    # The other way round: the same shape of buffers, filled by one call.
    got = 0
    while got < len(data):
        got += len(server.recv(1 << 18))
    server.sendall(data)
    recorder_wait(recorder, client, len(data))
    buffers = [bytearray(size) for size in sizes]
    assert client.recvmsg_into(buffers)[0] == len(data)
    check(recorder.of(client).of(RECEIVED), data)


def recorder_wait(recorder: Recorder, sock: socket.socket, size: int) -> None:
    """Until ``size`` bytes wait in the receive queue."""
    recorder.wait_for(
        lambda: readable(sock) and len(sock.recv(1 << 18, socket.MSG_PEEK)) >= size,
        f"{size} bytes have arrived",
    )


def readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def test_random_shapes(recorder: Recorder, tcp: Pair) -> None:
    client, server = room(recorder, tcp)
    dice = random.Random(11)
    sent = []
    for _ in range(60):  # all of it must find room in the ring
        count = dice.randint(1, VECTORS_MAX)
        sizes = [int(dice.choice((0, 1, 7, 8, 100, 3000)) * dice.random()) for _ in range(count)]
        at = dice.randrange(len(NOISE) // 2)
        data = NOISE[at : at + min(sum(sizes), CAPTURE_MAX)]
        if not data:
            continue
        assert client.sendmsg(split(data, sizes)) == len(data)
        sent.append(data)
        got = 0
        while got < len(data):
            buffers = [bytearray(dice.choice((0, 1, 9, 500))) for _ in range(15)]
            got += server.recvmsg_into([*buffers, bytearray(4096)])[0]
    pieces = recorder.of(client).of(SENT)
    assert [piece.payload for piece in pieces] == sent
    assert recorder.of(server).payload(RECEIVED) == b"".join(sent)


@pytest.mark.parametrize("extra", [1, 100])
def test_more_vectors_than_are_read(recorder: Recorder, tcp: Pair, extra: int) -> None:
    client, _ = tcp
    count = VECTORS_MAX + extra
    with recorder.counting() as grown:
        client.sendmsg([b"ab"] * count)
    (piece,) = recorder.of(client).of(SENT)
    assert piece.segment.length == 2 * count
    assert piece.payload == b"ab" * VECTORS_MAX
    assert piece.flags & SegmentFlag.FLAG_TRUNCATED
    assert not piece.flags & SegmentFlag.FLAG_TAIL  # it lies in a vector that was not read
    assert grown["UNREAD_VECTORS"] == 1
    assert grown["BYTES_UNREAD"] == 2 * extra


def test_nothing_in_the_vectors_that_are_read(recorder: Recorder, tcp: Pair) -> None:
    client, _ = tcp
    with recorder.counting() as grown:
        client.sendmsg([b""] * VECTORS_MAX + [b"behind"])
    (piece,) = recorder.of(client).of(SENT)
    assert (piece.segment.length, piece.payload) == (6, b"")
    assert piece.flags & SegmentFlag.FLAG_UNREAD
    assert (grown["UNREAD_VECTORS"], grown["BYTES_UNREAD"]) == (1, 6)


@pytest.mark.parametrize("size", [CAPTURE_MAX - 1, CAPTURE_MAX, CAPTURE_MAX + 1, 100_001])
def test_flat_buffers_around_the_limit(recorder: Recorder, tcp: Pair, size: int) -> None:
    client, server = room(recorder, tcp)
    data = NOISE[:size]
    assert client.send(data) == size
    recorder_wait(recorder, server, size)
    assert len(server.recv(size)) == size
    check(recorder.of(client).of(SENT), data)
    check(recorder.of(server).of(RECEIVED), data)


def test_short_read_into_large_buffers(recorder: Recorder, tcp: Pair) -> None:
    """What a call did not fill is not copied: old bytes of the buffer stay where they are."""
    client, server = tcp
    client.send(b"fresh")
    flat = bytearray(b"stale bytes of an earlier use" * 10)
    assert server.recv_into(flat) == 5
    client.send(b"again")
    parts = [bytearray(b"st"), bytearray(b"ale" * 30)]
    assert server.recvmsg_into(parts)[0] == 5
    assert [p.payload for p in recorder.of(server).of(RECEIVED)] == [b"fresh", b"again"]
