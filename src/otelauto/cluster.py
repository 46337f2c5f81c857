# SPDX-License-Identifier: Apache-2.0
"""The wiring of Kubernetes: whether its API is asked, and what is said of containers with it.

The API's client is loaded only where it is used: HTTP and TLS take megabytes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otelauto.config import Config
from otelauto.counters import Counters, Meaning
from otelauto.discover.containers import Container, Metadata
from otelauto.errors import ConfigError
from otelauto.kubernetes.describe import Options, describe
from otelauto.kubernetes.pods import PodStore

if TYPE_CHECKING:
    from otelauto.kubernetes.access import Access
    from otelauto.kubernetes.watch import PodWatch

log = logging.getLogger("otelauto")

HOLD_S: Final = 2.0  # that the first exchanges of a new pod wait for what is said of it
TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

PODS_UNKNOWN: Final = Meaning(
    "kubernetes_pods_unknown",
    "Watched processes whose pod the API of Kubernetes did not tell of in time: what they exchange"
    " is published without its attributes, until it does.",
)


class Cluster:
    """What is known of pods. ``on_change``, from another thread: :meth:`take_changed` has news.

    Raises ConfigError from :meth:`start` when the API is asked for and nothing tells how.
    """

    def __init__(
        self, config: Config, counters: Counters, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = config.attributes.kubernetes
        self._counters = counters
        self._on_change = on_change
        part = self._settings
        self._options = Options(part.use_labels, part.node_name, part.cluster_name)
        self._store = PodStore()
        self._watch: PodWatch | None = None

    def start(self) -> None:
        """Ask the API if it is to be asked, and wait for the first list, for a while."""
        part = self._settings
        access = self._access()
        if access is None:
            return
        from otelauto.kubernetes.watch import PodWatch  # noqa: PLC0415

        node = part.node_name if part.meta_restrict_local_node else ""
        if part.meta_restrict_local_node and not node:
            log.warning(
                "attributes.kubernetes.node_name is not set: the pods of all nodes are asked for"
            )
        watch = PodWatch(access, self._store, self._counters, node=node, on_change=self._on_change)
        self._watch = watch
        watch.start()
        if not watch.listed.wait(part.informers_sync_timeout):
            log.warning("no list of pods yet: %s; it is added when it comes", watch.problem)

    def _access(self) -> Access | None:
        part = self._settings
        found = part.kubeconfig_path or (
            os.environ.get("KUBERNETES_SERVICE_HOST") and TOKEN.exists()
        )
        if part.enable == "false" or (part.enable == "autodetect" and not found):
            return None
        from otelauto.kubernetes.access import from_kubeconfig, in_cluster  # noqa: PLC0415

        access = from_kubeconfig(part.kubeconfig_path) if part.kubeconfig_path else in_cluster()
        if access is None:
            raise ConfigError(
                "attributes.kubernetes.enable is true, but this is no pod with a service account.",
                "Set attributes.kubernetes.kubeconfig_path, or enable: autodetect.",
            )
        return access

    def describe(self, container: Container, pid: int) -> Metadata:
        """What is known now of a container; ``pid`` is the service's process id in it."""
        return describe(container, self._store.get(container.pod_uid), pid, self._options)

    def lacks(self, container: Container | None) -> bool:
        """Whether more will be said of the container any moment: by the API, or by what it told
        since :meth:`take_changed`.
        """
        if container is None or not container.pod_uid or self._watch is None:
            return False
        if self._store.has_changed(container.pod_uid):
            return True
        return not self._watch.problem and self._store.get(container.pod_uid) is None

    def gave_up(self) -> None:
        """Count a process whose pod is unknown still."""
        self._counters.add(PODS_UNKNOWN)

    def take_changed(self) -> set[str]:
        """The uids of pods of which something else is said than at the last call."""
        return self._store.take_changed()

    def status(self) -> dict[str, Any] | None:
        """For ``otelauto status``; ``None``: the API is not asked."""
        if self._watch is None:
            return None
        return {
            "pods": len(self._store),
            "problem": self._watch.problem,
            "list_seconds": round(self._watch.list_seconds, 3),
        }

    def close(self) -> None:
        """Ask no more."""
        if self._watch is not None:
            self._watch.close()
