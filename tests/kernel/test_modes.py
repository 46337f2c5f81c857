# SPDX-License-Identifier: Apache-2.0
"""How much is copied: modes, turns, budgets, starts of messages, and whose verdict counts."""

from __future__ import annotations

import socket

import pytest
from tests.kernel.conftest import Connect, Pair
from tests.kernel.recorder import RECEIVED, SENT, Piece, Recorder, cookie_of, verdict

from otelauto import abi
from otelauto.abi import AbiLimit, CaptureMode, SegmentFlag

pytestmark = pytest.mark.kernel

SMALL = int(AbiLimit.SMALL_SEGMENT)
HEADS, STREAM, NOTHING = (
    CaptureMode.MODE_HEADS,
    CaptureMode.MODE_STREAM,
    CaptureMode.MODE_NOTHING,
)
# bpf/turns.h
FIRST_TURN_WANT, UNDECIDED_WANT, LATER_WANT = 8192, 16384, 1024


def send(sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
    """One call each if it fits the buffers; at most as many segments on the other side."""
    sender.sendall(data)
    got = 0
    while got < len(data):
        got += len(receiver.recv(len(data) - got, socket.MSG_WAITALL))


def turns(pair: Pair, count: int) -> None:
    """Small turns to and fro: the first ones are copied generously, these use that up."""
    client, server = pair
    for _ in range(count):
        send(client, server, b"ping")
        send(server, client, b"pong")


def settle(recorder: Recorder, pair: Pair, sent: int, received: int, start: bytes = b"") -> None:
    """MODE_HEADS for the client: bytes wanted by direction, and how what it sends begins."""
    turns(pair, 2)
    recorder.capture.put_connection_verdict(
        cookie_of(pair[0]), verdict(HEADS, (received, sent), (b"", start))
    )
    recorder.capture.publish()


def last(recorder: Recorder, sock: socket.socket, direction: int, count: int = 1) -> list[Piece]:
    return recorder.of(sock).of(direction)[-count:]


def test_heads_wants_the_first_bytes_of_a_turn(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    settle(recorder, tcp, sent=1000, received=600, start=b"HTTP/1.")
    for fill in (b"a", b"b"):
        send(client, server, fill * 700)
        send(client, server, fill * 700)
        send(client, server, fill * 700)
        first, second, third = last(recorder, client, SENT, 3)
        assert first.payload == fill * 700
        assert second.payload == fill * 300
        assert third.payload == b""
        assert third.flags == SegmentFlag.FLAG_TAIL
        assert [bool(p.flags & SegmentFlag.FLAG_TURN_START) for p in (first, second, third)] == [
            True,
            False,
            False,
        ]
        assert second.segment.tail == third.segment.tail == fill * 8
        assert not first.flags & SegmentFlag.FLAG_TAIL
        # Not wanted is not cut: nothing that was asked for is missing.
        assert not (second.flags | third.flags) & SegmentFlag.FLAG_TRUNCATED
        send(server, client, fill * 5000)
        assert last(recorder, client, RECEIVED)[0].payload == fill * 600


def test_small_segments_are_copied_whatever_the_budget(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    settle(recorder, tcp, sent=100, received=100, start=b"HTTP/1.")
    send(client, server, b"x" * 1000)
    send(client, server, b"s" * SMALL)
    send(client, server, b"l" * (SMALL + 1))
    first, small, larger = last(recorder, client, SENT, 3)
    assert first.payload == b"x" * 100
    assert small.payload == b"s" * SMALL
    assert larger.payload == b""


def test_a_known_start_begins_a_message_in_mid_turn(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    settle(recorder, tcp, sent=300, received=0, start=b"HTTP/1.")
    send(client, server, b"x" * 1000)
    send(client, server, b"HTTP/1.1 200 OK\r\n" + b"h" * 983)
    send(client, server, b"HTTP/2.0 is another\r\n" + b"h" * 979)
    client.sendmsg([b"HTTP/1.0 ", b"i" * 991])
    server.recv(1000, socket.MSG_WAITALL)
    # The first vector alone is looked at: what it holds may begin a message, or cannot.
    for parts in ([b"HTTP", b"/1.0 " + b"j" * 991], [b"", b"k" * 1000], [b"3e8\r\n", b"l" * 995]):
        client.sendmsg(parts)
        server.recv(1000, socket.MSG_WAITALL)
    got = [piece.payload for piece in last(recorder, client, SENT, 7)]
    assert got[0] == b"x" * 300
    assert got[1] == b"HTTP/1.1 200 OK\r\n" + b"h" * 283
    assert got[2] == b""
    assert got[3] == b"HTTP/1.0 " + b"i" * 291
    assert got[4] == b"HTTP/1.0 " + b"j" * 291
    assert got[5] == b"k" * 300
    assert got[6] == b""


def test_a_message_head_in_mid_turn_goes_on_in_the_next_segment(
    recorder: Recorder, tcp: Pair
) -> None:
    client, server = tcp
    settle(recorder, tcp, sent=900, received=0, start=b"HTTP/1.")
    send(client, server, b"x" * 1000)
    send(client, server, b"HTTP/1.1" + b"a" * 492)
    send(client, server, b"b" * 1000)
    got = [piece.payload for piece in last(recorder, client, SENT, 3)]
    assert got == [b"x" * 900, b"HTTP/1.1" + b"a" * 492, b"b" * 400]


@pytest.mark.parametrize(("want", "later"), [(3000, LATER_WANT), (400, 400), (0, 0)])
def test_without_a_known_start_every_segment_may_hold_a_head(
    recorder: Recorder, tcp: Pair, want: int, later: int
) -> None:
    client, server = tcp
    settle(recorder, tcp, sent=want, received=0)
    send(client, server, b"x" * 4000)
    send(client, server, b"y" * 4000)
    assert [p.payload for p in last(recorder, client, SENT, 2)] == [b"x" * want, b"y" * later]


def test_nothing_but_the_end(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    turns(tcp, 1)
    recorder.capture.put_connection_verdict(cookie_of(client), verdict(NOTHING))
    recorder.capture.publish()
    before = len(recorder.of(client).kinds)
    with recorder.counting() as grown:
        for _ in range(5):
            send(client, server, b"ciphertext" * 100)
    assert len(recorder.of(client).kinds) == before
    cookie = cookie_of(client)
    assert grown["RECORDS_PRODUCED"] == 5  # the server's own, which is still copied
    client.close()
    server.recv(1)
    server.close()
    recorder.wait_for(
        lambda: bool(recorder.of(cookie).flagged(SegmentFlag.FLAG_CLOSED)), "the end is told"
    )
    assert recorder.of(cookie).endings[-1].offset == 4 + 5000


def test_offsets_go_on_while_nothing_is_copied(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    turns(tcp, 1)
    for mode in (NOTHING, STREAM):
        recorder.capture.put_connection_verdict(cookie_of(client), verdict(mode))
        recorder.capture.publish()
        send(client, server, b"123456789")
    (piece,) = last(recorder, client, SENT)
    assert (piece.segment.offset, piece.segment.unseen, piece.payload) == (13, 0, b"123456789")


def test_first_turns_are_generous_whatever_the_verdict(
    recorder: Recorder, connect: Connect
) -> None:
    port_of = connect("tcp4")[1].getsockname()[1]
    key = abi.EndpointKey(bytes(16), netns(recorder, connect), port_of, 1)
    assert recorder.capture.put_endpoint_verdict(key, verdict(HEADS, (50, 50)))
    recorder.capture.publish()
    client, server = connect("tcp4")
    request, answer = b"q" * 10_000, b"a" * 10_000
    for _ in range(2):
        send(client, server, request)
        send(server, client, answer)
    pieces = recorder.of(server).pieces
    assert len(pieces[0].payload) >= 1
    by_turn: list[int] = []
    for piece in pieces:
        if piece.flags & SegmentFlag.FLAG_TURN_START:
            by_turn.append(0)
        by_turn[-1] += len(piece.payload)
    assert by_turn == [FIRST_TURN_WANT, FIRST_TURN_WANT, 50, 50]


def netns(recorder: Recorder, connect: Connect) -> int:
    client, server = connect("tcp4")
    send(client, server, b"x")
    return int(recorder.of(client).openings[0][0].netns)


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "mapped"])
@pytest.mark.parametrize("local", [1, 0], ids=["listener", "remote"])
def test_endpoint_verdict(recorder: Recorder, connect: Connect, kind: str, local: int) -> None:
    """Of the listener it holds for accepted sockets; of the remote end for the client's."""
    first, accepted = connect(kind)
    send(first, accepted, b"x")
    ((opening, _),) = recorder.of(accepted if local else first).openings
    key = abi.EndpointKey(
        bytes(16) if local else opening.remote,
        opening.netns,
        opening.local_port if local else opening.remote_port,
        local,
    )
    assert recorder.capture.put_endpoint_verdict(key, verdict(NOTHING))
    recorder.capture.publish()
    client, server = connect(kind)
    send(client, server, b"hidden at one end")
    hidden, shown = (server, client) if local else (client, server)
    assert not recorder.of(hidden).pieces
    assert recorder.of(shown).pieces[0].payload == b"hidden at one end"


def test_the_connections_own_verdict_comes_first(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    send(client, server, b"x")
    ((opening, _),) = recorder.of(server).openings
    key = abi.EndpointKey(bytes(16), opening.netns, opening.local_port, 1)
    assert recorder.capture.put_endpoint_verdict(key, verdict(NOTHING))
    recorder.capture.put_connection_verdict(cookie_of(server), verdict(STREAM))
    recorder.capture.publish()
    send(client, server, b"still here")
    assert last(recorder, server, RECEIVED)[0].payload == b"still here"


def test_a_verdict_takes_effect_when_it_is_published(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    turns(tcp, 1)
    recorder.capture.put_connection_verdict(cookie_of(client), verdict(NOTHING))
    send(client, server, b"before")
    assert last(recorder, client, SENT)[0].payload == b"before"
    recorder.capture.publish()
    send(client, server, b"after")
    assert last(recorder, client, SENT)[0].payload == b"before"


def test_without_a_verdict_much_of_each_turn_is_copied(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    turns(tcp, 2)
    size, copied = 4000, 0
    while copied < UNDECIDED_WANT:
        send(client, server, b"w" * size)
        copied += len(last(recorder, client, SENT)[0].payload)
    assert copied == UNDECIDED_WANT
    send(client, server, b"x" * size)  # the turn had its share
    assert last(recorder, client, SENT)[0].payload == b"x" * SMALL
    send(server, client, b"y" * 4)
    send(client, server, b"z" * size)
    assert last(recorder, client, SENT)[0].payload == b"z" * size


def test_a_settled_stream_has_no_budget(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    turns(tcp, 1)
    recorder.capture.put_connection_verdict(cookie_of(client), verdict(STREAM))
    recorder.capture.publish()
    total = 0
    while total < UNDECIDED_WANT * 4:
        send(client, server, b"w" * 16_000)
        total += 16_000
    pieces = recorder.of(client).of(SENT)[1:]
    assert sum(len(piece.payload) for piece in pieces) == total
