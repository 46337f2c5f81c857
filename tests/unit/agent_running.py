# SPDX-License-Identifier: Apache-2.0
"""Components of an agent at work, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from otelauto.agent.check import check
from otelauto.agent.graph import Graph
from otelauto.agent.pipeline import Metrics, Traces
from otelauto.agent.river.diagnostics import Source


def running(text: str, directory: Path, environ: Mapping[str, str] | None = None) -> Graph:
    """What ``text`` configures, at work; the caller stops it."""
    environ = environ or {}
    graph = Graph(directory, lambda _: None, environ)
    graph.load(check([Source("t.river", text)], environ))
    graph.must_run()
    return graph


def spans(*numbers: int) -> Traces:
    """A payload of spans with the attribute ``n``."""
    message = TracesData()
    scope = message.resource_spans.add().scope_spans.add()
    for number in numbers:
        attribute = scope.spans.add(name="s", span_id=number.to_bytes(8, "big")).attributes.add()
        attribute.key = "n"
        attribute.value.int_value = number
    return Traces(TracesData, len(numbers), message)


def points(*values: float) -> Metrics:
    """A payload of a gauge's points."""
    message = MetricsData()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="g")
    for value in values:
        metric.gauge.data_points.add(as_double=value)
    return Metrics(MetricsData, len(values), message)


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Fails if ``condition`` is not true in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.005)
