# SPDX-License-Identifier: Apache-2.0
"""Nothing of those who were not selected is read, and otelauto's own traffic is nobody's."""

from __future__ import annotations

import contextlib
import http.client
import secrets
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.otelauto import PROGRAM
from tests.e2e.harness.process import Process, wait_until
from tests.e2e.harness.puppet import Link, Puppet, Server, get, ok
from tests.e2e.harness.rig import Rig, path_of
from tests.e2e.test_attach import BY_NAME

pytestmark = pytest.mark.e2e
ROUNDS = 200


def talk(link: Link, number: int) -> list[bytes]:
    """An exchange with a secret each way; the secrets."""
    asked, told = secrets.token_hex(24).encode(), secrets.token_hex(24).encode()
    link.ask(get(f"/secret/{number}", f"Cookie: {asked.decode()}"))
    link.answer(ok(told))
    return [asked, told]


@pytest.mark.parametrize("selected_by", ["port", "pid"])
def test_the_bytes_of_a_neighbour_never_reach_user_space(tmp_path: Path, selected_by: str) -> None:
    file = tmp_path / "recording"
    with Puppet() as canary, Puppet() as watched:
        theirs, ours = Server(canary), Server(watched)
        selector = ["--pid", str(watched.pid)]
        if selected_by == "port":
            selector = ["--open-port", str(ours.port)]
        words = [PROGRAM, "record", "--raw", "-o", file, *selector]
        with Process(words, tmp_path / "record.err") as recorder:
            recorder.wait_for(lambda: "recording file=" in recorder.stderr(), "it records")
            canary_secrets, our_secrets = [], []
            with contextlib.closing(theirs), contextlib.closing(ours):
                links = theirs.link(), ours.link()
                for number in range(ROUNDS):
                    if number % 50 == 0:
                        links = theirs.link(), ours.link()
                    canary_secrets += talk(links[0], number)
                    our_secrets += talk(links[1], number)
            wait_until(lambda: our_secrets[-1] in file.read_bytes(), "the last one is recorded")
            assert recorder.stop() == 0, recorder.stderr()
    recorded = file.read_bytes()
    assert all(secret in recorded for secret in our_secrets)
    assert not any(secret in recorded for secret in canary_secrets)


def test_exports_to_the_watched_service_are_not_reported(tmp_path: Path) -> None:
    """The service is the OTLP receiver itself: a span about an export would cause another."""
    with servers.running(BY_NAME["python-http.server"], tmp_path) as running:
        endpoint = {"endpoint": f"http://127.0.0.1:{running.port}"}
        with Rig(
            tmp_path, {"open_port": running.port}, otel_traces_export=endpoint,
            otel_metrics_export={**endpoint, "interval": "100ms"},
        ) as rig:  # fmt: skip
            paths = [f"/items/{number}" for number in range(3)]
            for path in paths:
                connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
                connection.request("GET", path)
                connection.getresponse().read()
                connection.close()
            rig.wait_for_paths(paths)
            rig.process.wait_for(
                lambda: (
                    rig.total("otlp_metrics_exports") >= 10
                    and rig.total("otlp_traces_spans_sent") >= 3
                    and rig.total("own_exchanges_ignored") >= 10
                ),
                "exports are made, and ignored",
                30,
            )
            rig.stop()
    assert sorted(map(path_of, rig.spans)) == paths
    log = running.log.read_text()
    assert log.count("/v1/traces") in (1, 2, 3), "no export caused another"


def test_the_scrape_of_its_own_page_is_no_span(tmp_path: Path) -> None:
    """A watched process that scrapes otelauto: its requests are otelauto's own business."""
    with Puppet() as watched, Rig(tmp_path, {"pids": [watched.pid]}) as rig:
        conn = watched.do("connect", port=rig.prometheus)
        request = get("/metrics", "Connection: close")
        watched.send(conn, request)
        assert watched.receive(conn, 1 << 20).startswith(b"HTTP/1.1 200")
        rig.process.wait_for(lambda: rig.total("own_exchanges_ignored") == 1, "it is ignored")
        rig.stop()
    assert rig.spans == []
