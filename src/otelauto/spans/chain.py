# SPDX-License-Identifier: Apache-2.0
"""From exchange to span: one span is begun, then each stage of a written list completes it.

A stage is a callable ``stage(exchange, span) -> None`` that changes the span in place. Stages read
attributes; none asks which protocol it was. The list is in ``stages.py``: first what a span
is (ids, route, selection, naming), then what becomes of it (filters, sampling).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from otelauto.flows.vocabulary import Exchange
from otelauto.spans.span import Service, Span

Stage = Callable[[Exchange, Span], None]

INCOMPLETE = "otelauto.incomplete"


def begin(exchange: Exchange, service: Service) -> Span:
    """A span without identity (see ``parent.py``) that says what the exchange says.

    An incomplete exchange keeps its status unset: what was not seen may have gone either way.
    """
    attributes = dict(exchange.attributes)
    if exchange.incomplete is not None:
        attributes[INCOMPLETE] = exchange.incomplete
    return Span(
        service=service,
        name=exchange.name,
        side=exchange.side,
        trace_id=b"",
        span_id=b"",
        parent_id=b"",
        trace_flags=0,
        start_ns=exchange.start_ns,
        end_ns=exchange.end_ns,
        attributes=attributes,
        error=exchange.error and exchange.incomplete is None,
        incomplete=exchange.incomplete,
        instruments=exchange.instruments,
    )


def to_span(exchange: Exchange, service: Service, stages: Sequence[Stage]) -> Span:
    """Run ``stages`` in order over the span of ``exchange``."""
    span = begin(exchange, service)
    for stage in stages:
        stage(exchange, span)
    return span
