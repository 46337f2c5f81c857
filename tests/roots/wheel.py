# SPDX-License-Identifier: Apache-2.0
"""`make test-wheel`: the wheel in a system where the host's libraries and Python are not.

The system is .build/roots/bullseye (install.sh): glibc 2.31, no libbpf, and a Python 3.11 that is
not its own. It runs on this machine's kernel. What is written there goes to a layer on top.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path

import pytest
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.roots.system import OLD, layer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parent.parent.parent
OTELAUTO = "/venv/bin/otelauto"
REQUESTS = 20


class System:
    """Runs commands in the system."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "given").mkdir()
        given = "mkdir -p merged/given && mount --bind given merged/given"
        self._inside = f'{layer(OLD, directory)} && {given} && exec chroot merged "$@"'

    def words(self, command: Sequence[str]) -> list[str]:
        return ["unshare", "-m", "sh", "-c", self._inside, "sh", *command]

    def run(self, *command: str) -> str:
        """Standard output of a command that must succeed."""
        done = subprocess.run(self.words(command), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    """The system with the wheel, and what it needs from the registry, in /venv."""
    system = System(tmp_path_factory.mktemp("system"))
    made = subprocess.run([ROOT / "tools" / "wheel.sh"], stdout=subprocess.PIPE, check=True)
    wheel = made.stdout.decode().splitlines()[-1]
    words = f"download --quiet --disable-pip-version-check --dest {system.directory / 'given'}"
    only = "--only-binary :all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3"
    platforms = "--platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64"
    asked = [*words.split(), *only.split(), *platforms.split(), wheel]
    subprocess.run([sys.executable, "-m", "pip", *asked], check=True)
    system.run("python3.11", "-m", "venv", "/venv")
    install = "install --quiet --no-index --find-links /given --disable-pip-version-check otelauto"
    system.run("/venv/bin/pip", *install.split())
    return system


def test_the_system_is_another_one(system: System) -> None:
    assert "(Debian GLIBC 2.31" in system.run("ldd", "--version").splitlines()[0]
    assert "libbpf" not in system.run("ldconfig", "-p")


def test_doctor(system: System) -> None:
    said = system.run(OTELAUTO, "doctor")
    assert "ok      tier A" in said
    assert "ok      sock_send on sock_send_length" in said


def test_it_sees_requests(system: System, tmp_path: Path) -> None:
    port = free_port()
    serve = ["python3.11", "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    watch = [OTELAUTO, "--open-port", str(port)]
    printed = tmp_path / "spans"
    with (
        printed.open("wb") as output,
        Process(system.words(serve), tmp_path / "server.err") as server,
        Process(
            system.words(watch),
            tmp_path / "otelauto.err",
            env={"OTELAUTO_TRACE_PRINTER": "json"},
            stdout=output.fileno(),
        ) as otelauto,
    ):
        server.wait_for(lambda: accepts(port), "the server listens")
        otelauto.wait_for(lambda: 'msg="watching ' in otelauto.stderr(), "otelauto is ready")
        for number in range(REQUESTS):
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", f"/given/nothing/{number}")
            assert connection.getresponse().status == 404
            connection.close()
        wait_until(lambda: printed.read_bytes().count(b"\n") >= REQUESTS, f"{REQUESTS} spans")
        assert otelauto.stop() == 0, otelauto.stderr()
    spans = [json.loads(line) for line in printed.read_text().splitlines()]
    paths = sorted(span["attributes"]["url.path"] for span in spans)
    assert paths == sorted(f"/given/nothing/{number}" for number in range(REQUESTS))
