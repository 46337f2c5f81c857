# SPDX-License-Identifier: Apache-2.0
"""Secrets are never shown: not in errors, warnings, the printed configuration, logs or repr."""

from __future__ import annotations

import io
import logging

import pytest

from otelauto import cli, logs
from otelauto.config import InvalidConfig, Purpose, load
from otelauto.config.show import as_yaml, secrets

SECRET = "hunter2-canary"


@pytest.fixture(autouse=True)
def _restore_logging():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    logs.hide([])
    root.handlers[:], root.level = before


GOOD = [
    ("otel_traces_export: {endpoint: 'https://u:SECRET@h'}", {}),
    ("otel_traces_export: {endpoint: 'http://u:SECRET@h'}", {}),
    ("otel_traces_export: {endpoint: 'https://SECRET@h'}", {}),
    ("otel_traces_export: {endpoint: 'https://h/?token=SECRET'}", {}),
    ("otel_traces_export: {endpoint: 'http://h', headers: {authorization: Bearer SECRET}}", {}),
    ("otel_metrics_export: {endpoint: 'http://h', headers: 'x-api-key=SECRET'}", {}),
    ("otel_traces_export: {endpoint: 'http://h', headers: {authorization: '${S}'}}", {"S": SECRET}),
    ("", {"OTEL_EXPORTER_OTLP_HEADERS": "a=SECRET", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}),
    ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://u:SECRET@h:4317/v1/traces"}),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:SECRET@h/v1/traces"}),
    ("grafana: {otlp: {cloud_zone: z, cloud_instance_id: 7, cloud_api_key: '=/SECRET'}}", {}),
    (
        "grafana: {otlp: {cloud_zone: z, cloud_instance_id: 7}}",
        {"GRAFANA_CLOUD_API_KEY": "SECRET", "GRAFANA_CLOUD_SUBMIT": "metrics"},
    ),
]

BAD = [
    ("otel_traces_export: {endpoint: 'u:SECRET@h:4318'}", {}),
    ("otel_traces_export: {endpoint: 'ftp://u:SECRET@h'}", {}),
    ("otel_traces_export: {endpoint: 'https://u:SECRET@h:port'}", {}),
    ("otel_traces_export: {endpoint: SECRET}", {}),
    ("otel_traces_export: {headers: SECRET}", {}),
    ("otel_traces_export: {headers: {'a b': SECRET}}", {}),
    ("otel_traces_export: {headers: [SECRET]}", {}),
    ("otel_traces_export: {headers: {a: {b: SECRET}}}", {}),
    ("otel_traces_export: {headers: {a: SECRET, a: SECRET}}", {}),
    ("otel_traces_export: {headers: {a: 'SECRET}}", {}),
    ("otel_traces_export: {headers: {a: '${file:/no/such}SECRET'}}", {}),
    ("", {"OTEL_EXPORTER_OTLP_HEADERS": SECRET}),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": f"h://u:{SECRET}@h"}),
    ("", {"OTEL_EXPORTER_OTLP_HEADERS": f"a=%0a{SECRET}"}),
]


def prepare(tmp_path, text, environ):
    path = tmp_path / "c.yml"
    path.write_text(text.replace("SECRET", SECRET))
    return path, {name: value.replace("SECRET", SECRET) for name, value in environ.items()}


@pytest.mark.parametrize(("text", "environ"), GOOD)
def test_secrets_that_work(tmp_path, text, environ):
    loaded = load(*prepare(tmp_path, text, environ), purpose=Purpose.SHOW)
    everything = [as_yaml(loaded), repr(loaded), str(loaded.config), *loaded.warnings]
    assert SECRET not in "\n".join(everything)
    sent = [
        part
        for export in (loaded.config.otel_traces_export, loaded.config.otel_metrics_export)
        for part in (
            *export.request_headers().values(),
            export.endpoint and export.endpoint.full_url,
        )
    ]
    assert any(SECRET in (part or "") for part in sent)


@pytest.mark.parametrize(("text", "environ"), BAD)
def test_secrets_in_what_is_refused(tmp_path, text, environ):
    with pytest.raises(InvalidConfig) as caught:
        load(*prepare(tmp_path, text, environ), purpose=Purpose.SHOW)
    assert SECRET not in str(caught.value) + repr(caught.value)


def test_logs_hide_the_secrets_of_the_configuration(tmp_path):
    path, environ = prepare(
        tmp_path,
        "otel_traces_export:\n"
        "  endpoint: https://u:SECRET-url@h\n"
        "  headers: {authorization: Bearer SECRET-auth, x-api-key: SECRET-key}\n",
        {},
    )
    logs.hide(secrets(load(path, environ, purpose=Purpose.SHOW).config))
    stream = io.StringIO()
    logs.setup("DEBUG", stream)
    try:
        raise ValueError(f"bad {SECRET}-auth")
    except ValueError:
        logging.getLogger("otelauto").exception("sent %s-key to %s-url", SECRET, SECRET)
    written = stream.getvalue()
    assert SECRET not in written
    assert written.count(logs.MASK) >= 3
    assert 'level=ERROR msg="sent **** to ****"' in written
    assert "traceback=" in written


def test_debug_tracebacks_hide_secrets(tmp_path, monkeypatch, capsys):
    path, _ = prepare(
        tmp_path, "ebpf: {open_port: 1}\nnoop: true\n"
        "otel_traces_export: {endpoint: 'https://h', headers: {authorization: SECRET}}\n", {}
    )  # fmt: skip

    class BrokenApp:
        @staticmethod
        def run(config):
            raise KeyError(config.otel_traces_export.request_headers()["authorization"])

    monkeypatch.setattr(cli, "_app", lambda: BrokenApp)
    assert cli.main(["-config", str(path), "--debug"]) == 1
    written = capsys.readouterr().err
    assert "Traceback" in written
    assert "KeyError" in written
    assert SECRET not in written
