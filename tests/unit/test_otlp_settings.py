# SPDX-License-Identifier: Apache-2.0
"""The variables of the OTLP exporter specification, as a whole, and what they mean."""

from __future__ import annotations

from typing import Any

import pytest

from otelauto.config import Config, InvalidConfig, Purpose, load
from otelauto.config.setting import declarations
from otelauto.config.show import secrets

# https://opentelemetry.io/docs/specs/otel/protocol/exporter/, "Configuration Options"
SUFFIXES = {
    "ENDPOINT": "endpoint",
    "INSECURE": "insecure",
    "CERTIFICATE": "certificate",
    "CLIENT_KEY": "client_key",
    "CLIENT_CERTIFICATE": "client_certificate",
    "HEADERS": "headers",
    "COMPRESSION": "compression",
    "TIMEOUT": "timeout",
    "PROTOCOL": "protocol",
}


def exports(environ: dict[str, str]) -> dict[str, Any]:
    config = load(None, environ, {}, Purpose.SHOW).config
    return {"traces": config.otel_traces_export, "metrics": config.otel_metrics_export}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_every_variable_is_read_that_of_the_signal_first(signal: str, suffix: str) -> None:
    key = f"otel_{signal}_export.{SUFFIXES[suffix]}"
    (declared,) = (each for each in declarations(Config) if each.key == key)
    names = [f"OTEL_EXPORTER_OTLP_{signal.upper()}_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"]
    assert [variable.name for variable in declared.env] == names


@pytest.mark.parametrize(
    ("generic", "url"),
    [
        ("http://h:4318", "http://h:4318/v1/traces"),
        ("http://h:4318/", "http://h:4318/v1/traces"),
        ("https://h/mycollector", "https://h/mycollector/v1/traces"),
        ("https://h/mycollector/", "https://h/mycollector/v1/traces"),
    ],
)
def test_endpoints(generic: str, url: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": generic}
    found = exports(environ)
    assert found["traces"].endpoint.url == url
    assert found["metrics"].endpoint.url == url.replace("traces", "metrics")
    own = {**environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://own:9"}
    assert exports(own)["traces"].endpoint.url == "http://own:9/"
    assert exports(own)["metrics"].endpoint.url == url.replace("traces", "metrics")


@pytest.mark.parametrize(
    ("given", "protocol"),
    [
        ("grpc", "grpc"),
        ("http/protobuf", "http/protobuf"),
        ("http/json", "http/json"),
        ("HTTP/JSON", "http/json"),
        ("", "http/protobuf"),
        ("carrier pigeon", "http/protobuf"),
    ],
)
def test_protocols(given: str, protocol: str) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318",
        "OTEL_EXPORTER_OTLP_PROTOCOL": given,
    }
    assert exports(environ)["traces"].protocol == protocol
    environ["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"] = "http/json"
    assert exports(environ)["metrics"].protocol == "http/json"
    assert exports(environ)["traces"].protocol == protocol


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,b=2", {"a": "1", "b": "2"}),
        (" A = 1 , , b=x%2Cy ", {"a": "1", "b": "x,y"}),
        ("x%2Dscope=tenant", {"x-scope": "tenant"}),
        ("Authorization=Basic abc==", {"authorization": "Basic abc=="}),
        ("authorization=Basic%20abc%3D%3D", {"authorization": "Basic abc=="}),
        ("a=1,a=2", {"a": "2"}),
        ("a=", {"a": ""}),
        ("a=caf%C3%A9", {"a": "caf\u00e9"}),
    ],
)
def test_headers(text: str, expected: dict[str, str]) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": text,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://h",
    }
    assert exports(environ)["traces"].request_headers() == expected


@pytest.mark.parametrize(
    "text",
    ["s3cret", "=s3cret", "a b=s3cret", "a%0a=s3cret", "a=s3cret%0d%0aX: y", "a=s3cret\u20ac"],
)
def test_bad_headers_are_refused_without_showing_the_value(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        exports({"OTEL_EXPORTER_OTLP_HEADERS": text})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("text", "seconds"), [("250", 0.25), ("0", 0.0), ("10s", 10.0)])
def test_timeouts_are_milliseconds(text: str, seconds: float) -> None:
    """What is no number is warned about and ignored."""
    assert exports({"OTEL_EXPORTER_OTLP_TIMEOUT": text})["traces"].timeout == seconds


CLOUD = {
    "GRAFANA_CLOUD_ZONE": "prod-eu-west-0",
    "GRAFANA_CLOUD_INSTANCE_ID": "4711",
    "GRAFANA_CLOUD_API_KEY": "glc_a/b+c=@",
}


def test_grafana_cloud() -> None:
    found = exports(CLOUD)
    traces = found["traces"]
    assert traces.endpoint.url == "https://otlp-gateway-prod-eu-west-0.grafana.net/otlp/v1/traces"
    assert traces.endpoint.credentials == ("4711", "glc_a/b+c=@")
    assert traces.request_headers() == {"authorization": "Basic NDcxMTpnbGNfYS9iK2M9QA=="}
    assert traces.protocol == "http/protobuf"
    assert found["metrics"].endpoint is None
    both = exports({**CLOUD, "GRAFANA_CLOUD_SUBMIT": "traces,metrics"})
    assert both["metrics"].endpoint.path == "/otlp/v1/metrics"
    none = exports({**CLOUD, "GRAFANA_CLOUD_SUBMIT": "none"})
    assert none["traces"].endpoint is None


def test_the_key_of_grafana_cloud_is_not_shown() -> None:
    loaded = load(None, CLOUD, {}, Purpose.SHOW)
    assert CLOUD["GRAFANA_CLOUD_API_KEY"] not in repr(loaded)
    assert CLOUD["GRAFANA_CLOUD_API_KEY"] in secrets(loaded.config)
    assert "NDcxMTpnbGNfYS9iK2M9QA==" in secrets(loaded.config)
