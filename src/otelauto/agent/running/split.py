# SPDX-License-Identifier: Apache-2.0
"""One message into several of at most so many spans or data points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from otelauto.agent.pipeline import Payload


def split(payload: Payload[Any], most: int) -> Iterator[Payload[Any]]:
    """The parts, in order; each keeps what describes it: resource, scope, the metric's head.

    Raises protobuf's ``DecodeError`` if the payload is no message.
    """
    message = payload.message
    pieces = _spans(message) if isinstance(message, TracesData) else _points(message)
    part = _Part(payload)
    for path, item in pieces:
        part.add(path, item)
        if part.items == most:
            yield part.payload()
            part = _Part(payload)
    if part.items:
        yield part.payload()


def _spans(message: TracesData) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield (resource, scope), span


def _points(message: MetricsData) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                which = metric.WhichOneof("data")
                for point in getattr(metric, which).data_points if which else ():
                    yield (resource, scope, metric), point


class _Part:
    """A message that grows."""

    def __init__(self, whole: Payload[Any]) -> None:
        self._kind = whole.kind
        self._fields = whole.fields
        self._message = self._kind()
        self._path: tuple[Any, ...] = ()
        self._at: Any = None
        self.items = 0

    def add(self, path: tuple[Any, ...], item: Any) -> None:
        if len(path) != len(self._path) or any(
            a is not b for a, b in zip(path, self._path, strict=True)
        ):
            self._open(path)
        self._at.append(item)
        self.items += 1

    def _open(self, path: tuple[Any, ...]) -> None:
        """Make room for items under ``path``; what was open before is left."""
        traces = self._kind is TracesData
        resource, scope, *metric = path
        same = len(self._path) == len(path)
        tops = self._message.resource_spans if traces else self._message.resource_metrics
        if not same or self._path[0] is not resource:
            top = tops.add(schema_url=resource.schema_url)
            top.resource.CopyFrom(resource.resource)
            same = False
        scopes = tops[-1].scope_spans if traces else tops[-1].scope_metrics
        if not same or self._path[1] is not scope:
            found = scopes.add(schema_url=scope.schema_url)
            found.scope.CopyFrom(scope.scope)
        if traces:
            self._at = scopes[-1].spans
        else:
            self._at = _same_metric(scopes[-1].metrics, metric[0])
        self._path = path

    def payload(self) -> Payload[Any]:
        return Payload(self._kind, self.items, self._message, fields=self._fields)


def _same_metric(metrics: Any, original: Metric) -> Any:
    """The data points, none yet, of a metric like ``original``."""
    made = metrics.add(
        name=original.name, description=original.description, unit=original.unit,
        metadata=original.metadata,
    )  # fmt: skip
    which = str(original.WhichOneof("data"))
    data = getattr(made, which)
    data.SetInParent()
    for name in ("aggregation_temporality", "is_monotonic"):
        if hasattr(data, name):
            setattr(data, name, getattr(getattr(original, which), name))
    return data.data_points
