# SPDX-License-Identifier: Apache-2.0
"""Callers whose registers do not describe their bytes: io_uring, 32-bit code."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from tests.kernel.recorder import DEADLINE, RECEIVED, SENT, Recorder, Watched
from tests.kernel.tier import SEES_CALLS
from tests.unsupported import Unsupported

from otelauto.abi import SegmentFlag

pytestmark = pytest.mark.kernel

PROGRAMS = Path(__file__).parent / "programs"


def compile_c(name: str, to: Path, *options: str) -> Path:
    binary = to / name
    source = PROGRAMS / f"{name}.c"
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", *options, "-o", str(binary), str(source)],
        check=True,
    )
    return binary


def of_process(recorder: Recorder, pid: int) -> Watched:
    recorder.drain()
    (watched,) = [
        watched
        for watched in recorder.connections.values()
        if watched.openings and watched.openings[0][0].tgid == pid
    ]
    return watched


def test_io_uring(recorder: Recorder, tmp_path: Path) -> None:
    """Sends and receives of a ring are unread, the plain write between them is read."""
    binary = compile_c("uring", tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        recorder.counting() as grown,
    ):
        child = subprocess.Popen(
            [binary, str(listening.getsockname()[1])], stdout=subprocess.PIPE, text=True
        )
        with child:
            listening.settimeout(DEADLINE)
            accepted, _ = listening.accept()
            with accepted:
                accepted.settimeout(DEADLINE)
                while data := accepted.recv(100):
                    accepted.sendall(data)
            assert child.stdout
            said = child.stdout.read()
        if child.returncode == 2:
            raise Unsupported("this kernel refuses io_uring_setup")
        assert said == "moved 55\n"
        watched = of_process(recorder, child.pid)
        recorder.drain()
    sent, received = watched.of(SENT), watched.of(RECEIVED)
    if SEES_CALLS:  # a ring moves bytes without a call of theirs: that some passed is known
        (write,) = sent
        assert (write.payload, received) == (b"plain write", [])
        assert write.flags & SegmentFlag.FLAG_MIDSTREAM
        return
    assert [(p.segment.offset, p.segment.length, p.payload) for p in sent] == [
        (0, 22, b""),
        (22, 11, b"plain write"),
    ]
    assert [(p.segment.offset, p.segment.length, p.payload) for p in received] == [
        (0, 22, b""),
        (22, 11, b""),
    ]
    unread = [sent[0], *received]
    assert all(piece.flags & SegmentFlag.FLAG_UNREAD for piece in unread)
    assert not any(piece.segment.unseen for piece in sent + received)
    assert (grown["UNREAD_OTHER_CALL"], grown["BYTES_UNREAD"]) == (3, 55)


def test_32_bit_caller(recorder: Recorder, tmp_path: Path) -> None:
    bare = ("-static", "-nostdlib", "-no-pie", "-fno-stack-protector")
    binary = compile_c("compat", tmp_path, *bare)
    mine, its = socket.socketpair()
    with mine, its, recorder.counting() as grown:
        mine.send(b"an answer")
        child = subprocess.Popen([binary], stdin=its)
        child.wait()
        if child.returncode < 0:
            raise Unsupported("this kernel has no 32-bit system calls")
        assert child.returncode == 0
        assert mine.recv(100) == b"32-bit bytes"
        watched = of_process(recorder, child.pid)
    assert [(p.segment.direction, p.segment.length, p.payload) for p in watched.pieces] == [
        (SENT, 12, b""),
        (RECEIVED, 9, b""),
    ]
    assert all(piece.flags & SegmentFlag.FLAG_UNREAD for piece in watched.pieces)
    assert (grown["UNREAD_COMPAT_TASK"], grown["BYTES_UNREAD"]) == (2, 21)
