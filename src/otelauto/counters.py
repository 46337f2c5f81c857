# SPDX-License-Identifier: Apache-2.0
"""What otelauto counts about itself: every loss has a name, and one place holds them all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Meaning:
    """A self-metric: its name without prefix, what it counts, and the label its reasons go by.

    A constant of the module that counts; compared by identity, which is cheap.
    """

    name: str
    help: str
    label: str = ""


class Counters:
    """Monotonic counters by (meaning, label value). Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[Meaning, str], int] = {}

    def add(self, meaning: Meaning, amount: int = 1, label: str = "") -> None:
        """Add ``amount`` to the counter ``meaning`` for the label value ``label``."""
        with self._lock:
            key = (meaning, label)
            self._values[key] = self._values.get(key, 0) + amount

    def set(self, meaning: Meaning, value: int, label: str = "") -> None:
        """Take over a total that is counted elsewhere (the kernel's)."""
        with self._lock:
            self._values[meaning, label] = value

    def get(self, meaning: Meaning, label: str = "") -> int:
        """The total so far, 0 if nothing was counted."""
        with self._lock:
            return self._values.get((meaning, label), 0)

    def items(self) -> Iterator[tuple[Meaning, str, int]]:
        """A consistent copy: (meaning, label value, total), sorted by name and label."""
        with self._lock:
            rows = [(m, label, value) for (m, label), value in self._values.items()]
        return iter(sorted(rows, key=lambda row: (row[0].name, row[1])))
