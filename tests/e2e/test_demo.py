# SPDX-License-Identifier: Apache-2.0
"""The demo: what the services counted is what was seen, and nothing is left behind."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from tests.e2e.harness.process import Process, wait_until

pytestmark = pytest.mark.e2e
DEMO = Path(__file__).resolve().parent.parent.parent / "examples" / "demo"
COMMAND = (sys.executable, DEMO / "demo.py")
SERVICES = {"shop", "catalog", "cart", "stock", "reviews", "pricing"}
ROW = re.compile(r"(\S+) +(server|client) +(\d+) +(\d+)( +DIFFERENT)?")


def rows_of(output: str) -> dict[tuple[str, str], tuple[int, int]]:
    """(counted, seen) by service and kind, from the table at the end."""
    found = {}
    for line in output.splitlines():
        if match := ROW.fullmatch(line):
            found[match[1], match[2]] = (int(match[3]), int(match[4]))
    return found


def left_behind(directory: Path) -> list[str]:
    """Processes whose environment names ``directory``: every child of the demo has it as TMPDIR."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_text()
        except OSError:
            continue  # it has ended
        if str(directory).encode() in environment and int(entry.name) != os.getpid():
            found.append(f"{entry.name} {command}")
    return found


def environment(directory: Path, seconds: int) -> Mapping[str, str]:
    return {**os.environ, "TMPDIR": str(directory), "DEMO_SECONDS": str(seconds)}


def test_counted_is_seen(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND, env=environment(tmp_path, 8), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(done.stdout)
    assert {service for service, _ in rows} == SERVICES, "a runtime is missing"
    assert {service for service, kind in rows if kind == "client"} == SERVICES - {"pricing"}
    assert all(counted == seen for counted, seen in rows.values())
    assert rows["shop", "server"][0] > 50
    assert not left_behind(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_agents_demo_shows_what_the_stores_know(tmp_path: Path) -> None:
    words, env = (sys.executable, DEMO / "agent_demo.py"), environment(tmp_path, 2)
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rates, _, graph = done.stdout.partition("Share of errors")
    assert set(re.findall(r"^  (\w+) +/", rates, re.MULTILINE)) <= SERVICES
    assert re.search(r"^  shop +/", rates, re.MULTILINE)
    assert re.search(r"^ +user -> shop +\d+$", graph, re.MULTILINE)
    assert re.search(r"^A trace, [0-9a-f]{32}:$", graph, re.MULTILINE)
    assert not left_behind(tmp_path)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with output.open("wb") as stdout:
        demo = Process(
            COMMAND, tmp_path / "err", env=environment(tmp_path, 0), stdout=stdout.fileno()
        )
    with demo:
        demo.wait_for(lambda: "spans so far" in output.read_text(), "it shows spans", 60)
        assert left_behind(tmp_path)
        demo.popen.send_signal(signal.SIGINT)
        wait_until(lambda: demo.popen.poll() is not None, "it ends", 40)
        assert demo.popen.returncode == 0, demo.stderr() + output.read_text()
    rows = rows_of(output.read_text())
    assert rows
    assert all(counted == seen for counted, seen in rows.values())
    assert not left_behind(tmp_path)


def test_otelauto_that_may_not_start_says_why(tmp_path: Path) -> None:
    without = ("setpriv", "--bounding-set=-bpf,-sys_admin")
    done = subprocess.run(
        (*without, *COMMAND),
        env=environment(tmp_path, 8),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.startswith("otelauto: ")
    assert "Traceback" not in done.stderr
    assert "CAP_BPF" in done.stderr
    assert not left_behind(tmp_path)


@pytest.fixture(name="tally")
def fixture_tally(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DEMO)
    return importlib.import_module("tally")


def span(path: str, status: int | None = 200, incomplete: str | None = None) -> dict[str, object]:
    attributes: dict[str, object] = {
        "http.request.method": "GET",
        "server.port": 80,
        "url.path": path,
    }
    if status is not None:
        attributes["http.response.status_code"] = status
    return {
        "service": {"name": "shop"},
        "kind": "server",
        "attributes": attributes,
        "incomplete": incomplete,
    }


@pytest.mark.parametrize(
    ("spans", "equal"),
    [
        ([span("/a"), span("/b", 404)], True),
        ([span("/a")], False),
        ([span("/a"), span("/b", 404), span("/b", 404)], False),
        ([span("/a"), span("/b", 200)], False),
        ([span("/a"), span("/c", 404)], False),
        ([span("/a"), span("/b", 404, "aborted")], False),
    ],
    ids=["equal", "one missed", "one doubled", "wrong status", "wrong path", "incomplete"],
)
def test_the_comparison_can_fail(
    tally: ModuleType, tmp_path: Path, spans: list[dict[str, object]], equal: bool
) -> None:
    log = tmp_path / "shop.log"
    lines = [
        {"kind": "server", "method": "GET", "port": 80, "path": "/a", "status": 200},
        {"kind": "server", "method": "GET", "port": 80, "path": "/b", "status": 404},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = tally.compare({"shop": log}, spans)
    assert row.equal is equal
    assert any("DIFFERENT" in line for line in tally.table([row])) is not equal
