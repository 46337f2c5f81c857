# SPDX-License-Identifier: Apache-2.0
"""Bad configurations: where, what, and what to do; all at once, never a traceback."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelauto.config import InvalidConfig, Purpose, load

GOOD = "ebpf: {open_port: 80}\nprint_traces: true\n"

# (file, environment, flags) -> where, words of the sentence, words of the remedy
FILES = {
    "unknown key": ("ebpf:\n  open_prot: 1\n", "c.yml:2:", "ebpf.open_prot", '"ebpf.open_port"'),
    "misplaced key": ("open_port: 1\n", "c.yml:1:", "open_port", '"ebpf.open_port"'),
    "unknown section": (
        "otel_metrics:\n  a: 1\n",
        "c.yml:1:",
        "otel_metrics",
        "otel_metrics_export",
    ),
    "strange key": (
        "zzzzzz: 1\n",
        "c.yml:1:",
        "zzzzzz",
        "Known here: attributes, channel_buffer_len",
    ),
    "key is a list": ("? [a]\n: 1\n", "c.yml:1:", "plain word", "docs/config.md"),
    "merge key": ("ebpf: &a {}\nhttp:\n  <<: *a\n", "c.yml:3:", "merge keys", "Repeat"),
    "nested unknown": (
        "internal_metrics:\n  prometheus:\n    prot: 1\n",
        "c.yml:3:",
        "internal_metrics.prometheus.prot",
        '"internal_metrics.prometheus.port"',
    ),
    "duplicate key": (
        "noop: true\nnoop: false\n",
        "c.yml:2:",
        "twice, first on line 1",
        "Keep one",
    ),
    "duplicate on a line": ("{noop: true, noop: true}", "c.yml:1:", "given twice", "Keep one"),
    "duplicate section": (
        "ebpf: {open_port: 1}\nebpf: {}\n",
        "c.yml:2:",
        '"ebpf" is given twice',
        "Keep",
    ),
    "alias and name": (
        "routes:\n  unmatch: path\n  unmatched: path\n",
        "c.yml:3:",
        "the same setting",
        '"unmatched"',
    ),
    "bad word": ("log_level: LOUD\n", "c.yml:1:", "DEBUG, INFO, WARN or ERROR", "log_level: ERROR"),
    "bad unmatched": ("routes: {unmatched: star}\n", "c.yml:1:", "low-cardinality", "unmatched:"),
    "bad port": ("ebpf: {open_port: 70000}\n", "c.yml:1:", '"70000"', "open_port: 80,443"),
    "port range upside down": ("ebpf: {open_port: 90-80}\n", "c.yml:1:", '"90-80"', "8000-8999"),
    "bad port in a list": (
        "ebpf:\n  open_port:\n  - 80\n  - x\n",
        "c.yml:4:",
        "ports from 1",
        "open_port:",
    ),
    "bad duration": (
        "otel_metrics_export: {interval: soon}\n",
        "c.yml:1:",
        "a duration",
        "interval: 5s",
    ),
    "duration without unit": ("limits: {series_ttl: 5}\n", "c.yml:1:", '"5"', '"5s"'),
    "no interval": (
        "otel_metrics_export: {interval: 0s}\n",
        "c.yml:1:",
        "above zero",
        "interval: 5s",
    ),
    "bad truth": ("noop: maybe\n", "c.yml:1:", "true or false", "noop: true"),
    "bad number": ("limits: {series: many}\n", "c.yml:1:", "whole number", "series: 20000"),
    "number too small": ("ebpf: {batch_length: 0}\n", "c.yml:1:", "1 or more", "batch_length: 100"),
    "map for a scalar": ("noop: {a: 1}\n", "c.yml:1:", "a mapping", "noop: true"),
    "list for a scalar": ("noop: [true]\n", "c.yml:1:", "this list", "noop: true"),
    "nested list": ("ebpf: {open_port: [[1]]}\n", "c.yml:1:", "not a plain value", "plain value"),
    "scalar for a section": ("ebpf: 443\n", "c.yml:1:", "must have keys and values", "ebpf:"),
    "list for the file": ("- a\n", "c.yml:1:", "the file must have keys", "key: value"),
    "endpoint without scheme": (
        "otel_traces_export: {endpoint: 'localhost:4318'}\n",
        "c.yml:1:",
        "no scheme",
        "http://localhost:4318",
    ),
    "endpoint of another scheme": (
        "otel_traces_export: {endpoint: 'ftp://h'}\n",
        "c.yml:1:",
        '"ftp://h"',
        "http://localhost:4318",
    ),
    "endpoint with a bad port": (
        "otel_traces_export: {endpoint: 'http://h:99999'}\n",
        "c.yml:1:",
        "URL",
        "http://localhost:4318",
    ),
    "protocol": (
        "otel_traces_export: {protocol: thrift}\n",
        "c.yml:1:",
        '"thrift"',
        "protocol: http/protobuf",
    ),
    "grpc without a check of the certificate": (
        "otel_traces_export: {endpoint: 'https://h:4317', insecure_skip_verify: true}\n",
        "c.yml:1:",
        "over gRPC",
        "http/protobuf",
    ),
    "bad pattern": ("routes: {patterns: ['/a?b']}\n", "c.yml:1:", "paths whose", "/users/:id"),
    "bad header name": (
        "otel_traces_export: {headers: {'a b': c}}\n",
        "c.yml:1:",
        "a mapping",
        "header name",
    ),
    "header twice": (
        "otel_traces_export:\n  headers:\n    a: 1\n    a: 2\n",
        "c.yml:4:",
        "headers.a",
        "Keep one",
    ),
    "bad pids": ("ebpf: {pids: [0]}\n", "c.yml:1:", "process ids", "4711"),
    "unset reference": (
        "ebpf:\n  open_port: ${NOPE}\n",
        "c.yml:2:",
        "a reference in",
        "variable NOPE",
    ),
    "open reference": ("ebpf:\n  executable_name: '${X'\n", "c.yml:2:", "a reference in", '"$${"'),
    "certificate not there": (
        "otel_traces_export:\n  endpoint: https://h\n  certificate: /no/such.pem\n",
        "c.yml:3:",
        "/no/such.pem",
        "PEM file",
    ),
    "key without certificate": (
        "otel_traces_export:\n  endpoint: https://h\n  client_key: /dev/null\n",
        "",
        "need each other",
        "both or neither",
    ),
    "batch larger than queue": (
        "otel_traces_export: {max_queue_size: 10}\n",
        "c.yml:1:",
        "more than",
        "Lower the batch size",
    ),
    "service with more series than all": (
        "limits: {series: 10}\n",
        "c.yml:1:",
        "more than",
        "Lower",
    ),
    "syntax": ("ebpf:\n  open_port: 'x\n", "c.yml:3:1:", "not valid YAML", "Correct the YAML"),
    "syntax, tab": ("ebpf:\n\topen_port: 1\n", "c.yml:2:1:", "'\\t'", "indentation"),
    "syntax, colon": ("a: b: c\n", "c.yml:1:5:", "not allowed here", "Correct the YAML"),
    "undefined alias": ("noop: *x\n", "c.yml:1:7:", "undefined alias", "Correct the YAML"),
    "two documents": ("noop: true\n---\nnoop: true\n", "c.yml:2:1:", "another document", "Correct"),
    "control character": ("noop: \x01\n", "c.yml:1:7:", "U+0001", "Remove it"),
    "deep nesting": ("[" * 5000, "c.yml:", "nested too deeply", "levels"),
    "system-wide and a port": (
        "ebpf:\n  system_wide: true\n  open_port: 80\n",
        "c.yml:",
        "excludes ebpf.open_port",
        "Remove either",
    ),
}


def failure(path=None, environ=None, flags=None, purpose=Purpose.RUN):
    with pytest.raises(InvalidConfig) as caught:
        load(path, environ or {}, flags, purpose)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("name", FILES)
def test_bad_files(name, tmp_path):
    text, where, sentence, remedy = FILES[name]
    path = tmp_path / "c.yml"
    path.write_text(text)
    error = failure(path)
    first = error.problems[0]
    assert where in str(first)
    assert sentence in first.sentence
    assert remedy in first.remedy
    assert first.sentence.endswith(".")
    assert "\n" not in first.sentence


@pytest.mark.parametrize(
    ("environ", "sentence", "remedy"),
    [
        ({"OPEN_PORT": "http"}, 'OPEN_PORT: "ebpf.open_port" cannot be "http"', "OPEN_PORT=80,443"),
        ({"PROMETHEUS_PORT": "tcp://10.0.0.1:9090"}, "PROMETHEUS_PORT: ", "enableServiceLinks"),
        ({"METRICS_INTERVAL": "5"}, 'cannot be "5"', '"5s"'),
        (
            {"GRAFANA_CLOUD_ZONE": "z", "OPEN_PORT": "80"},
            'GRAFANA_CLOUD_ZONE: Grafana Cloud also needs "grafana.otlp.cloud_instance_id" and',
            "or none of them",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "h:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: ", "http://"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "secret"}, "OTEL_EXPORTER_OTLP_HEADERS: ", "name=value"),
        ({"SYSTEM_WIDE": "2"}, 'SYSTEM_WIDE: "ebpf.system_wide"', "SYSTEM_WIDE=true"),
        ({"OTELAUTO_NAMING": "2024"}, "OTELAUTO_NAMING: ", "OTELAUTO_NAMING="),
        ({"SYSTEM_WIDE": "1", "EXECUTABLE_NAME": "x"}, "excludes ebpf.executable_name", "Remove"),
        ({"PRINT_TRACES": "1"}, "nothing says which processes to watch", "--open-port"),
        (
            {"OPEN_PORT": "80", "PRINT_TRACES": "1", "OTEL_TRACES_EXPORTER": "none"},
            'publish what is seen, and "traces_exporter" is none.',
            "--print",
        ),
        ({"OPEN_PORT": "80"}, "nothing says where to publish", "--print"),
    ],
)
def test_bad_environments(environ, sentence, remedy):
    error = failure(environ=environ)
    assert sentence in str(error.problems[0])
    assert remedy in error.problems[0].remedy


def test_a_bad_variable_of_both_exporters_is_said_of_each_once():
    error = failure(environ={"OTEL_EXPORTER_OTLP_CERTIFICATE": "a\0b"})
    assert len(error.problems) == 1


def test_bad_flags():
    error = failure(flags={"--open-port": "x", "--log-level": "y"})
    assert [item.where for item in error.problems] == ["--log-level", "--open-port"]
    assert "--open-port 80,443" in error.problems[1].remedy


def test_everything_is_reported_at_once(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text("log_level: LOUD\nebpf:\n  open_prot: 1\nnoop: maybe\n")
    error = failure(path, {"PROMETHEUS_PORT": "x"})
    lines = sorted(item.where.rpartition("/")[2] for item in error.problems)
    assert lines == ["PROMETHEUS_PORT", "c.yml:1", "c.yml:3", "c.yml:4"]
    assert str(error).count("\n  -> ") == 4


def test_what_is_missing_is_not_said_beside_what_is_wrong(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text("ebpf:\n  open_prot: 1\n")
    assert len(failure(path).problems) == 1


def test_files_that_cannot_be_read(tmp_path):
    assert "Check the path" in failure(tmp_path / "absent.yml").problems[0].remedy
    assert "is a directory" in str(failure(tmp_path))
    path = tmp_path / "c.yml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    assert "c.yml:2: the file is not UTF-8" in str(failure(path))
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    assert "larger than" in str(failure(path))


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~\n", "ebpf:\n", "\ufeffebpf:\n"])
def test_files_that_say_nothing_are_fine(text, tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(text, encoding="utf-8")
    assert load(path, {"OPEN_PORT": "1", "PRINT_TRACES": "1"}).warnings == ()


def test_purposes():
    load(None, {}, purpose=Purpose.SHOW)
    load(None, {"OPEN_PORT": "1"}, purpose=Purpose.WATCH)
    load(None, {"PRINT_TRACES": "1"}, purpose=Purpose.PUBLISH)
    assert len(failure(purpose=Purpose.RUN).problems) == 2


FRAGMENTS = st.sampled_from(
    [
        "ebpf",
        "open_port",
        "routes",
        "patterns",
        ":",
        " ",
        "\n",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "&a",
        "*a",
        "!!",
        "'",
        '"',
        "|",
        ">",
        "#",
        "80",
        "${",
        "}",
        "<<",
        "?",
        ",",
        "\t",
        "%",
        "\x00",
        "é",
    ]
)


@given(text=st.one_of(st.text(), st.lists(FRAGMENTS).map("".join)))
def test_any_text_is_read_or_refused(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzz.yml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    problems = ()
    try:
        load(path, {}, purpose=Purpose.SHOW)
    except InvalidConfig as error:
        problems = error.problems
    assert all(item.remedy for item in problems)
