# SPDX-License-Identifier: Apache-2.0
"""Telling the service manager, and taking up what a program's file permits."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from otelauto.capabilities import CAPABILITIES
from otelauto.notify import READY, notify


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(abstract: bool, tmp_path: Path) -> None:
    name = f"@{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name[1:]}" if abstract else name)
        manager.settimeout(10)
        notify(READY, {"NOTIFY_SOCKET": name})
        assert manager.recv(100) == b"READY=1"


def test_where_there_is_no_manager_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    notify(READY, {})
    notify(READY, {"NOTIFY_SOCKET": ""})
    assert not caplog.records


@pytest.mark.parametrize("name", ["/no/such/socket", "/" + "x" * 200, "\0"])
def test_a_manager_that_cannot_be_told_is_a_warning(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "otelauto"):
        notify(READY, {"NOTIFY_SOCKET": name})
    (record,) = caplog.records
    assert "cannot be told READY=1" in record.getMessage()


def test_a_manager_that_does_not_listen_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otelauto.notify.TELL_S", 0.01)
    name = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        caplog.at_level(logging.WARNING, "otelauto"),
    ):
        manager.bind(name)
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.sendto(b"x", name)
        notify(READY, {"NOTIFY_SOCKET": name})
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# Permitted are the bits given and CAP_CHOWN (0), effective none: as after the start of a program
# whose file permits them.
TAKING = """
import ctypes, sys
from pathlib import Path
from otelauto.capabilities import CAPABILITIES, HEADER, SETS, held, take_up
permitted = int(sys.argv[1])
sets = SETS.pack(0, permitted & 0xFFFFFFFF, 0, 0, permitted >> 32, 0)
assert ctypes.CDLL(None).capset(HEADER.pack(0x20080522, 0), sets) == 0
print(*[name for name in CAPABILITIES if held(name)])
take_up()
print(*[name for name in CAPABILITIES if held(name)])
status = dict(line.split(":\\t") for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["CapEff"], 16) & 1, int(status["CapPrm"], 16) == permitted)
"""


@pytest.mark.parametrize("given", [list(CAPABILITIES), ["CAP_BPF"], []])
def test_permitted_capabilities_are_taken_up(given: list[str]) -> None:
    """What is needed of them, and nothing else."""
    permitted = 1 | sum(1 << CAPABILITIES[name][0] for name in given)
    words = [sys.executable, "-c", TAKING, str(permitted)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    before, after, others = done.stdout.splitlines()
    assert (before.split(), after.split(), others) == ([], given, "0 True")
