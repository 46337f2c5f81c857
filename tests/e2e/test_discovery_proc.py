# SPDX-License-Identifier: Apache-2.0
"""Discovery of real processes, without BPF: what the kernel would tell is told by the test."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from otelauto.counters import Counters
from otelauto.discover.candidates import candidates
from otelauto.discover.environment import check_environment
from otelauto.discover.names import Naming
from otelauto.discover.procfs import ProcFs
from otelauto.discover.select import Selector
from otelauto.discover.watch import Discovery
from otelauto.errors import KernelError

pytestmark = pytest.mark.e2e

NOBODY = 1 << 22  # above every process id: nothing here is a child of otelauto
DEADLINE_S = 30.0
ROOT = Path(__file__).parents[2]

# A server in C: listens (but not on port 0), tells so, and waits. With more arguments it hands its
# socket (descriptor 3) to a child that executes them, as launchers of activated services do.
SERVER_C = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int listener(int port)
{
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 8))
    exit(1);
  return fd;
}

int main(int argc, char **argv)
{
  if (atoi(argv[1]) && dup2(listener(atoi(argv[1])), 3) != 3)
    return 1;
  if (argc > 2 && fork() == 0) {
    execv(argv[2], argv + 2);
    _exit(1);
  }
  if (argc == 2 && write(1, "ready\n", 6) != 6)
    return 1;
  for (;;)
    pause();
}
"""
HOLD = "import signal\nprint('ready', flush=True)\nsignal.pause()\n"
LISTEN = """
import os, signal, socket, sys
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        signal.pause()
print("ready", flush=True)
for line in sys.stdin:
    os.execv(line.strip(), [line.strip(), "0"])
"""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Lab:
    """Starts processes and ends every one, with what they forked."""

    path: Path
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start(self, *argv: object, ready: bool = True, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(part) for part in argv],
            cwd=self.path,
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.stack.callback(self.end, process)
        if ready:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()

    def script(self, name: str, text: str) -> Path:
        path = self.path / name
        path.write_text(text)
        return path

    def server(self, name: str) -> Path:
        """The C server under a name of its own."""
        source, binary = self.path / "server.c", self.path / name
        source.write_text(SERVER_C)
        subprocess.run(["cc", "-O1", "-o", binary, source], check=True)
        return binary


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    with lab.stack:
        yield lab


def discovery(selector: Selector, counters: Counters | None = None) -> Discovery:
    procfs = ProcFs(counters=counters)
    return Discovery(selector, procfs, Naming(host="box"), NOBODY, counters=counters)


def on_port(port: int) -> Discovery:
    return discovery(Selector(open_ports=((port, port),)))


def names(found: Discovery) -> dict[int, str]:
    return {tgid: target.service_name for tgid, target in found.targets().items()}


def children(tgid: int) -> set[int]:
    return set(ProcFs().children(tgid))


def test_a_server_comes_and_is_killed_and_comes_back(lab: Lab) -> None:
    port = free_port()
    script = lab.script("shop.py", LISTEN)
    found = on_port(port)
    assert not found.scan()
    seen = []
    for _ in range(2):
        process = lab.start(sys.executable, script, port, 0)
        [target] = found.on_listen(process.pid, port, ProcFs().netns(process.pid)).started
        assert (target.tgid, target.ports) == (process.pid, (port,))
        assert target.identity.language == "python"
        seen.append(target.service_name)
        process.kill()
        process.wait()
        assert found.on_exit(process.pid).stopped == [process.pid]
    assert seen == ["shop", "shop"]
    assert not found.scan()


def test_a_deep_scan_alone_finds_what_events_missed(lab: Lab) -> None:
    port = free_port()
    found = on_port(port)
    found.scan()
    process = lab.start(lab.server("shop"), port)
    assert [target.tgid for target in found.scan(deep=True).started] == [process.pid]
    lab.end(process)
    assert found.scan().stopped == [process.pid]


def test_http_server_module_is_the_service(lab: Lab) -> None:
    port = free_port()
    process = lab.start(sys.executable, "-m", "http.server", port, ready=False)
    found = on_port(port)
    until(lambda: found.scan(deep=True).started)
    assert names(found) == {process.pid: "http.server"}


def test_the_environment_names_the_service(lab: Lab) -> None:
    port = free_port()
    lab.start(
        lab.server("shop"), port,
        OTEL_SERVICE_NAME="checkout", OTEL_RESOURCE_ATTRIBUTES="service.namespace=eu,tier=1",
    )  # fmt: skip
    found = on_port(port)
    [target] = found.scan().started
    assert (target.service_name, target.identity.namespace) == ("checkout", "eu")
    assert target.identity.attributes["tier"] == "1"


def test_reuseport_groups(lab: Lab) -> None:
    port = free_port()
    script = lab.script("shop.py", LISTEN)
    pids = {lab.start(sys.executable, script, port, 1).pid for _ in range(2)}
    found = on_port(port)
    assert len(found.scan().started) == 4
    targets = found.targets().values()
    assert {target.identity.instance_id for target in targets} == {f"box:{pid}" for pid in pids}
    assert {target.service_name for target in targets} == {"shop"}


def test_preforked_workers_survive_their_master(lab: Lab) -> None:
    port = free_port()
    master = lab.start(sys.executable, lab.script("shop.py", LISTEN), port, 3)
    workers = children(master.pid)
    found = on_port(port)
    found.scan()
    assert set(found.targets()) == {master.pid, *workers}
    assert len(workers) == 3
    master.kill()
    master.wait()
    assert found.on_exit(master.pid).stopped == [master.pid]
    changes = found.scan()
    assert not changes
    assert set(names(found)) == workers
    assert {t.identity.instance_id for t in found.targets().values()} == {f"box:{master.pid}"}


@pytest.mark.parametrize(
    "command",
    [
        ("gunicorn", "--workers", "3", "--bind", "127.0.0.1:{port}", "shop.wsgi:app"),
        ("uvicorn", "--workers", "3", "--port", "{port}", "--lifespan", "off", "shop.wsgi:app"),
    ],
    ids=["gunicorn", "uvicorn"],
)
def test_real_application_servers(lab: Lab, command: tuple[str, ...]) -> None:
    (lab.path / "shop").mkdir()
    lab.script("shop/wsgi.py", "def app(*_): ...\n")
    port = free_port()
    line = [part.format(port=port) for part in command]
    master = lab.start(sys.executable, "-m", *line, ready=False, PYTHONPATH=str(lab.path))
    found = on_port(port)

    def all_there() -> bool:
        found.scan(deep=True)
        return len(found.targets()) == 4

    until(all_there)
    targets = found.targets().values()
    assert {target.service_name for target in targets} == {"shop"}
    assert {target.identity.instance_id for target in targets} == {f"box:{master.pid}"}
    assert master.pid in found.targets()


@pytest.mark.parametrize("launcher", ["systemd", "starter"])
def test_a_service_that_inherits_its_listener(lab: Lab, launcher: str) -> None:
    port = free_port()
    script = lab.script("shop.py", HOLD)
    parent = lab.start(lab.server(launcher), port, sys.executable, script)
    [child] = children(parent.pid)
    found = on_port(port)
    found.scan()
    if launcher == "systemd":  # known to listen for others
        assert names(found) == {child: "shop"}
    else:
        assert names(found) == {parent.pid: "starter", child: "starter"}


def test_an_activated_service_is_found_when_it_executes(lab: Lab) -> None:
    port = free_port()
    gate = lab.script(
        "gate.py", "import os\ninput()\nos.execv(os.environ['NEXT'], ['shop', '0'])\n"
    )
    binary = lab.server("shop")
    interpreter = shutil.copy(sys.executable, lab.path / "systemd-executor")
    parent = lab.start(
        lab.server("systemd"), port, interpreter, gate,
        ready=False, NEXT=str(binary), PYTHONHOME=sys.base_prefix,
    )  # fmt: skip
    found = on_port(port)
    until(lambda: children(parent.pid))
    [child] = children(parent.pid)
    procfs = ProcFs()

    def runs(path: Path) -> bool:
        executable = procfs.executable(child)
        return executable is not None and executable.path == str(path)

    until(lambda: runs(Path(interpreter)))
    assert not found.scan(deep=True)
    assert parent.stdin
    parent.stdin.write("\n")
    parent.stdin.flush()
    until(lambda: runs(binary))
    assert [target.service_name for target in found.on_exec(child).started] == ["shop"]


def test_a_deleted_executable(lab: Lab) -> None:
    port = free_port()
    binary = lab.server("shop")
    process = lab.start(binary, port)
    binary.unlink()
    for selector in (
        Selector(open_ports=((port, port),)),
        Selector(executable_name=str(binary)),
    ):
        found = discovery(selector)
        found.scan()
        assert names(found) == {process.pid: "shop"}
        assert found.targets()[process.pid].deleted
        assert found.targets()[process.pid].executable == str(binary)


def test_exec_of_another_program_in_the_same_process(lab: Lab) -> None:
    port = free_port()
    binary = lab.server("cart")
    process = lab.start(sys.executable, lab.script("shop.py", LISTEN), port, 0)
    by_script = discovery(Selector(executable_name="shop.py"))
    by_binary = discovery(Selector(executable_name="/cart"))
    by_script.scan()
    by_binary.scan()
    assert names(by_script) == {process.pid: "shop"}
    assert names(by_binary) == {}
    assert process.stdin
    process.stdin.write(f"{binary}\n")
    process.stdin.flush()
    assert process.stdout
    assert process.stdout.readline() == "ready\n"  # it runs the other program now
    assert by_script.on_exec(process.pid).stopped == [process.pid]
    assert [target.service_name for target in by_binary.on_exec(process.pid).started] == ["cart"]


def test_another_network_namespace(lab: Lab) -> None:
    port = free_port()
    script = lab.script("shop.py", LISTEN)
    process = lab.start("unshare", "--net", sys.executable, script, port, 0)
    found = on_port(port)
    found.scan()
    # 127.0.0.1 is down in a new namespace, but may be bound to.
    assert names(found) == {process.pid: "shop"}
    assert found.targets()[process.pid].netns != ProcFs().netns(os.getpid())


def test_another_pid_and_mount_namespace(lab: Lab) -> None:
    port = free_port()
    script = lab.script("shop.py", LISTEN)
    flags = ("--pid", "--fork", "--mount", "--mount-proc", "--kill-child")
    outer = lab.start("unshare", *flags, sys.executable, script, port, 0)
    [inner] = children(outer.pid)
    found = on_port(port)
    [target] = found.scan().started
    assert (target.tgid, target.service_name) == (inner, "shop")
    assert target.identity.attributes["process.pid"] == 1
    assert target.identity.instance_id == f"box:{inner}"


def test_a_churn_of_processes_leaves_nothing_behind(lab: Lab) -> None:
    counters = Counters()
    found = discovery(Selector(system_wide=True), counters)
    found.scan()
    loop = "for i in $(seq 500); do /bin/true & done; wait; echo done; read -r line"
    process = lab.start("bash", "-c", loop, ready=False)
    assert process.stdout
    while not select.select([process.stdout], [], [], 0)[0]:
        found.scan()
        for child in children(process.pid):
            found.on_fork(process.pid, child)
            found.on_exec(child)
            found.on_exit(child)
    assert process.stdout.readline() == "done\n"
    found.scan(deep=True)
    assert process.pid in found.targets()
    assert not [t for t in found.targets().values() if t.executable.endswith("/true")]
    lab.end(process)
    assert process.pid in found.scan().stopped


def test_candidates_list_a_real_listener(lab: Lab) -> None:
    port = free_port()
    process = lab.start(lab.server("shop"), port)
    rows = {c.port: c for c in candidates(ProcFs(), Naming(), NOBODY)}
    assert rows[port].tgids == (process.pid,)
    assert rows[port].setting == f"open_port: {port}"


def test_this_host_is_accepted_and_a_container_refused() -> None:
    check_environment()
    code = (
        "from otelauto.discover.environment import check_environment\n"
        "from otelauto.errors import KernelError\n"
        "try:\n    check_environment()\n"
        "except KernelError as refusal:\n    print(refusal)\n"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    assert "only those of a container" in done.stdout
    assert "hostPID" in done.stdout
    with pytest.raises(KernelError, match="shows no processes"):
        check_environment("/nonexistent")
