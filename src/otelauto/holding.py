# SPDX-License-Identifier: Apache-2.0
"""Exchanges that wait until it is known what their process is called."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from otelauto.flows.vocabulary import Exchange

HELD_MAX: Final = 4096


class Holding:
    """``awaited`` tells whether a process is still to be described; it must become false in time.

    What is beyond ``HELD_MAX`` is published as it is: nothing is dropped here.
    """

    def __init__(self, awaited: Callable[[int], bool]) -> None:
        self.awaited = awaited
        self._held: deque[Exchange] = deque()

    def hold(self, exchange: Exchange) -> bool:
        """Keep an exchange back; ``False``: it is to be published now."""
        if len(self._held) >= HELD_MAX or not self.awaited(exchange.tgid):
            return False
        self._held.append(exchange)
        return True

    def released(self) -> Iterator[Exchange]:
        """Those whose process is described by now, or never will be, in their order."""
        for _ in range(len(self._held)):
            exchange = self._held.popleft()
            if self.awaited(exchange.tgid):
                self._held.append(exchange)
            else:
                yield exchange

    def all(self) -> Iterator[Exchange]:
        """Everything, at the end."""
        while self._held:
            yield self._held.popleft()
