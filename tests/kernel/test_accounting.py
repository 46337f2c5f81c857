# SPDX-License-Identifier: Apache-2.0
"""produced = delivered + dropped, exactly, and whatever was dropped shows as a gap."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import pytest
from tests.e2e.harness.process import wait_until
from tests.kernel.child import running
from tests.kernel.conftest import Connect, Pair
from tests.kernel.recorder import DEADLINE, RECEIVED, SENT, Recorder, cookie_of, verdict

from otelauto.abi import AbiLimit, CaptureMode
from otelauto.kernel.capture import DATA_RING, SLEEPING_AT, WAKE_AT

pytestmark = pytest.mark.kernel


def stream(recorder: Recorder, *ends: socket.socket) -> None:
    """Copy everything of these connections, without a budget."""
    for end in ends:
        recorder.capture.put_connection_verdict(cookie_of(end), verdict(CaptureMode.MODE_STREAM))
    recorder.capture.publish()


def ping(pair: Pair, data: bytes, rounds: int) -> None:
    client, server = pair
    for _ in range(rounds):
        client.sendall(data)
        left = len(data)
        while left:
            left -= len(server.recv(left))


def test_consumer_that_stopped(recorder: Recorder, connect: Connect) -> None:
    pairs = [connect("tcp4") for _ in range(3)]
    stream(recorder, *(end for pair in pairs for end in pair))
    threads = [
        threading.Thread(target=ping, args=(pair, bytes([65 + n]) * 4000, 800))
        for n, pair in enumerate(pairs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters = recorder.counters()
    assert counters["DROP_RING_FULL"] > 0
    recorder.drain()
    assert counters["RECORDS_PRODUCED"] == recorder.delivered + counters["DROP_RING_FULL"]
    # The service goes on, the consumer is back: the next record of each shows what it lacks.
    gaps = 0
    for pair in pairs:
        ping(pair, b"again", 1)
    for pair in pairs:
        for end in pair:
            watched = recorder.of(end)
            assert watched.sequences == sorted(set(watched.sequences))
            gaps += watched.sequences[-1] + 1 - len(watched.sequences)
            last = watched.pieces[-1]
            assert last.payload == b"again"
            assert last.segment.offset == 4000 * 800
            assert last.segment.unseen == 0
    assert gaps == recorder.counters()["DROP_RING_FULL"]
    counters = recorder.counters()
    assert counters["RECORDS_PRODUCED"] == recorder.delivered + counters["DROP_RING_FULL"]


def test_opening_that_was_dropped_is_told_again(recorder: Recorder, connect: Connect) -> None:
    full, late = connect("tcp4"), connect("tcp4")
    stream(recorder, *full)
    ping(full, b"x" * 8000, DATA_RING // 8000 // 2 + 50)
    assert recorder.counters()["DROP_RING_FULL"] > 0
    ping(late, b"y" * 8000, 1)
    recorder.drain()
    ping(late, b"now", 1)
    for end in late:
        watched = recorder.of(end)
        assert len(watched.openings) == 1
        assert watched.pieces[-1].payload == b"now"
        assert watched.pieces[-1].segment.offset == 8000


def test_a_quarter_full_wakes_the_consumer_once(recorder: Recorder, tcp: Pair) -> None:
    stream(recorder, *tcp)
    recorder.capture.wait(0)  # whatever the registration left
    size, fill = 8000, 0.0
    # Two records each, a little over the mark: the fill is looked at every 16 records of a program.
    enough = WAKE_AT // (2 * size) + 100
    pings = threading.Thread(target=ping, args=(tcp, b"w" * size, enough))
    began = time.monotonic()
    pings.start()
    mark = WAKE_AT / DATA_RING
    while fill <= mark:
        recorder.capture.wait(30.0)
        fill = recorder.capture.ring_fill
        assert time.monotonic() - began < 25, "slept through the crossing"
    pings.join()
    assert fill > mark
    # Above the mark, and told already: no wake-up for each further record.
    ping(tcp, b"w" * size, 5)
    assert not recorder.capture._poll.poll(0)
    # Drained and filled again: a new crossing, a new wake-up.
    recorder.drain()
    assert recorder.capture.ring_fill < mark
    ping(tcp, b"w" * size, enough)
    assert recorder.capture._poll.poll(0)
    assert recorder.counters()["DROP_RING_FULL"] == 0


def test_the_largest_records_are_whole_wherever_the_ring_wraps(
    recorder: Recorder, tcp: Pair
) -> None:
    """What a record has beyond the end of the ring is read from the part that is mapped again."""
    stream(recorder, *tcp)
    size = int(AbiLimit.CAPTURE_MAX)
    client, server = tcp
    laps, sent = 6, 0
    received = recorder.of(server)
    while sent < laps * DATA_RING // (2 * size):  # the sender's record and the receiver's
        data = sent.to_bytes(4, "little") * (size // 4)
        client.sendall(data)
        got = server.recv(size, socket.MSG_WAITALL)
        assert got == data
        recorder.drain()
        whole, received.pieces = received.payload(RECEIVED), []
        assert whole == data
        sent += 1
    assert recorder.counters()["DROP_RING_FULL"] == 0


def test_nothing_wakes_below_the_mark(recorder: Recorder, tcp: Pair) -> None:
    recorder.capture.wait(0)
    ping(tcp, b"w" * 1000, 100)
    assert not recorder.capture._poll.poll(0)


def test_what_comes_first_wakes_a_consumer_that_rests(recorder: Recorder, tcp: Pair) -> None:
    """Each way of waking is tried with a rest that nothing else would end before the deadline."""
    capture = recorder.capture
    ways = {
        "record": lambda: ping(tcp, b"w" * 100, 1),
        "process event": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        "wake": capture.wake,
    }
    for name, come in ways.items():
        capture.wait(0)  # whatever the step before left
        recorder.drain()
        resting = threading.Thread(target=capture.rest, args=(600.0,))
        resting.start()
        wait_until(lambda: capture._shared.view[SLEEPING_AT // 4] == 1, "it rests")
        come()
        resting.join(DEADLINE)
        assert not resting.is_alive(), f"a {name} did not wake it"
        assert capture._shared.view[SLEEPING_AT // 4] == 0


def test_only_the_first_record_wakes(recorder: Recorder, tcp: Pair) -> None:
    capture = recorder.capture
    ping(tcp, b"w" * 100, 1)
    recorder.drain()
    capture.wait(0)
    capture._shared.view[SLEEPING_AT // 4] = 1
    ping(tcp, b"w" * 100, 1)
    assert capture._poll.poll(DEADLINE)
    ping(tcp, b"w" * 100, 100)
    assert not capture._poll.poll(0)


def test_a_consumer_does_not_rest_over_what_waits(recorder: Recorder, tcp: Pair) -> None:
    ping(tcp, b"w" * 100, 1)
    recorder.capture.wait(0)
    resting = threading.Thread(target=recorder.capture.rest, args=(600.0,))
    resting.start()
    resting.join(DEADLINE)
    assert not resting.is_alive()


PEER = """
def write():
    for _ in range(2400): peer.sendall(b"c" * 1000)
writer = threading.Thread(target=write)
writer.start()
left = 2400000
while left: left -= len(peer.recv(1 << 16))
writer.join()
"""


def test_one_thread_reads_and_another_writes(recorder: Recorder) -> None:
    """200,000 segments at one end, both ways at once: each direction contiguous and exact."""
    count, size = 100_000, 24
    with running() as child, socket.create_server(("127.0.0.1", 0)) as listening:
        recorder.capture.unwatch(child.pid)
        port = listening.getsockname()[1]
        child.run(f"peer = socket.create_connection(('127.0.0.1', {port}))")
        server, _ = listening.accept()
        with server:
            stream(recorder, server)
            child.tell(f"exec({PEER!r}, globals())")
            threads = [
                threading.Thread(target=work, args=(recorder, server, count, size))
                for work in (_write, _read)
            ]
            for thread in threads:
                thread.start()
            tally, sequences = follow(recorder, server, threads)
    recorder.drain()
    counters = recorder.counters()
    assert counters["DROP_RING_FULL"] == 0
    assert tally == {SENT: count * size, RECEIVED: count * size}
    assert sequences == list(range(2 * count + 1))
    others = sum(len(watched.kinds) for watched in recorder.connections.values())
    assert counters["RECORDS_PRODUCED"] == recorder.delivered == others


def follow(
    recorder: Recorder, server: socket.socket, threads: list[threading.Thread]
) -> tuple[dict[int, int], list[int]]:
    """Check each record as it comes: bytes moved by direction, and all sequence numbers."""
    tally: dict[int, int] = {SENT: 0, RECEIVED: 0}
    letter = {SENT: {ord("s")}, RECEIVED: {ord("c")}}
    watched = recorder.of(server)
    alive = True
    while alive:
        alive = any(thread.is_alive() for thread in threads)
        recorder.capture.wait(0.02)
        recorder.drain()
        for piece in watched.pieces:
            segment = piece.segment
            assert (segment.offset, segment.unseen) == (tally[segment.direction], 0)
            assert set(piece.payload) == letter[segment.direction]
            tally[segment.direction] += segment.length
        watched.pieces.clear()
    return tally, sorted(watched.sequences)


def _write(recorder: Recorder, sock: socket.socket, count: int, size: int) -> None:
    for number in range(count):
        _leave_room(recorder, number)
        sock.sendall(b"s" * size)


def _read(recorder: Recorder, sock: socket.socket, count: int, size: int) -> None:
    for number in range(count):
        _leave_room(recorder, number)
        assert len(sock.recv(size, socket.MSG_WAITALL)) == size


def _leave_room(recorder: Recorder, number: int) -> None:
    """On a busy machine the reader of the ring may not keep up: nothing may be dropped here."""
    while number % 64 == 0 and recorder.capture.ring_fill > 0.5:
        time.sleep(0.001)
