# SPDX-License-Identifier: Apache-2.0
"""What cannot work ends with an exit code, one sentence and a remedy; it never stays up blind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.harness import servers
from tests.e2e.harness.otelauto import PROGRAM
from tests.e2e.harness.process import free_port, wait_until
from tests.e2e.harness.rig import Ran, Rig, run
from tests.e2e.test_attach import BY_NAME

pytestmark = pytest.mark.e2e
BY_PID = ("--pid", str(os.getpid()), "--print-json")

# The command line in a process where something is different. What it needs is imported first: an
# unprivileged user may not be able to read this checkout.
PREAMBLE = """
import sys, os, errno
from pathlib import Path
import otelauto.app, otelauto.cli as cli
from otelauto.kernel import libbpf, objects, capture
Library = libbpf.Library
"""
MAIN = "\nsys.exit(cli.main(sys.argv[1:]))\n"

NO_HOOK = """
real = Library.has_tracepoint
gone = ("sock_send_length", "sys_exit")
Library.has_tracepoint = lambda self, name: name not in gone and real(self, name)
Library.parameters = lambda self, name: None  # nor functions that can be traced
"""
ATTACH_REFUSED = """
real = Library.call
def call(self, name, *arguments):
    if name == "bpf_program__attach":
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    return real(self, name, *arguments)
Library.call = call
"""
NO_OBJECT = "objects.OBJECTS = Path('/nonexistent')"
NO_LIBBPF = """
real = libbpf.ctypes.CDLL
def load(name, **options):
    if name == "libbpf.so.1":
        raise OSError("no such file")
    return real(name, **options)
libbpf.ctypes.CDLL = load
"""
NO_BTF = """
real = Path.exists
Path.exists = lambda self: str(self) != "/sys/kernel/btf/vmlinux" and real(self)
"""
AS_NOBODY = """
nobody = 65534
os.setgroups([])
os.setresgid(nobody, nobody, nobody)
os.setresuid(nobody, nobody, nobody)
"""


def simulate(difference: str, *words: str | Path) -> Ran:
    """``otelauto`` with these words where ``difference`` holds."""
    command = [sys.executable, "-c", PREAMBLE + difference + MAIN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def complains(ran: Ran, code: int, *words: str) -> None:
    """One sentence with these words, one remedy, nothing else but log lines."""
    lines = [line for line in ran.errors.splitlines() if not line.startswith("time=")]
    assert ran.code == code, ran
    assert len(lines) == 2, ran
    assert lines[0].startswith("otelauto: "), ran
    assert lines[1].startswith("  -> "), ran
    assert len(lines[1]) > len("  -> ab"), ran
    for word in words:
        assert word in ran.errors
    assert "internal error" not in ran.errors
    assert ran.output == ""


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (AS_NOBODY, ("not allowed", "root")),
        (NO_HOOK, ("sock_send_length", "cannot see", "5.10")),
        (ATTACH_REFUSED, ("the kernel refuses", "CAP_BPF")),
        (NO_OBJECT, ("sockets.bpf.o", "make bpf")),
        (NO_LIBBPF, ("libbpf", "install")),
        (NO_BTF, ("BTF",)),
    ],
    ids=["not root", "no hook", "attach refused", "no object", "no libbpf", "no BTF"],
)
def test_a_kernel_that_does_not_serve(difference: str, words: tuple[str, ...]) -> None:
    complains(simulate(difference, *BY_PID), 3, *words)


@pytest.mark.parametrize("difference", ["", NO_HOOK], ids=["control", "no hook"])
def test_the_simulation_itself_runs(difference: str) -> None:
    """The control: without a difference the doctor is content, with one it is not."""
    ran = simulate(difference, "doctor")
    assert ran.code == (3 if difference else 0), ran
    assert ("FAILED" in ran.output) is bool(difference)


def without(capability: str, *words: str | Path) -> Ran:
    """``otelauto`` with these words and without that capability; sys_admin would include it."""
    bounds = f"-{capability},-sys_admin"
    command = ["setpriv", "--bounding-set", bounds, "--inh-caps", bounds]
    command += [sys.executable, "-c", PREAMBLE + MAIN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("capability", ["bpf", "perfmon"])
def test_a_missing_capability(capability: str) -> None:
    complains(without(capability, *BY_PID), 3, "CAP_BPF and CAP_PERFMON")


@pytest.mark.parametrize("capability", ["sys_ptrace", "dac_read_search"])
def test_a_tool_that_cannot_find_the_service_does_not_wait_for_it(capability: str) -> None:
    ran = without(capability, "--open-port", str(free_port()), "--print")
    complains(ran, 3, f"CAP_{capability.upper()}", "root")


def test_a_printer_that_nobody_reads_is_no_reason_to_stay(tmp_path: Path) -> None:
    with servers.running(BY_NAME["c-epoll"], tmp_path) as running:
        command = [str(PROGRAM), "--open-port", str(running.port), "--print"]
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert watching.stdout is not None
        watching.stdout.close()
        wait_until(lambda: ask_once(running.port) and watching.poll() is not None, "it has ended")
        _, errors = watching.communicate()
        assert watching.returncode == 0
        assert "nobody reads standard output" in errors.decode()


def ask_once(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/items/x")
    answered = connection.getresponse().status == 200
    connection.close()
    return answered


def test_a_process_that_does_not_exist() -> None:
    complains(run("--pid", "4194304", "--print"), 1, "4194304")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = run("--pid", str(os.getpid()), "--prometheus-port", port)
    complains(ran, 1, port, "in use")


def test_an_address_that_is_not_of_this_host(tmp_path: Path) -> None:
    file = tmp_path / "otelauto.yml"
    export = {"host": "192.0.2.1", "port": free_port()}
    file.write_text(json.dumps({"ebpf": {"pids": [os.getpid()]}, "prometheus_export": export}))
    complains(run("--config", file), 1, "192.0.2.1")


def test_a_dead_endpoint_is_told_once_and_loses_no_span(tmp_path: Path) -> None:
    dead = {"endpoint": f"http://127.0.0.1:{free_port()}"}
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(servers.running(BY_NAME["c-epoll"], tmp_path)).port
        metrics = {**dead, "interval": "300ms"}
        exports = {"otel_traces_export": dead, "otel_metrics_export": metrics}
        rig = stack.enter_context(Rig(tmp_path, {"open_port": port}, **exports))
        for number in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", f"/items/{number}")
            connection.getresponse().read()
            connection.close()
            rig.wait_for_paths([f"/items/{number}"])
        kept = lambda: rig.report()["exporters"]["otlp_traces"]["spooled"]  # noqa: E731
        rig.process.wait_for(lambda: kept() == 20, "all spans are in the spool", 40)
        failed = lambda: rig.total("otlp_metrics_export_failures", "unreachable")  # noqa: E731
        rig.process.wait_for(lambda: failed() > 1, "exports of metrics have failed", 40)
        rig.stop()
        warnings = [line for line in rig.process.stderr().splitlines() if "WARN" in line]
    assert len(warnings) == 2, warnings
    for signal in ("traces", "metrics"):
        assert sum(signal in line for line in warnings) == 1, warnings


def test_a_configuration_that_is_a_directory(tmp_path: Path) -> None:
    complains(run("--config", tmp_path), 2, str(tmp_path))


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    complains(run("--config", tmp_path / "nothing.yml"), 2, "nothing.yml")


def test_a_configuration_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "secret.yml"
    file.write_text("trace_printer: json\n")
    file.chmod(0o600)
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(0o755)
    complains(simulate(AS_NOBODY, "--config", file), 2, "secret.yml")


def test_a_recording_that_cannot_be_written(tmp_path: Path) -> None:
    ran = run("record", "-o", tmp_path / "no" / "such" / "place", "--pid", str(os.getpid()))
    complains(ran, 2, str(tmp_path))


def test_a_recording_in_a_place_that_all_may_write(tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    ran = run("record", "-o", place / "file", "--pid", str(os.getpid()))
    complains(ran, 2, "writable by everyone")
    assert not (place / "file").exists()


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"OTELAREC" + bytes(100), os.urandom(5000)])
def test_a_replay_of_garbage(tmp_path: Path, garbage: bytes) -> None:
    file = tmp_path / "garbage"
    file.write_bytes(garbage)
    complains(run("replay", file, "--print-json"), 2, "garbage")


def test_a_status_of_nobody(tmp_path: Path) -> None:
    file = tmp_path / "otelauto.yml"
    file.write_text(json.dumps({"control_socket": str(tmp_path / "nobody.sock")}))
    complains(run("status", "--config", file), 1, "nobody.sock")


def test_nothing_to_watch_and_nowhere_to_publish() -> None:
    complains(run("--print-json"), 2, "which processes")
    complains(run("--pid", "1"), 2, "where to publish")
