# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - setting() and section() return dataclass fields
"""Settings of what is asked of Kubernetes. Units: durations are seconds."""

from __future__ import annotations

from dataclasses import dataclass

from otelauto.config import kinds
from otelauto.config.setting import section, setting


@dataclass(frozen=True)
class KubernetesSettings:
    """What the API of Kubernetes is asked for, and where it is."""

    enable: str = setting(
        "autodetect",
        kinds.choice("autodetect", "true", "false"),
        "Whether services get what the API of Kubernetes says of their pods. `autodetect`: if "
        "otelauto runs in a pod with a service account's token, or `kubeconfig_path` is set.",
    )
    kubeconfig_path: str = setting(
        "",
        kinds.FILE_PATH,
        "A kubeconfig file to reach the API with, instead of the pod's service account. Tokens "
        "and client certificates work, `exec` plugins do not.",
    )
    meta_restrict_local_node: bool = setting(
        True,
        kinds.BOOLEAN,
        "Ask only for the pods of `node_name`, if that is set; `false`: for all pods of the "
        "cluster (about 1 KB of memory each).",
    )
    node_name: str = setting(
        "",
        kinds.STRING,
        "The node that otelauto runs on (`spec.nodeName` by the downward API); also the "
        "`host.name` of what is watched.",
    )
    cluster_name: str = setting(
        "", kinds.STRING, "`k8s.cluster.name` of what is watched: no API tells it."
    )
    informers_sync_timeout: float = setting(
        5.0,
        kinds.duration(example="5s"),
        "How long `run` waits for the first list of pods before it watches anything. What is not "
        "there by then is added when it comes.",
    )
    use_labels: bool = setting(
        True,
        kinds.BOOLEAN,
        "Let the labels `app.kubernetes.io/instance`, `name`, `part-of` and `version` name "
        "services.",
    )


@dataclass(frozen=True)
class AttributesSettings:
    """Where attributes come from beside the exchanges."""

    kubernetes: KubernetesSettings = section(KubernetesSettings)
