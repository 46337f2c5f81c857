# SPDX-License-Identifier: Apache-2.0
"""Exchanges in, spans and metrics out: the span chain, the aggregator and the exporters."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from otelauto import __version__, logs
from otelauto.config import Config
from otelauto.config.exports import OtlpExport
from otelauto.config.show import secrets
from otelauto.counters import Counters, Meaning
from otelauto.errors import ConfigError
from otelauto.export.encoded import EncodedSpans
from otelauto.export.exporter import Exporter, SpanExporter, Status
from otelauto.export.exposition import Family
from otelauto.export.otlp_export import OtlpMetrics, OtlpTraces
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.otlp_json import Json
from otelauto.export.own_metrics import counter_families, gauge, process_families
from otelauto.export.own_traffic import OwnTraffic
from otelauto.export.printer import LineFormat, Printer
from otelauto.export.prometheus import Page, Prometheus, metrics_page
from otelauto.export.proxy import proxy_for
from otelauto.export.red import Red
from otelauto.export.spool import DiskSpool, Found, Lost, MemorySpool, Spool
from otelauto.export.tls import Tls
from otelauto.export.transport import Compression, Transport
from otelauto.export.web_config import WebConfig
from otelauto.fast import COUNTED, SPANS_NOT_EXPORTED, Desk, suits
from otelauto.flows.vocabulary import Address, Exchange, Side
from otelauto.holding import Holding
from otelauto.hot.lane import Lane
from otelauto.spans.chain import to_span
from otelauto.spans.clock import WallClock
from otelauto.spans.routes import Routes, Unmatched
from otelauto.spans.sampling import BUDGET_ALL
from otelauto.spans.span import Fate, Service, Span
from otelauto.stages import stages

log = logging.getLogger("otelauto")

OWN_EXCHANGES: Final = Meaning(
    "own_exchanges_ignored", "Exchanges between a watched process and otelauto itself."
)
UNKNOWN_PROCESS: Final = Meaning(
    "exchanges_of_unknown_process", "Exchanges whose process was gone before it could be named."
)
SPANS_SAMPLED_OUT: Final = Meaning(
    "spans_sampled_out",
    "Spans measured but not exported, because otelauto cost more than max_overhead allows.",
)
EXPONENTIAL: Final = "base2_exponential_bucket_histogram"
CLOSE_SECONDS: Final = 5.0
CLOSE_GRACE_SECONDS: Final = 1.0  # for exporters to count what they gave up at the deadline
INTERNAL_PORT: Final = "internal_metrics.prometheus.port"

WAITING: Final = {  # by the key of an exporter's status
    "queued": ("otlp_traces_spans_queued", "Spans in the queue for OTLP, or on their way."),
    "spooled": ("otlp_traces_spans_spooled", "Spans in the spool."),
    "spool_bytes": ("otlp_traces_spool_bytes", "Bytes that the spool takes."),
}

ServiceOf = Callable[[int], Service | None]


class Publisher:
    """Turns exchanges into spans and hands them to every exporter that is configured.

    ``service_of`` names the service of a process id; ``awaits`` tells that it will have another
    name in a moment. ``families`` give otelauto's own metrics beside its counters. Raises
    OtelautoError from :meth:`start` when an exporter cannot begin.
    """

    def __init__(
        self,
        config: Config,
        counters: Counters,
        service_of: ServiceOf,
        clock: WallClock,
        families: Sequence[Callable[[], Iterable[Family]]] = (),
        awaits: Callable[[int], bool] = lambda tgid: False,
    ) -> None:
        self._counters = counters
        self._service_of = service_of
        self._holding = Holding(awaits)
        self._own_traffic = OwnTraffic()
        self._noop = config.noop
        self._config = config
        self._processed = 0
        self._batch: list[Span] = []
        self._routes = Routes(
            counters,
            config.routes.patterns,
            Unmatched(config.routes.unmatched),
            config.limits.routes_per_service,
            on_change=self.changed,
        )
        self._stages = stages(config, counters, self._routes, self._found_sdk)
        self._clock = clock
        limits = config.limits
        self.red = Red(
            counters,
            max_series=limits.series,
            max_series_per_service=limits.series_per_service,
            ttl_s=limits.series_ttl,
            exponential=config.prometheus_export.native_histograms
            or config.otel_metrics_export.histograms == EXPONENTIAL,
            exemplars=_exemplars(config),
        )
        self._span_exporters: list[SpanExporter] = []
        self._traces: OtlpTraces | None = None
        self._exporters: list[Exporter] = []
        self._add_printer(config)
        self._add_otlp(config)
        own = (
            lambda: counter_families(counters),
            lambda: process_families(__version__),
            self._waiting,
            *families,
        )
        self._add_pages(config, own)
        self._printers = [each for each in self._exporters if isinstance(each, Printer)]
        self._has_lasting_audience = self._noop or len(self._printers) < len(self._exporters)
        # Otelauto's own page alone collects nothing: series would be held for nobody.
        collected = config.prometheus_export.port or config.otel_metrics_export.endpoint
        self._measures = bool(collected)
        self._desk: Desk | None = None
        if suits(config):
            self._desk = Desk(
                config, service_of, self._routes, self._own_traffic, self.red, self._stages
            )
        self.follow_clock()

    # ---- exporters ----

    def _add_printer(self, config: Config) -> None:
        if config.trace_printer != "disabled":
            printer = Printer(
                LineFormat(config.trace_printer),
                self._clock,
                self._counters,
                queue_size=config.limits.queue_length,
            )
            self._span_exporters.append(printer)
            self._exporters.append(printer)

    def _add_otlp(self, config: Config) -> None:
        if transport := self._transport("traces", config.otel_traces_export):
            part = config.otel_traces_export
            traces = OtlpTraces(
                transport,
                self._clock,
                self._counters,
                version=__version__,
                queue_size=part.max_queue_size,
                batch_size=part.max_export_batch_size,
                batch_timeout_s=part.batch_timeout,
                export_timeout_s=part.export_timeout,
                spool=_spool(config),
            )
            self._traces = traces
            self._span_exporters.append(traces)
            self._exporters.append(traces)
        if transport := self._transport("metrics", config.otel_metrics_export):
            self._exporters.append(
                OtlpMetrics(
                    transport,
                    self.red,
                    self._clock,
                    self._counters,
                    version=__version__,
                    interval_s=config.otel_metrics_export.interval,
                    delta=config.otel_metrics_export.temporality != "cumulative",
                    exponential=config.otel_metrics_export.histograms == EXPONENTIAL,
                )
            )

    def _transport(self, signal: str, part: OtlpExport) -> Transport | None:
        endpoint = part.endpoint
        if endpoint is None:
            return None
        over_grpc = part.protocol == "grpc"
        # A call is a tunnel to the proxy, whatever the scheme of the endpoint.
        scheme = "https" if over_grpc or endpoint.encrypted else "http"
        given: dict[str, Any] = {
            "version": __version__,
            "headers": self._fresh_headers(part),
            "timeout_ms": round(part.timeout * 1000),
            "compression": Compression(part.compression),
            "tls": Tls(
                part.certificate,
                part.client_certificate,
                part.client_key,
                part.insecure_skip_verify,
            ),
            "proxy": proxy_for(scheme, endpoint.host, endpoint.port, os.environ),
            "own_traffic": self._own_traffic,
        }
        if not over_grpc:
            json = Json(signal) if part.protocol == "http/json" else None
            return OtlpHttp(endpoint.url, json=json, **given)
        try:  # here: the library takes 20 MB that nobody else needs
            from otelauto.export.otlp_grpc import OtlpGrpc  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(
                f"OTLP over gRPC needs the Python package grpcio, which does not load: {error}.",
                "Install it, or use protocol http/protobuf (port 4318).",
            ) from error
        scheme = "https" if endpoint.encrypted else "http"
        return OtlpGrpc(scheme, endpoint.host, endpoint.port, signal, **given)

    def _fresh_headers(self, part: OtlpExport) -> Callable[[], Mapping[str, str]]:
        """The headers of ``part`` whenever asked; what is new in them is hidden from the log."""
        last = part.request_headers()

        def current() -> Mapping[str, str]:
            nonlocal last
            headers = part.request_headers()
            if headers != last:
                last = headers
                logs.hide(secrets(self._config))
            return headers

        return current

    def _add_pages(self, config: Config, own: Sequence[Callable[[], Iterable[Family]]]) -> None:
        """One server a port; the internal page may share the main page's port, or its path."""
        main, internal = config.prometheus_export, config.internal_metrics.prometheus
        pages: dict[tuple[int, str], dict[str, Page]] = {}
        if internal.port:
            pages[internal.port, INTERNAL_PORT] = {internal.path: metrics_page(None, own)}
        if main.port:
            setting = "prometheus_export.port"
            shared = pages.pop((main.port, INTERNAL_PORT), {})
            pages[main.port, setting] = {
                **shared,
                main.path: metrics_page(self.red, own, self._clock.wall_ns),
            }
        for (port, setting), by_path in pages.items():
            for number, host in enumerate(main.host):
                web = WebConfig(main.web_config_file)
                native = main.native_histograms
                server = Prometheus(host, port, by_path, self._own_traffic, setting, web, native)
                if setting == INTERNAL_PORT:
                    server.name = "prometheus_internal"
                if number:
                    server.name += f"_{number + 1}"
                self._exporters.append(server)

    def _waiting(self) -> Iterator[Family]:
        """Gauges of what waits to be sent. Read by the scraping thread."""
        status = self._traces.status() if self._traces is not None else {}
        for key, (name, help_) in WAITING.items():
            if (value := status.get(key)) is not None:
                yield gauge(name, help_, float(value))

    # ---- life ----

    def start(self) -> None:
        """Start every exporter."""
        for exporter in self._exporters:
            exporter.start()
            if isinstance(exporter, Prometheus):
                log.info("metrics are served url=%s", " ".join(exporter.urls))

    def close(self, deadline_s: float = CLOSE_SECONDS) -> None:
        """Flush and stop every exporter, all at the same time, within ``deadline_s``.

        One that is stuck (a reader that stalls) takes nothing from the others' time.
        """
        for exchange in self._holding.all():
            self._publish(exchange)
        self.flush()
        closers = [
            threading.Thread(
                target=_close, args=(exporter, deadline_s), name="otelauto-close", daemon=True
            )
            for exporter in self._exporters
        ]
        for closer in closers:
            closer.start()
        give_up_at = time.monotonic() + deadline_s + CLOSE_GRACE_SECONDS
        for exporter, closer in zip(self._exporters, closers, strict=True):
            closer.join(max(0.0, give_up_at - time.monotonic()))
            if closer.is_alive():
                log.warning("exporter %s did not stop in time", exporter.name)

    def status(self) -> dict[str, Status]:
        """What each exporter says of itself."""
        return {exporter.name: exporter.status() for exporter in self._exporters}

    def dropped(self) -> int:
        """Spans that the exporters gave up, summed."""
        return sum(int(state.get("dropped") or 0) for state in self.status().values())

    # ---- the path of an exchange ----

    def deliver(self, exchange: Exchange) -> None:
        """Turn one exchange into a span of the current batch."""
        if self._own_traffic.owns(exchange.local, exchange.peer):
            self._counters.add(OWN_EXCHANGES)
        elif not self._holding.hold(exchange):
            self._publish(exchange)

    def _publish(self, exchange: Exchange) -> None:
        service = self._service_of(exchange.tgid)
        if service is None:
            self._counters.add(UNKNOWN_PROCESS)
            return
        span = to_span(exchange, service, self._stages.every)
        self._batch.append(span)
        if self._desk is not None and self._desk.lane.wants_row:
            self._desk.learn(span)

    def flush(self) -> None:
        """Hand the current batch to the aggregator and to the exporters."""
        for exchange in self._holding.released():
            self._publish(exchange)
        if self._desk is not None:
            self._flush_lane(self._desk)
        batch, self._batch = self._batch, []
        if not batch:
            return
        self._processed += len(batch)
        if self._measures:
            self.red.add(batch)
        if self._span_exporters:
            kept = self._kept(batch)
            for exporter in self._span_exporters:
                exporter.offer(kept)
        if self._noop:
            log.info("processed %d requests", self.processed)

    def _flush_lane(self, desk: Desk) -> None:
        for what, count in desk.lane.take_counts().items():
            meaning, label = COUNTED[what]
            self._counters.add(meaning, count, label)
        encoded = [EncodedSpans(*taken) for taken in desk.lane.take_spans()]
        if encoded and self._traces is not None:
            self._traces.offer(encoded)
        writer = desk.writer
        if writer is not None and (writer.sampled_out or writer.unsampled):
            self._count_fates(
                {Fate.OVER_BUDGET: writer.sampled_out, Fate.UNSAMPLED: writer.unsampled}
            )
            writer.sampled_out = writer.unsampled = 0

    def follow_clock(self) -> None:
        """Before records are read: the wall clock may have been set since the last ones."""
        self._clock.track()
        if self._desk is not None and self._desk.writer is not None:
            self._desk.writer.wall_offset_ns = self._clock.wall_ns(0)

    @property
    def processed(self) -> int:
        """Exchanges that were published."""
        return self._processed + self.in_lane

    @property
    def in_lane(self) -> int:
        """Those of them that the fast lane published."""
        return self._desk.lane.exchanges if self._desk is not None else 0

    def keep_spans(self, share: float) -> None:
        """Export this share of the traces, 0 to 1: all spans of a trace or none, on every host."""
        self._stages.sampling.budget = round(share * BUDGET_ALL)
        if self._desk is not None and self._desk.writer is not None:
            self._desk.writer.sample_below = self._stages.sampling.budget

    def _kept(self, batch: list[Span]) -> list[Span]:
        """The spans that are to be exported; the others are counted."""
        kept = [span for span in batch if span.fate is Fate.EXPORTED]
        if len(kept) < len(batch):
            self._count_fates(Counter(span.fate for span in batch))
        return kept

    def _count_fates(self, fates: Mapping[Fate, int]) -> None:
        for fate, count in fates.items():
            if count and fate is Fate.OVER_BUDGET:
                self._counters.add(SPANS_SAMPLED_OUT, count)
            elif count and fate is not Fate.EXPORTED:
                self._counters.add(SPANS_NOT_EXPORTED, count, fate.value)

    # ---- the fast lane ----

    @property
    def lane(self) -> Lane | None:
        """Compiled code that publishes plain exchanges itself, if the settings allow."""
        return self._desk.lane if self._desk is not None else None

    def admit(self, side: Side, tgid: int, local: Address, peer: Address) -> bytes | None:
        """How the spans of a connection name its peer; ``None``: the lane must not have it."""
        if self._desk is None or self._holding.awaited(tgid):
            return None
        return self._desk.admit(side, tgid, local, peer)

    def changed(self) -> None:
        """Services or routes are not what they were: what was remembered of them is void."""
        self.red.epoch.bump()

    # ---- life of services ----

    def has_audience(self) -> bool:
        """Whether anything that is published can still reach anybody."""
        return self._has_lasting_audience or any(not printer.broken for printer in self._printers)

    def _found_sdk(self, service: Service) -> None:
        log.info(
            "service=%s has an OpenTelemetry SDK, its traffic tells; existing_sdk=%s",
            service.name,
            self._config.existing_sdk,
        )
        self.changed()

    def sdk_of(self, service: Service | None) -> str:
        """What tells of the service's own OpenTelemetry SDK; empty: nothing."""
        return self._stages.existing_sdk.evidence(service) if service is not None else ""

    def forget(self, service: Service) -> None:
        """The service's last process is gone."""
        self.red.forget(service)
        self._routes.forget(service)
        self._stages.bounded.forget(service)
        self._stages.existing_sdk.forget(service)

    def expire(self) -> None:
        """Let go of what is past its time. Call every few seconds: nobody may be collecting."""
        self.red.expire()


def _spool(config: Config) -> Callable[[Lost, Found], Spool] | None:
    """What makes the spool of spans, as configured."""
    part = config.otel_traces_export
    match part.spool:
        case "disk":
            directory = Path(config.state_directory) / "spool" / "traces"
            return lambda lost, found: DiskSpool(directory, part.spool_size, lost, found)
        case "memory":
            return lambda lost, _: MemorySpool(part.spool_memory, lost)
        case _:
            return None


def _exemplars(config: Config) -> bool:
    """Only spans that are exported are worth naming."""
    exported = config.otel_traces_export.endpoint or config.trace_printer != "disabled"
    return bool(exported) and config.metrics.exemplars == "trace_based"


def _close(exporter: Exporter, deadline_s: float) -> None:
    try:  # a defect of one exporter must not be mistaken for a stop
        exporter.close(deadline_s)
    except Exception:
        log.exception("exporter %s could not be closed", exporter.name)
