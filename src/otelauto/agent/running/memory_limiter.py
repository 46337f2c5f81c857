# SPDX-License-Identifier: Apache-2.0
"""``otelcol.processor.memory_limiter``: what comes is refused while the agent holds too much.

The memory is the agent's resident set, which is what a container is ended for. Between the soft
limit (``limit`` less ``spike_limit``) and the limit telemetry goes back to the sender; above the
limit what can be freed is freed, too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from otelauto.agent.pipeline import Context, Metrics, Refused, Running, Traces
from otelauto.agent.river.values import Value
from otelauto.agent.running.outputs import Outputs, as_input, seconds
from otelauto.agent.schema import Decoded
from otelauto.counters import Meaning
from otelauto.errors import ConfigError

ITEMS_LIMITED = Meaning(
    "agent_items_limited",
    "Spans and data points that a memory limiter gave back to the sender.",
    "signal",
)
DEFAULT_SPIKE = 5  # a fifth of the limit
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_PAGE = os.sysconf("SC_PAGE_SIZE")
Reading = Callable[[], int]


class MemoryLimiter(Running):
    """Raises :class:`ConfigError` if the limits leave nothing."""

    def __init__(self, context: Context, content: Decoded, resident: Reading | None = None) -> None:
        super().__init__(context, content)
        self._outputs = Outputs(content, context.counters)
        self._interval_s = seconds(content["check_interval"])
        self.hard, self.soft = limits(content)
        self._resident = resident or resident_bytes
        self._lock = threading.Lock()
        self._checked = float("-inf")
        self._used = 0

    @property
    def exports(self) -> Mapping[str, Value]:
        return as_input(self)

    def start(self) -> None:
        self._look()

    def traces(self, payload: Traces) -> None:
        """Pass the spans on, or raise :class:`Refused`."""
        self._admit(payload.items, "traces")
        self._outputs.traces(payload)

    def metrics(self, payload: Metrics) -> None:
        """Pass the data points on, or raise :class:`Refused`."""
        self._admit(payload.items, "metrics")
        self._outputs.metrics(payload)

    def status(self) -> Mapping[str, str | int | float]:
        return {"bytes used": self._used, "soft limit": self.soft, "limit": self.hard}

    def _admit(self, items: int, signal: str) -> None:
        if self._look() <= self.soft:
            self.last_error = ""
            return
        self.last_error = f"{self._used} bytes are in use, more than {self.soft}"
        self.context.counters.add(ITEMS_LIMITED, items, signal)
        raise Refused("memory is short", retry_after_s=max(1.0, self._interval_s))

    def _look(self) -> int:
        """Bytes in use, read again when the interval is over. Thread-safe."""
        with self._lock:
            now = time.monotonic()
            if now - self._checked >= self._interval_s:
                self._checked = now
                self._used = self._resident()
                if self._used > self.hard:
                    _free()
                    self._used = self._resident()
            return self._used


def limits(content: Decoded) -> tuple[int, int]:
    """The limit and the soft limit, in bytes."""
    if content["limit"] is not None:
        hard = int(content["limit"])
        spike = int(content["spike_limit"] or 0)
    else:
        total = available_bytes()
        hard = int(total * content["limit_percentage"] / 100)
        spike = int(total * (content["spike_limit_percentage"] or 0) / 100)
    soft = hard - (spike or hard // DEFAULT_SPIKE)
    if hard <= 0 or soft <= 0:
        raise ConfigError(
            "otelcol.processor.memory_limiter: the limits leave nothing.",
            "Give a limit above 0 and a smaller spike limit.",
        )
    return hard, soft


def available_bytes() -> int:
    """Memory that this process may have: that of its control group, else the machine's."""
    total = os.sysconf("SC_PHYS_PAGES") * _PAGE
    for name in _CGROUPS:
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            return min(total, int(text))
    return total


def resident_bytes() -> int:
    """The resident set of this process (proc(5), ``statm``)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _free() -> None:
    """Give back what nobody uses: Python's cycles, then malloc's free pages (malloc_trim(3))."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
    if trim is not None:
        trim(0)
