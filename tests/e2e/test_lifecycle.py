# SPDX-License-Identifier: Apache-2.0
"""Targets that start, die, come back, become another program, multiply; and how they are chosen."""

from __future__ import annotations

import contextlib
import http.client
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.e2e.harness.rig import Rig, ident_of, path_of, run
from tests.e2e.harness.servers import APPLICATION, BUILT
from tests.scale import SCALE

pytestmark = pytest.mark.e2e
WORKERS = 16
SERIES = "http_server_request_duration_seconds_count"

# Serves; at /exec the same process becomes another program that listens on the same port.
SCRIPT = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"ok\\n")
        if self.path == "/exec":
            os.execv(sys.executable, [sys.executable, sys.argv[2], sys.argv[1]])
    def log_message(self, *_):
        pass
HTTPServer.allow_reuse_address = True
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@contextlib.contextmanager
def epoll(directory: Path, port: int, program: Path = BUILT / "epoll") -> Iterator[Process]:
    with Process([program, "-p", str(port)], directory / "server.err") as process:
        process.wait_for(lambda: accepts(port), "it listens")
        yield process


def ask(port: int, paths: list[str]) -> None:
    """An exchange for each path, each on a new connection."""
    for path in paths:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", path)
        assert connection.getresponse().read()
        connection.close()


def paths(word: str, count: int) -> list[str]:
    return [f"/items/{word}-{number}" for number in range(count)]


def names(rig: Rig) -> set[str]:
    return {span["service"]["name"] for span in rig.spans}


def test_a_target_killed_and_restarted_on_its_port(tmp_path: Path) -> None:
    port = free_port()
    with Rig(tmp_path, {"open_port": port}) as rig:
        for life in range(3 * SCALE):
            with epoll(tmp_path, port) as process:
                rig.wait_for_target(process.pid, 2.0)
                ask(port, paths(f"life{life}", 20))
                process.popen.send_signal(signal.SIGKILL)
                process.popen.wait()
            rig.wait_for_paths(paths(f"life{life}", 20))
            wait_until(lambda: not rig.report()["targets"], "it is known to be dead")
        rig.stop()
    assert sorted(map(path_of, rig.spans)) == sorted(
        path for life in range(3 * SCALE) for path in paths(f"life{life}", 20)
    )
    assert names(rig) == {"epoll"}


def test_a_process_that_becomes_another_program(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    for script in (first, second):
        script.write_text(SCRIPT)
    port = free_port()
    words = [sys.executable, first, str(port), second]
    with (
        Process(words, tmp_path / "server.err") as process,
        Rig(tmp_path, {"open_port": port}) as rig,
    ):
        process.wait_for(lambda: accepts(port), "it listens")
        assert rig.wait_for_target(process.pid)["service"] == "first"
        ask(port, paths("a", 5))
        ask(port, ["/exec"])
        wait_until(
            lambda: [row["service"] for row in rig.report()["targets"]] == ["second"],
            "the new program is watched by its own name",
        )
        process.wait_for(lambda: accepts(port), "it listens again")
        ask(port, paths("b", 5))
        spans = rig.wait_for_paths([*paths("a", 5), *paths("b", 5)])
        assert process.popen.poll() is None
    assert [span["service"]["name"] for span in spans] == ["first"] * 5 + ["second"] * 5


def test_workers_that_multiply_and_go(tmp_path: Path) -> None:
    port = free_port()
    words = f"-m gunicorn --workers 1 --bind 127.0.0.1:{port} flask_app:application"
    environment = {"ACCESS_LOG": str(tmp_path / "access.log"), **APPLICATION}
    with (
        Process([sys.executable, *words.split()], tmp_path / "g.err", env=environment) as master,
        Rig(tmp_path, {"open_port": port}) as rig,
    ):

        def until_workers(count: int) -> None:
            wait_until(lambda: len(rig.report()["targets"]) == 1 + count, f"{count} workers", 60)

        until_workers(1)
        ask(port, paths("one", 10))
        for _ in range(WORKERS - 1):
            master.popen.send_signal(signal.SIGTTIN)
            wait_until(lambda: not pending(master.pid, signal.SIGTTIN), "it was taken")
        until_workers(WORKERS)
        ask(port, paths("many", 100))
        for left in range(WORKERS - 1, 0, -1):
            master.popen.send_signal(signal.SIGTTOU)
            until_workers(left)
        ask(port, paths("again", 10))
        rig.wait_for_spans(120)
        rig.stop()
    wanted = [*paths("one", 10), *paths("many", 100), *paths("again", 10)]
    assert sorted(map(path_of, rig.spans)) == sorted(wanted)
    assert len({span["service"]["instance_id"] for span in rig.spans}) == 1
    assert names(rig) == {"flask_app"}


def pending(pid: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd")]
    return bool(masks[0] >> (number - 1) & 1)


def test_series_of_a_dead_service_go_after_their_time(tmp_path: Path) -> None:
    port = free_port()
    with Rig(tmp_path, {"open_port": port}, limits={"series_ttl": "1s"}) as rig:
        with epoll(tmp_path, port) as process:
            rig.wait_for_target(process.pid)
            ask(port, paths("a", 5))
            rig.wait_for_paths(paths("a", 5))
            assert SERIES in rig.page()
            assert 'service_name="epoll"' in rig.page()
        wait_until(lambda: SERIES not in rig.page(), "its series are gone", 60)
        wait_until(lambda: 'service_name="epoll"' not in rig.page(), "so is it", 60)
        with epoll(tmp_path, port) as process:
            rig.wait_for_target(process.pid)
            ask(port, paths("b", 3))
            rig.wait_for_paths(paths("b", 3))
            counts = [line for line in rig.page().splitlines() if line.startswith(SERIES)]
        assert sum(float(line.split()[-1]) for line in counts) == 3, "it begins anew"


def test_a_selection_of_nothing_is_said(tmp_path: Path) -> None:
    with Rig(tmp_path, {"executable_name": "no-such-service"}) as rig:
        assert rig.report()["targets"] == []
        assert 'level=WARN msg="nothing matches the selection yet' in rig.process.stderr()
        shown = run("status", "--config", tmp_path / "otelauto.yml")
        assert shown.code == 0, shown.errors
        assert "none: nothing matches the selection" in shown.output


def test_by_executable_name_of_what_starts_later(tmp_path: Path) -> None:
    mine, other = tmp_path / "bin" / "my-service", tmp_path / "bin" / "other"
    mine.parent.mkdir()
    for program in (mine, other):
        program.write_bytes((BUILT / "epoll").read_bytes())
        program.chmod(0o755)
    with Rig(tmp_path, {"executable_name": "my-service"}) as rig:
        first, second = free_port(), free_port()
        with epoll(tmp_path, first, mine) as process, epoll(tmp_path, second, other):
            rig.wait_for_target(process.pid, 2.0)
            ask(second, paths("other", 5))
            ask(first, paths("mine", 5))
            rig.wait_for_paths(paths("mine", 5))
            assert [row["pid"] for row in rig.report()["targets"]] == [process.pid]
        rig.stop()
    assert sorted(map(path_of, rig.spans)) == sorted(paths("mine", 5))
    assert names(rig) == {"my-service"}


def test_by_process_id(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    with (
        epoll(tmp_path, ports[0]) as chosen,
        epoll(tmp_path, ports[1]),
        Rig(tmp_path, {"pids": [chosen.pid]}) as rig,
    ):
        for port, word in zip(ports, ("chosen", "other"), strict=True):
            ask(port, paths(word, 5))
        rig.wait_for_paths(paths("chosen", 5))
        rig.stop()
    assert {ident_of(span).split("-")[0] for span in rig.spans} == {"chosen"}


def test_a_deleted_binary(tmp_path: Path) -> None:
    program, port = tmp_path / "short-lived", free_port()
    program.write_bytes((BUILT / "epoll").read_bytes())
    program.chmod(0o755)
    with epoll(tmp_path, port, program) as process:
        program.unlink()
        with Rig(tmp_path, {"open_port": port}) as rig:
            assert rig.wait_for_target(process.pid)["service"] == "short-lived"
            ask(port, paths("a", 5))
            rig.wait_for_paths(paths("a", 5))
