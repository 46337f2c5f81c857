# SPDX-License-Identifier: Apache-2.0
"""Go's crypto/tls at close range: buffers on stacks that move, probes that come and go."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from tests.certificates import self_signed
from tests.e2e.harness import servers
from tests.e2e.harness.process import Process, accepts, free_port
from tests.kernel.recorder import DEADLINE, RECEIVED, SENT, Recorder, Watched
from tests.kernel.tls_child import is_plaintext, segments_in_order, text_of
from tests.scale import SCALE
from tests.unsupported import Unsupported

from otelauto.abi import SEGMENT, RecordKind, Segment, SegmentFlag
from otelauto.counters import Counters
from otelauto.discover.elf import Image
from otelauto.discover.go_tls import find_spots
from otelauto.kernel.capture import Wanted
from otelauto.kernel.go_probes import KEY, GoProbes
from otelauto.kernel.uprobe_links import BY_MULTI, BY_PERF, WAYS
from otelauto.kernel.uprobes import Link, Spot
from otelauto.plaintext import Plaintext

pytestmark = pytest.mark.e2e
PROGRAM = servers.BUILT / "tlsecho"
WORKERS, PROGRAMS = 2, 4
CYCLES = 500 * SCALE  # of all programs
SIZES = (1, 100, 4096, 5000, 16_384, 40_000)


class Echo:
    """A running tlsecho."""

    def __init__(self, process: Process, port: int) -> None:
        self.process, self.pid, self.port = process, process.pid, port

    def exchanges(self) -> int:
        """How many it had with itself so far."""
        stdin, stdout = self.process.popen.stdin, self.process.popen.stdout
        assert stdin
        assert stdout
        stdin.write(b"\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, f"it ended: {self.process.stderr()}"
        return int(answer)

    def connect(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout=30))


@contextmanager
def echo(directory: Path, workers: int, program: Path = PROGRAM) -> Iterator[Echo]:
    cert, key = self_signed(directory, "echo")
    port = free_port()
    words = [program, str(port), str(workers)]
    pipe = subprocess.PIPE
    process = Process(
        words, directory / "err", env={"TLS_CERT": cert, "TLS_KEY": key}, stdin=pipe, stdout=pipe
    )
    assert process.popen.stdin
    assert process.popen.stdout
    with process.popen.stdin, process.popen.stdout, process:
        process.wait_for(lambda: accepts(port), "tlsecho listens")
        yield Echo(process, port)


EITHER_WAY = pytest.mark.parametrize("recorder", [[BY_MULTI], [BY_PERF]], indirect=True)


@pytest.fixture
def recorder(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    wanted = Wanted(libraries=True, ways=getattr(request, "param", WAYS))
    with closing(Recorder(wanted, watch_self=False)) as running:
        if running.capture.go is None:
            raise Unsupported(running.capture.go_refused)
        yield running


def wait_for_new_exchange(server: Echo) -> None:
    """One that began after this was called: all but one a worker are.

    It is asked all the time: to be answered takes about as long as an exchange.
    """
    count, deadline = server.exchanges(), time.monotonic() + DEADLINE
    while server.exchanges() <= count + WORKERS:
        assert time.monotonic() < deadline, f"exchanges do not go on: {server.process.stderr()}"


def probes_of(recorder: Recorder) -> GoProbes:
    go = recorder.capture.go
    assert go
    for probe in go.watch_sockets():
        assert probe.state == "attached", probe.why
    return go


def places() -> list[Spot]:
    with Image(str(PROGRAM)) as image:
        return find_spots(image)


def attach(recorder: Recorder, pid: int) -> Link:
    recorder.capture.watch(pid)
    return probes_of(recorder).link(pid, str(PROGRAM), places())


def calls_of(recorder: Recorder, pid: int) -> int:
    """How many goroutines of the process are known to be in a call."""
    go = recorder.capture.go
    assert go
    return sum(KEY.unpack(key)[1] == pid for key in go._object.keys("go_calls", KEY.size))


def sessions(recorder: Recorder) -> list[Watched]:
    recorder.drain()
    found = recorder.connections
    return [found[cookie] for cookie in found if is_plaintext(cookie)]


def exchange(client: ssl.SSLSocket, size: int) -> bytes:
    text = bytes(range(256)) * (size // 256 + 1)
    client.sendall(text[:size])
    back = b""
    while len(back) < size:
        back += client.recv(65536)
    assert back == text[:size]
    return back


def moved(session: Watched, direction: int) -> int:
    return sum(piece.segment.length for piece in session.of(direction))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_the_program_reads_and_writes(
    recorder: Recorder, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    with echo(tmp_path, 0) as server, closing(attach(recorder, server.pid)):
        with server.connect(version) as client:
            whole = b"".join(exchange(client, size) for size in SIZES)
            recorder.wait_for(
                lambda: any(moved(one, SENT) == len(whole) for one in sessions(recorder)),
                "all that was sent is recorded",
            )
            (session,) = (one for one in sessions(recorder) if one.pieces)
            opening = session.openings[-1][0]
            assert opening.local_port == server.port
            assert opening.remote_port == client.getsockname()[1]
            assert recorder.connections[opening.carrier].openings
        recorder.wait_for(
            lambda: bool(session.flagged(SegmentFlag.FLAG_CLOSED)), "the session ended"
        )
    assert len(session.openings) == 1, "its socket is known before its first byte"
    for direction in (RECEIVED, SENT):
        pieces = session.of(direction)
        assert segments_in_order([piece.segment for piece in pieces]) == len(whole)
        for piece in pieces:
            at = piece.segment.offset
            assert piece.payload == whole[at : at + len(piece.payload)]
            assert not piece.flags & (SegmentFlag.FLAG_MIDSTREAM | SegmentFlag.FLAG_UNREAD)


@EITHER_WAY
def test_a_session_that_was_there_before(recorder: Recorder, tmp_path: Path) -> None:
    """The read that waits when the probes come is not seen; what follows is, and whose it is."""
    with echo(tmp_path, 0) as server, server.connect() as client:
        port = client.getsockname()[1]
        exchange(client, 10)
        with closing(attach(recorder, server.pid)):
            exchange(client, 1000)
            exchange(client, 3000)
            recorder.wait_for(lambda: calls_of(recorder, server.pid) == 1, "a read waits")
            recorder.wait_for(
                lambda: any(moved(one, SENT) == 4000 for one in sessions(recorder)),
                "both answers are recorded",
            )
            (session,) = sessions(recorder)
        assert calls_of(recorder, server.pid) == 0, "nothing is kept of a process without probes"
    assert session.openings[-1][0].remote_port == port
    assert session.of(SENT)[0].flags & SegmentFlag.FLAG_MIDSTREAM
    assert session.of(RECEIVED)[0].flags & SegmentFlag.FLAG_MIDSTREAM
    assert moved(session, RECEIVED) == 3000


@pytest.mark.timeout(600 * SCALE)
def test_programs_live_while_probes_come_and_go(recorder: Recorder, tmp_path: Path) -> None:
    """Under load, with stacks that move; a program checks each of its exchanges itself.

    To take probes out the kernel waits, for all who are waiting in the same time: so there are
    several programs, which are attached to and left together.
    """
    go, spots, seen = probes_of(recorder), places(), Counter[int]()
    directories = [tmp_path / str(number) for number in range(PROGRAMS)]
    for directory in directories:
        directory.mkdir()

    def count(view: memoryview) -> None:
        if view[0] == RecordKind.RECORD_SEGMENT:
            seen[Segment(*SEGMENT.unpack_from(view)).tgid] += 1

    def cycle(server: Echo) -> None:
        with closing(go.link(server.pid, str(PROGRAM), spots)):
            wait_for_new_exchange(server)

    with ExitStack() as stack:
        programs = [stack.enter_context(echo(one, WORKERS)) for one in directories]
        pool = stack.enter_context(ThreadPoolExecutor(PROGRAMS))
        before = [text_of(server.pid, PROGRAM.name) for server in programs]
        for server in programs:
            recorder.capture.watch(server.pid)
        for _ in range(CYCLES // PROGRAMS):
            list(pool.map(cycle, programs))
            recorder.capture.drain_records(count)
        list(pool.map(wait_for_new_exchange, programs))
        assert [text_of(server.pid, PROGRAM.name) for server in programs] == before
        for server in programs:
            assert server.process.popen.poll() is None
            assert seen[server.pid] >= CYCLES // PROGRAMS, "probes were hit each time"


def test_nothing_is_put_into_programs_that_check_their_code(
    recorder: Recorder, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        looked = {}
        for name in ("clickhouse-server", "shop"):
            directory = tmp_path / name
            directory.mkdir()
            program = Path(shutil.copy(PROGRAM, directory / name))
            looked[name] = stack.enter_context(echo(directory, 1, program))
        before = {name: text_of(one.pid, name) for name, one in looked.items()}
        capture = recorder.capture
        plaintext = Plaintext(capture.libraries, "", Counters(), go=(capture.go, ""))
        with closing(plaintext):
            for one in looked.values():
                plaintext.look(one.pid, "go")
            plaintext.settle(20)
            rows = {name: plaintext.report(one.pid) for name, one in looked.items()}
            assert text_of(looked["shop"].pid, "shop") != before["shop"]
            for name, one in looked.items():
                (row,) = rows[name]["libraries"]  # type: ignore[misc, attr-defined]
                assert row["state"] == ("excluded" if "clickhouse" in name else "attached")
                assert bool(row["why"]) is ("clickhouse" in name)
                if "clickhouse" in name:
                    assert text_of(one.pid, name) == before[name]
        assert {name: text_of(one.pid, name) for name, one in looked.items()} == before
