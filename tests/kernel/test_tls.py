# SPDX-License-Identifier: Apache-2.0
"""Plaintext of TLS: what the library's calls moved, once; whose socket it was, only when proven."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from tests.kernel.child import running
from tests.kernel.recorder import DEADLINE, RECEIVED, SENT, Recorder, Watched
from tests.kernel.tls_child import (
    TlsServer,
    is_plaintext,
    path_of,
    segments_in_order,
    text_of,
    tls_server,
)
from tests.unsupported import Unsupported

from otelauto.abi import CaptureMode, Opening, ProcessEventKind, SegmentFlag
from otelauto.counters import Counters
from otelauto.flows.vocabulary import Verdict
from otelauto.kernel.capture import Wanted
from otelauto.kernel.uprobe_links import BY_MULTI, BY_PERF, WAYS, Way
from otelauto.plaintext import LINKS_REFUSED, Plaintext
from otelauto.probe_cost import cost_of_a_call
from otelauto.verdicts import put_verdict

pytestmark = pytest.mark.kernel

WRAP = "tls = context.wrap_socket(accepted, server_side=True)"
BIO = "bio = Bio(accepted)\nbio.call(bio.tls.do_handshake)"
READ_BIO = "got = bio.call(bio.tls.read, 65536)"
BLOCK = 100_000
STATE_MAX = 4096
FIRST_CALL = """
first = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
try:
    first.do_handshake()
except ssl.SSLWantReadError:
    pass
"""


class Reading:
    """The real programs with libraries, and the probes of the processes it is told of."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self.recorder = Recorder(Wanted(libraries=True, ways=ways), watch_self=False)
        capture = self.recorder.capture
        if capture.libraries is None:
            self.recorder.close()
            raise Unsupported(capture.libraries_refused)
        self.counters = Counters()
        self.probes = capture.libraries
        self.plaintext = Plaintext(capture.libraries, "", self.counters)

    def watch(self, pid: int, library: str = "libssl") -> None:
        """Returns when the library's probes are in the process."""
        self.recorder.capture.watch(pid)
        self.plaintext.look(pid, "")
        self.recorder.wait_for(lambda: self.is_attached(pid, library), f"{library} has probes")

    def follow(self, server: TlsServer) -> None:
        """Returns when, after a first call of the library, the sockets are seen, too."""
        self.watch(server.pid)
        server.run(FIRST_CALL)
        self.recorder.wait_for(lambda: self.first_calls() == [server.pid], "the call is told")
        self.plaintext.called()
        self.recorder.wait_for(self.sees_sockets, "the sockets are seen")

    def first_calls(self) -> list[int]:
        """The processes that told of a first call, one for each time."""
        self.recorder.drain()
        told = (e for e in self.recorder.events if e.kind == ProcessEventKind.PROCESS_TLS)
        return [event.tgid for event in told]

    def sees_sockets(self) -> bool:
        return {"tls_received", "tls_sent"} <= self.probes._object._links.keys()

    def is_attached(self, pid: int, library: str = "libssl") -> bool:
        rows = self.plaintext.report(pid)["libraries"]
        assert isinstance(rows, list)
        return any(row["state"] == "attached" and library in row["path"] for row in rows)

    def sessions(self) -> list[Watched]:
        self.recorder.drain()
        found = self.recorder.connections
        return [found[cookie] for cookie in found if is_plaintext(cookie)]

    def wait_for_bytes(self, direction: int, count: int) -> Watched:
        """The one session, when so many bytes of it are recorded."""

        def enough() -> bool:
            found = self.sessions()
            moved = [sum(p.segment.length for p in one.of(direction)) for one in found]
            return bool(moved) and moved[0] >= count

        self.recorder.wait_for(enough, f"{count} bytes of plaintext")
        (session,) = self.sessions()
        return session

    def close(self) -> None:
        self.plaintext.close()
        self.recorder.close()


EITHER_WAY = pytest.mark.parametrize("reading", [[BY_MULTI], [BY_PERF]], indirect=True)


@pytest.fixture
def reading(request: pytest.FixtureRequest) -> Iterator[Reading]:
    with closing(Reading(getattr(request, "param", WAYS))) as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    with tls_server(tmp_path) as child:
        yield child


def last_opening(session: Watched) -> Opening:
    return session.openings[-1][0]


def check_socket(reading: Reading, server: TlsServer, client: ssl.SSLSocket) -> None:
    """The session's socket is the one that the client talks to, by address and by cookie."""
    (session,) = reading.sessions()
    opening = last_opening(session)
    assert opening.plaintext == 1
    assert (opening.local_port, opening.remote_port) == (server.port, client.getsockname()[1])
    carrier = reading.recorder.connections[opening.carrier]
    assert carrier.openings[0][0].remote_port == client.getsockname()[1]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("code", [WRAP, BIO], ids=["socket", "memory BIO"])
def test_plaintext_and_its_socket(
    reading: Reading, server: TlsServer, code: str, version: ssl.TLSVersion
) -> None:
    reading.follow(server)
    with server.connect(code, version) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        server.run("tls.read(100)" if code is WRAP else READ_BIO)
        server.run("tls.write(b'HTTP')" if code is WRAP else "bio.call(bio.tls.write, b'HTTP')")
        assert client.recv(100) == b"HTTP"
        session = reading.wait_for_bytes(SENT, 4)
        assert session.payload(RECEIVED) == b"GET / HTTP/1.1\r\n\r\n"
        assert session.payload(SENT) == b"HTTP"
        assert [piece.flags for piece in session.pieces] == [SegmentFlag.FLAG_TURN_START] * 2
        assert session.sequences == list(range(len(session.sequences)))
        assert len(session.openings) == 1, "proven before the first byte"
        check_socket(reading, server, client)


def test_all_of_a_long_write_is_copied_where_the_first_bytes_ask_for_it(
    reading: Reading, server: TlsServer
) -> None:
    verdict = Verdict(CaptureMode.MODE_STREAM, beginning=b"PRI * HT")
    put_verdict(reading.recorder.capture, verdict)
    reading.follow(server)
    with server.connect(WRAP) as client:
        client.sendall(b"PRI * HTTP/2.0")
        server.run("tls.read(100)")
        server.run(f"tls.write(bytes(range(250)) * {BLOCK // 250})")
        session = reading.wait_for_bytes(SENT, BLOCK)
    pieces = session.of(SENT)
    assert segments_in_order([piece.segment for piece in pieces]) == BLOCK
    assert session.payload(SENT) == bytes(range(250)) * (BLOCK // 250)
    assert len(pieces) > 1
    assert not any(piece.flags & SegmentFlag.FLAG_TRUNCATED for piece in pieces)


TALK = """
plain = listener.accept()[0]
assert plain.recv(100) == b"GET / HTTP/1.1\\r\\n\\r\\n"
plain.sendall(b"HTTP/1.1 204\\r\\n\\r\\n")
"""


def test_sockets_are_seen_from_the_first_call_on(reading: Reading, server: TlsServer) -> None:
    """A process that has the library and does not call it pays nothing for it."""
    reading.watch(server.pid)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        server.run(TALK)
        assert plain.recv(100).startswith(b"HTTP/1.1 204")
    assert reading.first_calls() == []
    reading.plaintext.scan()
    reading.plaintext.settle(DEADLINE)
    assert not reading.probes.was_called()
    assert not reading.probes._object._links
    with server.connect(BIO) as client:
        client.sendall(b"early")
        server.run(READ_BIO)
        session = reading.wait_for_bytes(RECEIVED, 5)
        assert reading.first_calls() == [server.pid], "told once"
        assert last_opening(session).carrier == 0
        assert not session.pieces[0].flags & SegmentFlag.FLAG_MIDSTREAM, "its handshake was seen"
        reading.plaintext.called()
        reading.recorder.wait_for(reading.sees_sockets, "the sockets are seen")
        for _ in range(2):
            client.sendall(b"late")
            server.run(READ_BIO)
        reading.wait_for_bytes(RECEIVED, 13)
        check_socket(reading, server, client)
    reading.plaintext.forget(server.pid)
    reading.recorder.wait_for(lambda: not reading.probes._object._links, "they are left")
    reading.watch(server.pid)
    assert reading.first_calls() == [server.pid]
    server.run(FIRST_CALL)
    reading.recorder.wait_for(
        lambda: reading.first_calls() == [server.pid] * 2, "the next first call is told, too"
    )
    # Should that event be lost, the next scan makes up for it.
    reading.plaintext.scan()
    reading.recorder.wait_for(reading.sees_sockets, "the sockets are seen again")


def test_threads_that_never_made_a_tls_call_are_passed_over(
    reading: Reading, server: TlsServer
) -> None:
    """No state is kept of them, even if what they send and receive looks like TLS."""

    def has_state(pid: int) -> bool:
        descriptor = os.pidfd_open(pid)
        try:
            key = descriptor.to_bytes(4, "little")
            return reading.probes._object.lookup("tls_threads", key, STATE_MAX) is not None
        finally:
            os.close(descriptor)

    reading.follow(server)
    with running() as neighbour:
        reading.recorder.capture.watch(neighbour.pid)
        neighbour.run("one, other = socket.socketpair(); one.send(b'\\x16\\x03\\x01\\0\\x01x')")
        neighbour.run("other.recv(100)")
        assert not has_state(neighbour.pid)
    assert has_state(server.pid)


# OpenSSL itself, as servers in C use it: writes may be accepted in part.
OPENSSL = """
import ctypes
ssl_ = ctypes.CDLL({library!r})
for name in ("SSL_CTX_new", "TLS_server_method", "SSL_new"):
    getattr(ssl_, name).restype = ctypes.c_void_p
P = ctypes.c_void_p
raw = P(ssl_.SSL_CTX_new(P(ssl_.TLS_server_method())))
assert ssl_.SSL_CTX_use_certificate_chain_file(raw, cert.encode()) == 1
assert ssl_.SSL_CTX_use_PrivateKey_file(raw, key.encode(), 1) == 1
ssl_.SSL_CTX_ctrl(raw, 33, 1, None)  # SSL_CTRL_MODE, SSL_MODE_ENABLE_PARTIAL_WRITE
"""
ACCEPT_RAW = """
accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
session = P(ssl_.SSL_new(raw))
assert ssl_.SSL_set_fd(session, accepted.fileno()) == 1
assert ssl_.SSL_accept(session) == 1
accepted.setblocking(False)
data = bytes(range(250)) * 400
buffer = ctypes.create_string_buffer(data)
sent = again = partial = 0
"""
WRITE_RAW = """
while sent < len(data):
    left = len(data) - sent
    count = ssl_.SSL_write(session, P(ctypes.addressof(buffer) + sent), left)
    if count <= 0:
        assert ssl_.SSL_get_error(session, count) == 3, count  # SSL_ERROR_WANT_WRITE
        again += 1
        break
    partial += count < left
    sent += count
print(sent, again, partial, flush=True)
"""


@EITHER_WAY
def test_a_write_counts_for_what_was_accepted(reading: Reading, server: TlsServer) -> None:
    """A socket buffer that is full: writes are refused, tried again, and accepted in part."""
    server.run(OPENSSL.format(library=path_of(server.pid, "libssl")))
    reading.follow(server)
    with server.connect(ACCEPT_RAW) as client:
        received, told = b"", (0, 0, 0)
        while len(received) < BLOCK:
            sent, again, partial = map(int, server.run(WRITE_RAW).split())
            told = (sent, told[1] + again, told[2] + partial)
            if sent > len(received):
                received += client.recv(65536)
        assert received == bytes(range(250)) * (BLOCK // 250)
        assert told[1], "a write was refused"
        assert told[2], "a write was accepted in part"
        session = reading.wait_for_bytes(SENT, BLOCK)
        pieces = session.of(SENT)
        assert len(pieces) > 1
        assert segments_in_order([piece.segment for piece in pieces]) == BLOCK
        for piece in pieces:
            at = piece.segment.offset
            assert piece.payload == received[at : at + len(piece.payload)]
        check_socket(reading, server, client)


@EITHER_WAY
def test_bytes_come_once_and_the_end_is_told(reading: Reading, server: TlsServer) -> None:
    reading.watch(server.pid)
    with server.connect(WRAP) as client:
        client.sendall(b"only once")
        server.run("tls.pending(); tls.read(4); tls.read(100)")
        session = reading.wait_for_bytes(RECEIVED, 9)
        assert session.payload(RECEIVED) == b"only once"
        server.run("tls.close()\ndel tls")
    reading.recorder.wait_for(
        lambda: bool(session.flagged(SegmentFlag.FLAG_CLOSED)), "the session ended"
    )


def test_a_session_joined_in_the_middle_says_so(reading: Reading, server: TlsServer) -> None:
    with server.connect(WRAP) as client:
        reading.follow(server)
        client.sendall(b"late")
        server.run("tls.read(100)")
        session = reading.wait_for_bytes(RECEIVED, 4)
        assert session.pieces[0].flags & SegmentFlag.FLAG_MIDSTREAM
        check_socket(reading, server, client)


ACCEPT = "kept.append(Bio(accepted))\nkept[-1].call(kept[-1].tls.do_handshake)"


def test_the_socket_is_not_guessed(reading: Reading, server: TlsServer) -> None:
    """Two sockets are read before either session is served: nobody knows which was whose."""
    server.run("kept = []")
    with server.connect(ACCEPT) as one, server.connect(ACCEPT) as two:
        reading.follow(server)
        for number in range(6):
            for client in (one, two):
                client.sendall(b"of one length %d" % number)
            server.run("for each in kept: each.receive()")
            server.run("for each in kept: each.tls.read(100)")
        reading.recorder.wait_for(lambda: len(reading.sessions()) == 2, "two sessions")
        reading.recorder.wait_for(
            lambda: all(len(each.of(RECEIVED)) == 6 for each in reading.sessions()), "all is read"
        )
        # ... or written to before either's bytes are sent.
        for number in range(6):
            server.run(f"for each in kept: each.tls.write(b'of one length {number}')")
            server.run("for each in kept: each.flush()")
            assert one.recv(100) == two.recv(100)
        reading.recorder.wait_for(
            lambda: all(len(each.of(SENT)) == 6 for each in reading.sessions()), "all is written"
        )
        assert {last_opening(each).carrier for each in reading.sessions()} == {0}
        # One after the other there is no doubt: two records are proof.
        for _ in range(2):
            for number, client in enumerate((one, two)):
                client.sendall(b"of one length 7")
                server.run(f"kept[{number}].call(kept[{number}].tls.read, 100)")
        peers = {one.getsockname()[1], two.getsockname()[1]}

        def proven() -> bool:
            return {last_opening(each).remote_port for each in reading.sessions()} == peers

        two.sendall(b"and")
        server.run("kept[1].call(kept[1].tls.read, 100)")
        one.sendall(b"and")
        server.run("kept[0].call(kept[0].tls.read, 100)")
        reading.recorder.wait_for(proven, "both are proven")


@EITHER_WAY
def test_only_the_process_that_is_watched_is_changed(
    reading: Reading, server: TlsServer, tmp_path: Path
) -> None:
    with tls_server(tmp_path) as neighbour:
        before = text_of(server.pid, "libssl")
        assert text_of(neighbour.pid, "libssl") == before
        reading.watch(server.pid)
        changed = text_of(server.pid, "libssl")
        places = [i for i, byte in enumerate(changed) if byte != before[i]]
        assert places, "there are probes"
        assert {changed[place] for place in places} == {0xCC}
        assert text_of(neighbour.pid, "libssl") == before
        with neighbour.connect(WRAP) as client:
            client.sendall(b"not ours")
            neighbour.run("tls.read(100)")
        assert reading.sessions() == []

        def untouched() -> bool:
            return text_of(server.pid, "libssl") == before

        reading.plaintext.pause(True)
        reading.recorder.wait_for(untouched, "it is left while otelauto pauses")
        reading.plaintext.pause(False)
        reading.recorder.wait_for(lambda: reading.is_attached(server.pid), "and entered again")
        assert text_of(server.pid, "libssl") == changed
        reading.plaintext.forget(server.pid)
        reading.recorder.wait_for(untouched, "the text is as it was")


@EITHER_WAY
def test_a_fork_a_late_library_and_a_deleted_one(reading: Reading, tmp_path: Path) -> None:
    """Found where it lies: loaded later, replaced on disk, in a child."""
    with tls_server(tmp_path) as donor:
        copy = tmp_path / "libssl-copy.so"
        copy.write_bytes(Path(path_of(donor.pid, "libssl")).read_bytes())
        reading.watch(donor.pid)
        donor.run(f"import ctypes\nlate = ctypes.CDLL({str(copy)!r})")
        copy.unlink()
        reading.plaintext.look(donor.pid, "")
        reading.recorder.wait_for(
            lambda: reading.is_attached(donor.pid, "libssl-copy"), "the late one has probes"
        )
        child = int(
            donor.run(
                "child = os.fork()\nif not child: import time; time.sleep(600)\n"
                "print(child, flush=True)"
            )
        )
        try:
            reading.watch(child)
            reading.recorder.wait_for(
                lambda: reading.is_attached(child, "libssl-copy"), "the child's has probes, too"
            )
            assert reading.counters.get(LINKS_REFUSED) == 0
        finally:
            os.kill(child, 9)
            donor.run("os.waitpid(child, 0)")


PROBING = """
import sys, time
from otelauto.counters import Counters
from otelauto.kernel.capture import Capture, Wanted
from otelauto.plaintext import Plaintext
capture = Capture(Wanted(libraries=True))
plaintext = Plaintext(capture.libraries, "", Counters())
plaintext.look(int(sys.argv[1]), "")
plaintext.settle(600)
print("probing", flush=True)
time.sleep(600)
"""


def test_the_text_is_as_it_was_when_otelauto_was_killed(
    reading: Reading, server: TlsServer
) -> None:
    before = text_of(server.pid, "libssl")
    command = [sys.executable, "-c", PROBING, str(server.pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as probing:
        assert probing.stdout
        assert probing.stdout.readline() == "probing\n"
        assert text_of(server.pid, "libssl") != before
        probing.kill()
    reading.recorder.wait_for(lambda: text_of(server.pid, "libssl") == before, "it is restored")


def test_the_cost_of_a_probe_is_measured_and_leaves_nothing(reading: Reading) -> None:
    probes = reading.recorder.capture.libraries
    assert probes is not None
    before = text_of(os.getpid(), "libc.so")
    assert cost_of_a_call(probes) > 0
    assert text_of(os.getpid(), "libc.so") == before


HIDE = """
import ctypes, shutil
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, PRIVATE, RECURSIVE = 0x20000, 1 << 18, 1 << 14
assert libc.unshare(NEWNS) == 0
assert libc.mount(b"none", b"/", None, PRIVATE | RECURSIVE, None) == 0
assert libc.mount(b"tmpfs", {directory!r}.encode(), b"tmpfs", 0, None) == 0
shutil.copy({library!r}, {directory!r} + "/libssl-hidden.so")
hidden = ctypes.CDLL({directory!r} + "/libssl-hidden.so")
"""


@EITHER_WAY
def test_a_library_of_another_mount_namespace(
    reading: Reading, server: TlsServer, tmp_path: Path
) -> None:
    """As of a container: its path means nothing here."""
    directory = tmp_path / "container"
    directory.mkdir()
    library = path_of(server.pid, "libssl")
    server.run(HIDE.format(directory=str(directory), library=library))
    assert list(directory.iterdir()) == []
    reading.watch(server.pid, "libssl-hidden")
    text = text_of(server.pid, "libssl-hidden")
    assert text != text_of(os.getpid(), "libssl")[: len(text)]
