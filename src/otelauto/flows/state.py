# SPDX-License-Identifier: Apache-2.0
"""What is known of a connection.

DETECTING   no protocol yet: each turn's first bytes are shown to every protocol
LOST        the protocol is known, the place is not: looking for a turn that begins a request
FOLLOWING   a conversation is read
IGNORED     nothing will be read any more

DETECTING -> FOLLOWING   a request was recognised
DETECTING -> IGNORED     ciphertext, or nothing known within a few turns
FOLLOWING -> LOST        Desync
LOST -> FOLLOWING        a request was recognised
LOST -> DETECTING        Desync again and again without one whole exchange, and without bytes that
                         are known to be missing (doubt.py); IGNORED the second time
FOLLOWING -> IGNORED     the connection was upgraded to something that nobody reads, or the place is
                         lost in something that cannot be joined in the middle
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """See the module's docstring."""

    DETECTING = enum.auto()
    LOST = enum.auto()
    FOLLOWING = enum.auto()
    IGNORED = enum.auto()
