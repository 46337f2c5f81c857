# SPDX-License-Identifier: Apache-2.0
"""What all connections share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelauto.counters import Counters
from otelauto.flows.endpoints import Endpoints
from otelauto.flows.vocabulary import Exchange, Recognizer

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
