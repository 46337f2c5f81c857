# SPDX-License-Identifier: Apache-2.0
"""Clients over TLS, by the libraries that they use: every request is one true client span."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.harness import servers, traffic
from tests.e2e.harness.process import Process, accepts, free_port
from tests.e2e.harness.rig import Rig, path_of, status_of

pytestmark = pytest.mark.e2e
HTTP_SERVER = next(server for server in servers.TLS if "http.server" in server.name)


@dataclass(frozen=True)
class Client:
    """A program that reads what to fetch from its standard input, to the end, before it begins."""

    library: str
    command: tuple[str, ...]
    words: Callable[[str], str]  # of its input for one address
    read_as: str = ""  # the entry of the table of libraries, if it is called otherwise
    takes_endings: bool = True  # of answers that the server does not announce inside TLS


CLIENTS = (
    Client(
        "OpenSSL",
        ("curl", "--disable", "--silent", "--show-error", "--insecure", "--config", "-"),
        lambda url: f'url = "{url}"\noutput = "/dev/null"\n',
    ),
    Client(
        "GnuTLS",
        ("wget", "--no-config", "--quiet", "--no-check-certificate", "-O", "/dev/null", "-i", "-"),
        lambda url: f"{url}\n",
        takes_endings=False,  # wget would ask again
    ),
    Client("crypto/tls", (str(servers.BUILT / "fetch"),), lambda url: f"{url}\n"),
    Client(
        "BoringSSL",
        (sys.executable, str(servers.HERE / "clients" / "boringssl.py")),
        lambda url: f"{url}\n",
        read_as="OpenSSL",
        takes_endings=False,  # an error to it
    ),
)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.library)
def test_every_request_of_a_client_is_one_true_span(client: Client, tmp_path: Path) -> None:
    with (
        servers.running(HTTP_SERVER, tmp_path) as running,
        Process(client.command, tmp_path / "client.err", stdin=subprocess.PIPE) as process,
    ):
        pid, stdin = process.popen.pid, process.popen.stdin
        assert stdin is not None
        with stdin, Rig(tmp_path, {"pids": [pid]}) as rig:
            libraries = rig.wait_for_target(pid)["tls"]["libraries"]  # curl has both
            assert (client.read_as or client.library) in {one["library"] for one in libraries}
            assert {one["state"] for one in libraries} == {"attached"}
            paths = [
                f"/{'close' if client.takes_endings and number % 50 == 0 else 'items'}/{number}"
                for number in range(traffic.TOTAL)
            ]
            text = "".join(
                client.words(f"https://127.0.0.1:{running.port}{path}") for path in paths
            )
            stdin.write(text.encode())
            stdin.close()
            spans = rig.wait_for_paths(paths, 30)
            assert process.popen.wait(30) == 0, process.stderr()
            assert rig.report()["unread"] == []
        log = traffic.server_records(running.log, traffic.TOTAL)
    assert sorted(path_of(span) for span in rig.spans) == sorted(paths)
    assert sorted(record["path"] for record in log) == sorted(paths)
    assert {span["kind"] for span in spans} == {"client"}
    assert {status_of(span) for span in spans} == {200}
    # The first may be over before it is proven which connection carries them; no later one is.
    spans.sort(key=lambda span: span["start_unix_nano"])
    peers = [span["attributes"].get("network.peer.port") for span in spans]
    first = peers.index(running.port)
    assert first < len(peers) / 2
    assert peers == [None] * first + [running.port] * (len(peers) - first)
    assert {span["incomplete"] for span in spans} == {None}
    # What ends with the connection has no other length than what was read.
    ended = [span for span in spans if path_of(span).startswith("/close/")]
    sizes = {span["attributes"]["http.response.body.size"] for span in ended}
    assert sizes == ({14} if client.takes_endings else set())


def fetch(port: int, path: str) -> None:
    """One request by curl, which takes any certificate."""
    words = ["curl", "--disable", "--silent", "--show-error", "--insecure"]
    subprocess.run([*words, f"https://127.0.0.1:{port}{path}"], check=True, capture_output=True)


def test_a_service_that_starts_later_is_read(tmp_path: Path) -> None:
    """After privileges were given up, and before it has mapped its library."""
    port = free_port()
    cert, key = servers.certificate(tmp_path)
    command = [sys.executable, servers.PYTHON / "http_server.py", str(port)]
    environment = {"TLS_CERT": cert, "TLS_KEY": key, "ACCESS_LOG": str(tmp_path / "access.log")}
    with (
        Rig(tmp_path, {"open_port": port}) as rig,
        Process(command, tmp_path / "server.err", env=environment) as server,
    ):

        def attached() -> bool:
            libraries = rig.wait_for_target(server.pid)["tls"]["libraries"]
            return [one["state"] for one in libraries] == ["attached"]

        rig.process.wait_for(attached, "its library has probes")
        fetch(port, "/items/later")
        (span,) = rig.wait_for_paths(["/items/later"])
        assert span["kind"] == "server"


BECOME = (
    "import os, ssl, sys\n"
    "sys.stdin.readline()\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
)


def test_a_process_that_runs_another_program_is_read_on(tmp_path: Path) -> None:
    """The same process and the same library, mapped anew."""
    port = free_port()
    cert, key = servers.certificate(tmp_path)
    script: list[str | Path] = [servers.PYTHON / "http_server.py", str(port)]
    environment = {"TLS_CERT": cert, "TLS_KEY": key, "ACCESS_LOG": str(tmp_path / "access.log")}
    with Process(
        [sys.executable, "-c", BECOME, *script],
        tmp_path / "server.err",
        env=environment,
        stdin=subprocess.PIPE,
    ) as process:
        stdin = process.popen.stdin
        assert stdin is not None

        def attached(times: int) -> bool:
            return rig.process.stderr().count('msg="reading plaintext') == times

        with stdin, Rig(tmp_path, {"pids": [process.pid]}) as rig:
            rig.process.wait_for(lambda: attached(1), "the first program's library has probes")
            stdin.write(b"\n")
            stdin.flush()
            process.wait_for(lambda: accepts(port), "the second program listens")
            rig.process.wait_for(lambda: attached(2), "its library has probes")
            fetch(port, "/items/second")
            rig.wait_for_paths(["/items/second"])


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    with (
        servers.running(HTTP_SERVER, tmp_path) as running,
        Rig(tmp_path, {"open_port": running.port, "tls_plaintext": False}) as rig,
    ):
        tls = rig.wait_for_target(running.process.pid)["tls"]
        assert tls == {"libraries": [], "why": "ebpf.tls_plaintext is off"}
        fetch(running.port, "/items/unseen")
        rig.process.wait_for(
            lambda: [row["carries"] for row in rig.report()["unread"]] == ["tls"], "it is named"
        )
        rig.stop()
        assert rig.spans == []
