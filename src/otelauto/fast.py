# SPDX-License-Identifier: Apache-2.0
"""The fast lane's side of the wiring: what it asks the Python code, and what rows are made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from otelauto.config import Config
from otelauto.counters import Meaning
from otelauto.export.otlp_encode import KIND, STATUS, key_values
from otelauto.export.own_traffic import OwnTraffic
from otelauto.export.protobuf import integer, text
from otelauto.export.red import SERIES_OVERFLOWED, Red
from otelauto.flows.meanings import DESYNCS, RESPONSES_UNMATCHED
from otelauto.flows.vocabulary import Address, Side
from otelauto.hot.cells import Hits, Series
from otelauto.hot.lane import Lane
from otelauto.hot.rows import Row
from otelauto.hot.spans import Names, Policy, Template, Writer
from otelauto.protocols.http1_describe import address_attributes
from otelauto.spans.conditions import RESOURCE
from otelauto.spans.existing_sdk import BY_SDK
from otelauto.spans.filter import BY_FILTER, NOT_MEASURED
from otelauto.spans.naming import SPAN_ATTRIBUTES
from otelauto.spans.routes import ROUTES_OVERFLOWED, Routes
from otelauto.spans.shape import named
from otelauto.spans.span import Fate, Service, Span
from otelauto.stages import Stages

ServiceOf = Callable[[int], Service | None]

SPANS_NOT_EXPORTED = Meaning(
    "spans_not_exported",
    "Spans that are not exported because of the settings: sampler (sampling), filter"
    " (filter.traces), sdk (existing_sdk: the service's own SDK makes them).",
    "reason",
)
# What the lane counts, most of it exchanges, and what that means.
COUNTED: Mapping[str, tuple[Meaning, str]] = {
    "route": (ROUTES_OVERFLOWED, ""),
    "unmatched": (RESPONSES_UNMATCHED, ""),
    "desync": (DESYNCS, ""),
    "service": (SERIES_OVERFLOWED, "service"),
    "total": (SERIES_OVERFLOWED, "total"),
    **{f"unmeasured_{why}": (NOT_MEASURED, why) for why in (BY_FILTER, BY_SDK)},
    **{
        f"unexported_{fate.value}": (SPANS_NOT_EXPORTED, fate.value)
        for fate in (Fate.FILTERED, Fate.LEFT_TO_SDK)
    },
}
# What all exchanges of a row agree on.
OF_A_ROW = (
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "network.protocol.version",
    "rpc.method",
    "rpc.response.status_code",
    "rpc.system.name",
    "url.scheme",
)
PATH, URL = "url.path", "url.full"
USER_AGENT = "user_agent.original"
SIZES = ("http.request.body.size", "http.response.body.size")
# What differs between the calls of one method with one status.
CALL_SIZES = ("otelauto.rpc.request.size", "otelauto.rpc.response.size")
CALLS = (
    "otelauto.rpc.request.messages",
    "otelauto.rpc.response.messages",
    "otelauto.rpc.timeout",
    "otelauto.rpc.status_message",
)
PEER = ("network.peer.address", "network.peer.port", "client.address", "client.port")


def suits(config: Config) -> bool:
    """Whether nothing is asked for that only the general path gives.

    Printed lines are made of :class:`Span`; paths and peers as labels have no rows, nor have
    decisions by what differs within a row.
    """
    metrics = (config.otel_metrics_export, config.prometheus_export)
    entries = (
        *(rule.entry for rule in config.sampling.rules),
        *config.filter.traces,
        *config.filter.metrics,
    )
    asked = {name for entry in entries for name, _, _ in entry.conditions}
    names = {side: SPAN_ATTRIBUTES[side] if config.naming == "2023" else {} for side in Side}
    known = {names[side].get(name, name) for name in OF_A_ROW for side in Side}
    return (
        asked | named(config.metrics.include) <= known | RESOURCE.keys()
        and config.trace_printer == "disabled"
        and not config.noop
        and not config.http.named_operations
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
        stages: Stages,
    ) -> None:
        traces = config.otel_traces_export.endpoint is not None
        measures = config.prometheus_export.port or config.otel_metrics_export.endpoint
        self._service_of = service_of
        self._routes = routes
        self._own_traffic = own_traffic
        self._red = red if measures else None
        self._renamed = config.naming == "2023"
        self._sampling = stages.sampling
        self._existing_sdk = stages.existing_sdk
        self.writer = Writer(os.urandom) if traces else None
        if self.writer is not None:
            self.writer.keep_slow_ns = stages.sampling.keep_slow_ns
            self.writer.exemplars = config.metrics.exemplars == "trace_based"
        self._names = {
            (side, sizes): self._encoded_names(side, sizes)
            for side in Side
            for sizes in (SIZES, CALL_SIZES)
        }
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

    def _encoded_names(self, side: Side, sizes: tuple[str, str]) -> Names:
        names = (PATH, USER_AGENT, *sizes, *CALLS)
        return Names(*(text(1, self._name(side, name)) for name in names))

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
        service = self._service_of(tgid)
        if self._own_traffic.owns(local, peer) or service is None:
            return None
        if self._existing_sdk.needs_each(service, side):
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
        """``None`` if exchanges like this one are not for the lane."""
        if span.incomplete is not None or self._existing_sdk.needs_each(span.service, span.side):
            return None
        measured = (None, *(self._name(span.side, name) for name in SIZES))
        cells: dict[str | None, Series] = {}
        counted = [f"unmeasured_{span.unmeasured}"] if span.unmeasured else []
        for instrument, series, limit in self._red.cells(span) if self._red is not None else ():
            if instrument.measures not in measured or instrument.measures in cells:
                return None
            cells[instrument.measures] = series
            if limit:
                counted.append(limit)
        template = None
        if self.writer is not None and span.fate in (Fate.FILTERED, Fate.LEFT_TO_SDK):
            counted.append(f"unexported_{span.fate.value}")
        elif self.writer is not None:
            template = self._template(span)
        duration, request_size, response_size = map(cells.get, measured)
        return Row(duration, request_size, response_size, template, tuple(counted) or None)

    def _template(self, span: Span) -> Template:
        side = span.side
        varies = (PATH, URL, USER_AGENT, *SIZES, *PEER, *CALL_SIZES, *CALLS)
        variable = {self._name(side, name) for name in varies}
        is_call = self._name(side, "rpc.system.name") in span.attributes
        names = self._names[side, CALL_SIZES if is_call else SIZES]
        constant = {k: v for k, v in span.attributes.items() if k not in variable}
        front = text(5, span.name) + integer(6, KIND[side])
        back = key_values(9, constant) + (STATUS if span.error else b"")
        always = self._sampling.keep_errors and span.error
        policy = Policy(*self._sampling.policy(span), always)
        url_name = self._name(side, URL)
        url = span.attributes.get(url_name)
        if url is None:
            return Template(names, front, back, None, None, policy)
        before = str(url).removesuffix(str(span.attributes[self._name(side, PATH)]))
        return Template(names, front, back, text(1, url_name), before.encode(), policy)
