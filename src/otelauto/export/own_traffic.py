# SPDX-License-Identifier: Apache-2.0
"""The connections of otelauto's own exporters, so that a watched collector or scraper at the other
end does not turn each export into spans that are exported in turn.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator

from otelauto.flows.vocabulary import Address

End = tuple[str, int]


class OwnTraffic:
    """A set of connections, each known by its two ends, whichever of them is watched.

    A closed connection is remembered for ``LINGER_S``: its last exchange may still be on its way.
    """

    LINGER_S = 60.0

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._ends: dict[frozenset[End], float | None] = {}
        self._seen: set[frozenset[End]] = set()  # by observe(): nobody says when they are closed

    def opened(self, connection: socket.socket) -> frozenset[End] | None:
        """Remember a connected socket; returns what :meth:`closed` wants."""
        ends = _ends(connection)
        if ends is not None:
            with self._lock:
                self._expire()
                self._ends[ends] = None
        return ends

    def closed(self, ends: frozenset[End] | None) -> None:
        """The connection was closed."""
        if ends is not None:
            with self._lock:
                self._ends[ends] = self._now()

    def observe(self) -> None:
        """Remember all connections of this process: a library opens and closes some by itself."""
        there = set(_connections())
        with self._lock:
            self._expire()
            for ends in self._seen - there:
                self._ends[ends] = self._now()
            self._seen = {e for e in there if e in self._seen or self._ends.get(e, 0) is not None}
            for ends in self._seen:
                self._ends[ends] = None

    def owns(self, local: Address, peer: Address) -> bool:
        """Whether an exchange between these two ends is otelauto's own."""
        if not self._ends:
            return False
        return frozenset(((local.host, local.port), (peer.host, peer.port))) in self._ends

    def _expire(self) -> None:
        oldest = self._now() - self.LINGER_S
        for ends, closed_at in list(self._ends.items()):
            if closed_at is not None and closed_at < oldest:
                del self._ends[ends]


def _ends(connection: socket.socket) -> frozenset[End] | None:
    """Both ends; ``None`` for a socket that is not connected or not of an internet family."""
    try:
        return frozenset((_end(connection.getsockname()), _end(connection.getpeername())))
    except (OSError, TypeError, IndexError):
        return None


def _connections() -> Iterator[frozenset[End]]:
    """The connected internet sockets of this process."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, no paths
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            copy = os.dup(int(name))
        except OSError:
            continue  # closed meanwhile
        with socket.socket(fileno=copy) as connection:
            if connection.family in {socket.AF_INET, socket.AF_INET6}:
                ends = _ends(connection)
                if ends is not None:
                    yield ends


def _end(name: tuple[str, int]) -> End:
    """Host and port; an IPv4-mapped address as IPv4, as captured addresses are."""
    return name[0].removeprefix("::ffff:"), name[1]
