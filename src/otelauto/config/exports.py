# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - setting() and section() return dataclass fields
"""Settings of the exporters: OTLP metrics, OTLP traces, the Prometheus page.

Units: durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from otelauto.config import kinds, otlp
from otelauto.config.kinds import Kind
from otelauto.config.otlp import Endpoint, Headers
from otelauto.config.setting import Variable, setting

T = TypeVar("T")

_MS = kinds.MILLISECONDS
_INTERVAL = kinds.milliseconds(above_zero=True)
_SIZE = kinds.size(65536, example="256MiB")
_TEMPORALITY = kinds.choice("cumulative", "delta", "lowmemory")
_HISTOGRAMS = kinds.choice("explicit_bucket_histogram", "base2_exponential_bucket_histogram")
_COUNT = kinds.integer(1, example=4096)


def _endpoint(signal: str) -> Endpoint | None:
    own = Variable(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", otlp.ENDPOINT_AS_GIVEN)
    return setting(
        None,
        otlp.endpoint_base(signal),
        f"Where {signal} are sent; off without it. Base URL: `/v1/{signal}` is appended "
        "unless it is there.",
        env=(own, Variable("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.endpoint_generic(signal))),
        flags=("--otlp-endpoint",),
        default_note="none",
    )


def _otlp(
    signal: str, suffix: str, default: T, kind: Kind[Any], help_: str, env: Kind[Any] | None = None
) -> T:
    """A setting that ``OTEL_EXPORTER_OTLP_<SIGNAL>_<suffix>`` and the generic variable set.

    ``env`` is the kind of the variables where the specification wants bad values to be warned
    about and ignored.
    """
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}")
    variables = tuple(Variable(name, env, lenient=env is not None) for name in names)
    return setting(default, kind, help_, env=variables)


def _headers(signal: str) -> Headers:
    help_ = "Headers of each request, masked wherever shown. In a variable, percent-encoded."
    return _otlp(signal, "HEADERS", Headers(), otlp.HEADERS, help_)


def _protocol(signal: str) -> str:
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    return setting(
        "",
        otlp.PROTOCOL,
        "OTLP over gRPC, or over HTTP with protobuf or JSON bodies.",
        env=tuple(Variable(name, otlp.PROTOCOL, lenient=True) for name in names),
        default_note="`grpc` if the endpoint's port is 4317, else `http/protobuf`",
    )


def _compression(signal: str) -> str:
    kind = kinds.choice("none", "gzip")
    return _otlp(signal, "COMPRESSION", "none", kind, "Compression of requests.", kind)


def _timeout(signal: str) -> float:
    help_ = "Longest wait for one request; `0` is no limit. The variables are milliseconds."
    kind = kinds.duration(example="10s")
    return _otlp(signal, "TIMEOUT", 10.0, kind, help_, kinds.MILLISECONDS)


def _file(signal: str, suffix: str, help_: str) -> str:
    return _otlp(signal, suffix, "", kinds.FILE_PATH, help_)


def _insecure(signal: str) -> bool:
    help_ = "For gRPC and an endpoint without scheme (`host:port`): no TLS."
    return _otlp(signal, "INSECURE", False, kinds.BOOLEAN, help_, kinds.BOOLEAN)


def _skip_verify() -> bool:
    return setting(
        False,
        kinds.BOOLEAN,
        "Accept any certificate of the server. For tests only; not over gRPC.",
        env=("OTEL_INSECURE_SKIP_VERIFY",),
    )


def _service_name(*stronger: str) -> str:
    attribute = otlp.resource_attribute("service.name")
    return setting(
        "",
        kinds.STRING,
        "`service.name` of everything watched, instead of the name found for each process. "
        "Of `OTEL_RESOURCE_ATTRIBUTES`, the attribute `service.name` counts.",
        env=(
            *stronger,
            "OTEL_SERVICE_NAME",
            Variable("OTEL_RESOURCE_ATTRIBUTES", attribute, lenient=True),
        ),
        default_note="found for each process",
    )


def _service_namespace() -> str:
    attribute = otlp.resource_attribute("service.namespace")
    return setting(
        "",
        kinds.STRING,
        "`service.namespace` of everything watched. Of `OTEL_RESOURCE_ATTRIBUTES`, the attribute "
        "`service.namespace` counts.",
        env=("SERVICE_NAMESPACE", Variable("OTEL_RESOURCE_ATTRIBUTES", attribute, lenient=True)),
        default_note="found for each process",
    )


def _report_target() -> bool:
    return setting(
        False,
        kinds.BOOLEAN,
        "Add the request's path to HTTP server metrics. High cardinality.",
        env=("METRICS_REPORT_TARGET",),
    )


def _report_peer() -> bool:
    return setting(
        False,
        kinds.BOOLEAN,
        "Add the peer's address to metrics. High cardinality.",
        env=("METRICS_REPORT_PEER",),
    )


@dataclass(frozen=True)
class OtlpExport:
    """What both OTLP exporters need. One that has no endpoint is off."""

    endpoint: Endpoint | None
    headers: Headers
    protocol: str
    compression: str
    timeout: float  # seconds; 0: no limit
    certificate: str
    client_certificate: str
    client_key: str
    insecure: bool
    insecure_skip_verify: bool
    service_name: str
    service_namespace: str

    def request_headers(self) -> dict[str, str]:
        """Headers to send now, lower-case; a password in the URL becomes an ``authorization``."""
        headers = dict(self.headers.current())
        if self.endpoint is not None and (pair := self.endpoint.credentials) is not None:
            headers.setdefault("authorization", otlp.basic_authorization(*pair))
        return headers


_CA = "PEM file of the authorities that the server's certificate is checked with."
_CERTIFICATE = "PEM file of the client's certificate chain, for mutual TLS."
_KEY = "PEM file of the client's private key, for mutual TLS."


@dataclass(frozen=True)
class MetricsExport(OtlpExport):
    """Metrics by OTLP."""

    endpoint: Endpoint | None = _endpoint("metrics")
    headers: Headers = _headers("metrics")
    protocol: str = _protocol("metrics")
    compression: str = _compression("metrics")
    timeout: float = _timeout("metrics")
    certificate: str = _file("metrics", "CERTIFICATE", _CA)
    client_certificate: str = _file("metrics", "CLIENT_CERTIFICATE", _CERTIFICATE)
    client_key: str = _file("metrics", "CLIENT_KEY", _KEY)
    insecure: bool = _insecure("metrics")
    insecure_skip_verify: bool = _skip_verify()
    service_name: str = _service_name()
    service_namespace: str = _service_namespace()
    interval: float = setting(
        5.0,
        kinds.duration(above_zero=True),
        "How often metrics are sent. `OTEL_METRIC_EXPORT_INTERVAL` is milliseconds.",
        env=("METRICS_INTERVAL", Variable("OTEL_METRIC_EXPORT_INTERVAL", _INTERVAL, lenient=True)),
    )
    temporality: str = setting(
        "cumulative",
        _TEMPORALITY,
        "Totals since the start of each series, or since the last export that arrived "
        "(`lowmemory`: the same as `delta` for histograms).",
        env=(
            Variable(
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", _TEMPORALITY, lenient=True
            ),
        ),
    )
    histograms: str = setting(
        "explicit_bucket_histogram",
        _HISTOGRAMS,
        "Histograms with the buckets of `metrics.buckets`, or with exponential ones (160 at most).",
        env=(
            Variable(
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                _HISTOGRAMS,
                lenient=True,
            ),
        ),
    )
    report_target: bool = _report_target()
    report_peer: bool = _report_peer()


@dataclass(frozen=True)
class TracesExport(OtlpExport):
    """Spans by OTLP."""

    endpoint: Endpoint | None = _endpoint("traces")
    headers: Headers = _headers("traces")
    protocol: str = _protocol("traces")
    compression: str = _compression("traces")
    timeout: float = _timeout("traces")
    certificate: str = _file("traces", "CERTIFICATE", _CA)
    client_certificate: str = _file("traces", "CLIENT_CERTIFICATE", _CERTIFICATE)
    client_key: str = _file("traces", "CLIENT_KEY", _KEY)
    insecure: bool = _insecure("traces")
    insecure_skip_verify: bool = _skip_verify()
    service_name: str = _service_name()
    service_namespace: str = _service_namespace()
    max_export_batch_size: int = setting(
        4096,
        _COUNT,
        "Most spans of one request.",
        env=(
            "OTLP_TRACES_MAX_EXPORT_BATCH_SIZE",
            Variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _COUNT, lenient=True),
        ),
    )
    max_queue_size: int = setting(
        16384,
        _COUNT,
        "Most spans that wait; what does not fit is dropped and counted. 2023: 4096, which half a "
        "second of 10,000 requests per second overflows.",
        env=(
            "OTLP_TRACES_MAX_QUEUE_SIZE",
            Variable("OTEL_BSP_MAX_QUEUE_SIZE", _COUNT, lenient=True),
        ),
    )
    batch_timeout: float = setting(
        0.25,
        kinds.duration(example="250ms"),
        "Longest wait of a span for its batch to fill; a kill loses what waits. "
        "`OTEL_BSP_SCHEDULE_DELAY` is milliseconds.",
        env=(
            "OTLP_TRACES_BATCH_TIMEOUT",
            Variable("OTEL_BSP_SCHEDULE_DELAY", _MS, lenient=True),
        ),
    )
    export_timeout: float = setting(
        30.0,
        kinds.duration(example="30s"),
        "Longest time for a batch without a spool, retries included; `0` is no limit. "
        "`OTEL_BSP_EXPORT_TIMEOUT` is milliseconds.",
        env=(
            "OTLP_TRACES_EXPORT_TIMEOUT",
            Variable("OTEL_BSP_EXPORT_TIMEOUT", _MS, lenient=True),
        ),
    )
    spool: str = setting(
        "disk",
        kinds.choice("disk", "memory", "off"),
        "Where spans wait that cannot be delivered at once: in files of `state_directory`, in "
        "memory, or nowhere but in the queue.",
    )
    spool_size: int = setting(
        256 << 20,
        _SIZE,
        "Most bytes of the spool on disk; the oldest spans make room, and are counted.",
    )
    spool_memory: int = setting(16 << 20, _SIZE, "The same of the spool in memory.")


@dataclass(frozen=True)
class PrometheusExport:
    """The page that Prometheus scrapes. Without a port it is off."""

    port: int = setting(
        0,
        kinds.PORT,
        "TCP port of the page; there is none while it is 0.",
        env=(
            "PROMETHEUS_PORT",
            Variable("OTEL_EXPORTER_PROMETHEUS_PORT", kinds.PORT, lenient=True),
        ),
        flags=("--prometheus-port",),
    )
    host: tuple[str, ...] = setting(
        ("127.0.0.1",),
        kinds.HOSTS,
        "Addresses that the page listens on; `0.0.0.0` or `::` for all.",
        env=("OTELAUTO_PROMETHEUS_EXPORT_HOST", "OTEL_EXPORTER_PROMETHEUS_HOST"),
    )
    path: str = setting("/metrics", kinds.URL_PATH, "Path of the page.", env=("PROMETHEUS_PATH",))
    web_config_file: str = setting(
        "",
        kinds.FILE_PATH,
        "YAML file as Prometheus's exporter-toolkit takes it: TLS, client certificates, basic "
        "authentication. Read again when it changes.",
        default_note="none",
    )
    native_histograms: bool = setting(
        False,
        kinds.BOOLEAN,
        "Serve the protobuf format with native histograms (up to 160 buckets beside the classic "
        "ones) to scrapers that prefer it.",
    )
    service_name: str = _service_name("PROMETHEUS_SERVICE_NAME")
    service_namespace: str = _service_namespace()
    report_target: bool = _report_target()
    report_peer: bool = _report_peer()
