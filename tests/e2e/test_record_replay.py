# SPDX-License-Identifier: Apache-2.0
"""A recording of real traffic: private, redacted unless told otherwise, and replayed as it was."""

from __future__ import annotations

import contextlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import servers, traffic
from tests.e2e.harness.otelauto import PROGRAM, Span
from tests.e2e.harness.process import Process, wait_until
from tests.e2e.harness.puppet import Puppet, Server, ok
from tests.e2e.harness.rig import Rig, run
from tests.e2e.test_attach import BY_NAME

pytestmark = pytest.mark.e2e
SECRETS = (b"token-of-the-query", b"cookie-of-the-user", b"password-in-the-body", b"told-to-nobody")
REQUEST = (
    b"POST /login?key=token-of-the-query HTTP/1.1\r\nHost: shop.example\r\n"
    b"Cookie: cookie-of-the-user\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n\r\n"
    b"password-in-the-body"
)
RESPONSE = ok(b"told-to-nobody", "Set-Cookie: cookie-of-the-user", status=201)
WARNING = "passwords, cookies and personal data"


@contextlib.contextmanager
def recording(directory: Path, port: int, *words: str) -> Any:
    """The file that is recorded to for the ``with`` block."""
    file = directory / "recording"
    command = [PROGRAM, "record", "-o", file, "--open-port", str(port), *words]
    with Process(command, directory / "record.err") as recorder:
        recorder.wait_for(lambda: "recording file=" in recorder.stderr(), "it records")
        yield file, recorder
        assert recorder.stop() == 0, recorder.stderr()


def replayed(file: Path, *words: str) -> list[Span]:
    ran = run("replay", file, "--print-json", *words)
    assert ran.code == 0, ran.errors
    assert "WARN" not in ran.errors
    return [json.loads(line) for line in ran.output.splitlines()]


def essence(spans: list[Span]) -> dict[str, str]:
    """By path, what must survive a recording.

    Identities are made up anew; of two observers each has its own clock readings, and its own
    moment from which on it copies no more than heads: the sizes of chunked bodies depend on it.
    """
    found = {}
    for span in spans:
        attributes = span["attributes"]
        kept = {name: attributes[name] for name in attributes if not name.endswith("size")}
        row = [span["service"]["name"], span["kind"], span["name"], span["incomplete"], kept]
        found[attributes["url.path"]] = json.dumps(row, sort_keys=True)
    assert len(found) == len(spans), "a path twice"
    return found


@pytest.mark.parametrize("raw", [False, True], ids=["redacted", "raw"])
def test_a_replay_gives_the_spans_of_the_live_run(tmp_path: Path, raw: bool) -> None:
    server = BY_NAME["c-epoll"]
    with servers.running(server, tmp_path) as running:
        with (
            Rig(tmp_path, {"open_port": running.port}) as rig,
            recording(tmp_path, running.port, *(["--raw"] if raw else [])) as (file, _),
        ):
            traffic.send(running.port, tmp_path, server.name, server.features)
            rig.wait_for_spans(traffic.TOTAL)
            rig.stop()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(rig.spans) == traffic.TOTAL
    live, again = essence(rig.spans), essence(replayed(file))
    differing = {path for path, row in live.items() if again.get(path) != row}
    assert again.keys() <= live.keys(), "invented"
    assert not differing


@pytest.mark.parametrize("raw", [False, True], ids=["redacted", "raw"])
def test_what_people_say_is_hidden_unless_raw(tmp_path: Path, raw: bool) -> None:
    with Puppet() as puppet:
        server = Server(puppet)
        with recording(tmp_path, server.port, *(["--raw"] if raw else [])) as (file, recorder):
            link = server.link()
            for _ in range(3):
                link.ask(REQUEST)
                link.answer(RESPONSE)
            server.close()
            wait_until(lambda: b"shop.example" in file.read_bytes(), "it is written")
        assert (WARNING in recorder.stderr()) is raw
    recorded = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for secret in SECRETS:
        assert (secret in recorded) is raw, secret
    spans = replayed(file)
    assert len(spans) == 3
    for span in spans:
        attributes = span["attributes"]
        assert attributes["url.path"] == "/login"
        assert attributes["http.request.method"] == "POST"
        assert attributes["http.response.status_code"] == 201
        assert attributes["server.address"] == "shop.example"
        assert attributes["http.request.body.size"] == 20
        assert attributes["http.response.body.size"] == 14
        assert span["service"]["name"] == "puppet"


def test_a_recording_that_was_cut_is_read_to_the_cut(tmp_path: Path) -> None:
    with Puppet() as puppet:
        server = Server(puppet)
        with recording(tmp_path, server.port) as (file, _):
            link = server.link()
            for _ in range(3):
                link.ask(REQUEST)
                link.answer(RESPONSE)
                size = file.stat().st_size
                wait_until(lambda size=size: file.stat().st_size > size, "it is written")
            server.close()
    torn = tmp_path / "torn"
    torn.write_bytes(file.read_bytes()[:-10])
    ran = run("replay", torn, "--print-json")
    assert ran.code == 0, ran.errors
    assert "ends in the middle" in ran.errors
    spans = [json.loads(line) for line in ran.output.splitlines()]
    assert 2 <= len(spans) <= 3
    assert {span["attributes"]["url.path"] for span in spans} == {"/login"}
