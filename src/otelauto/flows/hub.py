# SPDX-License-Identifier: Apache-2.0
"""What all connections share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelauto.counters import Counters
from otelauto.flows.endpoints import Endpoints
from otelauto.flows.vocabulary import Exchange, Likeness, Recognizer

if TYPE_CHECKING:
    from otelauto.flows.connection import Connection


@dataclass(frozen=True, slots=True)
class Hub:
    """Where connections find the protocols, and where what they find goes."""

    protocols: tuple[Recognizer, ...]
    counters: Counters
    deliver: Callable[[Exchange], None]
    endpoints: Endpoints
    unread: Callable[[Connection], None]  # told once when a connection becomes IGNORED

    def recognize(
        self, window: bytes, at_start: bool, known: Recognizer | None
    ) -> tuple[Recognizer | None, Likeness]:
        """The protocol that recognises ``window``; MAYBE if one still may. ``known``: only that."""
        maybe = Likeness.NO
        for recognizer in (known,) if known is not None else self.protocols:
            likeness = recognizer.recognize(window, at_start)
            if likeness in (Likeness.REQUEST, Likeness.RESPONSE):
                return recognizer, likeness
            if likeness is Likeness.MAYBE:
                maybe = likeness
        return None, maybe
