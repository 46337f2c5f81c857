# SPDX-License-Identifier: Apache-2.0
"""What a capture leaves behind (nothing), what it needs (little), and what it says when refused."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.conftest import Connect
from tests.kernel.kernel_objects import entries, ids, name
from tests.kernel.recorder import DEADLINE, Recorder
from tests.kernel.tier import ABSENT, HAS_TABLES, HOOKS, PROGRAMS, TIER
from tests.scale import FEW_PROCESSES

from otelauto.errors import KernelError
from otelauto.kernel import capture, libbpf, objects
from otelauto.kernel.btf import KIND_STRUCT, Btf
from otelauto.kernel.capture import Capture, Wanted
from otelauto.kernel.contract import section
from otelauto.kernel.libbpf import Library, library
from otelauto.kernel.objects import OBJECTS, BpfObject, NotAllowedError, RejectedError
from otelauto.kernel.tiers import HookError, Tier

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
SEARCHED = f"{ROOT / 'src'}:{ROOT}"
ROUNDS = 100 if FEW_PROCESSES else 1000  # of two sockets, then nine times as many


def ours(capture_: Capture) -> dict[str, set[int]]:
    """Ids of the programs, maps and links of one capture, by their file descriptors."""
    found: dict[str, set[int]] = {"program": set(), "map": set(), "link": set()}
    for bpf in (capture_._sockets, capture_._processes):
        found["program"] |= {_id(bpf.program_fd(program), "prog_id") for program in bpf.programs}
        found["map"] |= {_id(bpf.map_fd(one), "map_id") for one in bpf._maps}
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 - descriptors, not files
        if (link := _id(int(fd), "link_id")) and _id(int(fd), "prog_id") in found["program"]:
            found["link"].add(link)
    return found


def _id(fd: int, what: str) -> int:
    try:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    except FileNotFoundError:
        return 0
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(rows.get(what, 0))


def wait_until_gone(found: dict[str, set[int]]) -> None:
    """The kernel frees programs and maps after a grace period."""
    deadline = time.monotonic() + DEADLINE
    while left := {kind: found[kind] & ids(kind) for kind in found}:
        if not any(left.values()):
            return
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.02)


def test_nothing_is_left_after_close() -> None:
    running = Capture(Wanted())
    found = ours(running)
    assert {name("program", number) for number in found["program"]} == set(PROGRAMS)
    assert len(found["link"]) == len(PROGRAMS)
    assert len(found["map"]) >= 9
    running.close()
    wait_until_gone(found)


LOADER = """
import os, sys, time
import tests.one_tier
from otelauto.kernel.capture import Capture, Wanted
capture = Capture(Wanted())
capture.watch(os.getpid())
print("loaded", flush=True)
time.sleep(600)
"""


def test_nothing_is_left_after_kill() -> None:
    before = {kind: ids(kind) for kind in ("program", "map", "link")}
    child = subprocess.Popen(
        [sys.executable, "-c", LOADER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SEARCHED},
    )
    with child:
        assert child.stdout
        assert child.stdout.readline() == "loaded\n"
        new = {kind: ids(kind) - before[kind] for kind in before}
        new["program"] = {one for one in new["program"] if name("program", one) in PROGRAMS}
        assert len(new["program"]) >= len(PROGRAMS)
        mine = _held_by(child.pid)
        child.kill()
    wait_until_gone(mine)


def _held_by(pid: int) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"program": set(), "map": set(), "link": set()}
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        rows = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        for kind, key in (("link", "link_id"), ("map", "map_id"), ("program", "prog_id")):
            if key in rows:
                found[kind].add(int(rows[key]))
                break
    assert all(found.values())
    return found


# ---- refusals ----


def refuse(monkeypatch: pytest.MonkeyPatch, refused: str, error: type[OSError], code: int) -> None:
    """Attaching the program ``refused`` fails; all else goes to the kernel."""
    real: Callable[..., Any] = Library.call

    def call(self: Library, function: str, *arguments: Any) -> Any:
        if (
            function == "bpf_program__attach"
            and real(self, "bpf_program__name", arguments[0]).decode() == refused
        ):
            raise error(code, os.strerror(code))
        return real(self, function, *arguments)

    monkeypatch.setattr(Library, "call", call)


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name not in TIER.needed])
@pytest.mark.parametrize(("error", "code"), [(PermissionError, 1), (FileNotFoundError, 2)])
def test_one_refused_program_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, program: str, error: type[OSError], code: int
) -> None:
    refuse(monkeypatch, program, error, code)
    with closing(Capture(Wanted())) as running:
        states = {probe.name: probe.state for probe in running.probes}
        (why,) = [probe.why for probe in running.probes if probe.name == program]
        assert running.deaf == program.startswith("process_")
    assert states.pop(program) == "refused"
    assert {states.pop(absent) for absent in ABSENT} <= {"absent"}
    assert set(states.values()) == {"attached"}
    assert len(states) == len(PROGRAMS) - 1
    assert why == f"{os.strerror(code)} (errno {code})"


@pytest.mark.parametrize("program", TIER.needed)
def test_a_needed_program_that_is_refused_is_an_error(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    before = ids("link")
    monkeypatch.setattr(capture, "TIERS", (TIER,))
    refuse(monkeypatch, program, PermissionError, 1)
    with pytest.raises(KernelError, match=r"cannot see socket traffic: .* is refused") as refusal:
        Capture(Wanted())
    assert "Linux 5.10" in refusal.value.remedy
    assert refusal.value.exit_code == 3
    mine = [_id(int(fd), "link_id") for fd in os.listdir("/proc/self/fd")]  # noqa: PTH208
    assert not {link for link in mine if link} - before, "what was attached stayed attached"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_hook_that_the_kernel_lacks(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    real = BpfObject.is_there
    monkeypatch.setattr(capture, "TIERS", (TIER,))
    monkeypatch.setattr(
        BpfObject,
        "is_there",
        lambda self, one: self.hook(one) != HOOKS[program] and real(self, one),
    )
    if program in TIER.needed:
        with pytest.raises(KernelError, match="is absent"):
            Capture(Wanted())
        return
    with closing(Capture(Wanted())) as running:
        absent = {probe.name for probe in running.probes if probe.state == "absent"}
        lacking = {name for name, hook in HOOKS.items() if hook == HOOKS[program]}
        assert absent == ABSENT | lacking
        assert len(running.costs()) == len(PROGRAMS) - len(lacking)


def test_the_next_tier_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the best one lacks is said, and the next one works; nothing of the first is left."""
    best = Tier("best", TIER.object, (*TIER.needed, "sock_state"), TIER.constants)
    real: Callable[..., Any] = Library.call
    refused: list[str] = []

    def call(self: Library, function: str, *arguments: Any) -> Any:
        if function == "bpf_program__attach":
            program = real(self, "bpf_program__name", arguments[0]).decode()
            if program == "sock_state" and not refused:
                refused.append(program)
                raise PermissionError(1, "not this time")
        return real(self, function, *arguments)

    monkeypatch.setattr(capture, "TIERS", (best, TIER))
    monkeypatch.setattr(Library, "call", call)
    with closing(Capture(Wanted())) as running:
        assert running.tier == TIER.name
        (why,) = running.refusals
        assert "inet_sock_set_state is refused" in why
        assert len(ours(running)["link"]) == len(PROGRAMS)


def test_the_reason_that_can_be_changed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tier fails, each for a reason of its own."""
    reasons: list[KernelError] = [
        HookError("sock_send_length", "absent", "old"),
        RejectedError("tcp_send", "not accepted", ""),
        HookError("sys_exit", "refused", "not allowed"),
        NotAllowedError("not allowed", "grant it"),
    ]
    for left, told in ((4, 3), (3, 1), (1, 0)):
        failing = iter(reasons[:left])

        def fail(self: Capture, tier: Tier, wanted: Wanted, failing: Any = failing) -> None:
            raise next(failing)

        monkeypatch.setattr(capture, "TIERS", (TIER,) * left)
        monkeypatch.setattr(Capture, "_try", fail)
        with pytest.raises(KernelError) as refusal:
            Capture(Wanted())
        assert refusal.value is reasons[told]


def test_a_rejected_program_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verifier's no costs what the program would have seen, not the rest of its object."""
    real: Callable[..., Any] = Library.call
    loads: list[str] = []

    def call(self: Library, function: str, *arguments: Any) -> Any:
        if function == "bpf_object__load":
            loads.append(function)
            if len(loads) == 1:
                self.log[:] = ["R1 invalid", "libbpf: prog 'sock_gone': failed to load: -13"]
                raise PermissionError(13, "Permission denied")
        return real(self, function, *arguments)

    monkeypatch.setattr(capture, "TIERS", (TIER,))
    monkeypatch.setattr(Library, "call", call)
    with closing(Capture(Wanted())) as running:
        states = {probe.name: probe.state for probe in running.probes}
        assert states["sock_gone"] == "refused"
        assert {states[name] for name in PROGRAMS if name != "sock_gone"} == {"attached"}
        assert len(loads) == 3  # both objects, one of them twice


def test_without_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, **_: object) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(libbpf.ctypes, "CDLL", missing)
    with pytest.raises(KernelError, match="libbpf") as refusal:
        Library()
    assert "apt-get install libbpf1" in refusal.value.remedy


def test_without_kernel_types(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(capture, "Path", lambda _: tmp_path / "vmlinux")
    with pytest.raises(KernelError, match="does not describe its types") as refusal:
        Capture(Wanted())
    assert "CONFIG_DEBUG_INFO_BTF" in refusal.value.remedy


def test_a_kernel_that_is_locked_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The verifier refuses then, for no reason that it names (`make test-kernels` boots one so)."""
    real: Callable[..., Any] = Library.call

    def call(self: Library, function: str, *arguments: Any) -> Any:
        if function == "bpf_object__load":
            raise OSError(22, "Invalid argument")
        return real(self, function, *arguments)

    monkeypatch.setattr(Library, "call", call)
    monkeypatch.setattr(objects, "LOCKDOWN", tmp_path / "lockdown")
    for mode, sentence in (
        ("none integrity [confidentiality]", "locked down"),
        ("none [integrity] confidentiality", "does not accept"),
    ):
        (tmp_path / "lockdown").write_text(mode + "\n")
        with pytest.raises(KernelError, match=sentence) as refusal:
            Capture(Wanted())
        assert refusal.value.exit_code == 3


WITHOUT = """
import ctypes, os, resource, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
import tests.one_tier
from otelauto.kernel.capture import Capture, Wanted
from otelauto.errors import KernelError
from otelauto.kernel.libbpf import library
library()
dropped, user, limit = {dropped!r}, {user}, {limit}
try:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
except ValueError:
    assert limit == resource.RLIM_INFINITY  # root here may not raise it
if user:
    os.setgid(user)
    os.setuid(user)
elif dropped is not None:
    header, sets = struct.pack("<II", 0x20080522, 0), ctypes.create_string_buffer(24)
    assert libc.capget(header, sets) == 0
    words = list(struct.unpack("<IIIIII", sets))
    for number in dropped:
        for kind in range(3):
            words[number // 32 * 3 + kind] &= ~(1 << number % 32)
    assert libc.capset(header, struct.pack("<IIIIII", *words)) == 0
try:
    capture = Capture(Wanted())
except KernelError as error:
    print(error.exit_code, error.message, "->", error.remedy)
else:
    print("loaded", {{probe.state for probe in capture.probes}})
"""
CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39
ALL_BUT_TWO = tuple(set(range(41)) - {CAP_BPF, CAP_PERFMON})


def load_with(
    dropped: tuple[int, ...] | None, user: int = 0, limit: int = resource.RLIM_INFINITY
) -> str:
    child = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(dropped=dropped, user=user, limit=limit)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SEARCHED},
        check=False,
    )
    assert not child.stderr
    return child.stdout.strip()


def test_a_user_who_is_not_root() -> None:
    said = load_with(None, user=65534)
    assert said == (
        "3 not allowed to load BPF programs -> run as root, or with CAP_BPF and CAP_PERFMON"
    )


@pytest.mark.parametrize("kept", [(), (CAP_BPF,), (CAP_PERFMON,)], ids=["none", "bpf", "perfmon"])
def test_root_without_the_capabilities(kept: tuple[int, ...]) -> None:
    dropped = {CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF} - set(kept)
    said = load_with(tuple(sorted(dropped)))
    assert said.startswith("3 the kernel refuses to load BPF programs -> grant CAP_BPF"), said


def test_the_two_capabilities_are_enough() -> None:
    said = load_with(ALL_BUT_TWO)
    assert said.startswith("loaded {")
    assert "refused" not in said


def test_a_limit_of_locked_memory() -> None:
    """It counts before 5.11 only, and is named there."""
    said = load_with(ALL_BUT_TWO, limit=64 << 10)
    if library().parameters("bpf_ktime_get_coarse_ns") is None:
        assert said.startswith("3 this kernel counts BPF maps as locked memory, and allows 64 KiB")
        assert "ulimit -l unlimited" in said
    else:
        assert said.startswith("loaded {")


def test_constants_are_set_in_the_kernel() -> None:
    """Read from the loaded map: the host itself is never watched whole by a test."""
    bpf = capture.BpfObject("procs")
    with closing(bpf):
        bpf.set_constants(system_wide=1, report_all_execs=1)
        bpf._lib.call("bpf_object__load", bpf._object)
        (rodata,) = (one for one in bpf._maps if one.endswith(".rodata"))
        btf = Btf(section(OBJECTS / "procs.bpf.o", ".BTF"))
        size = btf.find(KIND_STRUCT, "contract").size + 4096
        memory = bpf.lookup(rodata, bytes(4), size)
        assert memory is not None
        assert memory.count(b"\1\0\0\0") >= 2


# ---- state ----


def test_state_of_a_connection_is_small() -> None:
    btf = Btf(section(OBJECTS / "sockets.bpf.o", ".BTF"))
    assert btf.find(KIND_STRUCT, "connection").size <= 256


def test_memory_of_the_maps(recorder: Recorder) -> None:
    memory = recorder.capture.kernel_memory()
    ring = recorder.capture._sockets.map_memory()["records"]  # some kernels do not account it
    assert (4 << 20 if ring else 0) < memory <= 16 << 20


def test_state_goes_with_the_socket(recorder: Recorder, connect: Connect) -> None:
    """Many sockets come and go: the maps take no more than after a tenth, and none has state."""
    socket_state: list[int] = []
    for rounds in (ROUNDS, 9 * ROUNDS):
        for _ in range(rounds):
            client, server = connect_and_close(connect)
            del client, server
        recorder.drain()
        recorder.connections.clear()
        socket_state.append(recorder.capture.kernel_memory())
    assert socket_state[0] == socket_state[1]
    assert recorder.counters()["DROP_STATE_REFUSED"] == 0
    connections = recorder.capture._sockets.map_fd("connections")
    if HAS_TABLES:
        left = recorder.capture._sockets
        recorder.wait_for(lambda: entries(left, "connections") == 0, "every entry is removed")
        client, server = connect("tcp4")
        client.send(b"x")
        server.recv(1)
        assert entries(left, "connections") == 2
        return
    assert not storage_of_open_sockets(connections)
    client, server = connect("tcp4")
    client.send(b"x")
    server.recv(1)
    assert set(storage_of_open_sockets(connections)) == {client.fileno(), server.fileno()}


def connect_and_close(connect: Connect) -> tuple[int, int]:
    client, server = connect("tcp4")
    with client, server:
        client.send(b"x")
        server.recv(1)
        return client.fileno(), server.fileno()


def storage_of_open_sockets(map_fd: int) -> list[int]:
    """Descriptors of this process's sockets that have state in the map (key: a descriptor)."""
    found = []
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
        key, value = int(fd).to_bytes(4, "little"), libbpf.ctypes.create_string_buffer(256)
        try:
            library().call("bpf_map_lookup_elem", map_fd, key, value)
        except OSError:
            continue
        found.append(int(fd))
    return found
