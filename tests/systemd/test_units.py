# SPDX-License-Identifier: Apache-2.0
"""The unit files by themselves: what systemd says of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.e2e.harness.otelauto import PROGRAM
from tests.systemd.unit import AGENT, INSTRUMENTER, Unit, resolved, system_call_groups

from otelauto.capabilities import CAPABILITIES

BOTH = pytest.mark.parametrize("path", [INSTRUMENTER, AGENT], ids=lambda path: path.stem)
WORST = 3.0  # of 10


def exposure(path: Path) -> float:
    """How exposed the unit is, as systemd reckons; it must understand every line of the file."""
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert not re.search("ignoring|unknown", done.stderr, re.IGNORECASE), done.stderr
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


@BOTH
def test_it_is_little_exposed(path: Path) -> None:
    assert exposure(path) <= WORST


def test_an_exposed_one_is_found(tmp_path: Path) -> None:
    text = INSTRUMENTER.read_text()
    bare = tmp_path / "bare.service"
    bare.write_text(re.sub(r"(?m)^(Protect|Restrict|Private|SystemCall|Cap).*\n", "", text))
    assert exposure(bare) > WORST
    wrong = tmp_path / "wrong.service"
    wrong.write_text(text.replace("ProtectClock=yes", "ProtectClock=maybe"))
    with pytest.raises(AssertionError, match="ignoring"):
        exposure(wrong)


@BOTH
def test_systemd_understands_it(path: Path, tmp_path: Path) -> None:
    """With a program that is there: systemd looks for it."""
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("/opt/otelauto/bin/otelauto", str(PROGRAM)))
    words = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    about = [line for line in done.stderr.splitlines() if copy.name in line]
    assert about == []


def test_the_capabilities_are_those_of_the_doctor() -> None:
    unit = Unit(INSTRUMENTER)
    needed = sorted(name.removeprefix("CAP_").lower() for name in CAPABILITIES)
    assert sorted(unit.capabilities("CapabilityBoundingSet")) == needed
    assert sorted(unit.capabilities("AmbientCapabilities")) == needed
    assert Unit(AGENT).capabilities("CapabilityBoundingSet") == []


def test_a_filter_is_resolved_in_order(tmp_path: Path) -> None:
    file = tmp_path / "x.service"
    file.write_text("SystemCallFilter=@clock read bpf\nSystemCallFilter=~@clock\n")
    calls = Unit(file).system_calls()
    assert {"read", "bpf", "execve"} <= calls, "the default group is always allowed"
    assert not calls & {"settimeofday", "clock_settime", "unshare"}
    file.write_text("SystemCallFilter=read\nSystemCallFilter=\nSystemCallFilter=bpf\n")
    assert "bpf" in Unit(file).system_calls()
    groups = system_call_groups()
    assert "adjtimex" in resolved("@privileged", groups), "a group within a group"
    assert len(groups) > 20
