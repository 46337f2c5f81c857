# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 clients that are nobody's of ours: what they shall send, and what they say they got.

Each is there, its libraries mapped, before it is told to begin, so that it can be watched, too.
Only nghttp cannot be made to wait.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.e2e.harness.plan import Features, Planned, make_plan
from tests.e2e.harness.process import Process
from tests.e2e.harness.servers import BUILT, HERE
from tests.e2e.harness.traffic import read_lines
from tests.scale import PATIENCE

Record = dict[str, Any]
AT_ONCE = 10
MEDIUM = 5000  # bytes; of what is larger
LARGE = 2  # requests of a client: some servers write answers together, and 512 KiB of it are read
POSTED = 5000  # bytes of nghttp's bodies: of one file for all requests of a process
_SENT = re.compile(r"send HEADERS frame <length=\d+, flags=0x\w+, stream_id=(\d+)>")
_PATH = re.compile(r"^ +:path: (\S+)$")
_STATUS = re.compile(r"recv \(stream_id=(\d+)\) :status: (\d+)$")
_DATA = re.compile(r"recv DATA frame <length=(\d+), flags=0x\w+, stream_id=(\d+)>")


@dataclass(frozen=True)
class Job:
    """``count`` requests to a port of 127.0.0.1; ``directory`` is for a client's files."""

    directory: Path
    port: int
    tls: bool
    count: int
    features: Features

    @property
    def base(self) -> str:
        """What comes before the path of an address."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def plan(self, prefix: str) -> list[Planned]:
        """The requests, without what HTTP/2 has no word for.

        Few are large, so that all is less than the ring takes: several streams at once leave an
        otelauto no time if it gets none from the machine.
        """
        plan = make_plan(prefix, prefix, self.count, self.features, raw=False)
        rng = random.Random(prefix)
        large = LARGE
        for request in plan:
            request["style"] = "whole"
            is_large = request["body"] > MEDIUM or request["path"].startswith("/big/")
            large -= is_large
            if request["path"].startswith("/close/") or (is_large and large < 0):
                request["path"], request["body"] = f"/items/{request['id']}", 0
                request["method"], request["framing"] = "GET", "none"
            if self.features.answers_early:  # who is answered may leave the rest of it unsent
                request["body"] = min(request["body"], rng.choice((1, 99, 1000)))
        return plan

    def body(self, size: int) -> Path:
        """A file of that size."""
        file = self.directory / f"{size}.body"
        if not file.exists():
            file.write_bytes(b"x" * size)
        return file


@dataclass(frozen=True)
class Client:
    """A client that waits. ``begin`` lets it go; ``finish`` waits for its end, gives its records.

    ``process`` is ``None`` if it is not there before it begins. Of a record ``local_port`` is 0 if
    the client does not tell.
    """

    name: str
    begin: Callable[[], object]
    finish: Callable[[], list[Record]]
    process: Process | None


def _record(planned: Planned, status: int, size: int, local_port: int) -> Record:
    # In HTTP/2 a body ends with its stream, which is as good as a length.
    return {
        "id": planned["id"], "method": planned["method"], "path": planned["path"], "style": "whole",
        "status": status, "request_bytes": planned["body"], "request_framing": "length",
        "response_bytes": size, "response_framing": "length", "local_port": local_port,
    }  # fmt: skip


def _wait(process: Process) -> None:
    code = process.popen.wait(90 * PATIENCE)
    assert code == 0, process.stderr()


def _waiting(process: Process) -> IO[bytes]:
    stdin = process.popen.stdin
    assert stdin is not None
    return stdin


def _curl_options(job: Job, request: Planned) -> str:
    """The part of a config file (curl(1), ``--config``) that makes curl send ``request``."""
    lines = [
        "silent",
        "show-error",
        "fail-early",
        "insecure",
        "max-time = 60",
        "http2" if job.tls else "http2-prior-knowledge",
        "output = /dev/null",
        'write-out = "%{json}\\n"',
        f'url = "{job.base}{request["path"]}"',
        "head" if request["method"] == "HEAD" else f"request = {request['method']}",
    ]
    if request["body"]:
        lines.append(f'data-binary = "@{job.body(request["body"])}"')
    return "\n".join(lines) + "\n"


def _curl_records(plan: Sequence[Planned], told: Sequence[Record]) -> list[Record]:
    by_id = {request["id"]: request for request in plan}
    found = []
    for one in told:
        assert one["http_version"] == "2"
        request = by_id[one["url_effective"].rpartition("/")[2]]
        found.append(_record(request, one["http_code"], one["size_download"], one["local_port"]))
    return found


@contextlib.contextmanager
def curl(job: Job) -> Iterator[Client]:
    """One curl over TLS, several requests at once on the connections that it makes."""
    plan, output = job.plan("c"), job.directory / "curl.out"
    text = "next\n".join(_curl_options(job, request) for request in plan)
    words = f"curl --disable --parallel --parallel-max {AT_ONCE} --config -".split()
    with (
        output.open("wb") as stdout,
        Process(
            words, job.directory / "curl.err", stdin=subprocess.PIPE, stdout=stdout.fileno()
        ) as process,
        _waiting(process) as stdin,
    ):

        def begin() -> None:
            stdin.write(text.encode())
            stdin.close()

        def finish() -> list[Record]:
            _wait(process)
            return _curl_records(plan, read_lines(output))

        yield Client("curl", begin, finish, process)


@contextlib.contextmanager
def curls(job: Job) -> Iterator[Client]:
    """A curl for each request: 7.88 does not use a connection without TLS again."""
    plan = job.plan("c")

    def one(request: Planned) -> Record:
        command = ["curl", "--disable", "--config", "-"]
        options = _curl_options(job, request).encode()
        done = subprocess.run(command, input=options, stdout=subprocess.PIPE, check=True)
        record: Record = json.loads(done.stdout)
        return record

    def finish() -> list[Record]:
        return _curl_records(plan, [one(request) for request in plan])

    yield Client("curl", lambda: None, finish, None)


@contextlib.contextmanager
def go(job: Job) -> Iterator[Client]:
    """net/http, four requests at once; some on connections of their own."""
    plan = {request["id"]: request for request in job.plan("g")}
    file, log = job.directory / "go.plan", job.directory / "go.log"
    file.write_text("".join(json.dumps(request) + "\n" for request in plan.values()))
    environment = {"CLIENT_HTTP2": "1", **({"CLIENT_TLS": "1"} if job.tls else {})}
    command = [BUILT / "client", file, log, str(job.port)]
    with (
        Process(
            command, job.directory / "go.err", env=environment, stdin=subprocess.PIPE
        ) as process,
        _waiting(process) as stdin,
    ):

        def finish() -> list[Record]:
            _wait(process)
            return [
                _record(plan[one["id"]], one["status"], one["response_bytes"], one["local_port"])
                for one in read_lines(log)
            ]

        yield Client("go", stdin.close, finish, process)


@contextlib.contextmanager
def python_h2(job: Job) -> Iterator[Client]:
    """The h2 library, without TLS, by a plan of its own."""
    log = job.directory / "h2.log"
    words = [job.port, job.count, AT_ONCE, log]
    started: list[Process] = []
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            command = [sys.executable, HERE / "clients" / "http2.py", *map(str, words)]
            process = Process(command, job.directory / "h2.err")
            started.append(stack.enter_context(process))

        def finish() -> list[Record]:
            _wait(started[0])
            return [
                _record(one, one["status"], one["response_bytes"], one["local_port"])
                for one in read_lines(log)
            ]

        yield Client("h2", begin, finish, None)


@contextlib.contextmanager
def nghttp(job: Job) -> Iterator[Client]:
    """nghttp, one for each method, with as many at once as the server says it allows."""
    groups = defaultdict(list)
    for request in job.plan("n"):
        if request["method"] == "POST":
            request["body"] = POSTED
        groups[request["method"]].append(request)
    started: list[tuple[Process, Path, Sequence[Planned]]] = []
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            for method, requests in groups.items():
                words: list[str | Path] = ["nghttp", "-nvy", "-M", str(AT_ONCE)]
                words += ["-H", f":method: {method}"]
                if method == "POST":
                    words += ["-d", job.body(POSTED)]
                words += [f"{job.base}{request['path']}" for request in requests]
                output = job.directory / f"nghttp-{method}.out"
                stdout = stack.enter_context(output.open("wb"))
                process = Process(
                    words, job.directory / f"nghttp-{method}.err", stdout=stdout.fileno()
                )
                started.append((stack.enter_context(process), output, requests))

        def finish() -> list[Record]:
            for process, _, _ in started:
                _wait(process)
            found = (read_frames(output.read_text(), plan) for _, output, plan in started)
            return list(itertools.chain.from_iterable(found))

        yield Client("nghttp", begin, finish, None)


def read_frames(text: str, plan: Sequence[Planned]) -> Iterator[Record]:
    """What nghttp's list of frames says of each request of ``plan``."""
    paths: dict[str, str] = {}
    statuses: dict[str, int] = {}
    sizes: dict[str, int] = defaultdict(int)
    sending = ""
    for line in text.splitlines():
        if match := _SENT.search(line):
            sending = match[1]
        elif match := _PATH.search(line):
            paths[match[1]] = sending
        elif match := _STATUS.search(line):
            statuses[match[1]] = int(match[2])
        elif match := _DATA.search(line):
            sizes[match[2]] += int(match[1])
    for request in plan:
        stream = paths[request["path"]]
        yield _record(request, statuses[stream], sizes[stream], 0)
