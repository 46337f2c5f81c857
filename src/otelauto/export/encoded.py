# SPDX-License-Identifier: Apache-2.0
"""Spans that are encoded already, in the queue of an exporter beside those that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from otelauto.spans.span import Service, Span


@dataclass(frozen=True, slots=True)
class EncodedSpans:
    """``count`` spans of one service: fields ``ScopeSpans.spans`` (trace.v1) behind one another."""

    service: Service
    count: int
    data: memoryview

    def end_of(self, count: int) -> int:
        """The offset in ``data`` behind the first ``count`` spans."""
        at = 0
        for _ in range(count):
            size, shift = 0, 0
            at += 1  # the tag
            while self.data[at] >= 0x80:
                size |= (self.data[at] & 0x7F) << shift
                at, shift = at + 1, shift + 7
            at += 1 + (size | self.data[at] << shift)
        return at


Item = Span | EncodedSpans
T = TypeVar("T")


def spans_of(item: object) -> int:
    """How many spans an item of a queue stands for."""
    return item.count if isinstance(item, EncodedSpans) else 1


def split(item: T, count: int) -> tuple[T, T]:
    """The first ``count`` spans of an item that stands for more, and the others."""
    assert isinstance(item, EncodedSpans)  # noqa: S101 - nothing else stands for more than one
    end = item.end_of(count)
    return (
        type(item)(item.service, count, item.data[:end]),
        type(item)(item.service, item.count - count, item.data[end:]),
    )
