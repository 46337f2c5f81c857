# SPDX-License-Identifier: Apache-2.0
"""Which container and pod of Kubernetes a process is in: from /proc and the runtime's files.

``/proc/<pid>/cgroup`` names the container and the pod by their ids, whatever the driver (systemd or
cgroupfs) and version. A reader in a cgroup namespace of its own sees relative paths, which may lack
the pod; the files that the kubelet binds into each container (its termination log, ``/etc/hosts``)
tell it by their paths on the node, and the container's name too (``mountinfo``, proc(5)). What
neither tells (names, image) is in the file that the runtime keeps of the container on the host, as
process 1 sees it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otelauto.discover.procfs import ProcFs

_ID = re.compile(r"[0-9a-f]{64}")
_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"  # a static pod's is a hash
_POD_CGROUP = re.compile(rf"[/-]pod({_UID})(?:\.slice)?(?:[/:]|$)", re.MULTILINE)
_POD_CONTAINER = re.compile(rf"(?:^|/)pods/({_UID})/containers/([a-z0-9-]{{1,63}})/[0-9a-f]+$")
_POD_HOSTS = re.compile(rf"(?:^|/)pods/({_UID})/etc-hosts$")
_HIDDEN = re.compile(
    r"^[0-9]+:[^:]*:/(?:$|\.\.)", re.MULTILINE
)  # as a cgroup namespace shows paths
_DIGEST = re.compile(r"@[a-z0-9+._-]+:[0-9a-f]{32,}$")
_BUNDLES: Final = (
    "run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json",
    "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json",
    "run/containers/storage/overlay-containers/{id}/userdata/config.json",
    "var/lib/containers/storage/overlay-containers/{id}/userdata/config.json",
    "var/lib/docker/containers/{id}/config.v2.json",
)
_CONTAINERD, _CRIO = "io.kubernetes.cri.", "io.kubernetes."
# What a runtime's annotations or labels call it: (containerd, CRI-O and Docker).
_KEYS: Final = {
    "pod_uid": (_CONTAINERD + "sandbox-uid", _CRIO + "pod.uid"),
    "pod_name": (_CONTAINERD + "sandbox-name", _CRIO + "pod.name"),
    "namespace": (_CONTAINERD + "sandbox-namespace", _CRIO + "pod.namespace"),
    "pod_container": (_CONTAINERD + "container-name", _CRIO + "container.name"),
    "image": (_CONTAINERD + "image-name", _CRIO + "cri-o.ImageName"),
}
_VALUE_LIMIT = 512  # characters


@dataclass(frozen=True, slots=True)
class Container:
    """What the node tells of a container; what is not known is empty.

    ``id`` is 64 hexadecimal digits, ``name`` what the runtime calls it where people name containers
    (Docker), ``pod_container`` its name in the pod, ``image`` as it was asked for, with tag.
    """

    id: str = ""
    name: str = ""
    image: str = ""
    pod_uid: str = ""
    pod_name: str = ""
    namespace: str = ""
    pod_container: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is said of a service from outside its process: weaker than its own environment.

    ``attributes`` beside those of the fields. Empty: nothing is said.
    """

    attributes: dict[str, str | tuple[str, ...]]
    service_name: str = ""
    namespace: str = ""
    instance_id: str = ""


def container_id(cgroup: str) -> str:
    """The id of the innermost container in the text of ``/proc/<pid>/cgroup``; or empty."""
    found = _ID.findall(cgroup)
    return str(found[-1]) if found else ""


def pod_uid(cgroup: str) -> str:
    """The uid of the pod in the text of ``/proc/<pid>/cgroup``, with dashes; or empty."""
    found = _POD_CGROUP.search(cgroup)
    return found[1].replace("_", "-") if found else ""


def mounted_pod(mountinfo: str) -> tuple[str, str]:
    """Pod uid and container name by what the kubelet binds into a container (proc(5)); or empty."""
    uid = ""
    for line in mountinfo.splitlines():
        fields = line.split(" ", 5)
        if len(fields) < 6:
            continue
        root, point = fields[3], fields[4]
        if found := _POD_CONTAINER.search(root):
            return found[1].replace("_", "-"), found[2]
        if point == "/etc/hosts" and (found := _POD_HOSTS.search(root)):
            uid = found[1]
    return uid, ""


def split_image(image: str) -> tuple[str, str]:
    """Name and tag of an image reference (the OCI distribution specification); empty if unknown."""
    name = _DIGEST.sub("", image)
    if re.fullmatch(r"(sha256:)?[0-9a-f]{64}", name):
        return "", ""  # an id names nothing
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, tag


def look(procfs: ProcFs, tgid: int) -> Container | None:
    """The container of a process; ``None``: it is in none, as far as this can be seen."""
    cgroup = procfs.cgroup(tgid)
    found_id, uid, inner = container_id(cgroup), pod_uid(cgroup), ""
    if found_id or uid or _HIDDEN.search(cgroup):
        mounted, inner = mounted_pod(procfs.mountinfo(tgid))
        uid = uid or mounted
    if not found_id and not uid:
        return None
    told = _told(procfs, found_id) if found_id else {}
    told["pod_uid"] = uid or told.get("pod_uid", "")
    told["pod_container"] = inner or told.get("pod_container", "")
    return Container(found_id, **told)


def _told(procfs: ProcFs, found_id: str) -> dict[str, str]:
    """What the runtime keeps of a container in its file."""
    for pattern in _BUNDLES:
        data = procfs.host_file(pattern.format(id=found_id))
        if not data:
            continue
        try:
            kept = json.loads(data)
        except (ValueError, RecursionError):
            procfs.malformed()
            return {}
        if isinstance(kept, dict):
            return of_bundle(kept)
    return {}


def of_bundle(kept: dict[str, Any]) -> dict[str, str]:
    """From a bundle (the OCI runtime specification) or Docker's own file."""
    docker = kept.get("Config")
    notes = kept.get("annotations")
    told = {}
    if isinstance(docker, dict):
        notes = docker.get("Labels")
        told = {
            "name": _text(kept.get("Name")).removeprefix("/"),
            "image": _text(docker.get("Image")),
        }
    if isinstance(notes, dict):
        for field, keys in _KEYS.items():
            value = next((_text(notes[key]) for key in keys if key in notes), "")
            if value:
                told[field] = value
        if "pod_uid" in told:
            told["name"] = ""  # made by the kubelet, for nobody to read
    return told


def _text(value: object) -> str:
    """A string of bounded length without what cannot be printed; else empty."""
    if not isinstance(value, str):
        return ""
    return "".join(c for c in value[:_VALUE_LIMIT] if c.isprintable())
