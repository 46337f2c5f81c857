# SPDX-License-Identifier: Apache-2.0
"""A thread that does something at intervals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable


class Flusher:
    """Calls ``act`` each ``interval_s`` seconds; a fault is logged and the next call comes."""

    def __init__(self, name: str, interval_s: float, act: Callable[[], None]) -> None:
        self._name = name
        self._interval_s = interval_s
        self._act = act
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the first call comes after an interval."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """No call any more; one in progress may take so long."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(deadline_s)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                self._act()
            except Exception:
                logging.getLogger(__name__).exception("%s failed", self._name)
