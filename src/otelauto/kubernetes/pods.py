# SPDX-License-Identifier: Apache-2.0
"""Pods, reduced to what telemetry needs of them: about 1 KB each, of the 5 to 20 KB that one has.

The objects come from outside: what is not as the API says is left out, never an error.
"""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import dataclass
from typing import Any, Final

LABELS: Final = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
)
ANNOTATION: Final = "resource.opentelemetry.io/"
TEMPLATE_HASH: Final = "pod-template-hash"
MIRROR: Final = "kubernetes.io/config.mirror"
_ANNOTATIONS_LIMIT = 32
_VALUE_LIMIT = 255  # characters, of names and values
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
# The CronJob controller calls a Job by the minute it was due at: eight digits, seconds (ten) until
# Kubernetes 1.20.
_OF_CRON_JOB = re.compile(r"(.+)-(?:[0-9]{8}|[0-9]{10})")

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. ``owners`` are resource attributes of those who made it (``k8s.deployment.name``,
    ...), the outermost first; ``images`` are by the name of the container; ``labels`` are those of
    :data:`LABELS`; ``annotations`` those with the prefix :data:`ANNOTATION`, without it.
    """

    uid: str
    name: str
    namespace: str
    node: str
    owners: Pairs
    labels: Pairs
    annotations: Pairs
    images: Pairs


def key_of(item: Any) -> str:
    """What the node calls the pod: its uid, or the hash of its file if it mirrors a static one."""
    metadata = _mapping(item, "metadata")
    return _text(_mapping(metadata, "annotations").get(MIRROR)) or _text(metadata.get("uid"))


def reduced(item: Any) -> Pod | None:
    """What is kept of a v1 Pod; ``None`` if it has no uid or name.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
    """
    metadata, spec = _mapping(item, "metadata"), _mapping(item, "spec")
    uid, name = _text(metadata.get("uid")), _text(metadata.get("name"))
    if not uid or not name:
        return None
    labels = _mapping(metadata, "labels")
    annotations = _mapping(metadata, "annotations")
    noted = [
        (sys.intern(key.removeprefix(ANNOTATION)[:_VALUE_LIMIT]), _shared(value))
        for key, value in annotations.items()
        if key.startswith(ANNOTATION) and _text(value)
    ]
    return Pod(
        uid=uid,
        name=name,
        namespace=_shared(metadata.get("namespace")),
        node=_shared(spec.get("nodeName")),
        owners=_owners(metadata, _text(labels.get(TEMPLATE_HASH))),
        labels=tuple((each, _shared(labels[each])) for each in LABELS if _text(labels.get(each))),
        annotations=tuple(noted[:_ANNOTATIONS_LIMIT]),
        images=tuple(
            (_shared(container.get("name")), _shared(container.get("image")))
            for kind in _CONTAINERS
            for container in _mappings(spec.get(kind))
        ),
    )


def _owners(metadata: dict[str, Any], template_hash: str) -> Pairs:
    """The controller, and whose controller it is as its name tells: no further object is asked for.

    A Deployment calls a ReplicaSet by its own name and the hash of the template, which is a label.
    """
    for owner in _mappings(metadata.get("ownerReferences")):
        kind, name = _text(owner.get("kind")), _shared(owner.get("name"))
        if owner.get("controller") is not True or not name:
            continue
        if kind == "ReplicaSet":
            made = (("k8s.replicaset.name", name),)
            if template_hash and name.endswith(f"-{template_hash}"):
                deployment = sys.intern(name.removesuffix(f"-{template_hash}"))
                return (("k8s.deployment.name", deployment), *made)
            return made
        if kind == "Job":
            made = (("k8s.job.name", name),)
            if found := _OF_CRON_JOB.fullmatch(name):
                return (("k8s.cronjob.name", sys.intern(found[1])), *made)
            return made
        if kind in {"StatefulSet", "DaemonSet"}:
            return ((f"k8s.{kind.lower()}.name", name),)
    return ()


def _mapping(holder: Any, key: str) -> dict[str, Any]:
    found = holder.get(key) if isinstance(holder, dict) else None
    return found if isinstance(found, dict) else {}


def _mappings(found: Any) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _text(value: Any) -> str:
    return value[:_VALUE_LIMIT] if isinstance(value, str) else ""


def _shared(value: Any) -> str:
    """Many pods say the same: one string for all of them."""
    return sys.intern(_text(value))


class PodStore:
    """The pods that are there, by what the node calls them. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pods: dict[str, Pod] = {}
        self._changed: set[str] = set()

    def get(self, key: str) -> Pod | None:
        """The pod; ``None``: not known (yet)."""
        with self._lock:
            return self._pods.get(key)

    def replace(self, pods: dict[str, Pod]) -> None:
        """All there are, as a list of the API gave them."""
        with self._lock:
            self._changed |= {k for k, pod in pods.items() if self._pods.get(k) != pod}
            self._pods = pods

    def put(self, key: str, pod: Pod) -> bool:
        """A pod is there; whether it is new, or described differently."""
        with self._lock:
            if self._pods.get(key) == pod:
                return False
            self._pods[key] = pod
            self._changed.add(key)
            return True

    def remove(self, key: str) -> None:
        """A pod is gone. What was said of its processes stays said."""
        with self._lock:
            self._pods.pop(key, None)

    def has_changed(self, key: str) -> bool:
        """Whether the next :meth:`take_changed` will tell of the pod."""
        with self._lock:
            return key in self._changed

    def take_changed(self) -> set[str]:
        """The pods that were put since the last call."""
        if not self._changed:
            return set()
        with self._lock:
            changed, self._changed = self._changed, set()
            return changed

    def __len__(self) -> int:
        return len(self._pods)
