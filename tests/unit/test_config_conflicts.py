# SPDX-License-Identifier: Apache-2.0
"""Each row of the table of conflicts in docs/config.md, and what is warned about."""

from __future__ import annotations

import pytest

from otelauto.config import InvalidConfig, Purpose, load
from otelauto.config.conflicts import CONFLICTS

BOTH = ("otel_metrics_export", "otel_traces_export")


@pytest.fixture
def configure(tmp_path):
    def configure(text="", environ=None, flags=None):
        path = tmp_path / "c.yml"
        path.write_text(text)
        return load(path, environ or {}, flags or {}, Purpose.SHOW)

    return configure


def test_every_conflict_has_a_test_of_its_name():
    tests = {name.removeprefix("test_conflict_") for name in globals() if "_conflict_" in name}
    assert {row.name for row in CONFLICTS} <= tests


def test_conflict_sources(configure):
    text = "log_level: DEBUG\n"
    assert configure().config.log_level == "INFO"
    assert configure(text).config.log_level == "DEBUG"
    environ = {"LOG_LEVEL": "WARN"}
    assert configure(text, environ).config.log_level == "WARN"
    assert configure(text, environ, {"--log-level": "ERROR"}).config.log_level == "ERROR"


def test_conflict_signal_before_generic(configure):
    text = "otel_traces_export:\n  endpoint: http://localhost:1\n  headers: {a: y}\n"
    generic = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:2",
        "OTEL_EXPORTER_OTLP_HEADERS": "b=g",
    }
    own = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:3/x",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "c=s",
    }
    seen = []
    for environ in ({}, generic, generic | own):
        traces = configure(text, environ).config.otel_traces_export
        seen.append((traces.endpoint.url, dict(traces.headers)))
    assert seen == [
        ("http://localhost:1/v1/traces", {"a": "y"}),
        ("http://localhost:2/v1/traces", {"b": "g"}),
        ("http://localhost:3/x", {"c": "s"}),
    ]
    metrics = configure(text, generic | own).config.otel_metrics_export
    assert (metrics.endpoint.url, dict(metrics.headers)) == (
        "http://localhost:2/v1/metrics",
        {"b": "g"},
    )


@pytest.mark.parametrize("path", ["", "/", "/v1/traces", "/v1/traces/"])
def test_conflict_yaml_endpoint_is_base(configure, path):
    text = f"otel_traces_export: {{endpoint: 'http://localhost:1{path}'}}"
    assert configure(text).config.otel_traces_export.endpoint.url == "http://localhost:1/v1/traces"


def test_conflict_generic_endpoint_is_base(configure):
    loaded = configure(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1/v1/traces"})
    assert loaded.config.otel_traces_export.endpoint.url == "http://localhost:1/v1/traces/v1/traces"
    assert any("is a base URL" in text for text in loaded.warnings)


def test_conflict_signal_endpoint_as_is(configure):
    for given, used in (
        ("http://localhost:1", "http://localhost:1/"),
        ("http://localhost/a", None),
    ):
        loaded = configure(environ={"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": given})
        assert loaded.config.otel_metrics_export.endpoint.url == (used or given)
        assert loaded.config.otel_traces_export.endpoint is None


def test_conflict_empty_is_unset(configure):
    text = "log_level: ''\nebpf:\n  open_port:\n"
    loaded = configure(text, {"LOG_LEVEL": "", "OPEN_PORT": ""})
    assert loaded.config.log_level == "INFO"
    assert not loaded.config.ebpf.open_port


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "perhaps"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "udp"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5s"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_SDK_DISABLED", "1"),
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_EXPORTER", "otlp,none"),
        ("OTEL_TRACES_EXPORTER", ","),
        ("OTEL_METRICS_EXPORTER", "console"),
    ],
)
def test_conflict_bad_otel_number(configure, name, text):
    yaml = "otel_traces_export: {timeout: 3s}\n"
    loaded = configure(yaml, {name: text})
    assert loaded.config == configure(yaml).config
    assert [text for text in loaded.warnings if text.startswith(f"{name}: ignored")]
    with pytest.raises(InvalidConfig):
        configure(environ={"PROMETHEUS_PORT": "0x50"})


def test_conflict_durations(configure):
    environ = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1500", "METRICS_INTERVAL": "1500ms"}
    metrics = configure(environ=environ).config.otel_metrics_export
    assert (metrics.timeout, metrics.interval) == (1.5, 1.5)
    with pytest.raises(InvalidConfig, match="Add the unit"):
        configure("otel_metrics_export: {timeout: 1500}")


def test_conflict_zero_timeouts(configure):
    text = "otel_traces_export: {batch_timeout: 0, export_timeout: 0s}"
    traces = configure(text).config.otel_traces_export
    assert (traces.batch_timeout, traces.export_timeout) == (0.0, 0.0)


def test_conflict_port_before_name(configure):
    loaded = configure("ebpf: {open_port: 1, executable_name: x}")
    assert any("is not looked at" in text for text in loaded.warnings)


def test_conflict_system_wide_alone(configure):
    for other in ("open_port: 1", "executable_name: x", "pids: 1"):
        with pytest.raises(InvalidConfig, match="excludes"):
            configure(f"ebpf: {{system_wide: true, {other}}}")


def test_conflict_unmatched_alias(configure):
    assert configure("routes: {unmatch: path}").config.routes.unmatched == "path"
    with pytest.raises(InvalidConfig, match="the same setting"):
        configure("routes: {unmatch: path, unmatched: path}")


def test_conflict_unmatched_default(configure):
    assert configure().config.routes.unmatched == "low-cardinality"
    assert configure("routes:\n").config.routes.unmatched == "low-cardinality"
    assert configure("routes: {}\n").config.routes.unmatched == "wildcard"
    assert configure("routes: {patterns: [/a]}").config.routes.unmatched == "wildcard"
    environ = {"OTELAUTO_ROUTES_PATTERNS": "/a"}
    assert configure(environ=environ).config.routes.unmatched == "wildcard"
    assert configure("routes: {unmatched: unset}").config.routes.unmatched == "unset"


def test_conflict_printer(configure):
    assert configure("print_traces: true").config.trace_printer == "text"
    assert configure("print_traces: true\ntrace_printer: json").config.trace_printer == "json"
    loaded = configure("trace_printer: disabled", {"PRINT_TRACES": "true"})
    assert loaded.config.trace_printer == "disabled"
    assert any("print_traces" in text for text in loaded.warnings)


ON = "otel_metrics_export: {endpoint: 'http://localhost:1'}\nprint_traces: true\n"
TRACES, METRICS = "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"


def published(loaded):
    """What is on: the endpoints of traces and metrics, the printer and the Prometheus port."""
    config = loaded.config
    traces, metrics = config.otel_traces_export.endpoint, config.otel_metrics_export.endpoint
    urls = [endpoint and endpoint.url for endpoint in (traces, metrics)]
    return [*urls, config.trace_printer, config.prometheus_export.port]


SENT_TRACES, SENT_METRICS = "http://localhost:4318/v1/traces", "http://localhost:4318/v1/metrics"
M1 = "http://localhost:1/v1/metrics"


@pytest.mark.parametrize(
    ("text", "environ", "flags", "expected"),
    [
        (ON, {}, {}, [None, M1, "text", 0]),
        (ON, {TRACES: "otlp"}, {}, [SENT_TRACES, M1, "text", 0]),
        (ON, {METRICS: "otlp"}, {}, [None, M1, "text", 0]),
        ("", {METRICS: "otlp"}, {}, [None, SENT_METRICS, "disabled", 0]),
        (ON, {METRICS: "prometheus"}, {}, [None, None, "text", 9464]),
        (ON, {METRICS: "prometheus", "PROMETHEUS_PORT": "9"}, {}, [None, None, "text", 9]),
        (ON, {METRICS: "prometheus,otlp"}, {}, [None, M1, "text", 9464]),
        ("", {TRACES: "console"}, {}, [None, None, "text", 0]),
        ("", {TRACES: "console"}, {"--print": "json"}, [None, None, "json", 0]),
        ("trace_printer: disabled", {TRACES: "console"}, {}, [None, None, "text", 0]),
        (
            "traces_exporter: [console]\ntrace_printer: disabled",
            {},
            {},
            [None, None, "disabled", 0],
        ),
        (ON, {TRACES: "none", METRICS: "none"}, {}, [None, None, "disabled", 0]),
        (ON, {TRACES: "none"}, {"--print": "text"}, [None, M1, "text", 0]),
        ("prometheus_export: {port: 9}", {METRICS: "none"}, {}, [None, None, "disabled", 0]),
        ("", {METRICS: "none"}, {"--prometheus-port": "9"}, [None, None, "disabled", 9]),
        (
            "",
            {TRACES: "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
            {},
            [None, SENT_METRICS, "disabled", 0],
        ),
        (
            "",
            {METRICS: "none"},
            {"--otlp-endpoint": "http://localhost:4318"},
            [SENT_TRACES, None, "disabled", 0],
        ),
    ],
)
def test_conflict_exporters(configure, text, environ, flags, expected):
    assert published(configure(text, environ, flags)) == expected


def test_what_an_exporter_list_decides_is_said(configure):
    loaded = configure(ON, {TRACES: "none", METRICS: "none"})
    origins = [loaded.origins[k].where for k in ("trace_printer", "otel_metrics_export.endpoint")]
    assert origins == [TRACES, METRICS]
    [warning] = loaded.warnings
    assert '"trace_printer" is not looked at, because "traces_exporter" is none' in warning


def test_conflict_service_name(configure):
    text = "resource_attributes: {service.name: a, x: '1'}\n"
    assert configure(text).config.prometheus_export.service_name == "a"
    assert configure(text).config.resource_attributes == {"x": "1"}
    text += "".join(f"{part}: {{service_name: b}}\n" for part in (*BOTH, "prometheus_export"))
    assert configure(text).config.service_name == "b"
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=c,service.namespace=n"}
    assert configure(text, environ).config.service_name == "c"
    assert configure(text, environ).config.service_namespace == "n"
    environ["OTEL_SERVICE_NAME"] = "d"
    assert configure(text, environ).config.service_name == "d"
    environ["PROMETHEUS_SERVICE_NAME"] = "e"
    config = configure(text, environ).config
    assert (config.prometheus_export.service_name, config.service_name) == ("e", "d")


def test_conflict_one_service_name(configure):
    loaded = configure(
        "otel_metrics_export: {service_name: m}\nprometheus_export: {service_name: p}\n"
    )
    assert loaded.config.service_name == "m"
    assert any('"m" is used for all' in text for text in loaded.warnings)


def test_conflict_url_password(configure):
    text = "otel_traces_export: {endpoint: 'https://u:p@h'}"
    basic = {"authorization": "Basic dTpw"}
    assert configure(text).config.otel_traces_export.request_headers() == basic
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer x"}
    headers = configure(text, environ).config.otel_traces_export.request_headers()
    assert headers == {"authorization": "Bearer x"}


def test_conflict_grafana_after_own_endpoint(configure):
    text = (
        "otel_traces_export: {endpoint: 'https://own.example'}\n"
        "grafana: {otlp: {cloud_zone: z, cloud_instance_id: 7, cloud_submit: 'traces,metrics'}}"
    )
    config = configure(text, {"GRAFANA_CLOUD_API_KEY": "key"}).config
    assert config.otel_traces_export.endpoint.host == "own.example"
    assert config.otel_traces_export.request_headers() == {}
    assert config.otel_metrics_export.endpoint.host == "otlp-gateway-z.grafana.net"


@pytest.mark.parametrize(
    ("endpoint", "given", "protocol", "url", "warning"),
    [
        ("http://h:4317", "", "grpc", "http://h:4317", ""),
        ("http://h:4318", "", "http/protobuf", "http://h:4318/v1/traces", ""),
        ("http://h:4319", "", "http/protobuf", "http://h:4319/v1/traces", ""),
        ("https://h", "grpc", "grpc", "https://h", ""),
        ("https://h/otlp", "grpc", "grpc", "https://h", "path"),
        ("http://localhost:4318", "grpc", "grpc", "http://localhost:4318", "4317"),
        ("http://h:4317", "http/protobuf", "http/protobuf", "http://h:4317/v1/traces", "4318"),
    ],
)
def test_conflict_protocol_by_port(configure, endpoint, given, protocol, url, warning):
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": given}
    for loaded in (
        configure(f"otel_traces_export: {{endpoint: '{endpoint}'}}", environ),
        configure(environ=environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}),
    ):
        traces = loaded.config.otel_traces_export
        assert (traces.protocol, traces.endpoint.url) == (protocol, url)
        said = [text for text in loaded.warnings if "unencrypted" not in text]
        assert all(warning in text for text in said)
        assert bool(said) == bool(warning)


def test_without_endpoint_the_default_one_suits_the_protocol(configure):
    environ = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}
    traces = configure(environ=environ).config.otel_traces_export
    assert (traces.protocol, traces.endpoint.url) == ("grpc", "http://localhost:4317")


@pytest.mark.parametrize(
    ("endpoint", "insecure", "url"),
    [
        ("h:4317", "", "https://h:4317"),
        ("h:4317", "true", "http://h:4317"),
        ("[::1]:4317", "true", "http://[::1]:4317"),
        ("http://h:4317", "false", "http://h:4317"),
        ("https://h:4317", "true", "https://h:4317"),
    ],
)
def test_conflict_scheme_before_insecure(configure, endpoint, insecure, url):
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        environ = {name: endpoint, "OTEL_EXPORTER_OTLP_INSECURE": insecure}
        assert configure(environ=environ).config.otel_traces_export.endpoint.url == url


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("otel_traces_export: {endpoint: 'http://10.0.0.1'}", {}, "unencrypted to 10.0.0.1"),
        (
            "otel_traces_export: {endpoint: 'http://h'}",
            {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=x"},
            "what is seen and the credentials",
        ),
        (
            "otel_traces_export: {endpoint: 'https://h', insecure_skip_verify: true}",
            {},
            "is not checked",
        ),
        ("otel_traces_export: {endpoint: 'https://h', insecure: true}", {}, "has no effect"),
        ("profile_port: 6060", {}, '"profile_port" has no effect'),
        ("", {"OTELAUTO_NAMIMG": "2023"}, "Did you mean OTELAUTO_NAMING?"),
        ("", {"OTEL_TRACES_SAMPLE": "1"}, "this variable is not read"),
        (
            "otel_traces_export: {endpoint: 'https://u:passw0rd@h'}",
            {},
            "the password of the endpoint is a secret",
        ),
        (
            "otel_traces_export: {endpoint: 'https://h', headers: {x-api-key: abcd}}",
            {},
            'the header "x-api-key" is a secret',
        ),
    ],
)
def test_warnings(configure, text, environ, words):
    assert len([item for item in configure(text, environ).warnings if words in item]) == 1


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (
            "otel_traces_export: {endpoint: 'https://h', headers: {authorization: '${T}'}}",
            {"T": "x"},
        ),
        ("otel_traces_export: {endpoint: 'https://h', headers: {x-scope-orgid: tenant}}", {}),
        ("otel_traces_export: {endpoint: 'http://127.0.0.1:4318'}", {}),
        ("otel_traces_export: {endpoint: 'https://u:${T}@h'}", {"T": "x"}),
        ("", {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://h", "OTELAUTO_EMPTY": ""}),
    ],
)
def test_nothing_to_warn_about(configure, text, environ):
    assert configure(text, environ).warnings == ()
