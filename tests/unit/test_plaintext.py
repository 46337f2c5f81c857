# SPDX-License-Identifier: Apache-2.0
"""Links into libraries: one a process and file, not too many, gone with what they are in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.scale import PATIENCE

from otelauto.counters import Counters
from otelauto.discover.mappings import read_mapped
from otelauto.errors import KernelError
from otelauto.kernel.objects import Probe
from otelauto.kernel.uprobes import LibraryProbes, Link, Spot
from otelauto.plaintext import LINKS_REFUSED, Plaintext

DEADLINE_S = 10.0 * PATIENCE


class Probes(LibraryProbes):
    """Remembers what it is asked for. ``refusals`` are raised first, one a link."""

    def __init__(self) -> None:
        self.made: list[tuple[int, str, int]] = []
        self.closed: list[int] = []
        self.refusals: list[KernelError] = []
        self.ending: type[KernelError] | None = None
        self.sockets = False
        self.calls = False
        self.refused_sockets = ""

    def was_called(self) -> bool:
        return self.calls

    def watch_sockets(self) -> list[Probe]:
        if self.refused_sockets:
            return [Probe("tls_sent", "sock_send_length", "refused", self.refused_sockets)]
        self.sockets = True
        return []

    def leave_sockets(self) -> None:
        self.sockets = False

    def link(self, tgid: int, path: str, spots: Sequence[Spot]) -> Link:
        if self.ending:
            raise self.ending
        if self.refusals:
            raise self.refusals.pop(0)
        self.made.append((tgid, path, len(spots)))
        probes = self

        class Counted(Link):
            def close(self) -> None:
                probes.closed.append(tgid)

        return Counted()


class Tree:
    """A /proc with processes that have real files mapped."""

    def __init__(self, root: Path) -> None:
        self.root = root
        mapped = read_mapped("/proc", os.getpid()) or []
        self.library = next(Path(one.path) for one in mapped if "libssl" in one.name)
        self.size = 0

    def process(self, tgid: int, *names: str) -> None:
        """Process ``tgid`` has the library mapped under these names, and nothing else."""
        home = self.root / str(tgid)
        (home / "root").mkdir(parents=True, exist_ok=True)
        lines = []
        for number, name in enumerate(names):
            copy = home / "root" / name
            if not copy.exists():
                copy.write_bytes(self.library.read_bytes())
            lines.append(f"{number}000-{number}fff r-xp 0 0:1 {copy.stat().st_ino} /{name}\n")
        (home / "maps").write_text("".join(lines))
        self.size += 1
        (home / "statm").write_text(f"{self.size} 1 1\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def probes() -> Probes:
    return Probes()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def plaintext(tree: Tree, probes: Probes, counters: Counters) -> Iterator[Plaintext]:
    made = Plaintext(probes, "", counters, str(tree.root))
    yield made
    made.close()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def states(plaintext: Plaintext, tgid: int) -> list[tuple[str, str]]:
    rows = plaintext.report(tgid)["libraries"]
    assert isinstance(rows, list)
    return sorted((row["state"], row["why"]) for row in rows)


def test_one_link_a_process_and_file(tree: Tree, probes: Probes, plaintext: Plaintext) -> None:
    tree.process(10, "libssl.so.3", "libssl-2.so")
    tree.process(11, "libssl.so.3", "libc.so.6")
    for tgid in (10, 11, 10, 11):
        plaintext.look(tgid, "")
        plaintext.settle(DEADLINE_S)
    assert [made[0] for made in probes.made] == [10, 10, 11]
    (places,) = {spots for _, _, spots in probes.made}
    assert places >= 4, "reads, writes, handshakes and the end"
    assert not probes.sockets, "nothing was called"
    assert states(plaintext, 10) == [("attached", "")] * 2


def test_what_is_mapped_later_and_unmapped(
    tree: Tree, probes: Probes, plaintext: Plaintext
) -> None:
    tree.process(10)
    plaintext.look(10, "")
    plaintext.settle(DEADLINE_S)
    assert probes.made == []
    tree.process(10, "libssl.so.3")
    plaintext.look(10, "")
    wait_until(lambda: len(probes.made) == 1, "the late library has probes")
    plaintext.called()
    wait_until(lambda: probes.sockets, "it is called")
    tree.process(10)
    plaintext.look(10, "")
    wait_until(lambda: probes.closed == [10] and not probes.sockets, "and leaves them")


def test_sockets_are_seen_while_a_library_that_was_called_has_probes(
    tree: Tree, probes: Probes, plaintext: Plaintext
) -> None:
    tree.process(10, "libssl.so.3")
    plaintext.look(10, "")
    plaintext.settle(DEADLINE_S)
    plaintext.scan()
    plaintext.settle(DEADLINE_S)
    assert not probes.sockets
    probes.calls = True  # and the event is lost
    plaintext.scan()
    wait_until(lambda: probes.sockets, "the scan finds it")
    plaintext.forget(10)
    wait_until(lambda: not probes.sockets, "no library has probes")
    plaintext.called()  # it comes late
    tree.process(11, "libssl.so.3")
    plaintext.look(11, "")
    plaintext.settle(DEADLINE_S)
    assert not probes.sockets


def test_sockets_that_are_refused_are_said_once(
    tree: Tree, probes: Probes, plaintext: Plaintext, caplog: pytest.LogCaptureFixture
) -> None:
    tree.process(10, "libssl.so.3")
    plaintext.look(10, "")
    plaintext.settle(DEADLINE_S)
    probes.refused_sockets, probes.calls = "no", True
    for _ in range(3):
        plaintext.scan()
        wait_until(lambda: not plaintext._called, "it is tried")
    wait_until(lambda: "have no peer" in caplog.text, "it is said")
    assert caplog.text.count("tls_sent on sock_send_length is refused: no") == 1
    assert states(plaintext, 10) == [("attached", "")]


def test_the_bound_is_kept_and_said(
    tree: Tree, probes: Probes, plaintext: Plaintext, counters: Counters
) -> None:
    plaintext._links_max = 1
    tree.process(10, "libssl.so.3")
    tree.process(11, "libssl.so.3")
    for tgid in (10, 11):
        plaintext.look(tgid, "")
        plaintext.settle(DEADLINE_S)
    assert len(probes.made) == 1
    assert states(plaintext, 11) == [("refused", "1 libraries have probes: that is the limit")]
    assert counters.get(LINKS_REFUSED) == 1


def test_a_refusal_is_counted_and_not_tried_again(
    tree: Tree, probes: Probes, plaintext: Plaintext, counters: Counters
) -> None:
    probes.refusals = [KernelError("the kernel refuses the probes: no")]
    tree.process(10, "libssl.so.3")
    for _ in range(3):
        plaintext.look(10, "")
        plaintext.settle(DEADLINE_S)
    assert states(plaintext, 10) == [("refused", "the kernel refuses the probes: no")]
    assert probes.made == []
    assert counters.get(LINKS_REFUSED) == 1


def test_a_process_that_ends_meanwhile_is_no_refusal(
    tree: Tree, probes: Probes, plaintext: Plaintext, counters: Counters
) -> None:
    tree.process(10, "libssl.so.3")
    statm = tree.root / "10" / "statm"

    class EndingError(KernelError):
        """The process ends while the kernel is asked."""

        def __init__(self) -> None:
            super().__init__("no such process")
            statm.unlink()

    probes.ending = EndingError
    plaintext.look(10, "")
    plaintext.settle(DEADLINE_S)
    assert states(plaintext, 10) == []
    assert counters.get(LINKS_REFUSED) == 0


def test_a_file_that_goes_while_it_is_opened_is_opened_by_another_path(
    tree: Tree, probes: Probes, plaintext: Plaintext
) -> None:
    gone = KernelError("gone")
    gone.__cause__ = FileNotFoundError()
    probes.refusals = [gone]
    tree.process(10, "libssl.so.3")
    areas = tree.root / "10" / "map_files"
    areas.mkdir()
    (areas / "0000-0fff").symlink_to(tree.root / "10" / "root" / "libssl.so.3")
    plaintext.look(10, "")
    plaintext.settle(DEADLINE_S)
    assert [Path(path).parent.name for _, path, _ in probes.made] == ["map_files"]


def test_forgetting_pausing_and_closing(tree: Tree, probes: Probes, plaintext: Plaintext) -> None:
    for tgid in (10, 11):
        tree.process(tgid, "libssl.so.3")
        plaintext.look(tgid, "")
    plaintext.settle(DEADLINE_S)
    plaintext.forget(10)
    wait_until(lambda: probes.closed == [10], "the process is left")
    plaintext.pause(True)
    wait_until(lambda: probes.closed == [10, 11], "all are left")
    assert states(plaintext, 11) == []
    plaintext.pause(False)
    wait_until(lambda: len(probes.made) == 3, "it is entered again")
    plaintext.called()
    wait_until(lambda: probes.sockets, "the sockets are seen")
    plaintext.close()
    assert probes.closed == [10, 11, 11]
    assert not probes.sockets


def test_without_probes_it_says_why(counters: Counters) -> None:
    plaintext = Plaintext(None, "the kernel is too old", counters)
    plaintext.look(os.getpid(), "python")
    plaintext.settle(0.0)
    assert plaintext.report(os.getpid()) == {"libraries": [], "why": "the kernel is too old"}
    plaintext.close()


def test_a_program_with_a_tls_of_its_own(tree: Tree, plaintext: Plaintext) -> None:
    tree.process(10)
    plaintext.look(10, "java")
    plaintext.settle(DEADLINE_S)
    assert plaintext.report(10) == {
        "libraries": [], "why": "the TLS of the Java virtual machine"
    }  # fmt: skip
