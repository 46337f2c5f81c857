# SPDX-License-Identifier: Apache-2.0
"""Both units at work under what their files say; the instrumenter also without each capability."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.otelauto import Otelauto
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.e2e.harness.receiver import Receiver
from tests.e2e.harness.rig import Tree, path_of
from tests.e2e.harness.rig import run as run_program
from tests.e2e.test_attach import BY_NAME
from tests.e2e.test_lifecycle import ask, epoll
from tests.house.scan import ROOT
from tests.scale import PATIENCE
from tests.systemd.plan import UID, Scene
from tests.systemd.unit import AGENT, INSTRUMENTER, Unit

from otelauto.capabilities import CAPABILITIES
from otelauto.control import ask as ask_socket

pytestmark = pytest.mark.e2e
PLAIN, SECRET = 300, 40
PAGE = (ROOT / "docs" / "systemd.md").read_text()
ROWS = re.findall(r"^\| `(CAP_\w+)` \| [^|]+ \| `([^|]+)` \|$", PAGE, re.MULTILINE)
OTLP_TOKEN = "t0ken-of-the-unit"


class Restricted(Otelauto):
    """The instrumenter's unit; what it tells the service manager is kept."""

    def __init__(self, scene: Scene, settings: dict[str, object]) -> None:
        self.scene = scene
        text = json.dumps({"trace_printer": "json", **settings})
        (scene.etc / "otelauto.yml").write_text(text)
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(scene.run / "notify"))
        (scene.run / "notify").chmod(0o666)
        self._manager.settimeout(20 * PATIENCE)
        super().__init__(scene.directory, program=scene.command())

    def told(self) -> bytes:
        """What it tells the manager next."""
        return self._manager.recv(100)

    def report(self) -> Tree:
        """What it says of itself."""
        return ask_socket(self.scene.run / "control.sock")

    def __exit__(self, *arguments: object) -> None:
        with self._manager:
            super().__exit__(*arguments)  # type: ignore[arg-type]


@pytest.fixture(name="scene")
def fixture_scene(tmp_path: Path) -> Scene:
    made = tmp_path / "scene"
    made.mkdir()
    return Scene(made, Unit(INSTRUMENTER))


def ask_tls(port: int, paths: list[str]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for path in paths:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
        connection.request("GET", path)
        assert connection.getresponse().read()
        connection.close()


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_what_the_unit_allows_is_enough(scene: Scene, tmp_path: Path) -> None:
    """Each request, in plaintext and over TLS, is one span; the credential is what it sends."""
    scene.credential("otlp-token", f"{OTLP_TOKEN}\n")
    plain = [f"/items/plain-{number}" for number in range(PLAIN)]
    secret = [f"/items/secret-{number}" for number in range(SECRET)]
    with contextlib.ExitStack() as stack:
        port = free_port()
        stack.enter_context(epoll(tmp_path, port))
        files = tmp_path / "tls"
        files.mkdir()
        served = stack.enter_context(servers.running(BY_NAME["python-http.server-tls"], files))
        receiver = stack.enter_context(Receiver())
        otlp = {
            "endpoint": f"http://127.0.0.1:{receiver.port}",
            "headers": {"authorization": "Bearer ${credential:otlp-token}"},
        }
        replaced = stack.enter_context(upgraded(tmp_path))
        ports = [port, served.port, replaced]
        settings = {"ebpf": {"open_port": ports}, "otel_traces_export": otlp}
        otelauto = stack.enter_context(Restricted(scene, settings))
        assert otelauto.told() == b"READY=1"
        ask(port, plain)
        ask_tls(served.port, secret)
        wanted = sorted(plain + secret)
        otelauto.wait_for_spans(len(wanted), 60)
        wait_until(lambda: len(list(receiver.spans())) >= len(wanted), "all spans are sent")
        status = status_of(otelauto.process.pid)
        held = sum(1 << bit for bit, _ in CAPABILITIES.values())
        assert status["Uid"].split() == [str(UID)] * 4
        assert {status["NoNewPrivs"], status["Seccomp"]} == {"1", "2"}
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(status[name], 16) == held, name
        assert int(status["VmHWM"].split()[0]) * 1024 < scene.unit.size("MemoryMax")
        assert replaced_library(otelauto.report()) == ("attached", "")
        assert otelauto.stop() == 0
        assert otelauto.told() == b"STOPPING=1"
        assert "level=ERROR" not in otelauto.process.stderr()
        assert "privileges" not in otelauto.process.stderr()
    assert sorted(map(path_of, otelauto.spans)) == wanted
    assert {headers["authorization"] for _, headers, _ in receiver.exports} == {
        f"Bearer {OTLP_TOKEN}"
    }
    assert OTLP_TOKEN not in otelauto.process.stderr()


# Tries what the unit forbids, and says the error's name of each.
FORBIDDEN = """
import ctypes, errno, mmap, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, function):
    try:
        function()
        print(name, "done")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
tried("system", lambda: open("/usr/x", "w"))
tried("etc", lambda: open("/etc/otelauto/x", "w"))
tried("kernel", lambda: open("/proc/sys/kernel/panic", "w"))
tried("home", lambda: os.stat("/root/.bashrc"))
tried("outside", lambda: os.stat(sys.argv[1]))
tried("devices", lambda: os.stat("/dev/kmsg"))
tried("credential", lambda: open(os.environ["CREDENTIALS_DIRECTORY"] + "/x", "w"))
tried("raw", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
tried("namespace", lambda: call("unshare", 0x10000000))
tried("code", lambda: mmap.mmap(-1, 4096, prot=7))
tried("mount", lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
tried("module", lambda: call("init_module", None, 0, b""))
tried("clock", lambda: time.clock_settime(time.CLOCK_MONOTONIC, 1.0))
tried("name", lambda: call("sethostname", b"x", 1))
tried("trace", lambda: call("ptrace", 0, 0, 0, 0))
tried("user", lambda: call("setuid", 0))
tried("personality", lambda: call("personality", 8))
tried("mode", lambda: os.chmod(os.environ["STATE_DIRECTORY"], 0o4700))
tried("state", lambda: open(os.environ["STATE_DIRECTORY"] + "/x", "w"))
tried("tmp", lambda: open("/tmp/x", "w"))
"""


def test_what_the_unit_forbids_is_refused(scene: Scene) -> None:
    """Else the other tests would show nothing."""
    outside = scene.directory / "outside"  # in the /tmp of all others
    outside.touch()
    words = scene.command(sys.executable, "-c", FORBIDDEN, str(outside))
    ran = run_program(program=words)
    assert ran.code == 0, ran.errors
    said = dict(line.split() for line in ran.output.splitlines())
    read_only = dict.fromkeys(("system", "etc", "kernel", "credential"), "EROFS")
    eperm = (
        "namespace", "code", "mount", "module", "clock", "name", "trace", "user", "personality",
        "mode",
    )  # fmt: skip
    assert said == {
        **read_only, **dict.fromkeys(("home", "outside", "devices"), "ENOENT"),
        **dict.fromkeys(("raw", "netlink"), "EAFNOSUPPORT"), **dict.fromkeys(eperm, "EPERM"),
        **dict.fromkeys(("state", "tmp"), "done"),
    }  # fmt: skip


def scene_without(directory: Path, capabilities: Iterable[str]) -> Scene:
    made = directory / "scene"
    made.mkdir()
    return Scene(made, Unit(INSTRUMENTER, capabilities))


def test_every_capability_has_a_row() -> None:
    assert {name for name, _ in ROWS} == set(CAPABILITIES)
    assert len(ROWS) == len(CAPABILITIES)


def test_the_doctor_names_what_is_missing(tmp_path: Path) -> None:
    scene = scene_without(tmp_path, CAPABILITIES)
    program, *_ = scene.unit.value("ExecStart").split()
    said = run_program(program=scene.command(program, "doctor")).output.splitlines()
    missing = [line.strip() for line in said if line.startswith("  MISSING")]
    assert missing == [f"MISSING {name}: {lost}" for name, (_, lost) in CAPABILITIES.items()]


@pytest.mark.parametrize(("capability", "sentence"), ROWS, ids=[name for name, _ in ROWS])
def test_without_a_capability(capability: str, sentence: str, tmp_path: Path) -> None:
    """The run says and loses what the page says."""
    scene = scene_without(tmp_path, [capability])
    if capability == "CAP_CHECKPOINT_RESTORE":
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(upgraded(tmp_path))
            otelauto = stack.enter_context(Restricted(scene, {"ebpf": {"open_port": port}}))
            assert replaced_library(otelauto.report()) == ("refused", sentence)
        return
    port = free_port()
    (scene.etc / "otelauto.yml").write_text(
        json.dumps({"ebpf": {"open_port": port}, "trace_printer": "json"})
    )
    with epoll(tmp_path, port):
        ran = run_program(program=scene.command())
    assert ran.code == 3
    assert ran.errors.startswith(f"otelauto: {sentence}\n  -> "), ran.errors


# A service that has loaded a library which is then removed from the disk, and listens.
UPGRADED = """
import ctypes, os, sys, socket
late = ctypes.CDLL(sys.argv[2])
os.unlink(sys.argv[2])
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()
"""


@contextlib.contextmanager
def upgraded(directory: Path) -> Iterator[int]:
    """The port of such a service."""
    found = re.search(r"(/\S*libssl\S*)", Path("/proc/self/maps").read_text())
    assert found, "Python's module has its OpenSSL within"
    copy = directory / "libssl-replaced.so"
    copy.write_bytes(Path(found[1]).read_bytes())
    port = free_port()
    words = [sys.executable, "-c", UPGRADED, str(port), copy]
    with Process(words, directory / "upgraded.err") as server:
        server.wait_for(lambda: accepts(port), "it listens")
        yield port


def replaced_library(report: Tree) -> tuple[str, str]:
    """What the report says of a library that was replaced on disk: state, and why."""
    rows = [row for target in report["targets"] for row in target["tls"]["libraries"]]
    (row,) = [row for row in rows if "libssl-replaced" in row["path"]]
    return row["state"], row["why"]


AGENT_RIVER = """
local.file "password" {{
  filename  = env("CREDENTIALS_DIRECTORY") + "/store-password"
  is_secret = true
}}
otelcol.receiver.otlp "default" {{
  http {{ endpoint = "127.0.0.1:{otlp}" }}
  output {{ traces = [otelcol.exporter.otlphttp.store.input] }}
}}
otelcol.auth.basic "store" {{
  username = "agent"
  password = local.file.password.content
}}
otelcol.exporter.otlphttp "store" {{
  client {{
    endpoint = "http://127.0.0.1:{store}"
    auth     = otelcol.auth.basic.store.handler
  }}
}}
"""


def test_the_agent_needs_no_privilege(tmp_path: Path) -> None:
    """What an instrumenter sends it goes on, with the password of its credential."""
    made = tmp_path / "agent"
    made.mkdir()
    scene = Scene(made, Unit(AGENT))
    scene.credential("store-password", "pass-of-the-unit")
    otlp, port, page = free_port(), free_port(), free_port()
    paths = [f"/items/{number}" for number in range(50)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(epoll(tmp_path, port))
        receiver = stack.enter_context(Receiver())
        river = AGENT_RIVER.format(otlp=otlp, store=receiver.port)
        (scene.etc / "agent.river").write_text(river)
        words = [*scene.unit.value("ExecStart").split(), "--server.http.listen-addr"]
        agent = stack.enter_context(
            Process(scene.command(*words, f"127.0.0.1:{page}"), tmp_path / "agent.err")
        )
        agent.wait_for(lambda: accepts(otlp), "the agent listens")
        status = status_of(agent.pid)
        assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
        yaml = json.dumps(
            {
                "trace_printer": "json",
                "control_socket": str(tmp_path / "control.sock"),
                "ebpf": {"open_port": port},
                "otel_traces_export": {"endpoint": f"http://127.0.0.1:{otlp}"},
            }
        )
        stack.enter_context(Otelauto(tmp_path, yaml))
        ask(port, paths)
        wait_until(lambda: len(list(receiver.spans())) >= len(paths), "all spans go through")
        assert agent.stop() == 0, agent.stderr()
    assert {headers["authorization"] for _, headers, _ in receiver.exports} == {
        "Basic YWdlbnQ6cGFzcy1vZi10aGUtdW5pdA=="
    }
