# SPDX-License-Identifier: Apache-2.0
"""Components of an agent at work, by themselves or before a consumer that remembers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from tests.e2e.harness.process import wait_until

from otelauto.agent.check import check
from otelauto.agent.graph import Graph
from otelauto.agent.pipeline import Metrics, Refused, Running, Traces
from otelauto.agent.river.diagnostics import Source
from otelauto.agent.river.values import Capsule
from otelauto.agent.running import runner
from otelauto.agent.schema import CONSUMER
from otelauto.counters import Counters, Meaning

SINK = "otelcol.exporter.debug"
SECOND = 1_000_000_000
TRACE = b"t" * 16
OUTPUT = """output {
    traces  = [otelcol.exporter.debug.sink.input]
    metrics = [otelcol.exporter.debug.sink.input]
  }"""


class Sink(Running):
    """Takes what comes, after it raised what is in ``refusals``. ``free`` holds callers back."""

    def __init__(self, context: Any, content: Any) -> None:
        super().__init__(context, content)
        self.refusals: list[Refused] = []
        self.payloads: list[Any] = []
        self.always: Refused | None = None
        self.free = threading.Event()
        self.free.set()

    @property
    def exports(self) -> dict[str, Any]:
        return {"input": Capsule(CONSUMER, self)}

    def start(self) -> None:
        pass

    def stop(self, deadline_s: float) -> None:
        self.free.set()

    def traces(self, payload: Any) -> None:
        self.free.wait(30)
        if self.always is not None:
            raise self.always
        if self.refusals:
            raise self.refusals.pop(0)
        self.payloads.append(payload)

    metrics = traces

    @property
    def items(self) -> int:
        return sum(each.items for each in list(self.payloads))

    def spans(self) -> list[Span]:
        """Of all payloads, in order."""
        return [
            span
            for payload in list(self.payloads)
            for resource in payload.message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def points(self) -> dict[str, list[Any]]:
        """Data points by the name of their metric, of the last payload."""
        found: dict[str, list[Any]] = {}
        for resource in self.payloads[-1].message.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    found.setdefault(metric.name, []).extend(data.data_points)
        return found


class Agent:
    """The components of a configuration; ``sink`` is its ``otelcol.exporter.debug "sink"``."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @property
    def sink(self) -> Sink:
        return self[f"{SINK}.sink"]  # type: ignore[no-any-return]

    def __getitem__(self, name: str) -> Any:
        return self.graph.cells()[name].running

    def count(self, name: str, meaning: Meaning, label: str = "") -> int:
        return self.counters(name).get(meaning, label)

    def counters(self, name: str) -> Counters:
        return self.graph.counters()[name]


def running(text: str, directory: Path, environ: Mapping[str, str] | None = None) -> Graph:
    """What ``text`` configures, at work; the caller stops it."""
    environ = environ or {}
    graph = Graph(directory, lambda _: None, environ)
    graph.load(check([Source("t.river", text)], environ))
    graph.must_run()
    return graph


def wait_for(condition: Callable[[], object]) -> None:
    """Fails if ``condition`` is not true in time."""
    wait_until(lambda: bool(condition()), "what the line above waits for", 30)


@contextlib.contextmanager
def agent(text: str, directory: Path) -> Iterator[Agent]:
    """A running agent; a sink is added to the configuration."""
    graph = Graph(
        directory, lambda name: None, {}, lambda name: Sink if name == SINK else runner(name)
    )
    graph.load(check([Source("a.river", f'{text}\n{SINK} "sink" {{}}\n')], {}))
    graph.must_run()
    try:
        yield Agent(graph)
    finally:
        graph.stop(5)


def attributes(**named: Any) -> list[KeyValue]:
    """Attributes of text, bools and numbers; ``_`` in names stands for a dot."""
    made = []
    for name, value in named.items():
        kind = {bool: "bool_value", int: "int_value", float: "double_value"}.get(type(value))
        made.append(
            KeyValue(key=name.replace("_", "."), value=AnyValue(**{kind or "string_value": value}))
        )
    return made


def span(number: int = 1, **fields: Any) -> Span:
    """A server's span of a second; its id is the number."""
    given = {
        "trace_id": TRACE, "span_id": number.to_bytes(8, "big"), "name": "GET",
        "kind": Span.SPAN_KIND_SERVER, "start_time_unix_nano": SECOND,
        "end_time_unix_nano": 2 * SECOND,
    }  # fmt: skip
    return Span(**{**given, **fields})


def spans(count: int, first: int = 1, **fields: Any) -> list[Span]:
    return [span(number, **fields) for number in range(first, first + count)]


def message(given: Sequence[Span], service: str | None = "shop", **resource: Any) -> TracesData:
    found = TracesData()
    made = found.resource_spans.add()
    if service is not None:
        resource["service_name"] = service
    made.resource.attributes.extend(attributes(**resource))
    made.scope_spans.add().spans.extend(given)
    return found


def traces(given: Sequence[Span], service: str | None = "shop", **resource: Any) -> Traces:
    return Traces(TracesData, len(given), message(given, service, **resource))


def numbered(*numbers: int) -> Traces:
    """A payload of spans with the attribute ``n``."""
    found = TracesData()
    scope = found.resource_spans.add().scope_spans.add()
    for number in numbers:
        span_id = number.to_bytes(8, "big")
        scope.spans.add(name="s", span_id=span_id, attributes=attributes(n=number))
    return Traces(TracesData, len(numbers), found)


def gauge(*values: float) -> Metrics:
    """A payload of a gauge's points."""
    found = MetricsData()
    metric = found.resource_metrics.add().scope_metrics.add().metrics.add(name="g")
    for value in values:
        metric.gauge.data_points.add(as_double=value)
    return Metrics(MetricsData, len(values), found)


def sums(count: int, name: str = "requests", **fields: Any) -> Metrics:
    """So many points of a sum; their values count up from 0."""
    found = MetricsData()
    made = found.resource_metrics.add()
    made.resource.attributes.extend(attributes(service_name="shop"))
    metric = made.scope_metrics.add().metrics.add(name=name, unit="1")
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = 2
    for number in range(count):
        metric.sum.data_points.add(as_int=number, attributes=attributes(n=number, **fields))
    return Metrics(MetricsData, count, found)


def named(point: Any) -> dict[str, Any]:
    """The attributes of a data point or span, by name."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in point.attributes
    }


def one(kind: str, more: str) -> str:
    """A configuration of one processor, ``p``, before the sink."""
    return f'otelcol.processor.{kind} "p" {{\n  {more}\n  {OUTPUT}\n}}'


def part(kind: str) -> str:
    """Its id."""
    return f"otelcol.processor.{kind}.p"
