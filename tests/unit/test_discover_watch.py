# SPDX-License-Identifier: Apache-2.0
"""Which processes are watched, on a /proc made of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.discover_tree import HOST_NETNS, Tree

from otelauto.discover.candidates import candidates
from otelauto.discover.names import Naming
from otelauto.discover.procfs import ProcFs
from otelauto.discover.select import Selector
from otelauto.discover.watch import Changes, Discovery

OWN = 900
PORT = Selector(open_ports=((8080, 8080),))
PYTHON = "/usr/bin/python3.11"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.process(1, "/usr/lib/systemd/systemd", ppid=0)
    tree.process(2, "", ppid=0, flags=0x208040)
    tree.process(OWN, "/usr/bin/otelauto")
    return tree


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def discovery(tree: Tree, selector: Selector = PORT, clock: Clock | None = None) -> Discovery:
    naming = Naming(host="box")
    return Discovery(selector, ProcFs(str(tree.root)), naming, OWN, clock or Clock())


def started(changes: Changes) -> list[int]:
    return [target.tgid for target in changes.started]


def names(found: Discovery) -> dict[int, str]:
    return {tgid: target.service_name for tgid, target in found.targets().items()}


def test_the_holder_of_a_wanted_port(tree: Tree) -> None:
    tree.process(10, "/app/shop", sockets=[500, 501])
    tree.process(11, "/app/other", sockets=[502])
    tree.listen(500, 8080)
    tree.listen(501, 9999)
    tree.listen(502, 8081)
    found = discovery(tree)
    changes = found.scan()
    assert (started(changes), changes.stopped, changes.renamed) == ([10], [], [])
    target = changes.started[0]
    assert (target.service_name, target.reason) == ("shop", "open_port 8080")
    assert target.ports == (8080, 9999)
    assert not found.scan()


def test_ranges_select_several_services(tree: Tree) -> None:
    for tgid, port in ((10, 8000), (11, 8010), (12, 8011), (13, 80)):
        tree.process(tgid, f"/app/s{tgid}", sockets=[port])
        tree.listen(port, port)
    found = discovery(tree, Selector(open_ports=((8000, 8010), (80, 80))))
    assert sorted(started(found.scan())) == [10, 11, 13]


def test_preforked_workers_are_one_instance_named_by_the_oldest(tree: Tree) -> None:
    tree.process(50, PYTHON, ["python3", "gunicorn", "shop:app"], start=100, sockets=[500])
    for tgid in (20, 21, 22):  # ids wrapped around: lower than the master's
        tree.process(tgid, PYTHON, ["gunicorn: worker"], ppid=50, start=200, sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    assert sorted(started(found.scan())) == [20, 21, 22, 50]
    targets = found.targets().values()
    assert {target.service_name for target in targets} == {"shop"}
    assert {target.identity.instance_id for target in targets} == {"box:50"}
    assert len({target.group for target in targets}) == 1


def test_workers_that_run_another_command_are_named_by_their_master(tree: Tree) -> None:
    spawn = ["python3", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()"]
    tree.process(50, PYTHON, ["python3", "-m", "uvicorn", "main:app"], sockets=[500])
    tree.process(51, PYTHON, spawn, ppid=50, sockets=[500])
    tree.process(52, PYTHON, spawn, ppid=50)  # a helper that holds nothing
    tree.listen(500, 8080)
    found = discovery(tree)
    found.scan()
    assert names(found) == {50: "main", 51: "main"}


def test_a_worker_that_closed_the_listener_is_watched(tree: Tree) -> None:
    tree.process(50, "/app/postmaster", sockets=[500])
    tree.process(51, "/app/postmaster", ppid=50, image=0x400000 + 50)
    tree.process(52, "/app/postmaster", ppid=50)  # executed anew: not a worker
    tree.listen(500, 8080)
    found = discovery(tree)
    assert started(found.scan()) == [50, 51]
    assert found.targets()[51].reason == "forked by 50"
    assert found.targets()[51].group == found.targets()[50].group


def test_workers_forked_just_before_their_master_is_watched(tree: Tree) -> None:
    """The kernel does not tell of them, and when the master was found they were not there yet."""
    tree.process(50, "/app/master", sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    assert started(found.scan()) == [50]
    tree.process(51, "/app/master", ppid=50, sockets=[500])
    tree.process(52, "/app/master", ppid=50, image=0x400000 + 50)  # it closed the listener
    tree.process(53, "/bin/sh", ppid=50)
    tree.family(50, [51, 52, 53])
    assert started(found.on_watched(50)) == [51, 52]
    assert found.targets().keys() == {50, 51, 52}
    assert not found.on_watched(50)
    assert not found.on_watched(51)


def test_reuseport_groups_are_instances_of_their_own(tree: Tree) -> None:
    for tgid, inode in ((10, 500), (11, 501)):
        tree.process(tgid, "/app/shop", sockets=[inode])
        tree.listen(inode, 8080)
    found = discovery(tree)
    found.scan()
    assert names(found) == {10: "shop", 11: "shop"}
    assert {t.identity.instance_id for t in found.targets().values()} == {"box:10", "box:11"}


def test_systemd_is_neither_watched_nor_the_name(tree: Tree) -> None:
    tree.hold(1, [500])
    tree.listen(500, 8080)
    tree.process(30, "/usr/lib/systemd/systemd", ["systemd", "--user"], sockets=[500])
    found = discovery(tree)
    assert not found.scan()
    tree.process(40, "/app/shop", sockets=[500])
    assert started(found.on_exec(40)) == [40]
    assert names(found) == {40: "shop"}
    assert found.targets()[40].identity.instance_id == "box:40"


def test_two_activated_services_are_two_groups(tree: Tree) -> None:
    tree.hold(1, [500, 501])
    tree.listen(500, 8080)
    tree.listen(501, 8081)
    tree.process(40, "/app/shop", sockets=[500])
    tree.process(41, "/app/cart", sockets=[501])
    found = discovery(tree, Selector(open_ports=((8080, 8081),)))
    found.scan()
    assert names(found) == {40: "shop", 41: "cart"}


def test_a_socket_handed_into_another_network_namespace(tree: Tree) -> None:
    tree.hold(1, [500])
    tree.listen(500, 8080)
    tree.process(40, "/app/shop", netns=4026539999, sockets=[500])
    found = discovery(tree)
    assert started(found.scan()) == [40]


def test_ports_of_every_network_namespace(tree: Tree) -> None:
    tree.process(40, "/app/shop", netns=4026539999, sockets=[600])
    tree.listen(600, 8080, netns=4026539999)
    found = discovery(tree)
    assert started(found.scan()) == [40]
    assert found.targets()[40].netns == 4026539999


def test_descriptors_are_read_near_wanted_ports_only(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.process(40, "/app/shop", sockets=[500])
    tree.process(41, "/app/far", netns=4026539999, sockets=[600])
    tree.listen(500, 8080)
    tree.listen(600, 9090, netns=4026539999)
    asked: list[int] = []
    real = ProcFs.sockets
    monkeypatch.setattr(
        ProcFs, "sockets", lambda self, tgid, wanted: asked.append(tgid) or real(self, tgid, wanted)
    )
    discovery(tree).scan()
    assert 40 in asked
    assert 41 not in asked


def test_otelauto_its_children_and_exclusions_are_never_targets(tree: Tree) -> None:
    tree.hold(OWN, [500])
    tree.process(901, "/bin/sh", ppid=OWN, sockets=[501])
    tree.process(902, "/app/shop", ppid=901, sockets=[502])
    tree.process(903, "/app/otelcol-contrib", sockets=[503])
    for inode in (500, 501, 502, 503):
        tree.listen(inode, 8080)
    exclude = ("*otelcol*",)
    everything = Selector(system_wide=True, exclude=exclude)
    by_port = Selector(open_ports=((8080, 8080),), exclude=exclude)
    by_pid = Selector(pids=frozenset({OWN, 901, 902, 903}), exclude=exclude)
    watching = discovery(tree, everything)
    changes = watching.scan()
    assert started(changes) == [1]
    assert sorted(changes.excluded) == sorted([OWN, 901, 902, 903]), "the kernel half must know"
    assert not watching.scan(), "told once"
    assert not discovery(tree, by_port).scan()
    assert not discovery(tree, by_pid).scan()
    assert not discovery(tree, by_port).on_listen(902, 8080, HOST_NETNS)


def test_executable_names_and_interpreters(tree: Tree) -> None:
    tree.process(10, PYTHON, ["python3", "shop.py"])
    tree.process(11, PYTHON, ["python3", "cart.py"])
    tree.process(12, "/app/shop")
    script = discovery(tree, Selector(executable_name="shop.py"))
    script.scan()
    assert names(script) == {10: "shop"}
    interpreter = discovery(tree, Selector(executable_name="python3"))
    interpreter.scan()
    assert names(interpreter) == {10: "shop", 11: "cart"}


def test_a_reused_process_id_is_not_the_process_that_was_named(tree: Tree) -> None:
    tree.process(10, "/app/shop", start=100)
    found = discovery(tree, Selector(pids=frozenset({10})))
    assert started(found.scan()) == [10]
    tree.process(10, "/app/other", start=900)
    changes = found.scan()
    assert (changes.stopped, changes.started) == ([10], [])


def test_process_id_reuse_is_a_new_target(tree: Tree) -> None:
    tree.process(10, "/app/shop", start=100, sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    found.scan()
    tree.process(10, "/app/cart", start=900, image=0x400000 + 10, sockets=[500])
    changes = found.scan()
    assert changes.stopped == [10]
    assert [(t.tgid, t.starttime, t.service_name) for t in changes.started] == [(10, 900, "cart")]


def test_exit_and_reuse_told_late(tree: Tree) -> None:
    tree.process(10, "/app/shop", start=100, sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree, Selector(executable_name="shop"))
    found.scan()
    tree.process(10, "/app/shop", start=900, sockets=[500])
    changes = found.on_exit(10)
    assert changes.stopped == [10]
    assert [target.starttime for target in changes.started] == [900]


def test_the_leaders_exit_renames_nobody(tree: Tree) -> None:
    tree.process(50, PYTHON, ["python3", "shop.py"], sockets=[500])
    for tgid in (51, 52):
        tree.process(tgid, PYTHON, ["python3", "-c", "x"], ppid=50, sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    found.scan()
    tree.end(50)
    changes = found.on_exit(50)
    assert (changes.stopped, changes.renamed) == ([50], [])
    tree.process(53, PYTHON, ["python3", "-c", "x"], ppid=51, sockets=[500])
    assert started(found.scan()) == [53]
    assert {t.identity.instance_id for t in found.targets().values()} == {"box:50"}
    assert set(names(found).values()) == {"shop"}


def test_a_restart_on_the_same_port_keeps_the_name(tree: Tree) -> None:
    tree.process(10, PYTHON, ["python3", "shop.py"], sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    found.scan()
    tree.end(10)
    del tree.tcp[HOST_NETNS][500]
    assert found.on_exit(10).stopped == [10]
    assert found.targets() == {}
    tree.process(77, PYTHON, ["python3", "shop.py"], sockets=[700])
    tree.listen(700, 8080)
    assert started(found.on_listen(77, 8080, HOST_NETNS)) == [77]
    assert names(found) == {77: "shop"}


def test_listening_is_believed_before_it_can_be_seen(tree: Tree) -> None:
    found = discovery(tree)
    found.scan()
    tree.process(10, "/app/shop", sockets=[500])
    changes = found.on_listen(10, 8080, HOST_NETNS)
    assert [target.ports for target in changes.started] == [(8080,)]
    assert not found.on_listen(11, 8080, HOST_NETNS)  # gone
    assert not found.on_listen(1, 8080, HOST_NETNS)


def test_listening_finds_the_whole_family(tree: Tree) -> None:
    found = discovery(tree)
    found.scan()
    tree.process(50, PYTHON, ["python3", "uvicorn", "main:app"], sockets=[500])
    tree.process(51, PYTHON, ["python3", "-c", "x"], ppid=50, sockets=[500])
    tree.process(52, PYTHON, ["python3", "-c", "x"], ppid=50, sockets=[500])
    tree.process(53, PYTHON, ["python3", "-c", "x"], ppid=50)
    tree.family(50, [51, 52, 53])
    tree.listen(500, 8080)
    assert sorted(started(found.on_listen(51, 8080, HOST_NETNS))) == [50, 51, 52]
    assert set(names(found).values()) == {"main"}


def test_an_older_holder_found_later_takes_the_lead(tree: Tree) -> None:
    tree.process(50, "/app/launcher", start=1)
    tree.process(51, "/app/worker", start=2, sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    found.scan()
    assert names(found) == {51: "worker"}
    tree.hold(50, [500])
    changes = found.scan(deep=True)
    assert started(changes) == [50]
    assert [target.tgid for target in changes.renamed] == [51]
    assert names(found) == {50: "launcher", 51: "launcher"}


def test_forked_children_are_watched_until_they_execute(tree: Tree) -> None:
    tree.process(50, "/app/shop", sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    found.scan()
    tree.process(51, "/app/shop", ppid=50, image=0x400000 + 50, sockets=[500])
    assert started(found.on_fork(50, 51)) == [51]
    assert found.targets()[51].ports == (8080,)
    tree.process(51, "/bin/ls", ppid=50, start=1051)
    assert found.on_exec(51).stopped == [51]
    assert found.on_fork(50, 52).stopped == [52]  # vanished already


def test_a_child_that_executed_before_it_was_looked_at_is_let_go(tree: Tree) -> None:
    tree.process(50, "/app/shop", sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    found.scan()
    tree.process(51, "/bin/ls", ppid=50)
    changes = found.on_fork(50, 51)
    assert (changes.started, changes.stopped) == ([], [51])


def test_exec_in_the_leader_renames_the_service(tree: Tree) -> None:
    tree.process(50, "/app/shop", sockets=[500])
    tree.process(51, "/app/shop", ppid=50, image=0x400000 + 50, sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    found.scan()
    tree.process(50, "/app/cart", image=0x999, sockets=[500])
    changes = found.on_exec(50)
    assert (changes.started, changes.stopped) == ([], [])
    assert {t.tgid: t.service_name for t in changes.renamed} == {50: "cart", 51: "cart"}


def test_exec_may_end_or_begin_a_match(tree: Tree) -> None:
    tree.process(10, "/app/shop")
    tree.process(11, "/bin/sh")
    found = discovery(tree, Selector(executable_name="/shop"))
    assert started(found.scan()) == [10]
    tree.process(10, "/bin/sleep", image=1)
    tree.process(11, "/app/shop", image=2)
    assert found.on_exec(10).stopped == [10]
    assert started(found.on_exec(11)) == [11]
    assert not found.on_exec(4321)


def test_a_missed_exec_is_found_by_the_next_scan(tree: Tree) -> None:
    tree.process(10, "/app/shop", start=5)
    found = discovery(tree, Selector(executable_name="/shop"))
    found.scan()
    tree.process(10, "/bin/sleep", start=5, image=1)
    assert found.scan().stopped == [10]


def test_a_server_that_stopped_listening_is_still_watched(tree: Tree) -> None:
    tree.process(10, "/app/shop", sockets=[500])
    tree.listen(500, 8080)
    found = discovery(tree)
    found.scan()
    tree.hold(10, [])
    del tree.tcp[HOST_NETNS][500]
    tree.process(11, "/app/other")
    assert not found.scan(deep=True)
    assert set(found.targets()) == {10}


def test_unix_listeners_are_shared_and_reported(tree: Tree) -> None:
    tree.process(50, PYTHON, ["python3", "shop.py"], sockets=[700])
    tree.process(51, PYTHON, ["python3", "-c", "x"], ppid=50, sockets=[700])
    tree.listen_unix(700, "/run/shop.sock")
    found = discovery(tree, Selector(executable_name="python3"))
    found.scan()
    assert names(found) == {50: "shop", 51: "shop"}
    assert found.targets()[51].paths == ("/run/shop.sock",)


def test_scans_are_due_every_five_seconds_and_rarer_when_slow(tree: Tree) -> None:
    clock = Clock()
    found = discovery(tree, clock=clock)
    assert found.due(clock.now)
    found.scan()
    assert not found.due(clock.now + 4.9)
    assert found.due(clock.now + 5.0)

    class Slow(Clock):
        def __call__(self) -> float:
            self.now += 1.0
            return self.now

    slow = Slow()
    found = discovery(tree, clock=slow)
    found.scan()
    assert not found.due(slow.now + 190)
    assert found.due(slow.now + 200)


def test_candidates_say_how_to_select_them(tree: Tree) -> None:
    tree.hold(1, [500, 501])
    tree.process(10, PYTHON, ["python3", "shop.py"], sockets=[500])
    tree.process(11, PYTHON, ["python3", "-c", "x"], ppid=10, sockets=[500])
    tree.process(12, "/app/cart", sockets=[700])
    tree.listen(500, 8080)
    tree.listen(501, 22)
    tree.listen_unix(700, "/run/cart.sock")
    found = candidates(ProcFs(str(tree.root)), Naming(), OWN)
    rows = [(c.port, c.path, c.service_name, c.tgids, c.setting) for c in found]
    assert rows == [
        (8080, "", "shop", (10, 11), "open_port: 8080"),
        (0, "/run/cart.sock", "cart", (12,), "executable_name: cart"),
    ]


def test_where_nothing_was_forked_only_a_deep_scan_looks_at_files(tree: Tree) -> None:
    """The tree changes against the rule, to see what is looked at and what is not."""
    found = discovery(tree)
    tree.process(10, "/app/shop", sockets=[500])
    tree.listen(501, 8080)
    tree.last_started(10)
    assert started(found.scan()) == []
    tree.process(11, "/app/other", sockets=[501])
    tree.listen(500, 8080)
    assert started(found.scan()) == []
    tree.last_started(11)
    assert started(found.scan()) == [11]  # it is new; that 500 listens was not told
    assert started(found.scan(deep=True)) == [10]


def test_where_a_listener_was_told_of_the_next_scan_lists_them(tree: Tree) -> None:
    """The kernel tells before the socket is in its lists; others may hold it too."""
    found = discovery(tree)
    tree.process(10, "/app/shop", sockets=[500])
    tree.process(11, "/app/other", sockets=[500])
    found.scan()
    assert started(found.on_listen(10, 8080, HOST_NETNS)) == [10]
    tree.listen(500, 8080)
    assert started(found.scan()) == [11]


def test_a_deep_scan_looks_at_everything(tree: Tree) -> None:
    found = discovery(tree)
    tree.listen(500, 8080)
    tree.last_started(OWN)
    found.scan()
    tree.process(10, "/app/shop", sockets=[500])
    assert started(found.scan(deep=True)) == [10]


def test_ids_given_out_in_another_pid_namespace_say_nothing(tree: Tree) -> None:
    found = discovery(tree)
    tree.listen(500, 8080)
    tree.last_started(OWN)
    (tree.root / "self").unlink()
    (tree.root / "self").symlink_to("1")
    found.scan()
    tree.process(10, "/app/shop", sockets=[500])
    assert started(found.scan()) == [10]
