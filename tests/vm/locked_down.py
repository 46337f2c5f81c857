# SPDX-License-Identifier: Apache-2.0
"""A kernel that was booted with lockdown=confidentiality: otelauto says so, and ends."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness.rig import run

SENTENCE = "the kernel is locked down (confidentiality): BPF programs may not read its memory"
REMEDY = "boot it with lockdown=integrity, or without"


def test_the_doctor_says_so() -> None:
    assert "[confidentiality]" in Path("/sys/kernel/security/lockdown").read_text()
    ran = run("doctor")
    assert ran.code == 3, ran.errors
    assert f"FAILED  {SENTENCE}\n          -> {REMEDY}\n" in ran.output
    assert "Listening here" in ran.output


def test_a_run_ends_with_the_sentence() -> None:
    ran = run("--system-wide", "--print")
    assert (ran.code, ran.output) == (3, "")
    assert ran.errors == f"otelauto: {SENTENCE}\n  -> {REMEDY}\n"
