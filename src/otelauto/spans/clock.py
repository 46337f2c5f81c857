# SPDX-License-Identifier: Apache-2.0
"""Boot-clock time to wall time, by one tracked offset.

Everything inside otelauto is boot-clock nanoseconds. The offset to the wall clock is measured again
as time goes by, so a stepped wall clock (NTP, an administrator, a resumed machine) shifts what is
exported from then on, and never a duration.
"""

from __future__ import annotations

import time
from collections.abc import Callable

NanoClock = Callable[[], int]

MEASURE_EVERY_NS = 1_000_000_000
# A slewed clock moves by up to 500 us a second. Following that would put a child exported in a
# later batch before its parent; a smaller error than this is left alone.
TOLERANCE_NS = 1_000_000
TRIES = 3


def boot_now_ns() -> int:
    """CLOCK_BOOTTIME now, the clock of every captured time."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class WallClock:
    """Turns boot-clock nanoseconds into nanoseconds since the Unix epoch.

    One thread calls :meth:`track`; any thread may call :meth:`wall_ns`.
    """

    def __init__(self, boot: NanoClock = boot_now_ns, wall: NanoClock = time.time_ns) -> None:
        self._boot = boot
        self._wall = wall
        self._offset = self._measure()
        self._measured_at = boot()

    def wall_ns(self, boot_ns: int) -> int:
        """The wall time of a boot-clock time."""
        return boot_ns + self._offset

    def now_ns(self) -> int:
        """The wall time now, consistent with :meth:`wall_ns`."""
        return self._boot() + self._offset

    def track(self) -> None:
        """Measure the offset again if the last measurement is older than a second."""
        now = self._boot()
        if now - self._measured_at < MEASURE_EVERY_NS:
            return
        self._measured_at = now
        offset = self._measure()
        if abs(offset - self._offset) >= TOLERANCE_NS:
            self._offset = offset

    def _measure(self) -> int:
        """Wall minus boot clock; of several tries the one that was interrupted least."""
        best: tuple[int, int] | None = None
        for _ in range(TRIES):
            before = self._boot()
            wall = self._wall()
            after = self._boot()
            measured = (after - before, wall - (before + after) // 2)
            best = measured if best is None else min(best, measured)
        assert best is not None  # noqa: S101 - TRIES is not zero
        return best[1]
