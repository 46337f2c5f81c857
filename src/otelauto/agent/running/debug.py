# SPDX-License-Identifier: Apache-2.0
"""``otelcol.exporter.debug``: what arrives, in the log or on standard output."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from otelauto.agent.pipeline import Context, Metrics, Running, Traces
from otelauto.agent.river.values import Value
from otelauto.agent.running.outputs import as_input
from otelauto.agent.schema import Decoded
from otelauto.export.lines import printable


class Debug(Running):
    """Each second the first ``sampling_initial`` payloads are shown, then each
    ``sampling_thereafter``-th (none, if it is 0).
    """

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        self._verbosity = content["verbosity"]
        self._initial = int(content["sampling_initial"])
        self._thereafter = int(content["sampling_thereafter"])
        self._internal = bool(content["use_internal_logger"])
        self._lock = threading.Lock()
        self._second = 0
        self._seen = 0

    @property
    def exports(self) -> Mapping[str, Value]:
        return as_input(self)

    def traces(self, payload: Traces) -> None:
        """Show spans."""
        if not self._sampled():
            return
        self._say(f"{payload.items} spans")
        if self._verbosity == "detailed":
            self._say_all(str(payload.message))
        elif self._verbosity == "normal":
            for resource in payload.message.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        attributes = " ".join(_attributes(span.attributes))
                        ids = f"{span.trace_id.hex()} {span.span_id.hex()}"
                        self._say(f"{span.name} {ids} {attributes}")

    def metrics(self, payload: Metrics) -> None:
        """Show data points."""
        if not self._sampled():
            return
        self._say(f"{payload.items} data points")
        if self._verbosity == "detailed":
            self._say_all(str(payload.message))
        elif self._verbosity == "normal":
            for resource in payload.message.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        points = getattr(metric, metric.WhichOneof("data") or "gauge").data_points
                        for point in points:
                            self._say(f"{metric.name} {' '.join(_attributes(point.attributes))}")

    def _sampled(self) -> bool:
        second = int(time.monotonic())
        with self._lock:
            if second != self._second:
                self._second, self._seen = second, 0
            self._seen += 1
            beyond = self._seen - self._initial
        return beyond <= 0 or (self._thereafter > 0 and beyond % self._thereafter == 0)

    def _say_all(self, text: str) -> None:
        for line in text.splitlines():
            self._say(line)

    def _say(self, line: str) -> None:
        line = printable(line)
        if self._internal:
            self.context.log.info("%s", line)
        else:
            sys.stdout.write(f"{self.context.id}: {line}\n")
            sys.stdout.flush()


def _attributes(found: Any) -> Iterator[str]:
    for each in found:
        kind = each.value.WhichOneof("value")
        yield f"{each.key}={getattr(each.value, kind) if kind else ''}"
