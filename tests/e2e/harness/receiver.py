# SPDX-License-Identifier: Apache-2.0
"""OTLP receivers, over HTTP and gRPC, that decode with the OpenTelemetry project's own messages."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SIGNALS = {
    "/v1/traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
    "/v1/metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
}


@dataclass
class Receiver:
    """Listens on a port of 127.0.0.1 for the ``with`` block and keeps what comes."""

    exports: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def __enter__(self) -> Receiver:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._body()
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                request, response = SIGNALS[self.path]
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.exports.append((self.path, headers, request.FromString(body)))
                answer = response().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers["content-length"]))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.port = self._server.server_port
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[tuple[Resource, Span]]:
        """Every span that came, with its resource."""
        return [
            (resource_spans.resource, span)
            for path, _, message in tuple(self.exports)
            if path == "/v1/traces"
            for resource_spans in message.resource_spans
            for scope in resource_spans.scope_spans
            for span in scope.spans
        ]

    def last_metrics(self) -> Iterator[tuple[Resource, Metric]]:
        """The metrics of the last export, with their resources."""
        messages = [message for path, _, message in self.exports if path == "/v1/metrics"]
        for resource_metrics in messages[-1].resource_metrics if messages else ():
            for scope in resource_metrics.scope_metrics:
                for metric in scope.metrics:
                    yield resource_metrics.resource, metric

    def points(self, name: str) -> list[HistogramDataPoint]:
        """The points of a histogram in the last export."""
        found = [metric for _, metric in self.last_metrics() if metric.name == name]
        return [point for metric in found for point in metric.histogram.data_points]


class GrpcReceiver(Receiver):
    """The same over gRPC; exports are kept under the paths that HTTP has for them."""

    def __enter__(self) -> GrpcReceiver:
        exports = self.exports

        class Traces(traces_grpc.TraceServiceServicer):
            def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
                exports.append(("/v1/traces", dict(context.invocation_metadata()), request))
                return traces.ExportTraceServiceResponse()

        class Metrics(metrics_grpc.MetricsServiceServicer):
            def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
                exports.append(("/v1/metrics", dict(context.invocation_metadata()), request))
                return metrics.ExportMetricsServiceResponse()

        self._grpc = grpc.server(ThreadPoolExecutor(2))
        traces_grpc.add_TraceServiceServicer_to_server(Traces(), self._grpc)
        metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), self._grpc)
        self.port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._grpc.stop(None).wait(20)


def attributes(pairs: Iterator[KeyValue] | Any) -> dict[str, Any]:
    """OTLP's list of attributes as a dictionary of Python values."""
    found: dict[str, Any] = {}
    for pair in pairs:
        which = pair.value.WhichOneof("value")
        value = getattr(pair.value, which)
        found[pair.key] = list(value.values) if which == "array_value" else value
    return found
