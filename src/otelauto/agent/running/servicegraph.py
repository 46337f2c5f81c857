# SPDX-License-Identifier: Apache-2.0
"""``otelcol.connector.servicegraph``: who calls whom, how often, how long, with what result.

A request is an edge: the client's span and the server's, whose parent it is. Names and labels are
those of the OpenTelemetry Collector's connector of this name; a database, which has no span of its
own, is found by an attribute of the client's, and so is a peer that nothing was heard of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otelauto.agent.pipeline import Context, Metrics, Refused, Running, Traces
from otelauto.agent.river.values import Value
from otelauto.agent.running.edge_metrics import EdgeMetrics
from otelauto.agent.running.edges import Edge, Edges
from otelauto.agent.running.flusher import Flusher
from otelauto.agent.running.outputs import Outputs, as_input, hand_on, only, seconds
from otelauto.agent.running.spanmetrics import SPANS_NAMELESS
from otelauto.agent.running.values import find, text_of, value_of
from otelauto.agent.schema import Decoded
from otelauto.counters import Meaning

SPANS_WITHOUT_ROOM = Meaning(
    "agent_spans_without_room",
    "Spans that a service graph left out because max_items requests wait for their other span.",
)
SPANS_UNPAIRED = Meaning(
    "agent_spans_unpaired",
    "Spans of requests whose other span did not come within the store's ttl.",
)
IDLE_S = 15 * 60.0  # after which a series is dropped
_CLIENTS = (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_PRODUCER)
_SERVERS = (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CONSUMER)
_MESSAGES = (Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER)
_ERROR = Status.STATUS_CODE_ERROR
DATABASE, MESSAGING, VIRTUAL = "database", "messaging_system", "virtual_node"
USER, UNKNOWN = "user", "unknown"  # who a virtual node is when nothing tells


class ServiceGraph(Running):
    """Emits at each ``metrics_flush_interval``, or with each message if that is 0."""

    def __init__(
        self,
        context: Context,
        content: Decoded,
        clock: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(context, content)
        self._outputs = Outputs(content, context.counters)
        self._dimensions = tuple(content["dimensions"])
        self._databases = tuple(content["database_name_attributes"])
        self._peers = tuple(content["virtual_node_peer_attributes"])
        self._clock, self._now_ns = clock, now_ns
        store = only(content, "store")
        most = int(store["max_items"]) if store is not None else 1000
        ttl = seconds(store["ttl"]) if store is not None else 2.0
        self._lock = threading.Lock()
        self._edges = Edges(most, ttl)
        bounds = [seconds(each) for each in content["latency_histogram_buckets"]]
        self._metrics = EdgeMetrics(bounds, content["virtual_node_extra_label"], now_ns())
        self._interval_s = seconds(content["metrics_flush_interval"])
        self._loops = [
            Flusher(f"{context.id}-store", seconds(content["store_expiration_loop"]), self.expire),
            Flusher(f"{context.id}-cache", seconds(content["cache_loop"]), self._forget),
        ]
        if self._interval_s > 0:
            self._loops.append(Flusher(f"{context.id}-flush", self._interval_s, self.flush))

    @property
    def exports(self) -> Mapping[str, Value]:
        return as_input(self)

    def start(self) -> None:
        for loop in self._loops:
            loop.start()

    def stop(self, deadline_s: float) -> None:
        for loop in self._loops:
            loop.stop(deadline_s)
        self.flush()

    def metrics(self, payload: Metrics) -> None:
        """It is of spans only; raises :class:`Refused`."""
        raise Refused(f"{self.context.id} takes spans only", permanent=True)

    def traces(self, payload: Traces) -> None:
        """Pair the spans; it never refuses."""
        with self._lock:
            for resource in payload.message.resource_spans:
                self._resource(resource)
        if self._interval_s <= 0:
            self.flush()

    def status(self) -> Mapping[str, str | int | float]:
        return {"waiting": len(self._edges), "series": len(self._metrics)}

    def flush(self) -> None:
        """Send what there is."""
        with self._lock:
            payload = self._metrics.built(self._now_ns())
        hand_on(self, self._outputs, payload)

    def expire(self) -> None:
        """See to the requests that have waited for too long."""
        with self._lock:
            for edge in self._edges.expired(self._clock()):
                self._expired(edge)

    def _forget(self) -> None:
        with self._lock:
            self._metrics.forget(self._clock() - IDLE_S)

    def _resource(self, found: Any) -> None:
        attributes = found.resource.attributes
        name = find(attributes, "service.name")
        spans = [span for scope in found.scope_spans for span in scope.spans]
        if name is None:
            self.context.counters.add(SPANS_NAMELESS, len(spans))
            return
        service = text_of(value_of(name))
        for span in spans:
            if span.kind in _CLIENTS:
                self._client(span, service, attributes)
            elif span.kind in _SERVERS:
                self._server(span, service, attributes)

    def _edge(self, span: Span, span_id: bytes) -> Edge | None:
        """That of a request, with the span's part of what both sides say."""
        edge = self._edges.at((span.trace_id, span_id), self._clock())
        if edge is None:
            self.context.counters.add(SPANS_WITHOUT_ROOM)
            self._metrics.dropped += 1
            return None
        edge.failed = edge.failed or span.status.code == _ERROR
        edge.connection = MESSAGING if span.kind in _MESSAGES else ""
        return edge

    def _client(self, span: Span, service: str, resource: Iterable[KeyValue]) -> None:
        edge = self._edge(span, span.span_id)
        if edge is None:
            return
        edge.client, edge.client_s = service, _duration_s(span)
        edge.dimensions.update(self._named("client", span, resource))
        edge.peer = _first(self._peers, span.attributes) or edge.peer
        database = _first(self._databases, resource, span.attributes)
        if database:
            edge.connection = DATABASE
            edge.server, edge.server_s = database, edge.client_s
        self._completed(edge)

    def _server(self, span: Span, service: str, resource: Iterable[KeyValue]) -> None:
        edge = self._edge(span, span.parent_span_id)
        if edge is None:
            return
        edge.server, edge.server_s = service, _duration_s(span)
        edge.dimensions.update(self._named("server", span, resource))
        self._completed(edge)

    def _named(
        self, side: str, span: Span, resource: Iterable[KeyValue]
    ) -> Iterator[tuple[str, str]]:
        for name in self._dimensions:
            value = _first((name,), resource, span.attributes)
            if value is not None:
                yield f"{side}_{name}", value

    def _completed(self, edge: Edge) -> None:
        if edge.client and edge.server:
            self._edges.remove(edge)
            self._metrics.add(edge, self._clock())

    def _expired(self, edge: Edge) -> None:
        """The other side was not heard of: a node is made up for it, if it can be named."""
        self.context.counters.add(SPANS_UNPAIRED)
        if not self._peers:
            self._metrics.unpaired += 1
        elif not edge.client and not any(edge.key[1]):  # a root: somebody outside asked
            edge.client, edge.connection, edge.virtual = USER, VIRTUAL, "client"
            self._metrics.add(edge, self._clock())
        elif not edge.server:
            edge.server, edge.connection, edge.virtual = edge.peer or UNKNOWN, VIRTUAL, "server"
            self._metrics.add(edge, self._clock())
        else:
            self._metrics.unpaired += 1


def _duration_s(span: Span) -> float:
    return max(0, span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def _first(names: Iterable[str], *places: Iterable[KeyValue]) -> str | None:
    """The first of the attributes that is anywhere, as text."""
    for name in names:
        for attributes in places:
            value = find(attributes, name)
            if value is not None:
                return text_of(value_of(value))
    return None
