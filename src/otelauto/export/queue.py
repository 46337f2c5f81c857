# SPDX-License-Identifier: Apache-2.0
"""The bounded queue between the drain thread and an exporter's thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from otelauto.export.encoded import spans_of, split

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """Many producers, one consumer. ``put`` never waits for room.

    Sizes are in spans: an :class:`EncodedSpans` counts as many as it holds, and is split where only
    a part of it fits.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._length = 0
        self._condition = threading.Condition()
        self._arrived: deque[tuple[int, float]] = deque()  # how many that wait came when
        self._wanted = 1  # the length that is worth waking the consumer for
        self._closed = False

    def __len__(self) -> int:
        return self._length

    def put(self, items: Sequence[T]) -> int:
        """Queue as many of the first ``items`` as there is room for; returns how many."""
        with self._condition:
            if self._closed or not items:
                return 0
            before, room = self._length, self._size - self._length
            left = _move(items, self._items, room)
            accepted = room - left
            if not accepted:
                return 0
            self._length += accepted
            self._arrived.append((accepted, time.monotonic()))
            # On the crossings only: a wake-up costs the drain thread a system call.
            if before == 0 or before < self._wanted <= before + accepted:
                self._condition.notify()
            return accepted

    def take(self, at_most: int, linger_s: float, idle_s: float | None = None) -> list[T] | None:
        """Wait for ``at_most`` items, or for the oldest to be ``linger_s`` old, and take them.

        Returns ``None`` once the queue is closed and empty; nothing if nothing came in ``idle_s``.
        """
        with self._condition:
            self._wanted = min(at_most, self._size)
            while self._length < self._wanted and not self._closed:
                if not self._items:
                    if not self._condition.wait(idle_s) and not self._items and not self._closed:
                        return []
                    continue
                left = self._arrived[0][1] + linger_s - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(left)
            if not self._items:
                return None
            before = self._length
            taken = self._pop(at_most)
            self._forget(before - self._length)
            return taken

    def _pop(self, at_most: int) -> list[T]:
        taken: list[T] = []
        while self._items and at_most > 0:
            item = self._items.popleft()
            if spans_of(item) > at_most:
                item, rest = split(item, at_most)
                self._items.appendleft(rest)
            taken.append(item)
            at_most -= spans_of(item)
            self._length -= spans_of(item)
        return taken

    def _forget(self, taken: int) -> None:
        """The first ``taken`` spans wait no more."""
        while taken:
            count, at = self._arrived.popleft()
            if count > taken:
                self._arrived.appendleft((count - taken, at))
            taken -= min(count, taken)

    def close(self) -> None:
        """Take nothing more; what is queued can still be taken."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def clear(self) -> int:
        """Throw away what is queued; returns how many."""
        with self._condition:
            thrown, self._length = self._length, 0
            self._items.clear()
            self._arrived.clear()
            self._condition.notify_all()
            return thrown


def _move(items: Sequence[T], to: deque[T], room: int) -> int:
    """Append as much of ``items`` as there is room for; returns the room that is left."""
    for item in items:
        count = spans_of(item)
        if count <= room:
            to.append(item)
            room -= count
            continue
        if room:
            to.append(split(item, room)[0])
        return 0
    return room
