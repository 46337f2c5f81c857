# SPDX-License-Identifier: Apache-2.0
"""What is refused, one by one: the right sentence, the right exit code, and the rest works."""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.harness.otelauto import PROGRAM
from tests.e2e.harness.process import Process, accepts, free_port
from tests.e2e.harness.rig import Ran, Rig, settings
from tests.e2e.harness.rig import run as run_otelauto
from tests.e2e.harness.servers import BUILT
from tests.e2e.test_lifecycle import ask, paths
from tests.e2e.test_wrong_input import MAIN, PREAMBLE

from otelauto.kernel.tiers import TIERS

pytestmark = pytest.mark.e2e

REFUSED = "the kernel refuses to load BPF programs"
REMEDY = "grant CAP_BPF and CAP_PERFMON; check kernel lockdown and the seccomp profile"


@dataclass(frozen=True)
class Lacking:
    """Capabilities that are taken away, and what the doctor says of them."""

    taken: str
    missing: str = ""
    code: int = 0


CASES = (
    # CAP_SYS_ADMIN stands for the first two: they are lost only with it.
    Lacking("bpf,sys_admin", "CAP_BPF: BPF programs cannot be loaded: nothing is seen", 3),
    Lacking("perfmon,sys_admin", "CAP_PERFMON: tracing programs cannot be loaded: nothing is", 3),
    Lacking("sys_ptrace", "CAP_SYS_PTRACE: other users' processes cannot be inspected"),
    Lacking("dac_read_search", "CAP_DAC_READ_SEARCH: other users' files cannot be read"),
    Lacking(
        "checkpoint_restore", "CAP_CHECKPOINT_RESTORE: TLS libraries that were replaced on disk"
    ),
    Lacking("sys_admin"),
)


def without(taken: str, program: Path = PROGRAM) -> list[str]:
    """The words that run ``program`` as root without these capabilities (setpriv(1))."""
    minus = ",".join(f"-{name}" for name in taken.split(","))
    return ["setpriv", f"--bounding-set={minus}", f"--inh-caps={minus}", str(program)]


def doctor(words: list[str], directory: Path) -> Ran:
    file = directory / "otelauto.yml"
    file.write_text(settings(directory, ebpf={"tls_plaintext": False}))
    return run_otelauto("doctor", "--config", file, program=words)


@pytest.mark.parametrize("lacking", CASES, ids=lambda lacking: lacking.taken)
def test_the_doctor_names_each_missing_capability(lacking: Lacking, tmp_path: Path) -> None:
    ran = doctor(without(lacking.taken), tmp_path)
    assert ran.code == lacking.code, ran.errors
    lines = [line.strip() for line in ran.output.splitlines()]
    said = [line.removeprefix("MISSING ") for line in lines if line.startswith("MISSING")]
    assert len(said) == bool(lacking.missing)
    assert all(line.startswith(lacking.missing) for line in said)
    if lacking.code:
        at = lines.index(f"FAILED  {REFUSED}")
        assert lines[at + 1] == f"-> {REMEDY}"
    else:
        assert any(line.startswith("ok      tier ") for line in lines)
        assert not [line for line in lines if line.startswith("REFUSED")]
    assert any(line.startswith("Listening here") for line in lines), "the rest is said"


@pytest.mark.parametrize("lacking", CASES, ids=lambda lacking: lacking.taken)
def test_a_run_without_a_capability(lacking: Lacking, tmp_path: Path) -> None:
    """It ends with a sentence, or sees a service that has no rights that it lacks."""
    port = free_port()
    if lacking.code:
        file = tmp_path / "otelauto.yml"
        file.write_text(settings(tmp_path, ebpf={"open_port": port}))
        ran = run_otelauto("--config", file, program=without(lacking.taken))
        assert (ran.code, ran.output) == (3, "")
        assert ran.errors == f"otelauto: {REFUSED}\n  -> {REMEDY}\n"
        return
    words = [*without("all", BUILT / "epoll"), "-p", str(port)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Process(words, tmp_path / "server.err"))
        server.wait_for(lambda: accepts(port), "it listens")
        program = without(lacking.taken)
        rig = stack.enter_context(Rig(tmp_path, {"open_port": port}, program=program))
        rig.wait_for_target(server.pid)
        ask(port, paths("a", 3))
        rig.wait_for_paths(paths("a", 3))


# A kernel that loads all programs, and does not attach the one that is named.
ONE_REFUSED = """
real = Library.call
def call(self, name, *arguments):
    if name == "bpf_program__attach":
        if real(self, "bpf_program__name", *arguments).decode() == {program!r}:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    return real(self, name, *arguments)
Library.call = call
"""
WHY = "Operation not permitted (errno 1)"
TIER = re.compile(r"^  ok      tier (.*)$", re.MULTILINE)
ATTACHED = re.compile(r"^  ok      (\w+) on (\w+)$", re.MULTILINE)


def refusing(program: str) -> list[str]:
    """The words that run otelauto where this program is not attached."""
    return [sys.executable, "-c", PREAMBLE + ONE_REFUSED.format(program=program) + MAIN]


def test_each_program_that_is_refused_is_named(tmp_path: Path) -> None:
    """One costs what it would have seen; one that a tier needs costs the tier, and the next works.

    On every kernel there is a next one, but for tier C.
    """
    best = doctor([str(PROGRAM)], tmp_path)
    (tier,) = TIER.findall(best.output)
    needed = next(each.needed for each in TIERS if each.name == tier)
    hooks = dict(ATTACHED.findall(best.output))
    assert set(needed) < set(hooks)
    for program, hook in hooks.items():
        ran = doctor(refusing(program), tmp_path)
        assert ran.code == 0, ran
        (now,) = TIER.findall(ran.output)
        if program in needed:
            assert now > tier
            assert f"nothing better: cannot see socket traffic: {hook} is refused ({WHY})" in (
                ran.output
            )
        else:
            assert now == tier
            assert f"  REFUSED {program} on {hook}: {WHY}\n" in ran.output
            assert dict(ATTACHED.findall(ran.output)).keys() == hooks.keys() - {program}
        assert "\nListening here" in ran.output, "the rest is said"


def test_a_run_without_a_program_sees_on(tmp_path: Path) -> None:
    """`status` names what is refused."""
    port = free_port()
    with Process([BUILT / "epoll", "-p", str(port)], tmp_path / "server.err") as server:
        server.wait_for(lambda: accepts(port), "it listens")
        with Rig(tmp_path, {"open_port": port}, program=refusing("sock_gone")) as rig:
            rig.wait_for_target(server.pid)
            ask(port, paths("a", 3))
            rig.wait_for_paths(paths("a", 3))
            states = {
                probe["name"]: (probe["state"], probe["why"]) for probe in (rig.report()["probes"])
            }
            assert states.pop("sock_gone") == ("refused", WHY)
            assert {state for state, _ in states.values()} <= {"attached", "absent"}
