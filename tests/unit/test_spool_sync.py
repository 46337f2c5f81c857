# SPDX-License-Identifier: Apache-2.0
"""The disk may take its time: what is stored is brought to it, and nobody waits for that."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.exporters import Make, exporters
from tests.unit.test_otlp_http import Receiver, dead_port, spans, totals, transport, wait_for

from otelauto.export import spool_sync
from otelauto.export.spool import DiskSpool
from otelauto.export.spool_sync import Syncer


class Disk:
    """Takes the place of fdatasync(2): ``synced`` are the files, by inode, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.began = threading.Event()
        self.error: OSError | None = None
        self.synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", self.sync)

    def sync(self, fd: int) -> None:
        self.began.set()
        assert self.go_on.wait(30)
        if self.error is not None:
            raise self.error
        self.synced.append(os.fstat(fd).st_ino)


def syncing() -> bool:
    return any(each.name.endswith("-sync") for each in threading.enumerate())


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.go_on.set()
    wait_for(lambda: not syncing())


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with exporters(tmp_path) as made:
        yield made


def test_what_was_written_is_brought_to_the_disk(disk: Disk, tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path / "spool", 1 << 20, lambda *_: None, lambda _: None)
    spool.append(b"x", 1)
    folder = (tmp_path / "spool").stat().st_ino
    (segment,) = (path.stat().st_ino for path in (tmp_path / "spool").glob("*.spool"))
    wait_for(lambda: sorted(disk.synced) == sorted([folder, segment]))
    disk.synced.clear()
    spool.append(b"y", 1)
    spool.close()
    wait_for(lambda: disk.synced == [segment])


def test_nothing_waits_for_a_disk_that_hangs(
    disk: Disk, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storing, delivering and the end; a kill meanwhile would lose nothing of what is stored."""
    monkeypatch.setattr(spool_sync, "CLOSE_S", 0.05)
    disk.go_on.clear()
    port = dead_port()
    exporter, counters = make(transport(port))
    for count in range(5, 30, 5):
        exporter.offer(spans(5, count - 5))
        wait_for(lambda expected=count: exporter.status()["spooled"] == expected)
    assert disk.began.wait(20)
    receiver = Receiver(port=port)
    try:
        wait_for(lambda: totals(counters) == (25, {}))
        assert receiver.span_numbers() == list(range(25))
        exporter.close(5)
    finally:
        receiver.close()
    assert disk.synced == []


def test_a_disk_that_fails_is_told_of_once(
    disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk.error = OSError(errno.EIO, "Input/output error")
    spool = DiskSpool(tmp_path / "spool", 1 << 20, lambda *_: None, lambda _: None)
    spool.append(b"x", 1)
    spool.close()

    def told() -> list[int]:
        return [each.levelno for each in caplog.records if "Input/output" in each.getMessage()]

    wait_for(lambda: len(told()) == 1)
    wait_for(lambda: not syncing())
    assert told() == [logging.WARNING]  # of segment and directory


def test_a_file_is_synced_though_another_had_its_descriptor(disk: Disk, tmp_path: Path) -> None:
    disk.go_on.clear()
    syncer = Syncer(lambda error: pytest.fail(str(error)))
    inodes = []
    for number in range(3):
        path = tmp_path / str(number)
        path.touch()
        inodes.append(path.stat().st_ino)
        fd = os.open(path, os.O_RDWR)
        syncer.written(number, fd)
        syncer.written(number, fd)
        os.close(fd)
    disk.go_on.set()
    syncer.close()
    syncer.written(9, -1)  # too late: nothing is done
    wait_for(lambda: list(dict.fromkeys(disk.synced)) == inodes)
