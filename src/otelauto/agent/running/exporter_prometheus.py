# SPDX-License-Identifier: Apache-2.0
"""``otelcol.exporter.prometheus``: data points of OTLP become samples, and are passed on."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from otelauto.agent.pipeline import Appender, Context, Metrics, Refused, Running, Traces
from otelauto.agent.prometheus.convert import Converter, Options
from otelauto.agent.river.values import Value
from otelauto.agent.running.outputs import as_input
from otelauto.agent.schema import Decoded

NS_PER_MS = 1_000_000


class ExporterPrometheus(Running):
    """The component. Holds nothing: who sends hears what became of it."""

    def __init__(self, context: Context, content: Decoded) -> None:
        super().__init__(context, content)
        options = Options(
            target_info=bool(content["include_target_info"]),
            scope_info=bool(content["include_scope_info"]),
            scope_labels=bool(content["include_scope_labels"]),
            suffixes=bool(content["add_metric_suffixes"]),
            resource_labels=bool(content["resource_to_telemetry_conversion"]),
        )
        self._converter = Converter(options, context.counters)
        self._to: list[Appender] = [capsule.inner for capsule in content["forward_to"]]
        self._gc_ms: int = content["gc_frequency"] // NS_PER_MS
        self._collected_ms = time.time_ns() // NS_PER_MS
        # Samples of a series keep their order only if one message is dealt with after another.
        self._lock = threading.Lock()

    @property
    def exports(self) -> Mapping[str, Value]:
        return as_input(self)

    def traces(self, payload: Traces) -> None:
        """Not for spans."""
        raise Refused("spans cannot become Prometheus samples", permanent=True)

    def metrics(self, payload: Metrics) -> None:
        """Convert and pass on; raises :class:`Refused` if one behind it does."""
        try:
            message = payload.message
        except DecodeError as error:
            raise Refused("the message is no OTLP", permanent=True) from error
        with self._lock:
            now_ms = time.time_ns() // NS_PER_MS
            samples, metadata = self._converter.convert(message, now_ms)
            try:
                for appender in self._to:
                    appender.append(samples, metadata)
            except Refused as refused:
                self._converter.forget(metadata)
                self.last_error = str(refused)
                raise
            self.last_error = ""
            if now_ms - self._collected_ms >= self._gc_ms:
                self._collected_ms = now_ms
                self._converter.collect(now_ms - self._gc_ms)

    def status(self) -> Mapping[str, str | int | float]:
        return {"series": self._converter.series}
