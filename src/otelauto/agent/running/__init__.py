# SPDX-License-Identifier: Apache-2.0
"""Which class runs a component. What a class needs is imported when it is configured."""

from __future__ import annotations

import importlib
from typing import Final

from otelauto.agent.pipeline import Running
from otelauto.errors import ConfigError

# Component name to module and class.
RUNNERS: Final[dict[str, str]] = {
    "beyla.ebpf": "beyla.BeylaEbpf",
    "local.file": "files.LocalFile",
    "otelcol.auth.basic": "auth.Basic",
    "otelcol.auth.bearer": "auth.Bearer",
    "otelcol.auth.headers": "auth.Headers",
    "otelcol.auth.oauth2": "oauth2.OAuth2",
    "otelcol.connector.servicegraph": "servicegraph.ServiceGraph",
    "otelcol.connector.spanmetrics": "spanmetrics.SpanMetrics",
    "otelcol.exporter.debug": "debug.Debug",
    "otelcol.exporter.otlp": "otlp_exporters.Otlp",
    "otelcol.exporter.otlphttp": "otlp_exporters.OtlpOverHttp",
    "otelcol.exporter.prometheus": "exporter_prometheus.ExporterPrometheus",
    "otelcol.processor.attributes": "attributes.Attributes",
    "otelcol.processor.batch": "batch.Batch",
    "otelcol.processor.filter": "filtering.Filter",
    "otelcol.processor.memory_limiter": "memory_limiter.MemoryLimiter",
    "otelcol.receiver.otlp": "receiver_otlp.ReceiverOtlp",
    "otelcol.storage.file": "storage.File",
    "prometheus.remote_write": "remote_write.RemoteWrite",
    "prometheus.scrape": "scrape.Scrape",
}


def runner(name: str) -> type[Running]:
    """The class of the component ``name``.

    Raises:
        ConfigError: the language knows the component, and this agent cannot run it.
    """
    if name not in RUNNERS:
        raise ConfigError(
            f"{name} can be checked, but this agent cannot run it yet",
            f"It runs {', '.join(sorted(RUNNERS))}.",
        )
    module, _, kind = RUNNERS[name].partition(".")
    found: type[Running] = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    return found
