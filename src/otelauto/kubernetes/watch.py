# SPDX-License-Identifier: Apache-2.0
"""Keeps a :class:`PodStore` like the API server's: a list in pages, then a watch from there on.

A watch that ends is asked for again from the last version seen, bookmarks included; one that is too
old (410) means a new list. Whatever fails is counted, told once, and tried again, ever more slowly.
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from otelauto.counters import Counters, Meaning
from otelauto.kubernetes.access import Access
from otelauto.kubernetes.api import Api, ApiError, GoneError
from otelauto.kubernetes.pods import Pod, PodStore, key_of, reduced

log = logging.getLogger("otelauto")

PODS: Final = "/api/v1/pods"
PAGE: Final = 100  # pods: a few hundred KB, which are gone again before the next
FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
END_S: Final = 2.0  # to wait for the thread
PAGES_LIMIT: Final = 10_000
SHORTEST_WATCH_S: Final = 1.0

REQUESTS_FAILED: Final = Meaning(
    "kubernetes_requests_failed",
    "Requests to the API of Kubernetes that failed, or broke in the middle. Each is tried again.",
    "reason",
)
LISTS: Final = Meaning(
    "kubernetes_lists",
    "Times that all pods were asked for: at start, and when a watch was too old.",
)
OBJECTS_BAD: Final = Meaning(
    "kubernetes_objects_bad", "Pods of the API that make no sense, and are left out."
)


class PodWatch:
    """A thread that keeps ``store`` up to date. ``node``: only the pods of this node; empty: all.

    ``on_change`` is called from the thread when the store is not what it was.
    """

    def __init__(
        self,
        access: Access,
        store: PodStore,
        counters: Counters,
        *,
        node: str = "",
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = Api(access)
        self._store = store
        self._counters = counters
        self._on_change = on_change
        self._query: dict[str, str | int] = (
            {"fieldSelector": f"spec.nodeName={node}"} if node else {}
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otelauto-kubernetes", daemon=True)
        self._version = ""  # to watch from; empty: a list is needed
        self._failures = 0
        self._told = ""
        self.listed = threading.Event()  # the first list is there
        self.problem = "nothing was asked yet"  # empty: the store is as the server's
        self.list_seconds = 0.0  # that the last list took

    def start(self) -> None:
        """Begin; :attr:`listed` tells when there is something to ask the store for."""
        self._thread.start()

    def close(self) -> None:
        """End, whatever is in progress."""
        self._stop.set()
        self._api.interrupt()
        if self._thread.is_alive():
            self._thread.join(END_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            retry_s = 0.0
            try:
                if not self._version:
                    self._list()
                self._watch()
            except ApiError as error:
                retry_s = self._failed(error)
            except Exception as error:  # a defect must not end the thread
                log.exception("the pods of Kubernetes cannot be followed")
                retry_s = self._failed(ApiError("defect", str(error)))
            self._stop.wait(retry_s)
        self._api.close()

    def _list(self) -> None:
        """All pods, page by page; of each only what is needed is kept."""
        began = time.monotonic()
        self._counters.add(LISTS)
        pods: dict[str, Pod] = {}
        query: dict[str, str | int] = {**self._query, "limit": PAGE}
        version = going_on = None
        for _ in range(PAGES_LIMIT):
            page = self._api.page(PODS, query)
            items, metadata = page.get("items"), page.get("metadata")
            if not isinstance(metadata, dict) or not isinstance(items, list | None):
                raise ApiError("malformed", "a list without metadata or items")
            for item in items or ():
                pod = reduced(item)
                if pod is None:
                    self._counters.add(OBJECTS_BAD)
                else:
                    pods[key_of(item)] = pod
            version, going_on = metadata.get("resourceVersion"), metadata.get("continue")
            if not going_on:
                break
            query["continue"] = str(going_on)
        if going_on or not isinstance(version, str) or not version:
            raise ApiError("malformed", "a list without an end or a resourceVersion")
        self._store.replace(pods)
        self._version = version
        self.list_seconds = time.monotonic() - began
        self._works()
        log.info("pods of Kubernetes listed pods=%d seconds=%.2f", len(pods), self.list_seconds)
        self.listed.set()
        self._on_change()

    def _watch(self) -> None:
        query = {**self._query, "resourceVersion": self._version, "allowWatchBookmarks": "true"}
        began = time.monotonic()
        seen = 0
        for event in self._api.events(PODS, query, self._works):
            seen += 1
            self._failures = 0
            self._take(event)
        if not seen and time.monotonic() - began < SHORTEST_WATCH_S:
            raise ApiError("refused", "a watch that ended at once")
        self._failures = 0

    def _take(self, event: dict[str, Any]) -> None:
        kind, item = event.get("type"), event.get("object")
        metadata = item.get("metadata") if isinstance(item, dict) else None
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if isinstance(version, str):
            self._version = version
        if kind in ("ADDED", "MODIFIED"):
            pod = reduced(item)
            if pod is None:
                self._counters.add(OBJECTS_BAD)
                return
            if self._store.put(key_of(item), pod):
                self._on_change()
        elif kind == "DELETED":
            self._store.remove(key_of(item))

    def _works(self) -> None:
        self.problem = ""
        if self._told:
            log.info("the API of Kubernetes answers again")
            self._told = ""

    def _failed(self, error: ApiError) -> float:
        """Count and tell; how long to wait, in seconds."""
        if self._stop.is_set():
            return 0.0
        self._counters.add(REQUESTS_FAILED, label=error.reason)
        self._api.close()
        self._failures += 1
        if isinstance(error, GoneError):
            self._version = ""
        else:
            self.problem = str(error)
            if self._told != error.reason:
                self._told = error.reason
                log.warning("the API of Kubernetes cannot be used: %s; it is tried again", error)
        delay = min(FIRST_DELAY_S * 2.0 ** min(self._failures - 1, 10), LONGEST_DELAY_S)
        delay *= random.uniform(0.5, 1.0)  # noqa: S311 - so that nodes do not ask all at once
        return max(delay, min(error.retry_s, LONGEST_DELAY_S))
