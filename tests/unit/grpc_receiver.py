# SPDX-License-Identifier: Apache-2.0
"""A real gRPC server of the OTLP services that can misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

Code = grpc.StatusCode


@dataclass(frozen=True)
class Refusal:
    """A status to answer with; ``details`` is what grpc-status-details-bin holds."""

    code: grpc.StatusCode
    message: str = ""
    details: bytes | None = None


class GrpcReceiver(traces_grpc.TraceServiceServicer, metrics_grpc.MetricsServiceServicer):
    """``answers`` are used up first (responses or refusals), then each export is accepted.

    ``hold`` keeps each call waiting until it is set.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None, port: int = 0) -> None:
        self.answers: list[Any] = []
        self.exports: list[tuple[dict[str, str], Any]] = []
        self.peers: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self.server = grpc.server(ThreadPoolExecutor(4))
        traces_grpc.add_TraceServiceServicer_to_server(self, self.server)
        metrics_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self.server)
        if credentials is None:
            self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self.port = self.server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self.server.start()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.take(request, context, traces.ExportTraceServiceResponse)

    def take(self, request: Any, context: grpc.ServicerContext, response: Callable[[], Any]) -> Any:
        """Keep ``request`` and answer."""
        self.exports.append((dict(context.invocation_metadata()), request))
        self.peers.append(context.peer())
        self.hold.wait(30)
        answer = self.answers.pop(0) if self.answers else response()
        if isinstance(answer, Refusal):
            if answer.details is not None:
                context.set_trailing_metadata((("grpc-status-details-bin", answer.details),))
            context.abort(answer.code, answer.message)
        return answer

    def span_numbers(self) -> list[int]:
        """Attribute ``n`` of every span of every request, in order."""
        return [
            span.attributes[0].value.int_value
            for _, request in self.exports
            for resource in request.resource_spans
            for span in resource.scope_spans[0].spans
        ]

    def close(self) -> None:
        self.hold.set()
        self.server.stop(None).wait(20)


class _Metrics(metrics_grpc.MetricsServiceServicer):
    def __init__(self, receiver: GrpcReceiver) -> None:
        self.receiver = receiver

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.receiver.take(request, context, metrics.ExportMetricsServiceResponse)
