# SPDX-License-Identifier: Apache-2.0
"""Services in pods: what they are called, when that is known later, and what waits for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.e2e.harness.process import wait_until
from tests.unit.discover_tree import Tree
from tests.unit.kubernetes_api import FakeApi, recorded

from otelauto import cluster as module
from otelauto.cluster import PODS_UNKNOWN, Cluster
from otelauto.config import Config, Purpose, load
from otelauto.counters import Counters
from otelauto.discover.procfs import ProcFs
from otelauto.discover.select import Selector
from otelauto.discover.watch import Discovery
from otelauto.errors import ConfigError
from otelauto.flows.vocabulary import Exchange
from otelauto.holding import HELD_MAX, Holding
from otelauto.instrument import naming_of

CART = recorded("deployment")["metadata"]
PAY = recorded("labelled")["metadata"]


def config(path: Path, port: int = 0, **settings: object) -> Config:
    file = path / "kubeconfig"
    server = {"cluster": {"server": f"http://127.0.0.1:{port}"}, "name": "c"}
    user = {"user": {"token": "first"}, "name": "u"}
    context = {"context": {"cluster": "c", "user": "u"}, "name": "x"}
    file.write_text(
        json.dumps(
            {"clusters": [server], "users": [user], "contexts": [context], "current-context": "x"}
        )
    )
    own: Mapping[str, object] = {"kubeconfig_path": str(file)} if port else {}
    yaml = path / "otelauto.yml"
    part = {"node_name": "node-1", **own, **settings}
    yaml.write_text(json.dumps({"ebpf": {"pids": [7]}, "attributes": {"kubernetes": part}}))
    return load(yaml, {}, {}, Purpose.WATCH).config


def pods(root: Path, uids: Mapping[int, str]) -> Tree:
    """Processes of one program in pods, each the first of its PID namespace."""
    tree = Tree(root)
    tree.process(1, "/sbin/init")
    for tgid, uid in uids.items():
        tree.process(tgid, "/app/server", pids=(tgid, 1))
        container = f"{tgid:064x}"
        (root / f"{tgid}/cgroup").write_text(f"0::/kubepods/pod{uid}/{container}\n")
        (root / f"{tgid}/mountinfo").write_text(
            f"1 2 8:1 /var/lib/kubelet/pods/{uid}/containers/web/0a1b2c3d /dev/termination-log rw\n"
        )
    return tree


def discovery(root: Path, settings: Config, cluster: Cluster, *tgids: int) -> Discovery:
    naming = naming_of(settings, cluster)
    return Discovery(Selector(pids=frozenset(tgids)), ProcFs(str(root)), naming, 999)


def test_two_pods_with_one_executable_are_two_services(tmp_path: Path) -> None:
    pods(tmp_path / "proc", {7: CART["uid"], 8: PAY["uid"]})
    with FakeApi() as api:
        api.put(recorded("deployment"))
        api.put(recorded("labelled"))
        settings = config(tmp_path, api.port)
        cluster = Cluster(settings, Counters())
        cluster.start()
        try:
            found = discovery(tmp_path / "proc", settings, cluster, 7, 8)
            found.scan()
            cart, pay = (found.targets()[tgid].identity for tgid in (7, 8))
            state = cluster.status()
        finally:
            cluster.close()
    assert (cart.service_name, cart.namespace) == ("cart", "shop")
    assert (pay.service_name, pay.namespace) == ("payments-eu", "checkout")
    assert cart.instance_id == "shop.cart-6d4b75cb6d-x2x1z.web"
    assert pay.instance_id == "shop.pay-7c9f8d6b5-k8s2p.web"
    assert cart.attributes["k8s.deployment.name"] == "cart"
    assert pay.attributes["k8s.deployment.name"] == "pay"
    assert cart.attributes["host.name"] == "node-1"
    assert cart.attributes["container.id"] == f"{7:064x}"
    assert state is not None
    assert (state["pods"], state["problem"]) == (2, "")


def test_the_environment_of_a_service_has_the_last_word(tmp_path: Path) -> None:
    tree = pods(tmp_path / "proc", {})
    own = {
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=mine,service.version=9",
        "OTEL_SERVICE_NAME": "s",
    }
    tree.process(7, "/app/server", environ=own)
    (tmp_path / "proc/7/cgroup").write_text(f"0::/kubepods/pod{CART['uid']}/{'a' * 64}\n")
    with FakeApi() as api:
        api.put(recorded("deployment"))
        settings = config(tmp_path, api.port)
        cluster = Cluster(settings, Counters())
        cluster.start()
        try:
            found = discovery(tmp_path / "proc", settings, cluster, 7)
            found.scan()
        finally:
            cluster.close()
    identity = found.targets()[7].identity
    assert identity.service_name == "s"
    assert identity.attributes["k8s.pod.name"] == "mine"
    assert identity.attributes["service.version"] == "9"
    assert identity.attributes["k8s.pod.uid"] == CART["uid"]


def test_what_is_said_later_describes_the_service_anew(tmp_path: Path) -> None:
    pods(tmp_path / "proc", {7: CART["uid"], 8: PAY["uid"]})
    counters = Counters()
    with FakeApi() as api:
        settings = config(tmp_path, api.port)
        cluster = Cluster(settings, counters)
        cluster.start()
        try:
            found = discovery(tmp_path / "proc", settings, cluster, 7, 8)
            found.scan()
            before = found.targets()[7].identity
            assert (before.service_name, before.namespace) == ("server", "")
            assert before.attributes["k8s.pod.uid"] == CART["uid"]
            assert before.attributes["k8s.container.name"] == "web"
            assert cluster.lacks(before.container)
            api.put(recorded("deployment"))
            status = lambda: cluster.status() or {}  # noqa: E731
            wait_until(lambda: status()["pods"] == 1, "the pod is known")
            assert cluster.lacks(before.container)  # until it is taken
            changes = found.describe_again(cluster.take_changed())
            assert not cluster.lacks(before.container)
            assert [target.tgid for target in changes.renamed] == [7]
            assert found.targets()[7].service_name == "cart"
            assert found.targets()[8].service_name == "server"
            assert not found.describe_again(cluster.take_changed())
            cluster.gave_up()
            api.remove(CART["uid"])
            wait_until(lambda: cluster.lacks(before.container), "the pod is gone")
            assert not found.describe_again(cluster.take_changed())
            assert found.targets()[7].service_name == "cart"
        finally:
            cluster.close()
    assert counters.get(PODS_UNKNOWN) == 1


def test_nothing_is_waited_for_while_the_api_is_away(tmp_path: Path) -> None:
    pods(tmp_path / "proc", {7: CART["uid"]})
    with FakeApi() as api:
        api.failures += [500] * 10_000
        settings = config(tmp_path, api.port, informers_sync_timeout="10ms")
        cluster = Cluster(settings, Counters())
        cluster.start()
        try:
            found = discovery(tmp_path / "proc", settings, cluster, 7)
            found.scan()
            wait_until(lambda: bool((cluster.status() or {})["problem"]), "it is told")
            assert not cluster.lacks(found.targets()[7].identity.container)
            assert found.targets()[7].service_name == "server"
        finally:
            cluster.close()


def test_the_api_is_asked_only_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for settings in (config(tmp_path), config(tmp_path, 1, enable="false")):
        cluster = Cluster(settings, Counters())
        cluster.start()
        assert cluster.status() is None
        cluster.close()
    with pytest.raises(ConfigError, match="no pod"):
        Cluster(config(tmp_path, enable="true"), Counters()).start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(module, "TOKEN", tmp_path / "token")
    cluster = Cluster(config(tmp_path), Counters())
    cluster.start()
    assert cluster.status() is None


def exchange(tgid: int) -> Exchange:
    made = object.__new__(Exchange)
    made.tgid = tgid
    return made


def test_exchanges_wait_for_the_name_of_their_process() -> None:
    awaited = {7}
    holding = Holding(awaited.__contains__)
    first, other, second = exchange(7), exchange(8), exchange(7)
    assert holding.hold(first)
    assert not holding.hold(other)
    assert holding.hold(second)
    assert list(holding.released()) == []
    awaited.clear()
    assert list(holding.released()) == [first, second]
    assert list(holding.released()) == []


def test_what_waits_is_bounded_and_nothing_is_lost() -> None:
    holding = Holding(lambda tgid: True)
    every = [exchange(7) for _ in range(HELD_MAX + 1)]
    assert [holding.hold(each) for each in every] == [True] * HELD_MAX + [False]
    assert list(holding.released()) == []
    assert list(holding.all()) == every[:HELD_MAX]
