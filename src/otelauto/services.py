# SPDX-License-Identifier: Apache-2.0
"""Which service a process id belongs to, also for a while after the process is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from otelauto import __version__
from otelauto.discover.watch import Target
from otelauto.spans.service import build_service, host_attributes
from otelauto.spans.span import Service

LINGER_S: Final = 5.0  # its last records may still be on their way


class Services:
    """One :class:`Service` a group of processes, kept while any of them runs."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._host = host_attributes()
        self._services: dict[tuple[str, str, str], Service] = {}
        self._by_tgid: dict[int, Service] = {}
        self._gone: dict[int, tuple[Service, float]] = {}

    def of(self, tgid: int) -> Service | None:
        """The service of a process that is watched, or was until a moment ago."""
        found = self._by_tgid.get(tgid)
        if found is None and tgid in self._gone:
            found = self._gone[tgid][0]
        return found

    def add(self, target: Target) -> Service:
        """A process is watched, or is described differently now."""
        service = self._by_tgid[target.tgid] = self._service(target)
        self._gone.pop(target.tgid, None)
        return service

    def remove(self, tgid: int) -> None:
        """A process is not watched any more."""
        service = self._by_tgid.pop(tgid, None)
        if service is not None:
            self._gone[tgid] = (service, self._now())

    def expire(self) -> list[Service]:
        """Forget processes gone for long; the services that have none left."""
        oldest = self._now() - LINGER_S
        for tgid, (_, gone_at) in list(self._gone.items()):
            if gone_at < oldest:
                del self._gone[tgid]
        alive = set(self._by_tgid.values()) | {service for service, _ in self._gone.values()}
        ended = [service for service in self._services.values() if service not in alive]
        for service in ended:
            del self._services[service.name, service.namespace, service.instance_id]
        return ended

    def _service(self, target: Target) -> Service:
        identity = target.identity
        key = (identity.service_name, identity.namespace, identity.instance_id)
        made = build_service(
            *key,
            version=__version__,
            host=self._host,
            language=identity.language or None,
            extra=identity.attributes,
            sdk=identity.sdk,
        )
        found = self._services.get(key)
        if found is None or (found.attributes, found.sdk) != (made.attributes, made.sdk):
            found = self._services[key] = made
        return found
