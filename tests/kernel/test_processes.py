# SPDX-License-Identifier: Apache-2.0
"""Processes: who is watched, from when to when, and that nobody else's bytes are ever read."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.kernel.child import running
from tests.kernel.conftest import Connect, Pair
from tests.kernel.recorder import RECEIVED, SENT, Recorder, inet_socket

from otelauto.abi import ProcessEventKind
from otelauto.errors import KernelError
from otelauto.kernel.capture import Capture, Wanted

pytestmark = pytest.mark.kernel

EXEC, FORK = ProcessEventKind.PROCESS_EXEC, ProcessEventKind.PROCESS_FORK
EXIT, LISTEN = ProcessEventKind.PROCESS_EXIT, ProcessEventKind.PROCESS_LISTEN

FORK_AND_ANSWER = """
child = os.fork()
if child == 0:
    accepted, _ = listener.accept()
    accepted.send(b"first bytes")
    os._exit(0)
"""
FORK_TWICE = """
if os.fork() == 0:
    if os.fork() == 0:
        one, other = socket.socketpair()
        one.send(b"deep")
        other.recv(9)
        os._exit(0)
    os.wait()
    os._exit(0)
os.wait()
"""


RANGES = [(21953, 21953), (22015, 22080)]


@pytest.fixture
def outside(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """It does not watch this process."""
    loaded = request.getfixturevalue("running")
    with closing(Recorder(watch_self=False, running=loaded)) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def of_ranges() -> Iterator[Capture]:
    with closing(Capture(Wanted(listen_ports=RANGES))) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def of_every_port() -> Iterator[Capture]:
    with closing(Capture(Wanted(listen_ports=[(1, 65_535)]))) as loaded:
        yield loaded


def events(recorder: Recorder, kind: int, tgid: int) -> int:
    recorder.drain()
    return sum(event.kind == kind and event.tgid == tgid for event in recorder.events)


def test_child_is_watched_from_its_first_bytes(outside: Recorder) -> None:
    with running() as parent:
        outside.capture.watch(parent.pid)
        parent.run("listener = socket.create_server(('127.0.0.1', 0))")
        port = int(parent.run("print(listener.getsockname()[1], flush=True)"))
        parent.run(f"exec({FORK_AND_ANSWER!r}, globals())")
        with socket.create_connection(("127.0.0.1", port)) as peer:
            assert peer.recv(100) == b"first bytes"
        child = int(parent.run("print(os.waitpid(child, 0)[0], flush=True)"))
        outside.wait_for(lambda: events(outside, EXIT, child) == 1, "the child's exit is told")
        (fork,) = [e for e in outside.events if e.kind == FORK]
        assert (fork.tgid, fork.parent) == (child, parent.pid)
        (watched,) = [one for one in outside.connections.values() if one.openings]
        assert watched.payload(SENT) == b"first bytes"
        assert watched.openings[0][0].tgid == child


def test_exec_keeps_the_process_watched(outside: Recorder) -> None:
    with running() as child:
        outside.capture.watch(child.pid)
        child.tell(
            f"os.execv({sys.executable!r}, ['python', '-c', "
            "'import socket; a, b = socket.socketpair(); a.send(b\"after exec\"); b.recv(10)'])"
        )
        child.process.wait(20)
        outside.wait_for(lambda: events(outside, EXIT, child.pid) == 1, "its exit is told")
    assert events(outside, EXEC, child.pid) == 1
    payloads = {watched.payload(SENT) for watched in outside.connections.values()}
    assert b"after exec" in payloads


def test_threads_that_end_first_are_no_exit(outside: Recorder) -> None:
    with running() as child:
        outside.capture.watch(child.pid)
        child.run("ts = [threading.Thread(target=os.getpid) for _ in range(8)]")
        child.run("[t.start() for t in ts]; [t.join() for t in ts]")
        assert events(outside, EXIT, child.pid) == 0
        # The first thread ends while another goes on, then that one ends the process.
        child.run("gate = threading.Event(); t = threading.Thread(target=gate.wait); t.start()")
        child.tell("import ctypes; ctypes.CDLL(None).syscall(60, 0)")
        outside.wait_for(
            lambda: _state(child.pid) == "Z", "the first thread has ended, the process has not"
        )
        assert events(outside, EXIT, child.pid) == 0
        child.process.kill()
        child.process.wait()
        outside.wait_for(lambda: events(outside, EXIT, child.pid) == 1, "its exit is told")
        assert events(outside, EXIT, child.pid) == 1


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_ended_process_leaves_the_table(outside: Recorder) -> None:
    with running() as child:
        outside.capture.watch(child.pid)
        assert _target(outside, child.pid) == b"\1\0\0\0"
    outside.wait_for(lambda: events(outside, EXIT, child.pid) == 1, "its exit is told")
    assert _target(outside, child.pid) is None


def _target(recorder: Recorder, pid: int) -> bytes | None:
    return recorder.capture._sockets.lookup("targets", pid.to_bytes(4, "little"), 4)


def test_an_entry_left_behind_does_not_watch_a_new_process(outside: Recorder) -> None:
    """A process id that is used again: the entry of its last owner counts for nothing."""
    last = int(Path("/proc/sys/kernel/ns_last_pid").read_text())
    stale = [pid for pid in range(last + 1, last + 400) if not Path(f"/proc/{pid}").exists()]
    for pid in stale:
        outside.capture.watch(pid)
    for _ in range(20):
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(os.getpid())"],
            capture_output=True,
            text=True,
            check=True,
        )
        pid = int(child.stdout)
        if last < pid < last + 400:
            break
    else:
        raise AssertionError("no process got one of the next 400 ids")
    assert events(outside, EXEC, pid) == 0
    assert _target(outside, pid) is None
    for pid in stale:
        outside.capture.unwatch(pid)


def test_full_table_is_counted() -> None:
    """A child that cannot be watched is a counted loss; adding by hand says so."""
    with closing(Recorder(watch_self=False)) as outside, running() as parent:
        outside.capture.watch(parent.pid)
        with pytest.raises(KernelError, match="cannot watch process"):
            watch_many(outside, 17_000)
        with outside.counting() as grown:
            parent.run("import subprocess; subprocess.run(['true'], check=True)")
        assert grown["DROP_TARGET_REFUSED"] >= 1
        assert not [e for e in outside.events if e.kind == FORK]


def watch_many(recorder: Recorder, count: int) -> None:
    for number in range(count):
        recorder.capture.watch((1 << 22) + 1 + number)  # above any process id


@pytest.mark.parametrize("kind", ["tcp", "mptcp"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_listen_on_wanted_ports_only(
    of_ranges: Capture, kind: str, family: socket.AddressFamily
) -> None:
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    wanted = {21953, 22015, 22016, 22079, 22080}
    other = {21952, 21954, 22014, 22081}
    with closing(Recorder(watch_self=False, running=of_ranges)) as recorder:
        for port in sorted(wanted | other):
            with inet_socket(kind, family) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((host, port))
                sock.listen()
        recorder.drain()
        heard = [(e.port, e.tgid) for e in recorder.events if e.kind == LISTEN]
        assert set(heard) == {(port, os.getpid()) for port in wanted}
        assert {e.netns for e in recorder.events} == {Path("/proc/self/ns/net").stat().st_ino}


def test_every_port_can_be_wanted(of_every_port: Capture) -> None:
    recorder = Recorder(watch_self=False, running=of_every_port)
    with closing(recorder), socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        recorder.drain()
        assert [e.port for e in recorder.events if e.tgid == os.getpid()] == [port]


def test_a_listening_process_wakes_the_consumer(of_every_port: Capture) -> None:
    with closing(Recorder(watch_self=False, running=of_every_port)) as recorder:
        recorder.capture.wait(0)
        with socket.create_server(("127.0.0.1", 0)):
            assert recorder.capture._poll.poll(0)


def test_bytes_of_others_never_appear(recorder: Recorder, tcp: Pair) -> None:
    """A canary passes between processes that are not watched, while watched traffic runs."""
    recorder.raw = []
    canary = secrets.token_bytes(32)
    client, server = tcp
    with running() as other:
        recorder.capture.unwatch(other.pid)  # as this process's child it is watched by itself
        other.run(f"canary = bytes.fromhex('{canary.hex()}')")
        other.run("a, b = socket.socketpair(); l = socket.create_server(('127.0.0.1', 0))")
        other.run("c = socket.create_connection(l.getsockname()); d, _ = l.accept()")
        other.run("pairs = ((a, b), (c, d), (d, c))")
        for number in range(200):
            other.tell("[(x.sendall(canary * 9), y.recv(4096)) for x, y in pairs]")
            client.sendall(b"watched %d" % number)
            server.recv(100)
        for _ in range(200):
            assert other.process.stdout
            assert other.process.stdout.readline() == "done\n"
        # Not even when it shares a socket with a watched process.
        port = int(other.run("print(l.getsockname()[1], flush=True)"))
        with socket.create_connection(("127.0.0.1", port)) as mine:
            other.run("e, _ = l.accept(); e.sendall(canary)")
            recorder.drain()
            before = b"".join(recorder.raw)
            assert mine.recv(100) == canary
        recorder.drain()
    assert canary[:8] not in before
    after = b"".join(recorder.raw)[len(before) :]
    assert canary in after  # the control: once this process receives it, it is this process's
    assert recorder.of(client).payload(SENT).startswith(b"watched 0watched 1")


def test_unwatched_at_once(recorder: Recorder, tcp: Pair) -> None:
    client, server = tcp
    client.send(b"before")
    recorder.capture.unwatch(os.getpid())
    client.send(b"not this")
    server.recv(100)
    assert recorder.of(client).payload(SENT) == b"before"
    assert not recorder.of(server).kinds


def test_excluded_and_constants(connect: Connect) -> None:
    """system_wide is only looked at: this test must not watch the host."""
    recorder = Recorder(Wanted(excluded=(os.getpid(),)), watch_self=False)
    with closing(recorder):
        client, server = connect("tcp4")
        client.send(b"excluded")
        server.recv(100)
        recorder.drain()
        assert not recorder.connections
        with running() as child:  # what an excluded process starts is excluded too
            assert _target(recorder, child.pid) == b"\2\0\0\0"


@pytest.mark.parametrize("direction", [SENT, RECEIVED])
def test_children_of_children(outside: Recorder, direction: int) -> None:
    with running() as parent:
        outside.capture.watch(parent.pid)
        parent.run(f"exec({FORK_TWICE!r}, globals())")
        outside.drain()
    assert b"deep" in {watched.payload(direction) for watched in outside.connections.values()}
