# SPDX-License-Identifier: Apache-2.0
"""Verdicts never run out of room, callers are named truly, and a detached capture is readable."""

from __future__ import annotations

import errno
import logging
import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.conftest import Pair
from tests.kernel.kernel_objects import ids
from tests.kernel.recorder import RECEIVED, SENT, Recorder, verdict

from otelauto import abi
from otelauto.abi import CaptureMode, SegmentFlag
from otelauto.errors import KernelError
from otelauto.kernel.capture import ENDINGS
from otelauto.kernel.libbpf import Library, library
from otelauto.kernel.objects import BpfObject

pytestmark = pytest.mark.kernel

HEADS = verdict(CaptureMode.MODE_HEADS, (100, 100))
ROOM = 4096  # endpoint_verdicts in bpf/connection.h


def key(number: int) -> abi.EndpointKey:
    return abi.EndpointKey(number.to_bytes(16, "big"), 1, abi.PortHost(80), 0)


def test_old_endpoints_make_room_for_new_ones(recorder: Recorder) -> None:
    for number in range(4 * ROOM):
        assert recorder.capture.put_endpoint_verdict(key(number), HEADS)
    packed = [abi.ENDPOINT_KEY.pack(*key(number)) for number in range(4 * ROOM)]
    lookup = recorder.capture._sockets.lookup
    size = abi.VERDICT.size
    kept = sum(lookup("endpoint_verdicts", one, size) is not None for one in packed)
    assert 0 < kept <= ROOM
    assert lookup("endpoint_verdicts", packed[-1], size) == abi.VERDICT.pack(*HEADS)


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EBUSY])
def test_a_kernel_without_memory_costs_a_verdict_only(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(recorder.capture._sockets, "update", refuse)
    assert not recorder.capture.put_connection_verdict(1, HEADS)
    assert not recorder.capture.put_endpoint_verdict(key(1), HEADS)


def test_every_segment_names_its_own_thread(recorder: Recorder, tcp: Pair) -> None:
    """One thread reads and another writes, as fast as they can: neither is taken for the other."""
    client, server = tcp
    rounds, seen = 3000, {}

    def write() -> None:
        seen[SENT] = threading.get_native_id()
        for _ in range(rounds):
            client.send(b"w" * 20)

    def read() -> None:
        seen[RECEIVED] = threading.get_native_id()
        for _ in range(rounds):
            client.recv(20)

    def echo() -> None:
        for _ in range(rounds):
            server.send(b"e" * 20)
            server.recv(20)

    threads = [threading.Thread(target=one) for one in (write, read, echo)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watched = recorder.of(client)
    for direction, tid in seen.items():
        pieces = watched.of(direction)
        assert len(pieces) >= rounds / 2
        assert {piece.segment.tid for piece in pieces} == {tid}
    assert {piece.segment.tgid for piece in watched.pieces} == {os.getpid()}


def test_a_detached_capture_can_still_be_read(tcp: Pair) -> None:
    client, server = tcp
    before = ids("link")
    with closing(Recorder()) as recorder:
        client.send(b"waits in the ring")
        assert ids("link") - before
        for _ in range(2):
            recorder.capture.detach()
            assert not ids("link") - before
        client.send(b"unseen")
        assert len(server.recv(100)) == 23
        (piece,) = recorder.of(client).pieces
        assert piece.payload == b"waits in the ring"
        assert recorder.counters()["RECORDS_PRODUCED"] == recorder.delivered == 2
        recorder.close()


def test_a_paused_capture_sees_no_bytes_but_every_ending(tcp: Pair) -> None:
    client, server = tcp
    before = ids("link")
    with closing(Recorder()) as recorder:
        client.send(b"seen")
        attached = ids("link") - before
        recorder.capture.pause()
        left = [name for name in recorder.capture._sockets.programs if name in ENDINGS]
        others = recorder.capture._processes.programs
        assert len(attached & ids("link")) == len(left) + len(others)
        client.send(b"unseen")
        assert len(server.recv(100)) == 10
        assert recorder.capture.resume()
        assert len(ids("link") - before) == len(attached)
        client.send(b"seen again")
        recorder.capture.pause()
        watched = recorder.of(client)
        assert [piece.payload for piece in watched.pieces] == [b"seen", b"seen again"]
        assert watched.pieces[1].segment.unseen == len(b"unseen")
        client.close()
        recorder.wait_for(lambda: bool(watched.flagged(SegmentFlag.FLAG_CLOSED)), "it is closed")


def test_programs_that_attach_only_once(tcp: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 5.13 those on functions do: they are loaded again, over the same maps and rings."""
    client, server = tcp
    real, once = Library.call, set[int]()

    def call(self: Library, function: str, *arguments: Any) -> Any:
        if function == "bpf_program__attach":
            told = Path(
                f"/proc/self/fdinfo/{real(self, 'bpf_program__fd', *arguments)}"
            ).read_text()
            program = int(told.partition("prog_id:")[2].split()[0])  # addresses are used again
            if program in once:
                raise OSError(errno.EINVAL, "Invalid argument")
            once.add(program)
        return real(self, function, *arguments)

    monkeypatch.setattr(Library, "call", call)
    with closing(Recorder()) as recorder:
        client.send(b"seen")
        recorder.capture.pause()
        assert recorder.capture.resume()
        recorder.capture.pause()
        assert recorder.capture.resume()
        client.send(b"seen again")
        assert len(server.recv(100)) == 14
        watched = recorder.of(client)
        assert [piece.payload for piece in watched.pieces] == [b"seen", b"seen again"]
        assert watched.sequences == [0, 1, 2]
        client.close()
        recorder.wait_for(lambda: bool(watched.flagged(SegmentFlag.FLAG_CLOSED)), "it is closed")
        assert watched.sequences == list(range(len(watched.sequences)))


def test_the_verifiers_words_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Library.call

    def call(self: Library, function: str, *arguments: Any) -> Any:
        if function == "bpf_object__load":
            self.log[:] = ["libbpf: prog 'x'", "0: R1=ctx()", "invalid access"]
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(self, function, *arguments)

    monkeypatch.setattr(Library, "call", call)
    caplog.set_level(logging.DEBUG, "otelauto.kernel")
    with (
        closing(BpfObject("procs")) as bpf,
        pytest.raises(KernelError, match="invalid access") as refusal,
    ):
        bpf.load()
    assert "--debug" in refusal.value.remedy
    assert [record.message for record in caplog.records] == library().log
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
