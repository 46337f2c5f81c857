# SPDX-License-Identifier: Apache-2.0
"""What speaks against the protocol that a connection's bytes were taken for.

Only bytes that are there can speak. Where some are known to be missing (the ring was full, no hook
saw them), what makes no sense is no evidence, however often that happens: it is counted anew.
"""

from __future__ import annotations

TURNS_FRESH = 2  # turns looked at on a connection seen from its beginning
TURNS_JOINED = 8  # ... joined midstream
DESYNCS_MAX = 8  # in a row, before the protocol is doubted


class Doubt:
    """Of one connection. ``revised``: its protocol was given up once without a whole exchange."""

    __slots__ = ("desyncs", "revised", "turns")

    def __init__(self) -> None:
        self.desyncs = 0  # since the last whole exchange, or since bytes were missing
        self.turns = 0  # in which nothing known began
        self.revised = False

    def excuse(self) -> None:
        """Bytes are known to be missing."""
        self.desyncs = self.turns = 0

    def confirm(self) -> None:
        """A whole exchange was read: the protocol is what it was taken for."""
        self.desyncs = 0
        self.revised = False

    def count_desync(self) -> bool:
        """The bytes made no sense; whether that was too often."""
        self.desyncs += 1
        return self.desyncs >= DESYNCS_MAX

    def count_turn(self, midstream: bool) -> bool:
        """A turn began with nothing known; whether that was too often."""
        self.turns += 1
        return self.turns >= (TURNS_JOINED if midstream else TURNS_FRESH)

    def revise(self) -> bool:
        """Look for a protocol once more; ``False``: that was done before."""
        again, self.revised = not self.revised, True
        self.excuse()
        return again
