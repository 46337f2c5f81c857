# SPDX-License-Identifier: Apache-2.0
"""Where two sources or two settings disagree: what counts. Each row has a test of its name."""

from __future__ import annotations

from typing import Final, NamedTuple


class Conflict(NamedTuple):
    """A row of the table in docs/config.md."""

    name: str
    disagree: str
    counts: str


CONFLICTS: Final = (
    Conflict(
        "sources",
        "A setting is given in several places.",
        "Flag, then environment, then file, then default.",
    ),
    Conflict(
        "signal_before_generic",
        "`OTEL_EXPORTER_OTLP_<SIGNAL>_*`, `OTEL_EXPORTER_OTLP_*` and YAML.",
        "The signal's variable, then the generic one, then YAML. Headers are replaced, not merged.",
    ),
    Conflict(
        "yaml_endpoint_is_base",
        "`endpoint` in YAML: 2023 took a base URL.",
        "As in 2023: `/v1/<signal>` is appended unless the path ends so.",
    ),
    Conflict(
        "generic_endpoint_is_base",
        "`OTEL_EXPORTER_OTLP_ENDPOINT`: 2023 left `/v1/<signal>` alone, the specification appends.",
        "The specification: `v1/<signal>` is always appended. What looks doubled is warned about.",
    ),
    Conflict(
        "signal_endpoint_as_is",
        "`OTEL_EXPORTER_OTLP_<SIGNAL>_ENDPOINT` without a path.",
        "It is used as it is; an empty path is `/`.",
    ),
    Conflict(
        "empty_is_unset",
        "A variable, or a value in YAML, is there and empty.",
        "It counts as not given.",
    ),
    Conflict(
        "bad_otel_number",
        "An `OTEL_*` variable holds an invalid number, word or truth value.",
        "A warning; the next weaker source counts. In other variables and in YAML it is an error.",
    ),
    Conflict(
        "durations",
        "2023 read a bare number as nanoseconds, the specification as milliseconds.",
        "Numbers need a unit, but in `OTEL_*` variables: those are milliseconds.",
    ),
    Conflict(
        "zero_timeouts",
        "`batch_timeout: 0` and `export_timeout: 0` of traces: 2023 took 5 s and 30 s for them.",
        "Zero is zero: spans are sent at once, and there is no limit.",
    ),
    Conflict(
        "port_before_name",
        "`ebpf.open_port` and `ebpf.executable_name`.",
        "As in 2023 the port; the name is not looked at, with a warning.",
    ),
    Conflict(
        "system_wide_alone",
        "`ebpf.system_wide` and another selector.",
        "An error, as in 2023.",
    ),
    Conflict(
        "unmatched_alias",
        "`routes.unmatched` and its name of 2023, `unmatch`.",
        "An error if both are given.",
    ),
    Conflict(
        "unmatched_default",
        "No `routes.unmatched`.",
        "`wildcard` if there is a `routes` section or a pattern, as in 2023; else "
        "`low-cardinality`.",
    ),
    Conflict(
        "printer",
        "`trace_printer` and `print_traces`.",
        "`trace_printer`, from whatever source; without it `print_traces: true` is `text`.",
    ),
    Conflict(
        "exporters",
        "`traces_exporter`, `metrics_exporter`, and an exporter's own settings.",
        "For OTLP the list, whatever the endpoint. `none` also turns off a printer or a Prometheus "
        "page of the same or a weaker source, with a warning; other lists leave on what is on.",
    ),
    Conflict(
        "service_name",
        "`service_name`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `resource_attributes`.",
        "`PROMETHEUS_SERVICE_NAME` (Prometheus only), `OTEL_SERVICE_NAME`, the attribute in the "
        "variable, `service_name` in YAML, the attribute in YAML, the name found for the process.",
    ),
    Conflict(
        "one_service_name",
        "Exporters with different `service_name`.",
        "One name for all, with a warning: that of traces, else of metrics, else of Prometheus.",
    ),
    Conflict(
        "url_password",
        "A password in the endpoint's URL and an `authorization` header.",
        "The header.",
    ),
    Conflict(
        "grafana_after_own_endpoint",
        "`grafana.otlp` and an exporter's own endpoint, from whatever source.",
        "The exporter's own.",
    ),
    Conflict(
        "protocol_by_port",
        "No `protocol`.",
        "Port 4317 is `grpc`, any other `http/protobuf`. A given protocol counts on any port; the "
        "other's usual port is warned about.",
    ),
    Conflict(
        "scheme_before_insecure",
        "`insecure` and the endpoint's scheme.",
        "The scheme. Without one (`host:port`, gRPC only), TLS unless `insecure` is true.",
    ),
)
