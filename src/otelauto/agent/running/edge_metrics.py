# SPDX-License-Identifier: Apache-2.0
"""Requests as metrics of a service graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, MetricsData

from otelauto.agent.pipeline import Payload
from otelauto.agent.running.buckets import Explicit
from otelauto.agent.running.edges import Edge

SCOPE = "traces_service_graph"
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


class _Series:
    """Of one set of labels."""

    __slots__ = ("attributes", "client", "count", "failed", "server", "touched_s")

    def __init__(self, attributes: list[KeyValue], bounds: Sequence[float]) -> None:
        self.attributes = attributes
        self.count = self.failed = 0
        self.client, self.server = Explicit(bounds), Explicit(bounds)
        self.touched_s = 0.0


class EdgeMetrics:
    """Sums since ``started_ns``. ``dropped`` and ``unpaired`` are spans without an edge."""

    def __init__(self, bounds: Sequence[float], virtual_label: bool, started_ns: int) -> None:
        self._bounds = bounds
        self._virtual_label = virtual_label
        self._started_ns = started_ns
        self._series: dict[tuple[Any, ...], _Series] = {}
        self.dropped = self.unpaired = 0

    def __len__(self) -> int:
        return len(self._series)

    def add(self, edge: Edge, now_s: float) -> None:
        """Count a request."""
        labels = {"client": edge.client, "server": edge.server,
                  "connection_type": edge.connection, **edge.dimensions}  # fmt: skip
        if self._virtual_label:
            labels["virtual_node"] = edge.virtual
        key = (edge.failed, *sorted(labels.items()))
        series = self._series.get(key)
        if series is None:
            attributes = [
                KeyValue(key=name, value=AnyValue(string_value=value))
                for name, value in labels.items()
            ]
            attributes.append(KeyValue(key="failed", value=AnyValue(bool_value=edge.failed)))
            series = self._series[key] = _Series(attributes, self._bounds)
        series.count += 1
        series.failed += edge.failed
        series.client.observe(edge.client_s)
        series.server.observe(edge.server_s)
        series.touched_s = now_s

    def forget(self, before_s: float) -> None:
        """Drop the series that nothing was added to since."""
        self._series = {
            key: each for key, each in self._series.items() if each.touched_s >= before_s
        }

    def built(self, now_ns: int) -> Payload[MetricsData] | None:
        """All metrics; ``None`` if there are none."""
        message = MetricsData()
        scope = message.resource_metrics.add().scope_metrics.add()
        scope.scope.name = SCOPE
        series = list(self._series.values())
        failing = [each for each in series if each.failed]
        points = self._sum(
            scope, "request_total", [(s.attributes, s.count) for s in series], now_ns
        )
        points += self._sum(
            scope, "request_failed_total", [(s.attributes, s.failed) for s in failing], now_ns
        )
        for side in ("server", "client"):
            points += self._histogram(scope, side, series, now_ns)
        for name, count in (("unpaired", self.unpaired), ("dropped", self.dropped)):
            points += self._sum(
                scope, f"{name}_spans_total", [([], count)] if count else [], now_ns
            )
        return Payload(MetricsData, points, message) if points else None

    def _sum(
        self, scope: Any, name: str, rows: Sequence[tuple[list[KeyValue], int]], now_ns: int
    ) -> int:
        if not rows:
            return 0
        metric = scope.metrics.add(name=f"{SCOPE}_{name}")
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = _CUMULATIVE
        for attributes, count in rows:
            metric.sum.data_points.add(
                attributes=attributes, start_time_unix_nano=self._started_ns,
                time_unix_nano=now_ns, as_int=count,
            )  # fmt: skip
        return len(rows)

    def _histogram(self, scope: Any, side: str, series: Sequence[_Series], now_ns: int) -> int:
        if not series:
            return 0
        metric = scope.metrics.add(name=f"{SCOPE}_request_{side}_seconds", unit="s")
        metric.histogram.aggregation_temporality = _CUMULATIVE
        for each in series:
            point = metric.histogram.data_points.add(
                attributes=each.attributes,
                start_time_unix_nano=self._started_ns,
                time_unix_nano=now_ns,
            )
            (each.server if side == "server" else each.client).write(point)
        return len(series)
