# SPDX-License-Identifier: Apache-2.0
"""The spool: order, bounds, what is left after a kill, damage; every item accounted for."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.scale import SCALE

from otelauto.export import spool as room
from otelauto.export.spool import HEADER_SIZE, DiskSpool, Loss, MemorySpool, Spool

Make = Callable[..., Spool]


class Book:
    """What a spool reported."""

    def __init__(self) -> None:
        self.lost: Counter[Loss] = Counter()
        self.found = 0

    def on_lost(self, items: int, loss: Loss) -> None:
        self.lost[loss] += items

    def on_found(self, items: int) -> None:
        self.found += items


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def disk(tmp_path: Path, book: Book) -> Iterator[Callable[..., DiskSpool]]:
    made: list[DiskSpool] = []

    def make(max_bytes: int = 1 << 20) -> DiskSpool:
        """The one before is closed: two cannot have one directory."""
        if made:
            made.pop().close()
        made.append(DiskSpool(tmp_path / "spool", max_bytes, book.on_lost, book.on_found))
        made[-1].open()
        return made[-1]

    yield make
    for spool in made:
        spool.close()


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, book: Book, disk: Callable[..., DiskSpool]) -> Make:
    if request.param == "disk":
        return disk
    return lambda max_bytes=1 << 20: MemorySpool(max_bytes, book.on_lost)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def drain(spool: Spool) -> list[bytes]:
    found = []
    while (entry := spool.head()) is not None:
        found.append(entry.data)
        spool.acknowledge(entry)
    return found


def segments(directory: Path) -> list[Path]:
    return sorted((directory / "spool").glob("*.spool"))


def test_first_in_first_out(make: Make, book: Book) -> None:
    spool = make()
    assert spool.head() is None
    messages = [noise(100 + n, n) for n in range(50)]
    for number, message in enumerate(messages):
        spool.append(message, number)
    assert spool.items == sum(range(50))
    first = spool.head()
    assert first is not None
    assert (first.data, first.items) == (messages[0], 0)
    assert spool.head() is first
    assert drain(spool) == messages
    assert (spool.items, spool.size) == (0, 0)
    spool.append(b"again", 1)
    assert drain(spool) == [b"again"]
    assert not book.lost


def test_what_comes_while_it_is_drained_comes_last(make: Make) -> None:
    spool = make()
    expected, delivered = [], []
    for number in range(200):
        for _ in range(1 + number % 3):
            expected.append(noise(300, len(expected)))
            spool.append(expected[-1], 1)
        entry = spool.head()
        assert entry is not None
        delivered.append(entry.data)
        spool.acknowledge(entry)
    assert delivered + drain(spool) == expected


def test_the_oldest_make_room_and_are_counted(make: Make, book: Book) -> None:
    spool = make(16 << 10)
    for number in range(100):
        spool.append(noise(500, number), 3)
        assert spool.size <= 16 << 10
    left = drain(spool)
    assert left == [noise(500, number) for number in range(100 - len(left), 100)]
    assert 20 < len(left) < 33
    assert book.lost == {Loss.FULL: 3 * (100 - len(left))}


def test_what_is_being_delivered_is_not_counted_as_lost(make: Make, book: Book) -> None:
    """Its deliverer may yet succeed: it would be counted twice."""
    spool = make(16 << 10)
    spool.append(b"first", 1000)
    head = spool.head()
    assert head is not None
    assert spool.keeps(head)
    for number in range(100):
        spool.append(noise(500, number), 1)
    assert not spool.keeps(head)
    assert spool.head() is head
    spool.acknowledge(head)
    rest = drain(spool)
    assert b"first" not in rest
    assert book.lost == {Loss.FULL: 100 - len(rest)}


def test_what_is_larger_than_all_is_refused(make: Make, book: Book) -> None:
    spool = make(4096)
    spool.append(b"small", 1)
    with pytest.raises(OSError, match="larger than the whole spool"):
        spool.append(noise(5000), 5)
    assert drain(spool) == [b"small"]
    assert not book.lost


# ---- on disk ----


def test_files_are_for_the_owner_only(disk: Callable[..., DiskSpool], tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        disk().append(b"x", 1)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    files = list((tmp_path / "spool").iterdir())
    assert len(files) == 2  # a segment and the lock
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_it_outlives_its_process(disk: Callable[..., DiskSpool], book: Book) -> None:
    first = disk(64 << 10)
    messages = [noise(400, n) for n in range(100)]
    for message in messages:
        first.append(message, 2)
    for _ in range(30):
        entry = first.head()
        assert entry is not None
        first.acknowledge(entry)
    again = disk(64 << 10)
    assert book.found == again.items == 140
    again.append(b"new", 1)
    assert drain(again) == [*messages[30:], b"new"]
    assert not book.lost


def test_what_is_delivered_leaves_no_file(
    disk: Callable[..., DiskSpool], tmp_path: Path, book: Book
) -> None:
    spool = disk(64 << 10)
    for number in range(100):
        spool.append(noise(400, number), 1)
    assert len(segments(tmp_path)) > 5
    drain(spool)
    assert segments(tmp_path) == []
    assert disk().items == book.found == 0


def test_a_torn_tail_costs_what_was_being_written(
    disk: Callable[..., DiskSpool], tmp_path: Path, book: Book
) -> None:
    """Cut at every byte of the last record."""
    disk().append(b"whole", 7)
    disk().append(b"cut", 5)
    last = segments(tmp_path)[-1]
    content = last.read_bytes()
    for end in range(len(content)):
        book.found = 0
        last.write_bytes(content[:end])
        spool = disk()
        assert book.found == 7
        spool.append(b"next", 1)
        tail = segments(tmp_path)[-1]
        entry = spool.head()
        assert entry is not None
        assert entry.data == b"whole"
        spool.close()
        assert tail.name != last.name  # what is torn is never appended to
        tail.unlink()
    assert not book.lost


def test_damage_costs_the_damaged(
    disk: Callable[..., DiskSpool], tmp_path: Path, book: Book
) -> None:
    """Any one byte of the middle record: the others are delivered, and nothing is made up."""
    middle = b"middle, of some length"
    disk()
    for size in range(1, HEADER_SIZE + len(middle)):
        spool = disk()
        for data, items in ((b"first", 1), (middle, 10), (b"last", 100)):
            spool.append(data, items)
        (segment,) = segments(tmp_path)
        content = bytearray(segment.read_bytes())
        start = content.index(room.MAGIC, 1)
        end = content.index(room.MAGIC, start + 1)
        at = start + size % (end - start)
        content[at] ^= 0x55
        segment.write_bytes(content)
        book.lost.clear()
        got = drain(disk())
        state = at == start + 4  # not delivered, or delivered already: nobody can know
        assert got == [b"first", b"last"] or (state and got == [b"first", middle, b"last"])
        if at >= start + HEADER_SIZE:
            assert book.lost == {Loss.CORRUPT: 10}
        segment.unlink(missing_ok=True)


def test_any_damage_is_survived(disk: Callable[..., DiskSpool], tmp_path: Path, book: Book) -> None:
    """What is delivered was appended; what was found is delivered or counted, whatever was done."""
    rng = random.Random(5)
    runs = int(os.environ.get("TEST_FUZZ_RUNS", "0")) // 1000 or 60
    for _ in range(runs):
        spool = disk(32 << 10)
        messages = [noise(rng.randrange(600), rng.randrange(1 << 30)) for _ in range(30)]
        for message in messages:
            spool.append(message, 1)
        spool.close()
        for path in segments(tmp_path):
            content = bytearray(path.read_bytes())
            for _ in range(rng.randrange(4)):
                at = rng.randrange(len(content))
                damage = rng.choice(
                    [b"", rng.randbytes(1), rng.randbytes(9), room.MAGIC, bytes(40)]
                )
                content[at : at + rng.randrange(30)] = damage
            path.write_bytes(content)
        book.lost.clear()
        book.found = 0
        spool = disk(32 << 10)
        got = drain(spool)
        assert set(got) <= set(messages)
        assert len(got) + book.lost.total() == book.found
        assert segments(tmp_path) == []


def test_strange_files_are_left_alone(disk: Callable[..., DiskSpool], tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    (directory / "notes.txt").write_text("mine")
    (directory / "0000000000000003.spool").write_bytes(noise(5000))
    (directory / "0000000000000004.spool").write_bytes(b"")
    spool = disk()
    assert spool.items == 0
    spool.append(b"x", 1)
    assert drain(spool) == [b"x"]
    assert (directory / "notes.txt").read_text() == "mine"


def test_it_is_for_one_process(disk: Callable[..., DiskSpool], tmp_path: Path, book: Book) -> None:
    first = disk()
    second = DiskSpool(tmp_path / "spool", 1 << 20, book.on_lost, book.on_found)
    with pytest.raises(OSError, match="another otelauto"):
        second.open()
    with pytest.raises(OSError, match="another otelauto"):
        second.append(b"x", 1)
    first.append(b"y", 1)
    first.close()
    second.append(b"x", 1)
    assert drain(second) == [b"y", b"x"]
    second.close()


@pytest.mark.parametrize("bad", ["file", "link", "writable", "foreign"])
def test_a_directory_that_is_not_ours(tmp_path: Path, book: Book, bad: str) -> None:
    directory = tmp_path / "spool"
    if bad == "file":
        directory.write_text("")
    elif bad == "link":
        directory.symlink_to(tmp_path)
    else:
        directory.mkdir()
        directory.chmod(0o777 if bad == "writable" else 0o700)
        os.chown(directory, 65534 if bad == "foreign" else 0, 0)
    spool = DiskSpool(directory, 1 << 20, book.on_lost, book.on_found)
    with pytest.raises(OSError):
        spool.append(b"x", 1)
    assert (spool.items, spool.head()) == (0, None)
    spool.close()


def test_no_file_is_followed_out_of_it(disk: Callable[..., DiskSpool], tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    target = tmp_path / "precious"
    target.write_text("mine")
    (directory / "0000000000000001.spool").symlink_to(target)
    with pytest.raises(OSError):
        disk()
    assert target.read_text() == "mine"


WRITER = """
import sys
from pathlib import Path
from otelauto.export.spool import DiskSpool

spool = DiskSpool(Path(sys.argv[1]), 1 << 20, lambda *_: None, lambda _: None)
number = int(sys.argv[2])
while True:
    spool.append(str(number).encode() * (1 + number % 997), 1)
    sys.stdout.write(f"+{number}\\n")
    number += 1
    while spool.items > 20:
        entry = spool.head()
        taken = int(entry.data[: len(str(number - 21))])
        sys.stdout.write(f"-{taken}\\n")
        sys.stdout.flush()
        spool.acknowledge(entry)
"""


def test_kill_9_loses_nothing_that_was_stored(tmp_path: Path, book: Book) -> None:
    """Whatever was appended is delivered or still there; at most one record is there twice."""
    stored, taken = [], []
    first = 10_000
    for round_ in range(20 * SCALE):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "spool"), str(first)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(60 + 7 * round_ % 50)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        child.stdout.close()
        child.wait(20)
        numbers = [int(line) for line in lines if line.endswith("\n")]
        stored += [n for n in numbers if n > 0]
        taken += [-n for n in numbers if n < 0]
        first = max(stored) + 1000  # one may be stored that was not told of
    spool = DiskSpool(tmp_path / "spool", 1 << 20, book.on_lost, book.on_found)
    spool.open()
    left = [int(data[:5]) for data in drain(spool)]
    spool.close()
    assert set(stored) <= set(taken) | set(left)
    assert left == sorted(left)
    twice = Counter(taken + left) - Counter(set(taken + left))
    assert sum(twice.values()) <= 20 * SCALE
    assert not book.lost
