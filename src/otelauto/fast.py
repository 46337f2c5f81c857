# SPDX-License-Identifier: Apache-2.0
"""The fast lane's side of the wiring: what it asks the Python code, and what rows are made of."""

from __future__ import annotations

import os
from collections.abc import Callable

from otelauto.config import Config
from otelauto.export.otlp_encode import KIND, STATUS, key_values
from otelauto.export.own_traffic import OwnTraffic
from otelauto.export.protobuf import integer, text
from otelauto.export.red import Red
from otelauto.flows.vocabulary import Address, Side
from otelauto.hot.cells import Hits, Series
from otelauto.hot.lane import Lane
from otelauto.hot.rows import Row
from otelauto.hot.spans import Names, Template, Writer
from otelauto.protocols.http1_describe import address_attributes
from otelauto.spans.naming import SPAN_ATTRIBUTES
from otelauto.spans.routes import Routes
from otelauto.spans.span import Service, Span

ServiceOf = Callable[[int], Service | None]

ROUTE_LIMIT = "route"  # by which the lane counts overflows of routes; else of series
PATH, URL = "url.path", "url.full"
USER_AGENT = "user_agent.original"
SIZES = ("http.request.body.size", "http.response.body.size")
PEER = ("network.peer.address", "network.peer.port", "client.address", "client.port")


def suits(config: Config) -> bool:
    """Whether nothing is asked for that only the general path gives.

    Printed lines are made of :class:`Span`; paths and peers as labels have no rows.
    """
    metrics = (config.otel_metrics_export, config.prometheus_export)
    return (
        config.trace_printer == "disabled"
        and not config.noop
        and not any(part.report_target or part.report_peer for part in metrics)
    )


class Desk:
    """Answers the lane's questions, and describes the first exchange of each kind to it."""

    def __init__(
        self,
        config: Config,
        service_of: ServiceOf,
        routes: Routes,
        own_traffic: OwnTraffic,
        red: Red,
    ) -> None:
        traces = config.otel_traces_export.endpoint is not None
        measures = config.prometheus_export.port or config.otel_metrics_export.endpoint
        self._service_of = service_of
        self._routes = routes
        self._own_traffic = own_traffic
        self._red = red if measures else None
        self._renamed = config.naming == "2023"
        self.writer = Writer(os.urandom) if traces else None
        self._names = {side: self._encoded_names(side) for side in Side}
        self.lane = Lane(
            self,
            red.epoch,
            config.limits.connections,
            config.http.capture_query,
            self.writer,
            routes.by_shape,
        )

    def _name(self, side: Side, name: str) -> str:
        return SPAN_ATTRIBUTES[side].get(name, name) if self._renamed else name

    def _encoded_names(self, side: Side) -> Names:
        return Names(*(text(1, self._name(side, name)) for name in (PATH, USER_AGENT, *SIZES)))

    # ---- what the lane asks ----

    def service(self, tgid: int) -> Service | None:
        """The service of a process."""
        return self._service_of(tgid)

    def route(self, service: Service, path: str) -> tuple[object, Hits | None, bool]:
        """What tells the route of ``path`` from others, where it is counted, whether it overflowed.

        Two routes of one spelling differ if only one of them is part of the span's name.
        """
        found = self._routes.find(service, path)
        return (found.route, found.raw), found.hits, found.overflowed

    def admit(self, side: Side, tgid: int, local: Address, peer: Address) -> bytes | None:
        """The peer's attributes as fields of a span; ``None`` if nothing is to be published."""
        if self._own_traffic.owns(local, peer) or self._service_of(tgid) is None:
            return None
        if self.writer is None:
            return b""
        attributes = address_attributes(side, peer, peer)
        return key_values(9, {self._name(side, k): v for k, v in attributes.items()})

    # ---- rows ----

    def learn(self, span: Span) -> None:
        """Tell the lane what became of the exchange that it could not place."""
        row = self._row(span)
        if row is not None:
            self.lane.learn(row)

    def _row(self, span: Span) -> Row | None:
        """``None`` if the span measures what the lane does not know of."""
        if span.incomplete is not None:
            return None
        measured = (None, *(self._name(span.side, name) for name in SIZES))
        cells: dict[str | None, Series] = {}
        limits = []
        for instrument, series, limit in self._red.cells(span) if self._red is not None else ():
            if instrument.measures not in measured or instrument.measures in cells:
                return None
            cells[instrument.measures] = series
            if limit:
                limits.append(limit)
        template = self._template(span) if self.writer is not None else None
        duration, request_size, response_size = map(cells.get, measured)
        return Row(duration, request_size, response_size, template, tuple(limits) or None)

    def _template(self, span: Span) -> Template:
        side = span.side
        variable = {self._name(side, name) for name in (PATH, URL, USER_AGENT, *SIZES, *PEER)}
        constant = {k: v for k, v in span.attributes.items() if k not in variable}
        front = text(5, span.name) + integer(6, KIND[side])
        back = key_values(9, constant) + (STATUS if span.error else b"")
        url_name = self._name(side, URL)
        url = span.attributes.get(url_name)
        if url is None:
            return Template(self._names[side], front, back, None, None)
        before = str(url).removesuffix(str(span.attributes[self._name(side, PATH)]))
        return Template(self._names[side], front, back, text(1, url_name), before.encode())
