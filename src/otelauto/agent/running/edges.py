# SPDX-License-Identifier: Apache-2.0
"""Requests of which one span is known."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

Key = tuple[bytes, bytes]  # trace id, and the client's span id


@dataclass(slots=True)
class Edge:
    """A request from a client to a server; empty is what is not known. Times in seconds."""

    key: Key
    since_s: float
    client: str = ""
    server: str = ""
    client_s: float = 0.0
    server_s: float = 0.0
    failed: bool = False
    connection: str = ""
    virtual: str = ""  # which side was made up
    peer: str = ""
    dimensions: dict[str, str] = field(default_factory=dict)


class Edges:
    """At most ``most``, each for ``ttl_s`` seconds."""

    def __init__(self, most: int, ttl_s: float) -> None:
        self._most = most
        self._ttl_s = ttl_s
        self._waiting: OrderedDict[Key, Edge] = OrderedDict()  # the oldest first

    def __len__(self) -> int:
        return len(self._waiting)

    def at(self, key: Key, now_s: float) -> Edge | None:
        """The edge of a key, a new one if there is none; ``None`` if there is no room for it."""
        edge = self._waiting.get(key)
        if edge is None and len(self._waiting) < self._most:
            edge = self._waiting[key] = Edge(key, now_s)
        return edge

    def remove(self, edge: Edge) -> None:
        del self._waiting[edge.key]

    def expired(self, now_s: float) -> Iterator[Edge]:
        """Those that have waited for too long, no longer held."""
        while self._waiting:
            edge = next(iter(self._waiting.values()))
            if edge.since_s + self._ttl_s > now_s:
                return
            self.remove(edge)
            yield edge
