# SPDX-License-Identifier: Apache-2.0
"""The bounded queue between the drain thread and an exporter's thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """Many producers, one consumer. ``put`` never waits for room."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._condition = threading.Condition()
        self._oldest_at = 0.0  # monotonic time at which the queue stopped being empty
        self._wanted = 1  # the length that is worth waking the consumer for
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Sequence[T]) -> int:
        """Queue as many of the first ``items`` as there is room for; returns how many."""
        with self._condition:
            if self._closed or not items:
                return 0
            before = len(self._items)
            accepted = min(len(items), self._size - before)
            if accepted <= 0:
                return 0
            self._items.extend(islice(items, accepted))
            if before == 0:
                self._oldest_at = time.monotonic()
            # On the crossings only: a wake-up costs the drain thread a system call.
            if before == 0 or before < self._wanted <= before + accepted:
                self._condition.notify()
            return accepted

    def take(self, at_most: int, linger_s: float) -> list[T] | None:
        """Wait for ``at_most`` items, or for the oldest to be ``linger_s`` old, and take them.

        Returns ``None`` once the queue is closed and empty.
        """
        with self._condition:
            self._wanted = min(at_most, self._size)
            while len(self._items) < self._wanted and not self._closed:
                if not self._items:
                    self._condition.wait()
                    continue
                left = self._oldest_at + linger_s - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(left)
            if not self._items:
                return None
            taken = [self._items.popleft() for _ in range(min(at_most, len(self._items)))]
            self._oldest_at = time.monotonic()
            return taken

    def close(self) -> None:
        """Take nothing more; what is queued can still be taken."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def clear(self) -> int:
        """Throw away what is queued; returns how many."""
        with self._condition:
            thrown = len(self._items)
            self._items.clear()
            self._condition.notify_all()
            return thrown
