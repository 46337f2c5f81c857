# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - setting() and section() return dataclass fields
"""The settings tree: every setting of otelauto with its default, names, meaning and check.

Environment names that do not begin with ``OTELAUTO_`` are those of the 2023 instrumenter or of the
OpenTelemetry specification. Units: durations are seconds, sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from otelauto.config import kinds, otlp
from otelauto.config.exports import MetricsExport, OtlpExport, PrometheusExport, TracesExport
from otelauto.config.grafana import Grafana
from otelauto.config.kinds import Ports
from otelauto.config.kubernetes_settings import AttributesSettings
from otelauto.config.selection_settings import Filter, Metrics, Sampling
from otelauto.config.setting import Variable, section, setting

_LEVEL = kinds.choice("DEBUG", "INFO", "WARN", "ERROR", case=str.upper)
_TRACES_EXPORTERS = kinds.words("otlp", "console")
_METRICS_EXPORTERS = kinds.words("otlp", "prometheus")
_NO_BATCH = "the kernel's records are drained on a timer"


@dataclass(frozen=True)
class Ebpf:
    """Which processes are watched, and how the kernel half is loaded."""

    open_port: Ports = setting(
        Ports(),
        kinds.PORTS,
        "Watch the processes that listen on these TCP ports, and all their other ports.",
        env=("OPEN_PORT",),
        flags=("--open-port",),
        default_note="none",
    )
    executable_name: str = setting(
        "",
        kinds.EXECUTABLE,
        "Watch the processes whose executable's path ends so, or matches the shell pattern. "
        "Not looked at when `ebpf.open_port` is set.",
        env=("EXECUTABLE_NAME",),
        flags=("--executable-name",),
    )
    pids: tuple[int, ...] = setting(
        (),
        kinds.PIDS,
        "Watch these processes, beside those that another selector finds.",
        flags=("--pid",),
        default_note="none",
    )
    system_wide: bool = setting(
        False,
        kinds.BOOLEAN,
        "Watch every process of the host, also those that start later. Excludes the other "
        "selectors.",
        env=("SYSTEM_WIDE",),
        flags=("--system-wide",),
    )
    tls_plaintext: bool = setting(
        True,
        kinds.BOOLEAN,
        "Read what watched processes send and receive through OpenSSL, GnuTLS or Go's "
        "`crypto/tls`, by probes on the library's functions. They cost the service most of what "
        "otelauto costs it. Never with `ebpf.system_wide`.",
    )
    bpf_debug: bool = setting(
        False,
        kinds.BOOLEAN,
        "Log what libbpf and the verifier say. The key is spelled as in 2023; `bpf_debug` works "
        "too.",
        env=("BPF_DEBUG",),
        key="bfp_debug",
        aliases=("bpf_debug",),
    )
    wakeup_len: int = setting(
        0,
        kinds.integer(0, example=10),
        "2023: events gathered in the ring before user space was woken.",
        env=("BPF_WAKEUP_LEN",),
        no_effect=_NO_BATCH,
    )
    batch_length: int = setting(
        100,
        kinds.integer(1, example=100),
        "2023: traces batched before they were forwarded.",
        env=("BPF_BATCH_LENGTH",),
        no_effect=_NO_BATCH,
    )
    batch_timeout: float = setting(
        1.0,
        kinds.duration(example="1s"),
        "2023: how long a partial batch waited.",
        env=("BPF_BATCH_TIMEOUT",),
        no_effect=_NO_BATCH,
    )
    bpf_fs_base_dir: str = setting(
        "/var/run/otelauto",
        kinds.FILE_PATH,
        "2023: where the BPF file system was mounted.",
        env=("BPF_FS_BASE_DIR",),
        no_effect="nothing is pinned, so the kernel cleans up whatever happens",
    )
    log_level: str = setting(
        "INFO",
        _LEVEL,
        "2023: an unused twin of the top-level `log_level`.",
        no_effect="the top-level log_level counts",
    )


@dataclass(frozen=True)
class Http:
    """What is captured of HTTP."""

    capture_query: bool = setting(
        False,
        kinds.BOOLEAN,
        "Put the query string of requests into spans (`url.query`). It may hold secrets.",
    )
    operations: tuple[str, ...] = setting(
        (),
        kinds.words("graphql", "jsonrpc"),
        "Read the bodies of HTTP requests in JSON for the names of what they ask for: operations "
        "of GraphQL, methods of JSON-RPC. Nothing else of a body is kept. Costs the fast lane.",
        default_note="none",
    )

    @property
    def named_operations(self) -> tuple[str, ...]:
        """The kinds of ``operations``."""
        return tuple(kind for kind in self.operations if kind != "none")


@dataclass(frozen=True)
class Routes:
    """How URL paths become routes of low cardinality."""

    patterns: tuple[str, ...] = setting(
        (),
        kinds.PATTERNS,
        "URL patterns; `:name` and `{name}` stand for one segment. The whole path must match.",
        default_note="none",
    )
    unmatched: str = setting(
        "low-cardinality",
        kinds.choice("unset", "path", "wildcard", "low-cardinality"),
        "The route of a path that no pattern matches: none, the path itself, `*`, or one learned "
        "from the paths seen.",
        aliases=("unmatch",),
        default_note="`wildcard` with a routes section or patterns, else `low-cardinality`",
    )


@dataclass(frozen=True)
class InternalPrometheus:
    """A page of otelauto's own metrics only (they are on the main page too)."""

    port: int = setting(
        0,
        kinds.PORT,
        "TCP port of the page, none while it is 0; may be that of `prometheus_export`.",
        env=("INTERNAL_METRICS_PROMETHEUS_PORT",),
    )
    path: str = setting(
        "/internal/metrics",
        kinds.URL_PATH,
        "Path of the page.",
        env=("INTERNAL_METRICS_PROMETHEUS_PATH",),
    )


@dataclass(frozen=True)
class InternalMetrics:
    """Where otelauto publishes what it measures of itself."""

    prometheus: InternalPrometheus = section(InternalPrometheus)


@dataclass(frozen=True)
class MaxOverhead:
    """What otelauto may cost. Above it detail is given up, step by step, and comes back."""

    agent: int = setting(
        0,
        kinds.integer(0, example=20),
        "Most CPU time that otelauto itself may use, in percent of one CPU; 0: no limit.",
    )
    programs: int = setting(
        0,
        kinds.integer(0, example=5),
        "Most CPU time that its BPF programs may use in the services, in percent of one CPU;"
        " 0: no limit. Measuring it takes CAP_SYS_ADMIN.",
    )


@dataclass(frozen=True)
class Limits:
    """Bounds of memory. What is beyond them is counted, never lost silently."""

    routes_per_service: int = setting(
        100, kinds.integer(1, example=100), "Most learned or copied routes of a service."
    )
    operations_per_service: int = setting(
        100,
        kinds.integer(1, example=100),
        "Most names that `http.operations` gives a service; what is beyond is `_OTHER`.",
    )
    series_per_service: int = setting(
        2000, kinds.integer(1, example=2000), "Most metric series of a service."
    )
    series: int = setting(20000, kinds.integer(1, example=20000), "Most metric series in all.")
    series_ttl: float = setting(
        300.0,
        kinds.duration(above_zero=True, example="5m"),
        "A series that nothing was recorded in for so long is forgotten.",
    )
    connections: int = setting(
        65536, kinds.integer(16, example=65536), "Most connections followed at once."
    )
    queue_length: int = setting(
        4096,
        kinds.integer(1, example=4096),
        "Most spans that wait for an exporter that has no queue setting of its own.",
    )


@dataclass(frozen=True)
class Config:
    """All settings, merged and checked."""

    log_level: str = setting(
        "INFO",
        _LEVEL,
        "Least severe messages that are logged (to standard error).",
        env=("LOG_LEVEL",),
        flags=("--log-level",),
    )
    print_traces: bool = setting(
        False,
        kinds.BOOLEAN,
        "2023's way to say `trace_printer: text`.",
        env=("PRINT_TRACES",),
    )
    trace_printer: str = setting(
        "disabled",
        kinds.choice("disabled", "text", "json"),
        "Print each span on standard output: 2023's line, or a JSON object a line.",
        flags=("--print",),
        default_note="`text` with `print_traces`, else `disabled`",
    )
    disabled: bool = setting(
        False,
        kinds.BOOLEAN,
        "Watch and publish nothing: `run` and `replay` say so and end at once, with 0. In the "
        "variable, only `true` is true.",
        env=(Variable("OTEL_SDK_DISABLED", kinds.TRUE_OR_FALSE, lenient=True),),
    )
    traces_exporter: tuple[str, ...] = setting(
        (),
        _TRACES_EXPORTERS,
        "Where spans go: `otlp` (without an endpoint, to `http://localhost:4318`), `console` (the "
        "same as `trace_printer: text`), or nowhere.",
        env=(Variable("OTEL_TRACES_EXPORTER", _TRACES_EXPORTERS, lenient=True),),
        default_note="whatever is configured",
    )
    metrics_exporter: tuple[str, ...] = setting(
        (),
        _METRICS_EXPORTERS,
        "Where metrics go: `otlp` (without an endpoint, to `http://localhost:4318`), `prometheus` "
        "(without a port, on 9464), or nowhere.",
        env=(Variable("OTEL_METRICS_EXPORTER", _METRICS_EXPORTERS, lenient=True),),
        default_note="whatever is configured",
    )
    naming: Literal["current", "2023"] = setting(
        "current",
        kinds.choice("2023", "current"),
        "Names of metrics and attributes: OpenTelemetry's stable ones, or those of 2023.",
    )
    resource_attributes: dict[str, str] = setting(
        {},
        otlp.ATTRIBUTES,
        "Resource attributes of everything watched.",
        env=(Variable("OTEL_RESOURCE_ATTRIBUTES", otlp.ATTRIBUTES, lenient=True),),
        default_note="none",
    )
    control_socket: str = setting(
        "/run/otelauto/control.sock",
        kinds.FILE_PATH,
        "Unix socket (mode 0600) through which `status` and `doctor` ask a running otelauto.",
    )
    state_directory: str = setting(
        "/var/lib/otelauto",
        kinds.DIRECTORY,
        "What otelauto keeps over a restart (the spool of `otel_traces_export`). One running "
        "otelauto at a time can use it. `STATE_DIRECTORY` is what systemd sets.",
        env=("OTELAUTO_STATE_DIRECTORY", Variable("STATE_DIRECTORY", kinds.FIRST_DIRECTORY)),
    )
    noop: bool = setting(
        False,
        kinds.BOOLEAN,
        "Only count the requests and log how many there were.",
        env=("NOOP_TRACES",),
    )
    channel_buffer_len: int = setting(
        10,
        kinds.integer(0, example=10),
        "2023: length of the channels between pipeline stages.",
        env=("CHANNEL_BUFFER_LEN",),
        no_effect="stages call each other, there are no channels",
    )
    profile_port: int = setting(
        0,
        kinds.integer(0, kinds.MAX_PORT, example=6060),
        "2023: port of the Go profiler.",
        env=("PROFILE_PORT",),
        no_effect="there is no Go profiler here",
    )
    ebpf: Ebpf = section(Ebpf)
    http: Http = section(Http)
    routes: Routes = section(Routes)
    otel_metrics_export: MetricsExport = section(MetricsExport)
    otel_traces_export: TracesExport = section(TracesExport)
    prometheus_export: PrometheusExport = section(PrometheusExport)
    grafana: Grafana = section(Grafana)
    internal_metrics: InternalMetrics = section(InternalMetrics)
    existing_sdk: str = setting(
        "complement",
        kinds.choice("ignore", "complement", "metrics", "skip"),
        "What to publish of a service that has an OpenTelemetry SDK of its own: `complement` "
        "leaves to the SDK the server spans and the client spans that it gave a `traceparent`, "
        "`metrics` all spans, `skip` everything; with `ignore` there are two of what the SDK sees "
        "too.",
    )
    sampling: Sampling = section(Sampling)
    filter: Filter = section(Filter)
    metrics: Metrics = section(Metrics)
    attributes: AttributesSettings = section(AttributesSettings)
    limits: Limits = section(Limits)
    max_overhead: MaxOverhead = section(MaxOverhead)

    @property
    def service_name(self) -> str:
        """The name given to everything watched, or ``""``: each process has its own."""
        names = (part.service_name for part in self._exports())
        return next((name for name in names if name), "")

    @property
    def service_namespace(self) -> str:
        """The namespace given to everything watched, or ``""``."""
        names = (part.service_namespace for part in self._exports())
        return next((name for name in names if name), "")

    def _exports(self) -> tuple[OtlpExport | PrometheusExport, ...]:
        return (self.otel_traces_export, self.otel_metrics_export, self.prometheus_export)
