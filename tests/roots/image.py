# SPDX-License-Identifier: Apache-2.0
"""`make test-image`: the container image at work, made by the Dockerfile's lines without Docker.

Its base is .build/roots/bookworm (image.sh), the wheel that of dist/ (tools/wheel.sh). It runs with
the user, command and health check of the Dockerfile and the capabilities of compose.yml, on a
read-only root, and watches a service outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.house.scan import ROOT
from tests.roots.dockerfile import Builder, Stage, stages

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
CONTAINER = ROOT / "deploy" / "container"
BASE = ROOT / ".build" / "roots" / "bookworm"
REQUESTS = 50
# $0 root, $1 layers, $2 owner of the volumes, $3 configuration, $4 directory of the run, then the
# command. /proc is the host's: `pid: host`.
INSIDE = """
mount --make-rprivate / && mkdir -p "$0" &&
mount -t overlay overlay "$0" -o "lowerdir=$1" &&
for name in proc dev; do mount --rbind "/$name" "$0/$name" || exit; done &&
mount --rbind /sys "$0/sys" && mount -o remount,bind,ro "$0/sys" &&
chown "$2" "$4" && mount --bind "$4" "$0/run/otelauto" &&
mount -t tmpfs -o mode=0700,uid="${2%:*}",gid="${2#*:}" tmpfs "$0/var/lib/otelauto" &&
mount -t tmpfs -o mode=0755 tmpfs "$0/mnt" && cp "$3" "$0/mnt/configuration" &&
shift 4 && exec chroot "$0" "$@"
"""


class Image:
    """The root file system of the last stage, and what runs in it."""

    def __init__(self, directory: Path) -> None:
        made = stages((CONTAINER / "Dockerfile").read_text())
        assert all(stage.base == "debian:12-slim" for stage in made), "another base than image.sh's"
        self._directory = directory
        builder = Builder(BASE, ROOT, directory)
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_INDEX")}
        given = {"PIP_CERT": "/run/given/ca-certificates.crt", "PIP_DEFAULT_TIMEOUT": "180"}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        builder.build(made, {"PATH": path, **kept, **given})
        self.stage: Stage = made[-1]
        self._layers = f"{builder.layer(len(made) - 1)}:{BASE}"
        self.runs = 0

    def words(
        self, command: Sequence[str], *, user: str = "", capabilities: Sequence[str] = (),
        no_new_privs: bool = False, configuration: Path = Path("/dev/null"),
        run: Path | None = None,
    ) -> list[str]:  # fmt: skip
        """Words that run ``command`` as a container of the image would."""
        user = user or self.stage.text("USER")
        uid, gid = user.split(":")
        bounding = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
        privileges = [
            f"--reuid={uid}", f"--regid={gid}", "--clear-groups", f"--bounding-set={bounding}",
            "--inh-caps=-all", *(["--no-new-privs"] if no_new_privs else []),
        ]  # fmt: skip
        environment = [f"{name}={value}" for name, value in self.stage.environment().items()]
        self.runs += 1
        if run is None:
            run = self._directory / f"run{self.runs}"
            run.mkdir(mode=0o700)
        order = [self._directory / f"root{self.runs}", self._layers, user, configuration, run]
        return [
            "unshare", "-m", "sh", "-c", INSIDE, *map(str, order),
            "setpriv", *privileges, "/usr/bin/env", "-i", *environment, *command,
        ]  # fmt: skip

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        words = self.words(command, **options)
        return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", name="image")
def fixture_image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module", name="compose")
def fixture_compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yml").read_text())["services"]
    return services


@contextlib.contextmanager
def service(directory: Path) -> Iterator[int]:
    """The port of a server outside of the image."""
    port = free_port()
    words = ["python3", "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with Process(words, directory / "server.err") as server:
        server.wait_for(lambda: accepts(port), "the server listens")
        yield port


def test_what_is_in_it(image: Image) -> None:
    """No compiler, no pip, no wheel, no secret's file; and what the entry point needs."""
    script = (
        "for name in cc gcc g++ clang make pip pip3 setcap; do command -v $name; done;"
        " ls -d /wheels /opt/otelauto/bin/pip* /var/lib/apt/lists/*.* 2> /dev/null; true"
    )
    ran = image.run("/bin/sh", "-c", script)
    assert (ran.stdout, ran.returncode) == ("", 0), ran.stderr
    ran = image.run(*image.stage.words("ENTRYPOINT"), "--version")
    assert ran.stdout.startswith("otelauto "), ran.stderr


def test_the_root_is_read_only_and_the_user_is_nobody(image: Image) -> None:
    ran = image.run("/bin/sh", "-c", "id -u; touch /x /opt/otelauto/x; echo $?")
    assert ran.stdout.split() == ["65532", "1"]
    assert ran.stderr.count("Read-only file system") == 2


def missing(text: str) -> list[str]:
    return [line.split()[1].rstrip(":") for line in text.splitlines() if "  MISSING" in line]


def test_doctor(image: Image, compose: dict[str, Any]) -> None:
    """All five as its user; none of them, and no more, where the container has none."""
    doctor = [*image.stage.words("ENTRYPOINT"), "doctor"]
    given = compose["instrumenter"]["cap_add"]
    ran = image.run(*doctor, capabilities=given)
    assert missing(ran.stdout) == [], ran.stderr
    assert "  ok      tier A" in ran.stdout
    assert "  ok      plaintext of TLS" in ran.stdout
    needed = [f"CAP_{name}" for name in given]
    for options in ({}, {"capabilities": given, "no_new_privs": True}):
        ran = image.run(*doctor, **options)  # type: ignore[arg-type]
        assert sorted(missing(ran.stdout)) == sorted(needed)
        assert ran.returncode == 3
    ran = image.run(*doctor, user="0:0", capabilities=given, no_new_privs=True)
    assert missing(ran.stdout) == []
    assert ran.returncode == 0


@pytest.mark.parametrize(("user", "no_new_privs"), [("", False), ("0:0", True)])
def test_it_sees_a_service_outside(
    image: Image, compose: dict[str, Any], tmp_path: Path, user: str, no_new_privs: bool
) -> None:
    given = compose["instrumenter"]["cap_add"]
    run, printed, file = tmp_path / "run", tmp_path / "spans", tmp_path / "otelauto.yml"
    run.mkdir(mode=0o700)
    entry, health = image.stage.words("ENTRYPOINT"), image.stage.words("HEALTHCHECK")
    same: dict[str, Any] = {"user": user, "no_new_privs": no_new_privs, "run": run}
    with service(tmp_path) as port, printed.open("wb") as output:
        file.write_text(json.dumps({"ebpf": {"open_port": port}, "trace_printer": "json"}))
        command = [*entry, "run", "--config", "/mnt/configuration"]
        words = image.words(command, capabilities=given, configuration=file, **same)
        assert image.run(*health, **same).returncode == 1, "not healthy before it runs"
        errors = tmp_path / "otelauto.err"
        with Process(words, errors, stdout=output.fileno()) as otelauto:
            otelauto.wait_for(lambda: 'msg="watching ' in otelauto.stderr(), "it is ready", 60)
            for number in range(REQUESTS):
                connection = HTTPConnection("127.0.0.1", port, timeout=20)
                connection.request("GET", f"/nothing/{number}")
                assert connection.getresponse().status == 404
                connection.close()
            wait_until(lambda: printed.read_bytes().count(b"\n") >= REQUESTS, f"{REQUESTS} spans")
            healthy = image.run(*health, **same)
            assert healthy.returncode == 0, healthy.stderr
            status = Path(f"/proc/{otelauto.pid}/status").read_text()
            uid = (user or image.stage.text("USER")).partition(":")[0]
            assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
            assert otelauto.stop() == 0, otelauto.stderr()
    spans = [json.loads(line) for line in printed.read_text().splitlines()]
    paths = sorted(span["attributes"]["url.path"] for span in spans)
    assert paths == sorted(f"/nothing/{number}" for number in range(REQUESTS))


def test_the_agent_needs_no_capability(
    image: Image, compose: dict[str, Any], tmp_path: Path
) -> None:
    """With the command and the health check of compose.yml, on ports of our own."""
    page, otlp = free_port(), free_port()
    river = (CONTAINER / "agent.river").read_text().replace("0.0.0.0:4318", f"127.0.0.1:{otlp}")
    file = tmp_path / "agent.river"
    file.write_text(river)
    agent = compose["agent"]
    command = [
        word.replace("/etc/otelauto/agent.river", "/mnt/configuration").replace("12345", str(page))
        for word in agent["command"]
    ]
    kind, *health = [word.replace("12345", str(page)) for word in agent["healthcheck"]["test"]]
    assert kind == "CMD"
    assert image.run(*health).returncode != 0
    words = [*image.stage.words("ENTRYPOINT"), *command]
    started = image.words(words, configuration=file, no_new_privs=True)
    with Process(started, tmp_path / "agent.err") as process:
        process.wait_for(lambda: accepts(otlp), "the agent listens", 60)
        wait_until(lambda: image.run(*health).returncode == 0, "it is healthy")
        assert process.stop() == 0, process.stderr()
