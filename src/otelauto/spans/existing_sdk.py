# SPDX-License-Identifier: Apache-2.0
"""What is left to the OpenTelemetry SDK that a service has of its own.

Two spans of one request, one by the SDK and one by otelauto, would be worse than none. That there
is an SDK is known from discovery (``Service.sdk``), or from the service's exporting traces by OTLP.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from otelauto.counters import Counters
from otelauto.flows.vocabulary import Exchange, Side
from otelauto.spans.filter import NOT_MEASURED
from otelauto.spans.span import Fate, Service, Span

BY_SDK = "sdk"
MOST_SERVICES = 4096
# Where traces are sent to by OTLP: over HTTP, and the method of the gRPC service.
EXPORT_PATHS = ("/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export")
OTHER_EXPORTS = (
    "/v1/metrics",
    "/v1/logs",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
)

Identity = tuple[str, str, str]


class Mode(enum.StrEnum):
    """What is published of a service with an SDK."""

    IGNORE = "ignore"  # everything, as of any other
    COMPLEMENT = "complement"  # metrics, and client spans without trace context, but no exports
    METRICS = "metrics"  # metrics
    SKIP = "skip"  # nothing


class ExistingSdk:
    """The stage that leaves spans, or all, to the service's SDK.

    ``on_found`` is called when one is found by its traffic. A service that takes OTLP itself is
    somebody who forwards it: what it sends says nothing of an SDK.
    """

    def __init__(
        self, counters: Counters, mode: Mode, on_found: Callable[[Service], None] = lambda _: None
    ) -> None:
        self._counters = counters
        self._mode = mode
        self._on_found = on_found
        self._exporting: set[Identity] = set()
        self._forwarding: set[Identity] = set()

    def __call__(self, exchange: Exchange, span: Span) -> None:
        """Set the span's fate; take its instruments if nothing is to be published."""
        if self._mode is Mode.IGNORE:
            return
        path = exchange.path or f"/{exchange.attributes.get('rpc.method', '')}"
        if path.endswith(EXPORT_PATHS):
            self._note(span)
        if not self.has_sdk(span.service):
            return
        sdks_own = span.parent_id or path.endswith(EXPORT_PATHS + OTHER_EXPORTS)
        if self._mode is not Mode.COMPLEMENT or span.side is Side.SERVER or sdks_own:
            span.fate = Fate.LEFT_TO_SDK
        if self._mode is Mode.SKIP and span.instruments:
            span.instruments = ()
            if span.incomplete is None:
                span.unmeasured = BY_SDK
                self._counters.add(NOT_MEASURED, label=BY_SDK)

    def has_sdk(self, service: Service) -> bool:
        """Whether the service has an SDK, as far as is known and counts."""
        if self._mode is Mode.IGNORE:
            return False
        return bool(service.sdk) or _identity(service) in self._exporting

    def needs_each(self, service: Service, side: Side) -> bool:
        """Whether the fate of such spans depends on more than their kind: on their parent."""
        return self._mode is Mode.COMPLEMENT and side is Side.CLIENT and self.has_sdk(service)

    def evidence(self, service: Service) -> str:
        """What tells of the SDK; empty: there is none."""
        return service.sdk or ("OTLP traffic" if _identity(service) in self._exporting else "")

    def forget(self, service: Service) -> None:
        """The service is gone."""
        self._exporting.discard(_identity(service))
        self._forwarding.discard(_identity(service))

    def _note(self, span: Span) -> None:
        identity = _identity(span.service)
        if span.side is Side.SERVER:
            if len(self._forwarding) < MOST_SERVICES:
                self._forwarding.add(identity)
            self._exporting.discard(identity)
        elif len(self._exporting) < MOST_SERVICES and identity not in self._forwarding:
            if identity not in self._exporting and not span.service.sdk:
                self._on_found(span.service)
            self._exporting.add(identity)


def _identity(service: Service) -> Identity:
    return service.name, service.namespace, service.instance_id
