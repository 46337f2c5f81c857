# SPDX-License-Identifier: Apache-2.0
"""Span identity: the trace that the caller's ``traceparent`` names, else a new one.

A parent is set on evidence only, and the one kind of evidence used here is a ``traceparent`` that
was read from the bytes (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from otelauto.flows.vocabulary import Exchange
from otelauto.spans.span import Span

TRACE_ID_SIZE = 16
SPAN_ID_SIZE = 8
SAMPLED = 0x01
POOL_SIZE = 4096  # random bytes fetched at once; a system call for each id costs more than the rest

RandomBytes = Callable[[int], bytes]


class Ids:
    """The stage that gives every span its ids. Used by one thread."""

    def __init__(self, random_bytes: RandomBytes = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._pool = b""
        self._used = 0

    def __call__(self, exchange: Exchange, span: Span) -> None:
        """Join the trace of ``exchange.parent``, flags kept, or begin a sampled one."""
        span.span_id = self._take(SPAN_ID_SIZE)
        parent = exchange.parent
        if parent is None:
            span.trace_id = self._take(TRACE_ID_SIZE)
            span.trace_flags = SAMPLED
        else:
            span.trace_id = parent.trace_id
            span.parent_id = parent.span_id
            span.trace_flags = parent.flags

    def _take(self, size: int) -> bytes:
        """``size`` random bytes that are not all zero (an all-zero id is invalid)."""
        while True:
            end = self._used + size
            if end > len(self._pool):
                self._pool = self._random_bytes(POOL_SIZE)
                end = size
            self._used = end
            taken = self._pool[end - size : end]
            if any(taken):
                return taken
