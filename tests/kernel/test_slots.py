# SPDX-License-Identifier: Apache-2.0
"""recvmmsg and sendmmsg: every message's own bytes, or none; never those of another slot."""

from __future__ import annotations

import errno
import socket
import threading

import pytest
from tests.kernel.calls import Slots, Timeout
from tests.kernel.conftest import Connect, Pair
from tests.kernel.recorder import RECEIVED, SENT, Recorder, cookie_of, verdict
from tests.kernel.tier import VECTORS_MAX

from otelauto.abi import CaptureMode, SegmentFlag

pytestmark = pytest.mark.kernel


def payloads(recorder: Recorder, sock: socket.socket, direction: int) -> list[bytes]:
    return [piece.payload for piece in recorder.of(sock).of(direction)]


@pytest.mark.parametrize("kind", ["tcp4", "mptcp", "unix"])
def test_each_message_of_sendmmsg(recorder: Recorder, connect: Connect, kind: str) -> None:
    client, server = connect(kind)
    messages = [[b"one"], [b"tw", b"", b"o!"], [b"three" * 100], [b"4"]]
    whole = [b"".join(parts) for parts in messages]
    slots = Slots(messages)
    for _ in range(3):  # the same array again: it starts at its first slot each time
        assert slots.send(client) == 4
    assert payloads(recorder, client, SENT) == whole * 3
    got = b""
    while len(got) < 3 * sum(map(len, whole)):
        got += server.recv(4096)
    assert recorder.of(server).payload(RECEIVED) == got == b"".join(whole) * 3


def test_message_without_bytes_is_a_slot_too(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    slots = Slots([[b"first"], [b""], [b"third"]])
    for _ in range(2):
        assert slots.send(client) == 3
    assert payloads(recorder, client, SENT) == [b"first", b"third"] * 2
    assert server.recv(100) == b"firstthird" * 2


def test_a_call_whose_bytes_are_not_wanted_moves_the_slot_on_too(
    recorder: Recorder, connect: Connect
) -> None:
    """The thread's next call with the same array, on another connection, begins at its first."""
    (unread, _), (read, _) = connect("tcp4"), connect("tcp4")
    nothing = verdict(CaptureMode.MODE_NOTHING)
    recorder.capture.put_connection_verdict(cookie_of(unread), nothing)
    recorder.capture.publish()
    slots = Slots([[b"first"], [b""], [b"third"]])
    for _ in range(2):
        assert slots.send(unread) == 3
        assert slots.send(read) == 3
    assert payloads(recorder, unread, SENT) == []
    assert payloads(recorder, read, SENT) == [b"first", b"third"] * 2


def test_same_array_with_another_count(recorder: Recorder, tcp: Pair) -> None:
    client, _ = tcp
    slots = Slots([[b"a" * 10], [b"b" * 20], [b"c" * 30], [b"d" * 40]])
    assert slots.send(client, 2) == 2
    assert slots.send(client, 4) == 4
    assert slots.send(client, 1) == 1
    assert slots.send(client, 1) == 1
    assert [len(p) for p in payloads(recorder, client, SENT)] == [10, 20, 10, 20, 30, 40, 10, 10]
    assert b"".join(payloads(recorder, client, SENT)).startswith(b"a" * 10 + b"b" * 20 + b"a" * 10)


def test_nonblocking_recvmmsg_that_stops_early(recorder: Recorder, connect: Connect) -> None:
    client, server = connect("tcp4")
    slots = Slots([[4], [4], [4], [4]])
    sent = b""
    for text in (b"aaaabbbb", b"cccc", b"ddddeeeeffff", b"gggghhhhiiiijjjj"):
        client.send(text)
        sent += text
        assert slots.receive(server, flags=socket.MSG_DONTWAIT) == len(text) // 4
    with pytest.raises(OSError) as stopped:
        slots.receive(server, flags=socket.MSG_DONTWAIT)
    assert stopped.value.errno == errno.EAGAIN
    assert payloads(recorder, server, RECEIVED) == [sent[i : i + 4] for i in range(0, len(sent), 4)]


def test_wait_for_one_only(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    slots = Slots([[5], [5], [5]])
    waitforone = 0x10000  # MSG_WAITFORONE
    for text in (b"first", b"again", b"third"):
        client.send(text)
        assert slots.receive(server, flags=waitforone) == 1
    assert payloads(recorder, server, RECEIVED) == [b"first", b"again", b"third"]


def test_partial_send_ends_the_call(recorder: Recorder, connect: Connect) -> None:
    client, server = connect("tcp4")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    small, large = [b"s" * 100], [b"L" * 8_000_000]
    slots = Slots([small, large, [b"never" * 20]])
    assert slots.send(client, flags=socket.MSG_DONTWAIT) == 2  # the second one in part
    partial = slots.lengths()[1]
    assert 0 < partial < len(large[0])
    drained = 0
    while drained < 100 + partial:
        drained += len(server.recv(1 << 20))
    assert slots.send(client, flags=socket.MSG_DONTWAIT) >= 1  # the same array from its start
    again = recorder.of(client).of(SENT)
    assert [p.segment.length for p in again[:2]] == [100, partial]
    assert again[0].payload == small[0]
    assert again[1].payload == b"L" * again[1].segment.captured
    assert again[2].payload == small[0]


def test_time_limit_hides_where_the_call_ends(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    slots = Slots([[4], [4]])
    client.send(b"aaaabbbb")
    with recorder.counting() as grown:
        assert slots.receive(server, timeout=Timeout(5, 0)) == 2
    assert grown["UNREAD_OTHER_CALL"] == 2
    assert grown["BYTES_UNREAD"] == 8
    assert [p.segment.length for p in recorder.of(server).of(RECEIVED)] == [4, 4]
    assert all(p.flags & SegmentFlag.FLAG_UNREAD for p in recorder.of(server).of(RECEIVED))
    assert recorder.of(server).payload(RECEIVED) == b""


def test_more_vectors_than_can_be_added_up(recorder: Recorder, tcp: Pair) -> None:
    """Whether such a message went out whole is not known, so what follows it is unread."""
    client, _ = tcp
    slots = Slots([[b"x"] * (VECTORS_MAX + 1), [b"second"]])
    assert slots.send(client) == 2
    first, second = recorder.of(client).of(SENT)
    assert first.payload == b"x" * VECTORS_MAX
    assert first.flags & SegmentFlag.FLAG_TRUNCATED
    assert second.payload == b""
    assert second.flags & SegmentFlag.FLAG_UNREAD


def test_threads_with_arrays_of_their_own_on_one_socket(recorder: Recorder, tcp: Pair) -> None:
    """Their messages mix on the wire; no record has bytes of another slot."""
    client, server = tcp
    rounds, per_thread = 200, 8
    total = 4 * rounds * sum(50 + slot for slot in range(per_thread))

    def send(thread: int) -> None:
        first = 65 + thread * per_thread
        slots = Slots([[bytes([first + slot]) * (50 + slot)] for slot in range(per_thread)])
        for _ in range(rounds):
            assert slots.send(client) == per_thread

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    got = 0
    while got < total:
        got += len(server.recv(1 << 16))
    for thread in threads:
        thread.join()
    pieces = recorder.of(client).of(SENT)
    assert len(pieces) == 4 * rounds * per_thread
    for piece in pieces:
        (fill,) = set(piece.payload)
        slot = (fill - 65) % per_thread
        assert len(piece.payload) == piece.segment.length == 50 + slot
