# SPDX-License-Identifier: Apache-2.0
"""The same records through the whole agent twice: with the fast lane and by the general path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.wire.wire import BEGIN_NS

from otelauto.config import Config, Purpose, load
from otelauto.counters import Counters
from otelauto.export.encoded import Item
from otelauto.export.otlp_encode import SpanEncoder
from otelauto.export.points import point_of
from otelauto.flows.flows import Flows
from otelauto.flows.vocabulary import Verdict
from otelauto.protocols import protocols
from otelauto.protocols.settings import ProtocolSettings
from otelauto.publish import Publisher
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Service

WALL_OFFSET_NS = 1_700_000_000_000_000_000
TRACES = {"--otlp-endpoint": "http://127.0.0.1:1"}
METRICS = {"--prometheus-port": "9"}
Step = bytes | int  # a record, or a tick at that time
Pairs = tuple[tuple[str, str], ...]
Services = Mapping[int, Service]
SERVICES: Services = {
    77: Service("shop", "", "1"),
    78: Service("till", "", "2", {"host.name": "h"}),
}


@dataclass
class Result:
    """What became of the records, in a form that does not depend on the order of publishing."""

    spans: Counter[str]
    series: dict[str, tuple[object, ...]]
    counters: dict[tuple[str, str], int]
    verdicts: dict[str, Verdict]
    in_lane: int


@cache
def configuration(flags: Pairs, environ: Pairs) -> Config:
    """To read the same again would take as long as a hundred exchanges."""
    return load(None, dict(environ), {"--open-port": "80", **dict(flags)}, Purpose.RUN).config


class Agent:
    """Flows and publisher, wired as the application does it, with the spans kept."""

    def __init__(
        self,
        settings: Mapping[str, str],
        lane: bool,
        yaml: Mapping[str, str],
        services: Services = SERVICES,
    ) -> None:
        config = configuration(tuple(settings.items()), tuple(yaml.items()))
        self.clock = WallClock(boot=lambda: 0, wall=lambda: WALL_OFFSET_NS)
        self.counters = Counters()
        self.publisher = Publisher(config, self.counters, services.get, self.clock)
        self.publisher.red._now_ns = lambda: BEGIN_NS
        self.items: list[Item] = []
        if self.publisher._traces is not None:
            self.publisher._traces.offer = self.items.extend  # type: ignore[method-assign]
        self.flows = Flows(
            protocols(ProtocolSettings(capture_query=config.http.capture_query)),
            self.counters,
            self.publisher.deliver,
            config.limits.connections,
            self.publisher.lane if lane else None,
            self.publisher.admit,
        )
        self.verdicts: dict[str, Verdict] = {}

    def tick(self, now_ns: int) -> None:
        self.flows.tick(now_ns)
        for verdict in self.flows.take_verdicts():
            self.verdicts[str((verdict.connection, verdict.endpoint))] = verdict
        self.publisher.flush()

    def result(self) -> Result:
        return Result(
            Counter(self._spans()),
            dict(self._series()),
            {(meaning.name, label): value for meaning, label, value in self.counters.items()},
            self.verdicts,
            self.publisher.lane.exchanges if self.publisher.lane is not None else 0,
        )

    def _spans(self) -> Iterable[str]:
        request = ExportTraceServiceRequest.FromString(
            b"".join(SpanEncoder("0", self.clock).encode(self.items))
        )
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    assert len(span.trace_id) == 16
                    assert len(span.span_id) == 8
                    assert any(span.trace_id)
                    assert any(span.span_id)
                    span.span_id = b""
                    if not span.parent_span_id:
                        span.trace_id = b""
                    attributes = sorted(span.attributes, key=lambda pair: pair.key)
                    assert len({pair.key for pair in attributes}) == len(attributes)
                    del span.attributes[:]
                    span.attributes.extend(attributes)
                    yield f"{resource.resource} {span}"

    def _series(self) -> Iterable[tuple[str, tuple[object, ...]]]:
        for one in self.publisher.red.collect():
            for instrument, every in one.series:
                for point in map(point_of, every):
                    labels = sorted(point.series.attributes.items())
                    yield (
                        f"{one.service.name} {instrument.name} {labels}",
                        (point.count, round(point.sum, 9), point.minimum, point.maximum,
                         point.buckets, point.exponential, [one[:3] for one in point.exemplars]),
                    )  # fmt: skip


def run(
    steps: Sequence[Step],
    lane: bool,
    settings: Mapping[str, str] = TRACES,
    yaml: Mapping[str, str] | None = None,
    services: Services = SERVICES,
) -> Result:
    agent = Agent(settings, lane, yaml or {}, services)
    for step in steps:
        if isinstance(step, bytes):
            agent.flows.feed(step)
        else:
            agent.tick(step)
    agent.flows.close()
    agent.tick(1 << 62)
    return agent.result()


def differences(first: Result, second: Result) -> list[str]:
    """What is not equal, in words."""
    found = [f"only in the first: {span}" for span in first.spans - second.spans]
    found += [f"only in the second: {span}" for span in second.spans - first.spans]
    pairs: tuple[tuple[Mapping[Any, Any], Mapping[Any, Any]], ...] = (
        (first.series, second.series),
        (first.counters, second.counters),
        (first.verdicts, second.verdicts),
    )
    for one, other in pairs:
        found += [
            f"{key}: {one.get(key)} and {other.get(key)}"
            for key in {**one, **other}
            if one.get(key) != other.get(key)
        ]
    return found


def compare(
    steps: Sequence[Step],
    settings: Mapping[str, str] = TRACES,
    yaml: Mapping[str, str] | None = None,
    services: Services = SERVICES,
) -> Result:
    """Both ways; raises AssertionError unless they give the same."""
    fast, general = (run(steps, lane, settings, yaml, services) for lane in (True, False))
    found = differences(fast, general)
    assert not found, "\n".join(found[:8])
    assert general.in_lane == 0
    return fast
