# SPDX-License-Identifier: Apache-2.0
"""The write-ahead log: what is appended is read, in its order, whatever happened in between."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
from tests.scale import SCALE
from tests.unit.prometheus_parts import labels

from otelauto.agent.pipeline import Exemplar, NativeHistogram, Sample
from otelauto.agent.prometheus import wal
from otelauto.agent.prometheus.remote import decoded_labels
from otelauto.agent.prometheus.wal import EXEMPLAR, HISTOGRAM, Log, Position, Reader

START = Position(0, 0)


class Opened:
    """A log, and what it says is lost."""

    def __init__(self, path: Path, **more) -> None:
        self.lost: list[int] = []
        self.log = Log(path, self.lost.append, **more)
        self.log.open()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal"


def samples(*values, name="m", at=1):
    return [Sample(labels(name, n=str(n)), float(v), at) for n, v in enumerate(values)]


def read(reader: Reader) -> list[tuple[str, str, int, float]]:
    found = []
    while (record := reader.next()) is not None:
        for ref, time_ms, value in record.samples:
            own = dict(decoded_labels(record.series[ref]))
            found.append((own["__name__"], own.get("n", ""), time_ms, value))
    return found


def test_what_is_appended_is_read_by_each_reader(path) -> None:
    log = Opened(path).log
    first = Reader(log, START)
    assert read(first) == []
    log.append(samples(1, 2))
    assert read(first) == [("m", "0", 1, 1.0), ("m", "1", 1, 2.0)]
    log.append(samples(3, 4, at=2))
    assert read(first) == [("m", "0", 2, 3.0), ("m", "1", 2, 4.0)]
    second = Reader(log, START)
    assert [value for *_, value in read(second)] == [1.0, 2.0, 3.0, 4.0]
    assert log.total == 4
    log.close()


def test_a_record_has_no_series_twice(path) -> None:
    log = Opened(path).log
    one, two = labels("a"), labels("b")
    log.append([Sample(one, 1.0, 1), Sample(one, 2.0, 2), Sample(two, 3.0, 1), Sample(one, 4.0, 3)])
    reader = Reader(log, START)
    records = []
    while (record := reader.next()) is not None:
        records.append([value for *_, value in record.samples])
    assert records == [[1.0, 3.0], [2.0], [4.0]]
    log.close()


def test_exemplars_and_histograms(path) -> None:
    log = Opened(path).log
    exemplar = Exemplar((("trace_id", "ab"),), 0.5, 7)
    native = NativeHistogram(3, 1.5, 0, 0.0, 0, ((0, 1),), (3,))
    log.append([Sample(labels("a"), 1.0, 8, (exemplar,)), Sample(labels("b"), 0.0, 9, (), native)])
    record = Reader(log, START).next()
    assert record is not None
    assert record.items == 2
    assert [(kind, ref) for kind, ref, _ in record.attached] == [(EXEMPLAR, 0), (HISTOGRAM, 1)]
    assert record.samples == [(0, 8, 1.0)]
    log.close()


@pytest.mark.parametrize("segment_bytes", [1, 400, 1 << 20])
def test_a_restart_goes_on_where_a_reader_was(path, segment_bytes: int) -> None:
    log = Opened(path, segment_bytes=segment_bytes).log
    reader = Reader(log, START)
    for n in range(10):
        log.append(samples(n, n, at=n + 1))
    for _ in range(4):
        reader.next()
    position = reader.position
    log.close()
    opened = Opened(path, segment_bytes=segment_bytes)
    log = opened.log
    assert log.total == 20
    assert log.behind(position) == 12
    log.append(samples(10, 10, at=11))
    assert [t for *_, t, _ in read(Reader(log, position))] == [
        n for n in range(5, 12) for _ in "ab"
    ]
    assert opened.lost == []
    log.close()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_record_is_left_out_and_counted(path, cut: int) -> None:
    log = Opened(path).log
    log.append(samples(1, 2))
    whole = log.end().offset
    log.append(samples(3, 4, at=2))
    log.close()
    file = path / "0000000000000001.wal"
    os.truncate(file, whole + cut)
    opened = Opened(path)
    assert opened.lost == ([2] if cut >= 24 else [])  # a torn header says nothing
    assert file.stat().st_size == whole
    opened.log.append(samples(5, at=3))
    assert [v for *_, v in read(Reader(opened.log, START))] == [1.0, 2.0, 5.0]
    opened.log.close()


def test_damage_costs_the_rest_of_its_segment_only(path) -> None:
    opened = Opened(path)
    log = opened.log
    log.append(samples(1, 2))
    damaged = log.end().offset
    log.append(samples(3, 4, name="other", at=2))
    log.append(samples(5, 6, at=3))
    with (path / "0000000000000001.wal").open("r+b") as file:
        file.seek(damaged + 40)
        file.write(b"\xff\xff")
    reader = Reader(log, START)
    assert [v for *_, v in read(reader)] == [1.0, 2.0]
    assert sum(opened.lost) == 4
    log.append(samples(7, 8, at=4))
    assert [v for *_, v in read(reader)] == [7.0, 8.0]
    log.close()


def test_any_damage_is_survived(path) -> None:
    chance = random.Random(7)
    log = Opened(path, segment_bytes=2000).log
    for n in range(60):
        log.append(samples(n, n, n, name=f"m{n % 7}", at=n))
    log.close()
    whole = {file: file.read_bytes() for file in path.glob("*.wal")}
    for _ in range(50 * SCALE):
        file = chance.choice(sorted(whole))
        data = bytearray(whole[file])
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        file.write_bytes(data[: chance.randrange(len(data) + 1)])
        opened = Opened(path)
        for name, _, time_ms, value in read(Reader(opened.log, START)):
            assert name == f"m{time_ms % 7}"
            assert value == time_ms
        opened.log.close()
        file.write_bytes(whole[file])


def test_segments_that_all_have_passed_are_removed_when_they_are_old(path) -> None:
    log = Opened(path, segment_bytes=1).log
    for n in range(4):
        log.append(samples(n, at=n))
    log.truncate(3, 3600)
    assert len(list(path.glob("*.wal"))) == 4
    log.truncate(3, 0)
    assert [file.name[:16] for file in sorted(path.glob("*.wal"))] == [
        "0" * 15 + "3",
        "0" * 15 + "4",
    ]
    assert [v for *_, v in read(Reader(log, START))] == [2.0, 3.0]
    log.truncate(5, 0)
    assert len(list(path.glob("*.wal"))) == 1  # it is written to
    log.truncate(5, 0, rotate=True)
    assert not list(path.glob("*.wal"))
    log.append(samples(9, at=9))
    assert log.start() == Position(5, 0)
    log.sync()
    log.close()


def test_a_full_disk_loses_nothing_that_was_taken(path, monkeypatch) -> None:
    log = Opened(path).log
    log.append(samples(1))

    def full(fd: int, data: memoryview, at: int) -> int:
        if len(data) > 10:
            return pwrite(fd, data[:10], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    pwrite = os.pwrite
    monkeypatch.setattr(wal.os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        log.append(samples(2, 3, at=2))
    monkeypatch.undo()
    log.append(samples(4, 5, at=3))
    assert [v for *_, v in read(Reader(log, START))] == [1.0, 4.0, 5.0]
    log.close()


def test_one_agent_at_a_time(path) -> None:
    log = Opened(path).log
    with pytest.raises(OSError, match="another agent uses it"):
        Opened(path)
    log.close()
    Opened(path).log.close()
    with pytest.raises(OSError, match="closed"):
        log.append(samples(1))
