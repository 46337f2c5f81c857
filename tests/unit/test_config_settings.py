# SPDX-License-Identifier: Apache-2.0
"""Every declared setting: from file, each of its variables and flags, in the right order."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from otelauto.config import Config, Endpoint, Headers, Ports, Purpose, load
from otelauto.config.docs import example, render
from otelauto.config.rule_kinds import Entry, SamplingRule
from otelauto.config.setting import declarations
from otelauto.config.show import as_yaml, inline, shown, value_of

ROOT = Path(__file__).resolve().parents[2]
DECLARED = declarations(Config)

A = Endpoint("http://localhost:1/v1/")
FILE_PATHS = ("/a.pem", "/b.pem", "/c.pem")
PORTS = ("80", "81-82", "90"), (Ports(((80, 80),)), Ports(((81, 82),)), Ports(((90, 90),)))
INTEGERS = ("21", "22", "23"), (21, 22, 23)
DURATIONS = ("21s", "22s", "23s"), (21.0, 22.0, 23.0)
SIZES = ("64KiB", "10MB", "1GiB"), (65536, 10_000_000, 1 << 30)
TRUTH = ("true", "false", "true"), (True, False, True)
NAMES = ("one", "two", "three"), ("one", "two", "three")
LEVELS = ("DEBUG", "warn", "ERROR"), ("DEBUG", "WARN", "ERROR")

ENTRIES = (
    ("a=b", "c!=d* e<5,f=g", "h>=1.5"),
    (
        (Entry((("a", "=", "b"),)),),
        (Entry((("c", "!=", "d*"), ("e", "<", "5"))), Entry((("f", "=", "g"),))),
        (Entry((("h", ">=", "1.5"),)),),
    ),
)
SELECTIONS = (
    ("a=b c", "d*=*,e=f", "g=h"),
    ((("a", ("b", "c")),), (("d*", ("*",)), ("e", ("f",))), (("g", ("h",)),)),
)

# By key: three texts (for file, environment, flag), and their values. A setting that is missing
# here fails the tests below, so a new setting cannot go untested.
SAMPLES = {
    "log_level": LEVELS,
    "print_traces": TRUTH,
    "trace_printer": (("text", "json", "disabled"), ("text", "json", "disabled")),
    "disabled": TRUTH,
    "traces_exporter": (
        ("otlp", "Console,otlp", "none"),
        (("otlp",), ("console", "otlp"), ("none",)),
    ),
    "metrics_exporter": (
        ("prometheus", "otlp, prometheus", "none"),
        (("prometheus",), ("otlp", "prometheus"), ("none",)),
    ),
    "naming": (("2023", "current", "2023"), ("2023", "current", "2023")),
    "resource_attributes": (
        ("a=1", "b=2,c=3", "d=4"),
        ({"a": "1"}, {"b": "2", "c": "3"}, {"d": "4"}),
    ),
    "control_socket": (FILE_PATHS, FILE_PATHS),
    "state_directory": (FILE_PATHS, FILE_PATHS),
    "noop": TRUTH,
    "channel_buffer_len": INTEGERS,
    "profile_port": INTEGERS,
    "ebpf.open_port": PORTS,
    "ebpf.executable_name": NAMES,
    "ebpf.pids": (("21", "23,22", "24"), ((21,), (22, 23), (24,))),
    "ebpf.system_wide": TRUTH,
    "ebpf.tls_plaintext": TRUTH,
    "ebpf.bfp_debug": TRUTH,
    "ebpf.wakeup_len": INTEGERS,
    "ebpf.batch_length": INTEGERS,
    "ebpf.batch_timeout": DURATIONS,
    "ebpf.bpf_fs_base_dir": (FILE_PATHS, FILE_PATHS),
    "ebpf.log_level": LEVELS,
    "http.capture_query": TRUTH,
    "http.operations": (
        ("graphql", "JSONRPC,graphql", "none"),
        (("graphql",), ("jsonrpc", "graphql"), ("none",)),
    ),
    "routes.patterns": (("/a/:b", "/c,/d/{e}", "/f"), (("/a/:b",), ("/c", "/d/{e}"), ("/f",))),
    "routes.unmatched": (("unset", "path", "wildcard"), ("unset", "path", "wildcard")),
    "prometheus_export.port": INTEGERS,
    "prometheus_export.host": (("one", "two,three", "::1"), (("one",), ("two", "three"), ("::1",))),
    "prometheus_export.native_histograms": TRUTH,
    "prometheus_export.web_config_file": (FILE_PATHS, FILE_PATHS),
    "existing_sdk": (("ignore", "METRICS", "skip"), ("ignore", "metrics", "skip")),
    "sampling.sampler": (
        ("always_on", "Always_Off", "parentbased_traceidratio"),
        ("always_on", "always_off", "parentbased_traceidratio"),
    ),
    "sampling.ratio": (("0.5", "0", ".25"), (0.5, 0.0, 0.25)),
    "sampling.keep_errors": TRUTH,
    "sampling.keep_slow": DURATIONS,
    "sampling.rules": (
        ("always_on if a=b", "traceidratio 0.5 if a!=b* c>=4", "always_off if a<1"),
        (
            (SamplingRule("always_on", 1.0, Entry((("a", "=", "b"),))),),
            (SamplingRule("traceidratio", 0.5, Entry((("a", "!=", "b*"), ("c", ">=", "4")))),),
            (SamplingRule("always_off", 1.0, Entry((("a", "<", "1"),))),),
        ),
    ),
    "filter.traces": ENTRIES,
    "filter.metrics": ENTRIES,
    "metrics.include": SELECTIONS,
    "metrics.exclude": SELECTIONS,
    "metrics.buckets": (
        ("a=1 2", "b=0.5,c*=1", "d=0 1e3"),
        ((("a", (1.0, 2.0)),), (("b", (0.5,)), ("c*", (1.0,))), (("d", (0.0, 1000.0)),)),
    ),
    "metrics.exemplars": (
        ("always_off", "trace_based", "always_off"),
        ("always_off", "trace_based", "always_off"),
    ),
    "prometheus_export.path": (("/a", "/b", "/c"), ("/a", "/b", "/c")),
    "prometheus_export.service_name": NAMES,
    "prometheus_export.service_namespace": NAMES,
    "prometheus_export.report_target": TRUTH,
    "prometheus_export.report_peer": TRUTH,
    "internal_metrics.prometheus.port": INTEGERS,
    "internal_metrics.prometheus.path": (("/a", "/b", "/c"), ("/a", "/b", "/c")),
    "limits.routes_per_service": INTEGERS,
    "limits.operations_per_service": INTEGERS,
    "limits.series_per_service": INTEGERS,
    "limits.series": (("20001", "20002", "20003"), (20001, 20002, 20003)),
    "attributes.kubernetes.enable": (
        ("true", "False", "autodetect"),
        ("true", "false", "autodetect"),
    ),
    "attributes.kubernetes.kubeconfig_path": (FILE_PATHS, FILE_PATHS),
    "attributes.kubernetes.meta_restrict_local_node": TRUTH,
    "attributes.kubernetes.node_name": (("a", "b", "c"), ("a", "b", "c")),
    "attributes.kubernetes.cluster_name": (("a", "b", "c"), ("a", "b", "c")),
    "attributes.kubernetes.informers_sync_timeout": DURATIONS,
    "attributes.kubernetes.use_labels": TRUTH,
    "limits.series_ttl": DURATIONS,
    "limits.connections": INTEGERS,
    "limits.queue_length": INTEGERS,
    "max_overhead.agent": INTEGERS,
    "max_overhead.programs": INTEGERS,
    "otel_metrics_export.interval": DURATIONS,
    "otel_metrics_export.temporality": (
        ("delta", "LowMemory", "cumulative"),
        ("delta", "lowmemory", "cumulative"),
    ),
    "otel_metrics_export.histograms": (
        (
            "base2_exponential_bucket_histogram",
            "explicit_bucket_histogram",
            "BASE2_EXPONENTIAL_BUCKET_HISTOGRAM",
        ),
        (
            "base2_exponential_bucket_histogram",
            "explicit_bucket_histogram",
            "base2_exponential_bucket_histogram",
        ),
    ),
    "otel_metrics_export.report_target": TRUTH,
    "otel_metrics_export.report_peer": TRUTH,
    "otel_traces_export.max_export_batch_size": INTEGERS,
    "otel_traces_export.max_queue_size": (("5001", "5002", "5003"), (5001, 5002, 5003)),
    "otel_traces_export.batch_timeout": DURATIONS,
    "otel_traces_export.export_timeout": DURATIONS,
    "otel_traces_export.spool": (("memory", "off", "disk"), ("memory", "off", "disk")),
    "otel_traces_export.spool_size": SIZES,
    "otel_traces_export.spool_memory": SIZES,
    "grafana.otlp.cloud_zone": NAMES,
    "grafana.otlp.cloud_instance_id": NAMES,
    "grafana.otlp.cloud_api_key": NAMES,
    "grafana.otlp.cloud_submit": (
        ("metrics", "traces, metrics", "none"),
        (("metrics",), ("traces", "metrics"), ("none",)),
    ),
}
for signal in ("metrics", "traces"):
    urls = tuple(f"http://localhost:{port}/v1/{signal}" for port in (1, 2, 3))
    SAMPLES |= {
        f"otel_{signal}_export.{key}": sample
        for key, sample in {
            "endpoint": (urls, tuple(Endpoint(url) for url in urls)),
            "headers": (
                ("a=1", "b=2", "c=3"),
                tuple(Headers(((k, v),)) for k, v in ("a1", "b2", "c3")),
            ),
            "protocol": (
                ("http/protobuf", "GRPC", "http/protobuf"),
                ("http/protobuf", "grpc", "http/protobuf"),
            ),
            "compression": (("gzip", "none", "gzip"), ("gzip", "none", "gzip")),
            "timeout": DURATIONS,
            "certificate": (FILE_PATHS, FILE_PATHS),
            "client_certificate": (FILE_PATHS, FILE_PATHS),
            "client_key": (FILE_PATHS, FILE_PATHS),
            "insecure": TRUTH,
            "insecure_skip_verify": TRUTH,
            "service_name": NAMES,
            "service_namespace": NAMES,
        }.items()
    }


def in_file(tmp_path, declaration, text, key=None):
    """A file that sets one setting."""
    *sections, name = declaration.path
    nested = {key or name: text}
    for section in reversed(sections):
        nested = {section: nested}
    path = tmp_path / "c.yml"
    path.write_text(yaml.safe_dump(nested))
    return path


def in_variable(declaration, variable, number):
    """What to put into ``variable`` for sample ``number``, and the value it stands for."""
    text, value = (part[number] for part in SAMPLES[declaration.key])
    if variable.name == "OTEL_RESOURCE_ATTRIBUTES" and declaration.key != "resource_attributes":
        return f"service.{declaration.path[-1].removeprefix('service_')}={text}", value
    if variable.kind is not None and variable.kind.name == "milliseconds":
        return str(int(value * 1000)), value
    if variable.name == "OTEL_EXPORTER_OTLP_ENDPOINT":
        return text.partition("/v1/")[0], value
    return text, value


def value_with(declaration, path=None, environ=None, flags=None):
    loaded = load(path, environ or {}, flags or {}, Purpose.SHOW)
    return value_of(loaded.config, declaration), loaded.origins[declaration.key]


def identify(declaration):
    return declaration.key


def test_every_setting_has_a_sample_and_no_sample_is_stale():
    assert {item.key for item in DECLARED} == set(SAMPLES)


@pytest.mark.parametrize("declaration", DECLARED, ids=identify)
class TestEverySetting:
    def test_default(self, declaration):
        value, origin = value_with(declaration)
        assert value == declaration.default
        assert origin.where == "default"

    def test_file(self, declaration, tmp_path):
        text, expected = (part[0] for part in SAMPLES[declaration.key])
        for key in (declaration.path[-1], *declaration.setting.aliases):
            path = in_file(tmp_path, declaration, text, key)
            value, origin = value_with(declaration, path)
            assert value == expected
            assert origin.where.startswith(f"{path}:")

    def test_each_variable_beats_the_file(self, declaration, tmp_path):
        path = in_file(tmp_path, declaration, SAMPLES[declaration.key][0][0])
        for variable in declaration.env:
            text, expected = in_variable(declaration, variable, 1)
            value, origin = value_with(declaration, path, {variable.name: text})
            assert value == expected
            assert origin.where == variable.name

    def test_earlier_variables_beat_later_ones(self, declaration):
        environ = {}
        for number, variable in enumerate(reversed(declaration.env)):
            text, expected = in_variable(declaration, variable, number % 3)
            environ[variable.name] = text
            assert value_with(declaration, environ=environ)[0] == expected

    def test_flag_beats_variables_and_file(self, declaration, tmp_path):
        path = in_file(tmp_path, declaration, SAMPLES[declaration.key][0][0])
        environ = {v.name: in_variable(declaration, v, 1)[0] for v in declaration.env}
        for flag in declaration.setting.flags:
            text, expected = (part[2] for part in SAMPLES[declaration.key])
            if declaration.key == "ebpf.system_wide":
                environ = {}
            value, origin = value_with(declaration, path, environ, {flag: text})
            assert value == expected
            assert origin.where == flag

    def test_empty_counts_as_not_given(self, declaration, tmp_path):
        path = in_file(tmp_path, declaration, "")
        environ = {variable.name: " " for variable in declaration.env}
        unset = declaration.default
        if declaration.path[0] == "routes" and declaration.path[-1] == "unmatched":
            unset = "wildcard"  # the file has a routes section
        assert value_with(declaration, path, environ)[0] == unset

    def test_documented(self, declaration):
        row = next(
            line for line in render().splitlines() if line.startswith(f"| `{declaration.key}` ")
        )
        assert declaration.setting.help in row
        for word in (*(v.name for v in declaration.env), *declaration.setting.flags):
            assert f"`{word}`" in row
        assert row.replace("\\|", "").count("|") == 6


# Secrets are masked when shown: test_config_secrets.py.
MASKED = ("headers", "cloud_api_key")


@pytest.mark.parametrize(
    "declaration", [item for item in DECLARED if item.path[-1] not in MASKED], ids=identify
)
def test_shown_text_reads_the_same(declaration, tmp_path):
    value = SAMPLES[declaration.key][1][0]
    printed = yaml.safe_load(inline(shown(declaration, value)))
    path = in_file(tmp_path, declaration, printed)
    assert value_with(declaration, path)[0] == value


def test_printed_configuration_is_valid_and_complete(tmp_path):
    loaded = load(
        None, {"OPEN_PORT": "80,443", "PRINT_TRACES": "1", "SERVICE_NAMESPACE": "${x} # y"}
    )
    path = tmp_path / "printed.yml"
    path.write_text(as_yaml(loaded))
    again = load(path, {})
    assert again.config.ebpf == loaded.config.ebpf
    assert again.config.trace_printer == "text"
    assert again.config.service_namespace == "${x} # y"
    assert as_yaml(loaded).count("\n") >= len(DECLARED)


def test_documentation_is_fresh():
    written = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == render(), "run: python -m otelauto.config.docs docs/config.md"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.yml")), ids=lambda path: path.name
)
def test_examples_are_valid(path):
    assert load(path, {"OTLP_TOKEN": "x"}).config.ebpf != Config().ebpf


def test_the_file_of_the_2023_tutorial(tmp_path):
    path = tmp_path / "instrumenter-config.yml"
    path.write_text(
        "ebpf:\n  open_port: 443\n"
        "otel_metrics_export:\n  endpoint: http://localhost:4318\n"
        "otel_traces_export:\n  endpoint: http://localhost:4318\n"
    )
    loaded = load(path, {})
    assert loaded.config.ebpf.open_port == Ports(((443, 443),))
    assert loaded.config.otel_metrics_export.endpoint.url == "http://localhost:4318/v1/metrics"
    assert loaded.config.otel_traces_export.endpoint.url == "http://localhost:4318/v1/traces"
    assert loaded.warnings == ()


def test_every_example_is_taken() -> None:
    """And is on the page, but for settings whose type lists all that they take."""
    page = render()
    for declaration in declarations(Config):
        if text := example(declaration):
            declaration.setting.kind.read(text)
            assert f"`{text}`" in page
        else:
            assert declaration.setting.kind.name.startswith("`")
