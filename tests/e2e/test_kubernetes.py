# SPDX-License-Identifier: Apache-2.0
"""Services in pods: real cgroups and mount namespaces, named as by the kubelet and containerd.

The API server is one that the test speaks for.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness.otelauto import Otelauto
from tests.e2e.harness.process import Process, accepts, free_port, wait_until
from tests.e2e.harness.receiver import Receiver, attributes
from tests.unit.kubernetes_api import FakeApi, Item, recorded

from otelauto.control import ask

pytestmark = pytest.mark.e2e

REQUESTS = 11
CONTAINERS = [2 * uuid.uuid4().hex for _ in range(4)]
NEW = "11111111-2222-4333-8444-555555555555"
DURATION = "http.server.request.duration"
SERVER = Path(__file__).parent / "servers" / "python" / "http_server.py"
# Joins its cgroup, binds what the kubelet would, and becomes the server: process 1 of a namespace.
SCRIPT = """\
set -e
for group in $GROUPS_FILES; do echo $$ > "$group"; done
mount --bind "$KUBELET/containers/web/3f2a9c01" "$KUBELET/termination-log"
mount --bind "$KUBELET/etc-hosts" /etc/hosts
exec unshare --pid --fork --kill-child --mount-proc "$@"
"""


@dataclass(frozen=True)
class Place:
    """Where a container of a pod runs: its cgroups, and its pod's directory of the kubelet."""

    uid: str
    container: str
    groups: tuple[Path, ...]
    directory: Path


def _hierarchies() -> list[Path]:
    """Where cgroups can be made: version 2, and the manager's hierarchy of version 1."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options):
            found.append(Path(fields.split()[4]))
    return found


@contextlib.contextmanager
def place(directory: Path, uid: str, container: str) -> Iterator[Place]:
    """A container's cgroup and directory; the cgroups are gone when the block ends."""
    flat = uid.replace("-", "_")
    path = f"kubepods.slice/kubepods-pod{flat}.slice/cri-containerd-{container}.scope"
    groups = []
    for hierarchy in _hierarchies():
        group = hierarchy / path
        group.mkdir(parents=True)
        groups.append(group)
    assert groups
    pod = directory / "kubelet" / "pods" / uid
    (pod / "containers" / "web").mkdir(parents=True, exist_ok=True)
    for name in ("containers/web/3f2a9c01", "termination-log", "etc-hosts"):
        (pod / name).touch()
    (pod / "etc-hosts").write_text("127.0.0.1 localhost\n")
    try:
        yield Place(uid, container, tuple(groups), pod)
    finally:
        for group in groups:
            wait_until(lambda g=group: not (g / "cgroup.procs").read_text(), "it is empty")
            group.rmdir()
            with contextlib.suppress(OSError):  # others are in there
                group.parent.rmdir()
                group.parent.parent.rmdir()


@contextlib.contextmanager
def serving(where: Place, log: Path) -> Iterator[int]:
    """The server in its container; the port."""
    port = free_port()
    env = {
        "ACCESS_LOG": str(log.with_suffix(".access")),
        "KUBELET": str(where.directory),
        "GROUPS_FILES": " ".join(str(group / "cgroup.procs") for group in where.groups),
    }
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]
    with Process([*words, sys.executable, SERVER, str(port)], log, env=env) as process:
        process.wait_for(lambda: accepts(port), "the service listens")
        yield port
        process.stop(signal.SIGKILL)  # process 1 of a container does not end by SIGTERM


def ask_service(port: int, count: int = REQUESTS) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for number in range(count):
        connection.request("GET", f"/items/{number}")
        assert connection.getresponse().read() is not None
    connection.close()


def kubeconfig(directory: Path, port: int) -> Path:
    file = directory / "kubeconfig"
    named = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "first"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    file.write_text(json.dumps({**named, "current-context": "x"}))
    return file


def configuration(directory: Path, api: FakeApi, receiver: Receiver) -> str:
    export = {"endpoint": f"http://127.0.0.1:{receiver.port}"}
    kubernetes = {
        "kubeconfig_path": str(kubeconfig(directory, api.port)),
        "node_name": "node-1",
        "cluster_name": "test",
    }
    return json.dumps(
        {
            "ebpf": {"executable_name": SERVER.name},
            "otel_traces_export": export,
            "otel_metrics_export": {**export, "interval": "200ms"},
            "attributes": {"kubernetes": kubernetes},
            "control_socket": str(directory / "control.sock"),
        }
    )


def resources_of_spans(receiver: Receiver) -> dict[int, list[dict[str, Any]]]:
    """The different resources that spans came with, by the port of their server."""
    found: dict[int, list[dict[str, Any]]] = {}
    for resource, span in receiver.spans():
        seen = found.setdefault(attributes(span.attributes)["server.port"], [])
        if (pairs := attributes(resource.attributes)) not in seen:
            seen.append(pairs)
    return found


def check(seen: list[dict[str, Any]], item: Item, service: tuple[str, str], container: str) -> None:
    """Every span had this one resource."""
    assert len(seen) == 1
    pod = item["metadata"]
    expected = {
        "service.name": service[0],
        "service.namespace": service[1],
        "service.instance.id": f"{pod['namespace']}.{pod['name']}.web",
        "k8s.pod.uid": pod["uid"],
        "k8s.pod.name": pod["name"],
        "k8s.namespace.name": "shop",
        "k8s.deployment.name": pod["ownerReferences"][0]["name"].rpartition("-")[0],
        "k8s.container.name": "web",
        "k8s.node.name": "node-1",
        "k8s.cluster.name": "test",
        "host.name": "node-1",
        "container.id": container,
        "process.pid": 1,
    }
    assert {name: seen[0].get(name) for name in expected} == expected


def measured(receiver: Receiver) -> dict[tuple[str, str], int]:
    """Exchanges by the instance and the container that the metrics were of."""
    return {
        (pairs["service.instance.id"], pairs["container.id"]): point.count
        for resource, metric in receiver.last_metrics()
        for pairs in [attributes(resource.attributes)]
        if metric.name == DURATION
        for point in metric.histogram.data_points
    }


def test_pods_with_one_executable_a_new_pod_and_a_restart(tmp_path: Path) -> None:
    cart, pay = recorded("deployment"), recorded("labelled")
    later = recorded("deployment", uid=NEW, name="cart-6d4b75cb6d-new01")
    control = tmp_path / "control.sock"
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(FakeApi())
        receiver = stack.enter_context(Receiver())
        api.put(cart)
        places = [
            stack.enter_context(place(tmp_path, item["metadata"]["uid"], container))
            for item, container in zip((cart, pay, later, pay), CONTAINERS, strict=True)
        ]
        logs = (tmp_path / f"{number}.log" for number in range(4))
        first = stack.enter_context(serving(places[0], next(logs)))
        ending = contextlib.ExitStack()
        stack.enter_context(ending)
        second = ending.enter_context(serving(places[1], next(logs)))
        stack.enter_context(Otelauto(tmp_path, configuration(tmp_path, api, receiver)))

        def named(*names: str) -> bool:
            return sorted(each["service"] for each in ask(control)["targets"]) == sorted(names)

        ask_service(first)
        api.put(pay)  # is told of only now
        wait_until(lambda: named("cart", "payments-eu"), "both have their names")
        ask_service(second)
        api.put(later)
        wait_until(lambda: ask(control)["kubernetes"]["pods"] == 3, "the new pod is known")
        third = stack.enter_context(serving(places[2], next(logs)))
        wait_until(lambda: named("cart", "cart", "payments-eu"), "the new pod is watched")
        ask_service(third)
        ending.close()
        wait_until(lambda: named("cart", "cart"), "the container has ended")
        fourth = stack.enter_context(serving(places[3], next(logs)))
        wait_until(lambda: named("cart", "cart", "payments-eu"), "it is there again")
        ask_service(fourth)
        wait_until(lambda: len(receiver.spans()) == 4 * REQUESTS, "all spans")
        old, new = "shop.cart-6d4b75cb6d-x2x1z.web", "shop.cart-6d4b75cb6d-new01.web"
        # A container that is started again is the same instance: its series go on.
        expected = {
            (old, CONTAINERS[0]): REQUESTS,
            (new, CONTAINERS[2]): REQUESTS,
            ("shop.pay-7c9f8d6b5-k8s2p.web", CONTAINERS[3]): 2 * REQUESTS,
        }
        wait_until(lambda: measured(receiver) == expected, f"metrics as {expected}")
    seen = resources_of_spans(receiver)
    check(seen[first], cart, ("cart", "shop"), CONTAINERS[0])
    check(seen[second], pay, ("payments-eu", "checkout"), CONTAINERS[1])
    check(seen[third], later, ("cart", "shop"), CONTAINERS[2])
    check(seen[fourth], pay, ("payments-eu", "checkout"), CONTAINERS[3])
