# SPDX-License-Identifier: Apache-2.0
"""Reading /proc: every odd answer is an answer, and what cannot be read is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.discover_tree import TITLE, Tree, row

from otelauto.counters import Counters
from otelauto.discover.environment import check_environment
from otelauto.discover.procfs import UNREADABLE, Executable, Image, ProcFs
from otelauto.errors import KernelError


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def procfs(tree: Tree, counters: Counters) -> ProcFs:
    return ProcFs(str(tree.root), counters)


def test_processes_are_the_numbers(tree: Tree, procfs: ProcFs) -> None:
    for tgid in (300, 7, 42):
        tree.process(tgid, "/bin/x")
    (tree.root / "net").mkdir()
    (tree.root / "loadavg").write_text("0 0 0 1/1 1")
    assert procfs.tgids() == [7, 42, 300]


@pytest.mark.parametrize("comm", ["a b", "a) R 1", ") S 9 9 9", "(((", "\n"])
def test_command_names_do_not_confuse_the_fields(tree: Tree, procfs: ProcFs, comm: str) -> None:
    tree.process(5, "/bin/x", ppid=3, start=77, image=0x1234)
    path = tree.root / "5/stat"
    path.write_text(path.read_text().replace("(x)", f"({comm})"))
    stat = procfs.stat(5)
    assert stat is not None
    assert (stat.ppid, stat.starttime) == (3, 77)
    assert stat.image == Image(0x1234, 0x7FFF0000)
    assert not stat.kernel_thread


def test_dead_processes_are_gone(tree: Tree, procfs: ProcFs) -> None:
    tree.process(5, "/bin/x", state="Z")
    assert procfs.stat(5) is None


def test_a_process_whose_first_thread_ended_lives(tree: Tree, procfs: ProcFs) -> None:
    tree.process(5, "/bin/x", state="Z")
    path = tree.root / "5/stat"
    fields = path.read_text().split()
    fields[19] = "3"  # num_threads
    path.write_text(" ".join(fields))
    assert procfs.stat(5) is not None


def test_kernel_threads_are_told_apart(tree: Tree, procfs: ProcFs) -> None:
    tree.process(2, "", flags=0x208040)
    stat = procfs.stat(2)
    assert stat is not None
    assert stat.kernel_thread


@pytest.mark.parametrize("content", ["", "5", "5 (x", "5 (x) S 1 2", "5 (x) S a b c d e"])
def test_a_malformed_stat_is_counted(
    tree: Tree, procfs: ProcFs, counters: Counters, content: str
) -> None:
    tree.process(5, "/bin/x")
    (tree.root / "5/stat").write_text(content)
    assert procfs.stat(5) is None
    assert counters.get(UNREADABLE, "malformed") == 1


def test_everything_of_a_vanished_process_is_nothing(procfs: ProcFs, counters: Counters) -> None:
    assert procfs.stat(5) is None
    assert procfs.executable(5) is None
    assert procfs.cmdline(5) == ()
    assert procfs.otel_environ(5) == {}
    assert procfs.namespace_pids(5) == ()
    assert procfs.netns(5) == 0
    assert procfs.cgroup(5) == procfs.mountinfo(5) == ""
    assert procfs.children(5) == []
    assert procfs.sockets(5, {1, 2}) == frozenset()
    assert procfs.tcp_listeners(5) == {}
    assert procfs.unix_listeners(5) == {}
    assert procfs.working_directory(5) == ""
    assert counters.get(UNREADABLE, "vanished") >= 8


def test_denied_access_is_counted_and_not_raised(
    tree: Tree, procfs: ProcFs, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.process(5, "/bin/x", sockets=[10])

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    for name in ("open", "readlink", "scandir"):
        monkeypatch.setattr(os, name, refuse)
    assert procfs.stat(5) is None
    assert procfs.executable(5) is None
    assert procfs.sockets(5, {10}) == frozenset()
    assert counters.get(UNREADABLE, "denied") == 3


def test_deleted_executables(tree: Tree, procfs: ProcFs) -> None:
    tree.process(5, "/opt/server (deleted)")
    tree.process(6, "/opt/server")
    assert procfs.executable(5) == Executable("/opt/server", deleted=True)
    assert procfs.executable(6) == Executable("/opt/server", deleted=False)


def test_arguments_and_titles(tree: Tree, procfs: ProcFs) -> None:
    tree.process(5, "/bin/x", ["x", "", "a b"])
    assert procfs.cmdline(5) == ("x", "", "a b")
    (tree.root / "5/cmdline").write_bytes(b"nginx: master process\0\0\0\0\0")
    assert procfs.cmdline(5) == ("nginx: master process",)
    (tree.root / "5/cmdline").write_bytes(b"\xff\xfe\0ok\0")
    assert procfs.cmdline(5) == ("��", "ok")


def test_only_otel_variables_are_kept(tree: Tree, procfs: ProcFs) -> None:
    tree.process(5, "/bin/x", environ={"OTEL_SERVICE_NAME": "a=b", "TOKEN": "s", "NO_OTEL_": "n"})
    assert procfs.otel_environ(5) == {"OTEL_SERVICE_NAME": "a=b"}


def test_namespaces_and_nested_pids(tree: Tree, procfs: ProcFs) -> None:
    tree.process(5, "/bin/x", netns=4026532000, pids=(5, 40, 1))
    assert procfs.netns(5) == 4026532000
    assert procfs.namespace_pids(5) == (5, 40, 1)


def test_listeners_of_both_families(tree: Tree, procfs: ProcFs) -> None:
    tree.process(5, "/bin/x")
    tree.listen(10, 8080)
    tree.listen(11, 80)
    (tree.root / "5/net/tcp6").write_text(TITLE + row(12, 443, address="0" * 32))
    assert procfs.tcp_listeners(5) == {10: 8080, 11: 80, 12: 443}


def test_a_table_cut_short_or_garbled_is_counted(
    tree: Tree, procfs: ProcFs, counters: Counters
) -> None:
    tree.process(5, "/bin/x")
    garbled = "garbage\n" + row(10, 80).replace("0050", "xyz") + row(11, 81) + "   1: 0100007F"
    (tree.root / "5/net/tcp").write_text(TITLE + garbled)
    assert procfs.tcp_listeners(5) == {11: 81}
    assert counters.get(UNREADABLE, "malformed") == 3


def test_listening_unix_streams(tree: Tree, procfs: ProcFs) -> None:
    tree.process(5, "/bin/x")
    tree.listen_unix(20, "/run/a b.sock")
    tree.listen_unix(21, "@abstract")
    assert procfs.unix_listeners(5) == {20: "/run/a b.sock", 21: "@abstract"}


def test_only_wanted_sockets(tree: Tree, procfs: ProcFs) -> None:
    tree.process(5, "/bin/x", sockets=[10, 11, 12])
    assert procfs.sockets(5, {11, 12, 13}) == {11, 12}


def test_the_host_is_accepted(tree: Tree) -> None:
    tree.process(1, "/usr/lib/systemd/systemd")
    tree.process(2, "", flags=0x208040)
    check_environment(str(tree.root))


@pytest.mark.parametrize("second", [None, "/app/server"])
def test_a_container_is_refused(tree: Tree, second: str | None) -> None:
    tree.process(1, "/app/main")
    if second:
        tree.process(2, second)
    with pytest.raises(KernelError, match="only those of a container") as caught:
        check_environment(str(tree.root))
    assert "hostPID" in caught.value.remedy
    assert caught.value.exit_code == 3


def test_a_missing_proc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="shows no processes"):
        check_environment(str(tmp_path / "absent"))
