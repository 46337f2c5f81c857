# SPDX-License-Identifier: Apache-2.0
"""Bringing what was written to files onto the disk itself, without letting anybody wait for it.

What a process has written outlives its kill; only what is to outlive the machine's has to be on
the disk, and a busy disk may take seconds for that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

SYNC_EVERY_S = 1.0  # what was written is on its way to the disk after so long at most
CLOSE_S = 1.0  # longest wait for the disk at the end


class Syncer:
    """Calls fdatasync(2) for files that were written to, on a thread of its own.

    ``on_error`` is called by that thread. The thread begins with the first file and has no timer
    while nothing was written.
    """

    def __init__(self, on_error: Callable[[OSError], None]) -> None:
        self._on_error = on_error
        self._changed = threading.Condition()
        self._duplicates: dict[int, int] = {}  # descriptors by number; in order
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def written(self, number: int, fd: int) -> None:
        """Something was written to ``fd``, which may be closed afterwards. Does not wait.

        ``number`` tells files apart, as a descriptor that is used again does not.
        """
        with self._changed:
            if number in self._duplicates or self._closing.is_set():
                return
            try:
                self._duplicates[number] = os.dup(fd)
            except OSError as error:
                self._on_error(error)
                return
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="otelauto-spool-sync", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Sync what is left, for at most ``CLOSE_S``."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._duplicates or self._closing.is_set())
                taken, self._duplicates = self._duplicates, {}
            for fd in taken.values():
                self._sync(fd)
            if self._closing.wait(SYNC_EVERY_S) and not self._duplicates:
                return

    def _sync(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError as error:
            self._on_error(error)
        finally:
            os.close(fd)
