# SPDX-License-Identifier: Apache-2.0
"""The watch of pods, its rights and the manifests, against a real kube-apiserver with etcd."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness.process import wait_until
from tests.kubernetes.cluster import ROOT, ControlPlane, control_plane, documents

from otelauto.counters import Counters
from otelauto.kubernetes.access import from_kubeconfig
from otelauto.kubernetes.pods import PodStore
from otelauto.kubernetes.watch import LISTS, REQUESTS_FAILED, PodWatch

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]
MANIFESTS = ROOT / "deploy" / "kubernetes"
MANY = ROOT / "tests" / "unit" / "kubernetes_many.py"
PODS_MANY = 5000


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("plane")) as made, made.server():
        made.namespace("otelauto")
        made.namespace("shop")
        for item in documents(MANIFESTS / "otelauto.yml"):
            made.create(item)
        yield made


@pytest.fixture(scope="module")
def token(plane: ControlPlane) -> str:
    """A token of the account that the manifests make, as the kubelet asks for one."""
    path = "/api/v1/namespaces/otelauto/serviceaccounts/otelauto/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    status, answer = plane.ask("POST", path, asked)
    assert status == 201, answer
    return str(answer["status"]["token"])


def pod(name: str, node: str = "node-1", **metadata: Any) -> Any:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", **metadata},
        "spec": {"nodeName": node, "containers": [{"name": "web", "image": "shop/web:1.2"}]},
    }


@contextmanager
def following(plane: ControlPlane, token: str, node: str = "") -> Iterator[tuple[Any, Any, Any]]:
    store, counters = PodStore(), Counters()
    watch = PodWatch(from_kubeconfig(plane.kubeconfig(token)), store, counters, node=node)
    watch.start()
    try:
        assert watch.listed.wait(60), watch.problem
        yield store, watch, counters
    finally:
        watch.close()


@pytest.mark.parametrize("name", ["otelauto.yml", "with-agent.yml"])
def test_the_server_accepts_the_manifests(plane: ControlPlane, name: str) -> None:
    """As they are, with unknown fields refused; under other names, as some are there already."""
    found = documents(MANIFESTS / name)
    assert {"DaemonSet", "ClusterRole", "ConfigMap"} <= {item["kind"] for item in found}
    for item in found:
        item["metadata"]["name"] += "-tried"
        plane.create(item, "?dryRun=All&fieldValidation=Strict")


def test_a_misspelled_field_is_refused(plane: ControlPlane) -> None:
    daemon = next(d for d in documents(MANIFESTS / "otelauto.yml") if d["kind"] == "DaemonSet")
    daemon["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(AssertionError, match="hostPid"):
        plane.create(daemon, "?dryRun=All&fieldValidation=Strict")


def test_the_account_may_list_and_watch_pods_and_nothing_else(
    plane: ControlPlane, token: str
) -> None:
    for path, allowed in (
        ("/api/v1/pods?limit=1", True),
        ("/api/v1/namespaces/shop/pods/x", False),
        ("/api/v1/secrets", False),
        ("/api/v1/nodes", False),
        ("/apis/apps/v1/replicasets", False),
    ):
        status, _ = plane.ask("GET", path, token=token)
        assert status == (200 if allowed else 403), path
    status, _ = plane.ask("POST", "/api/v1/namespaces/shop/pods", pod("evil"), token=token)
    assert status == 403


def test_pods_come_change_and_go(plane: ControlPlane, token: str) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-6d4b", "uid": "u"}
    made = plane.create(
        pod("cart-6d4b-x", labels={"pod-template-hash": "6d4b"},
            ownerReferences=[{**owner, "controller": True}])
    )  # fmt: skip
    plane.create(pod("elsewhere", node="node-2"))
    with following(plane, token, "node-1") as (store, watch, counters):
        found = store.get(made["metadata"]["uid"])
        assert (found.name, found.namespace, found.node) == ("cart-6d4b-x", "shop", "node-1")
        assert dict(found.owners)["k8s.deployment.name"] == "cart"
        assert found.images == (("web", "shop/web:1.2"),)
        assert len(store) == 1
        later = plane.create(pod("later"))["metadata"]["uid"]
        wait_until(lambda: store.get(later) is not None, "a new pod")
        path = "/api/v1/namespaces/shop/pods/later"
        changed = plane.ask("GET", path)[1]
        changed["metadata"]["annotations"] = {"resource.opentelemetry.io/service.name": "named"}
        assert plane.ask("PUT", path, changed)[0] == 200
        wait_until(lambda: bool(store.get(later).annotations), "its annotation")
        plane.ask("DELETE", f"{path}?gracePeriodSeconds=0")
        wait_until(lambda: store.get(later) is None, "it is gone")
        assert watch.problem == ""
        assert counters.get(LISTS) == 1


def test_a_wrong_token_is_denied_and_told(plane: ControlPlane) -> None:
    counters = Counters()
    access = from_kubeconfig(plane.kubeconfig("wrong", "wrong"))
    watch = PodWatch(access, PodStore(), counters)
    watch.start()
    try:
        wait_until(lambda: counters.get(REQUESTS_FAILED, "denied") > 0, "it is denied")
        assert "401" in watch.problem
    finally:
        watch.close()


def test_a_server_that_starts_again(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        with plane.server():
            plane.namespace("shop")
            first = plane.create(pod("first"))["metadata"]["uid"]
            store, counters = PodStore(), Counters()
            access = from_kubeconfig(plane.kubeconfig("admin-token"))
            watch = PodWatch(access, store, counters)
            watch.start()
            wait_until(lambda: store.get(first) is not None, "the first pod", 60)
        try:
            wait_until(lambda: counters.get(REQUESTS_FAILED, "unreachable") > 0, "it is away")
            assert store.get(first)
            with plane.server():
                second = plane.create(pod("second"))["metadata"]["uid"]
                wait_until(lambda: store.get(second) is not None, "the second pod", 60)
                wait_until(lambda: not watch.problem, "all is well", 60)
        finally:
            watch.close()


def test_five_thousand_pods(plane: ControlPlane, token: str) -> None:
    """The memory is judged, the time is told: it is the machine's and the server's, too."""
    labels = {"app.kubernetes.io/name": "pay", "pod-template-hash": "7c9f8d6b5"}
    with ThreadPoolExecutor(8) as pool:
        names = (pod(f"pay-{number}", labels=labels) for number in range(PODS_MANY))
        for _ in pool.map(plane.create, names):
            pass
    program = [sys.executable, MANY, "localhost", str(plane.port), token, plane.kubeconfig(token)]
    answer = subprocess.run(program, capture_output=True, check=True, timeout=100)
    found = json.loads(answer.stdout)
    print(found)
    assert found["pods"] >= PODS_MANY
    assert found["most"] < 30e6
