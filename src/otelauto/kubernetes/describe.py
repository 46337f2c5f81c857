# SPDX-License-Identifier: Apache-2.0
"""A container and its pod as resource attributes, and the service's name from them.

https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes/ gives the order; of the
well-known labels also ``app.kubernetes.io/part-of`` is read, as the OpenTelemetry operator does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from otelauto.discover.containers import Container, Metadata, split_image
from otelauto.kubernetes.pods import Pod

SERVICE: Final = ("service.name", "service.namespace", "service.instance.id")
VERSION: Final = "service.version"
MAIN_PID: Final = 1


@dataclass(frozen=True, slots=True)
class Options:
    """``use_labels``: well-known labels name services. ``node`` and ``cluster`` may be empty."""

    use_labels: bool = True
    node: str = ""
    cluster: str = ""


def describe(container: Container, pod: Pod | None, pid: int, options: Options) -> Metadata:
    """What is known of a container whose pod may be known. ``pid`` is that of the service's process
    in the container: where it is not the first one there, others may be services of their own, and
    the id of the instance tells them apart.
    """
    inner = container.pod_container
    image = (dict(pod.images).get(inner, "") if pod else "") or container.image
    name, tag = split_image(image)
    said: dict[str, str | tuple[str, ...]] = {
        "container.id": container.id,
        "container.name": container.name,
        "container.image.name": name,
        "container.image.tags": (tag,) if tag else "",
    }
    namespace = pod.namespace if pod else container.namespace
    pod_name = pod.name if pod else container.pod_name
    if container.pod_uid or pod:
        said |= {
            "k8s.cluster.name": options.cluster,
            "k8s.node.name": (pod.node if pod else "") or options.node,
            "k8s.namespace.name": namespace,
            "k8s.pod.name": pod_name,
            "k8s.pod.uid": pod.uid if pod else container.pod_uid,
            "k8s.container.name": inner,
            **(dict(pod.owners) if pod else {}),
        }
    noted = dict(pod.annotations) if pod else {}
    labels = dict(pod.labels) if pod and options.use_labels else {}
    said[VERSION] = labels.get("app.kubernetes.io/version", "") or (tag if pod else "")
    said |= {key: value for key, value in noted.items() if key not in SERVICE}
    return Metadata(
        attributes={key: value for key, value in said.items() if value},
        service_name=noted.get("service.name") or _name(labels, pod, inner),
        namespace=noted.get("service.namespace")
        or labels.get("app.kubernetes.io/part-of")
        or namespace,
        instance_id=noted.get("service.instance.id") or _instance(namespace, pod_name, inner, pid),
    )


def _name(labels: Mapping[str, str], pod: Pod | None, inner: str) -> str:
    """Empty without the pod: its name alone would be another service's at each restart."""
    if pod is None:
        return ""
    label = labels.get("app.kubernetes.io/instance") or labels.get("app.kubernetes.io/name")
    owner = pod.owners[0][1] if pod.owners else ""
    return label or owner or pod.name or inner


def _instance(namespace: str, pod: str, inner: str, pid: int) -> str:
    if not (namespace and pod and inner):
        return ""
    place = f"{namespace}.{pod}.{inner}"
    return place if pid == MAIN_PID else f"{place}:{pid}"
