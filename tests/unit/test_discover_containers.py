# SPDX-License-Identifier: Apache-2.0
"""Containers and pods by what is in /proc and in the runtimes' files, as they write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.discover_tree import Tree

from otelauto.counters import Counters
from otelauto.discover.containers import (
    Container,
    container_id,
    look,
    mounted_pod,
    pod_uid,
    split_image,
)
from otelauto.discover.procfs import UNREADABLE, ProcFs

ID = "0123456789abcdef" * 4
UID = "5f0c9b3e-8c52-4a17-9a53-2f0d6f7f1a01"
FLAT = UID.replace("-", "_")
HASH = "9f4c31a8d0ee7d2c1b5c6a0f5d9e8b7a"  # of the file of a static pod
SLICES = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{FLAT}.slice"

CGROUPS = {
    "containerd, systemd, v2": (f"0::{SLICES}/cri-containerd-{ID}.scope", ID, UID),
    "containerd, cgroupfs, v2": (f"0::/kubepods/besteffort/pod{UID}/{ID}", ID, UID),
    "guaranteed, cgroupfs": (f"0::/kubepods/pod{UID}/{ID}", ID, UID),
    "guaranteed, systemd": (
        f"0::/kubepods.slice/kubepods-pod{FLAT}.slice/cri-containerd-{ID}.scope", ID, UID,
    ),
    "CRI-O, systemd, v2": (f"0::{SLICES}/crio-{ID}.scope", ID, UID),
    "CRI-O, cgroup of its own below": (f"0::{SLICES}/crio-{ID}.scope/container", ID, UID),
    "cri-dockerd, systemd, v1": (
        f"12:cpu,cpuacct:{SLICES}/docker-{ID}.scope\n1:name=systemd:{SLICES}/docker-{ID}.scope",
        ID, UID,
    ),
    "containerd, systemd prefix, v1": (
        f"4:memory:/x.service/kubepods-burstable-pod{FLAT}.slice:cri-containerd:{ID}\n0::/x.service",
        ID, UID,
    ),
    "static pod": (f"0::/kubepods/burstable/pod{HASH}/{ID}", ID, HASH),
    "kind: a node in a container": (
        f"0::/docker/{'ef' * 32}/kubelet{SLICES}/cri-containerd-{ID}.scope",
        ID, UID,
    ),
    "seen from another pod": (
        f"0::/../../kubepods-burstable-pod{FLAT}.slice/cri-containerd-{ID}.scope", ID, UID,
    ),
    "seen from the same pod": (f"0::/../cri-containerd-{ID}.scope", ID, ""),
    "Docker, systemd, v2": (f"0::/system.slice/docker-{ID}.scope", ID, ""),
    "Docker, cgroupfs, v1": (f"12:cpu:/docker/{ID}\n11:memory:/docker/{ID}", ID, ""),
    "Podman": (f"0::/machine.slice/libpod-{ID}.scope/container", ID, ""),
    "a service": ("0::/system.slice/nginx.service", "", ""),
    "a user's podcast": ("0::/user.slice/podcast-12345678.scope", "", ""),
    "its own namespace": ("0::/", "", ""),
    "nothing": ("", "", ""),
}  # fmt: skip

# Of a container under containerd 1.7 (Kubernetes 1.30), and under CRI-O.
MOUNTS = f"""\
1204 1091 0:145 / / rw,relatime master:394 - overlay overlay rw,lowerdir=/var/lib/containerd/1/fs
1205 1204 0:147 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1221 1204 8:1 /var/lib/kubelet/pods/{UID}/etc-hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw
1222 1206 8:1 /var/lib/kubelet/pods/{UID}/containers/web/3f2a9c01 /dev/termination-log - ext4 x rw
1223 1204 8:1 /var/lib/containerd/sandboxes/{ID}/hostname /etc/hostname rw - ext4 x rw
1226 1204 0:120 / /run/secrets/kubernetes.io/serviceaccount ro,relatime - tmpfs tmpfs rw
"""
# Where /var/lib/kubelet is a file system of its own.
OWN_FILE_SYSTEM = MOUNTS.replace("/var/lib/kubelet/pods", "/pods")
# The kubelet's own mounts on the node, and a volume of a pod: no container of that pod.
NODE = f"""\
25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
310 25 0:120 / /var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~projected/token rw - tmpfs tmpfs rw
311 25 8:1 /var/lib/kubelet/pods/{UID}/volume-subpaths/x/web/0 /srv rw - ext4 /dev/sda1 rw
312 25 8:1 /var/lib/kubelet/pods/{UID}/etc-hosts /mnt/hosts rw - ext4 /dev/sda1 rw
short line
"""


@pytest.mark.parametrize("name", CGROUPS)
def test_cgroups(name: str) -> None:
    text, found, uid = CGROUPS[name]
    assert (container_id(text + "\n"), pod_uid(text + "\n")) == (found, uid)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MOUNTS, (UID, "web")),
        (OWN_FILE_SYSTEM, (UID, "web")),
        ("\n".join(line for line in MOUNTS.splitlines() if "termination" not in line), (UID, "")),
        (MOUNTS.replace(UID, HASH), (HASH, "web")),
        (NODE, ("", "")),
        ("", ("", "")),
    ],
)
def test_what_the_kubelet_binds_into_a_container(text: str, expected: tuple[str, str]) -> None:
    assert mounted_pod(text) == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("nginx", ("nginx", "")),
        ("nginx:1.27", ("nginx", "1.27")),
        ("registry:5000/team/web:1.2", ("registry:5000/team/web", "1.2")),
        ("registry:5000/team/web", ("registry:5000/team/web", "")),
        (f"envoy:v1@sha256:{'ab' * 32}", ("envoy", "v1")),
        (f"envoy@sha256:{'ab' * 32}", ("envoy", "")),
        (f"sha256:{'ab' * 32}", ("", "")),
        ("ab" * 32, ("", "")),
        ("", ("", "")),
    ],
)
def test_images(image: str, expected: tuple[str, str]) -> None:
    assert split_image(image) == expected


CONTAINERD = {
    "ociVersion": "1.1.0",
    "process": {"args": ["/web"], "env": ["PASSWORD=swordfish"]},
    "annotations": {
        "io.kubernetes.cri.container-name": "web",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": "registry.example.com/shop/cart:1.4.2",
        "io.kubernetes.cri.sandbox-id": "cd" * 32,
        "io.kubernetes.cri.sandbox-name": "cart-6d4b75cb6d-x2x1z",
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-uid": UID,
    },
}
CRIO = {
    "ociVersion": "1.0.2",
    "annotations": {
        "io.kubernetes.container.name": "web",
        "io.kubernetes.cri-o.ImageName": "registry.example.com/shop/cart:1.4.2",
        "io.kubernetes.pod.name": "cart-6d4b75cb6d-x2x1z",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": UID,
        "io.kubernetes.cri-o.Name": "k8s_web_cart-6d4b75cb6d-x2x1z_shop_0",
    },
}
CRI_DOCKERD = {
    "ID": ID,
    "Name": f"/k8s_web_cart-6d4b75cb6d-x2x1z_shop_{UID}_0",
    "Config": {
        "Image": "registry.example.com/shop/cart:1.4.2",
        "Env": ["PASSWORD=swordfish"],
        "Labels": {
            "io.kubernetes.container.name": "web",
            "io.kubernetes.pod.name": "cart-6d4b75cb6d-x2x1z",
            "io.kubernetes.pod.namespace": "shop",
            "io.kubernetes.pod.uid": UID,
        },
    },
}
IN_POD = Container(
    ID, "", "registry.example.com/shop/cart:1.4.2", UID, "cart-6d4b75cb6d-x2x1z", "shop", "web"
)
TASKS = "run/containerd/io.containerd.runtime.v2.task/k8s.io"


def process(
    root: Path, cgroup: str, mounts: str = "", path: str = "", kept: Any = None
) -> tuple[ProcFs, Counters]:
    """A process with these files; ``kept`` is what the runtime keeps at ``path`` on the host."""
    tree = Tree(root)
    tree.process(1, "/sbin/init")
    tree.process(7, "/web")
    (root / "7/cgroup").write_text(cgroup + "\n")
    (root / "7/mountinfo").write_text(mounts)
    if path:
        file = root / "1/root" / path
        file.parent.mkdir(parents=True)
        file.write_text(kept if isinstance(kept, str) else json.dumps(kept))
    counters = Counters()
    return ProcFs(str(root), counters), counters


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        (f"{TASKS}/{ID}/config.json", CONTAINERD),
        (f"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json", CONTAINERD),
        (f"run/containers/storage/overlay-containers/{ID}/userdata/config.json", CRIO),
        (f"var/lib/docker/containers/{ID}/config.v2.json", CRI_DOCKERD),
    ],
)
def test_runtimes_tell_of_pods(tmp_path: Path, path: str, kept: Any) -> None:
    cgroup = f"0::{SLICES}/x-{ID}.scope"
    procfs, _ = process(tmp_path, cgroup, MOUNTS, path, kept)
    assert look(procfs, 7) == IN_POD


def test_docker_tells_of_a_container_that_people_named(tmp_path: Path) -> None:
    kept = {"Name": "/shop", "Config": {"Image": "shop:3", "Labels": {"a": "b"}, "Env": ["S=1"]}}
    path = f"var/lib/docker/containers/{ID}/config.v2.json"
    procfs, _ = process(tmp_path, f"0::/system.slice/docker-{ID}.scope", "", path, kept)
    assert look(procfs, 7) == Container(ID, "shop", "shop:3")


def test_cgroup_and_mounts_are_enough_for_pod_and_container(tmp_path: Path) -> None:
    procfs, counters = process(tmp_path, f"0::{SLICES}/cri-containerd-{ID}.scope", MOUNTS)
    assert look(procfs, 7) == Container(id=ID, pod_uid=UID, pod_container="web")
    assert not counters.get(UNREADABLE, "failed")


def test_mounts_tell_what_a_cgroup_namespace_hides(tmp_path: Path) -> None:
    for number, hidden in enumerate(("0::/", f"0::/../cri-containerd-{ID}.scope")):
        procfs, _ = process(tmp_path / str(number), hidden, MOUNTS)
        found = look(procfs, 7)
        assert found is not None
        assert (found.pod_uid, found.pod_container) == (UID, "web")


def test_a_process_of_the_node_is_in_no_container(tmp_path: Path) -> None:
    for number, cgroup in enumerate(("0::/system.slice/kubelet.service", "0::/", "")):
        procfs, _ = process(tmp_path / str(number), cgroup, NODE)
        assert look(procfs, 7) is None


@pytest.mark.parametrize(
    "kept",
    ["", "{", "[" * 100_000, "null", "[]", '{"annotations": 3}', '{"annotations": {"a": {}}}',
     '{"Config": {"Labels": null, "Image": 4}, "Name": []}',
     '{"annotations": {"io.kubernetes.cri.sandbox-name": ["x"]}}'],
)  # fmt: skip
def test_nonsense_of_a_runtime_is_nothing(tmp_path: Path, kept: str) -> None:
    path = f"{TASKS}/{ID}/config.json"
    procfs, counters = process(tmp_path, f"0::/docker/{ID}", "", path, kept)
    assert look(procfs, 7) == Container(ID)
    assert counters.get(UNREADABLE, "malformed") == int(len(kept) in (1, 100_000))


def test_what_a_runtime_says_is_bounded_and_printable(tmp_path: Path) -> None:
    kept = {"annotations": {"io.kubernetes.pod.name": "a\x1b[31m\n" + "x" * 9999}}
    path = f"{TASKS}/{ID}/config.json"
    procfs, _ = process(tmp_path, f"0::/docker/{ID}", "", path, kept)
    found = look(procfs, 7)
    assert found is not None
    assert found.pod_name.startswith("a[31mxxx")
    assert len(found.pod_name) < 600
