# SPDX-License-Identifier: Apache-2.0
"""One thread with an event loop, for all servers of the agent: idle connections need no thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs while somebody uses it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        """The loop, running until as many ``leave`` as ``enter``."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="agent-servers", daemon=True
                )
                self._thread.start()
            self._users += 1
            return self._loop

    def leave(self) -> None:
        """The last one ends it."""
        with self._lock:
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def wait_for(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], timeout_s: float | None = None
) -> T:
    """What ``work`` gives, run in the loop by a caller of another thread."""
    return asyncio.run_coroutine_threadsafe(work, loop).result(timeout_s)


SERVERS = LoopThread()
