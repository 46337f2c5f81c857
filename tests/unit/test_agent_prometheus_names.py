# SPDX-License-Identifier: Apache-2.0
"""Names and labels in Prometheus, by the examples of the specification and of Prometheus itself."""

from __future__ import annotations

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from otelauto.agent.prometheus.names import (
    attribute_labels,
    double_text,
    label_name,
    metric_name,
    plain_text,
    sorted_labels,
    value_text,
)


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", "", "http_server_request_duration_seconds"),
        ("messaging.client.sent.messages", "{message}", "counter",
         "messaging_client_sent_messages_total"),
        ("http.server.active_requests", "{request}", "", "http_server_active_requests"),
        ("process.cpu.utilization", "1", "gauge", "process_cpu_utilization_ratio"),
        ("items", "1", "counter", "items_total"),
        ("cpu_usage_ratio", "1", "gauge", "cpu_usage_ratio"),
        ("queue.size", "1", "", "queue_size"),
        ("requests_total", "", "counter", "requests_total"),
        ("total.requests", "", "counter", "requests_total"),
        ("system.network.io", "By", "counter", "system_network_io_bytes_total"),
        ("response_time_seconds", "s", "", "response_time_seconds"),
        ("seconds.since.start", "s", "", "seconds_since_start"),
        ("throughput", "By/s", "gauge", "throughput_bytes_per_second"),
        ("requests", "1/s", "gauge", "requests_per_second"),
        ("packets", "{packet}/s", "gauge", "packets_per_second"),
        ("custom_metric", "By/{custom}", "gauge", "custom_metric_bytes"),
        ("speed", "m/mo", "gauge", "speed_meters_per_month"),
        ("m", "custom_unit", "gauge", "m_custom_unit"),
        ("metric__with__multiple", "unit__multiple", "", "metric_with_multiple_unit_multiple"),
        ("custom_metric", "unit@with#special/chars", "",
         "custom_metric_unit_with_special_per_chars"),
        ("2xx.count", "", "counter", "_2xx_count_total"),
        ("a:b", "", "", "a:b"),
        ("@#$%", "", "", ""),
        ("caf\u00e9", "", "", "caf"),
        ("temperature", "Cel", "gauge", "temperature_celsius"),
        ("disk", "GiBy", "gauge", "disk_gibibytes"),
        ("disk", "GBy", "gauge", "disk_gigabytes"),
        ("up.time", "d", "", "up_time_days"),
        ("used", "%", "gauge", "used_percent"),
        ("t", "us", "", "t_microseconds"),
        ("x", "/s", "", "x_per_second"),
    ],
)  # fmt: skip
def test_names(name: str, unit: str, kind: str, expected: str) -> None:
    found = metric_name(name, unit, counter=kind == "counter", gauge=kind == "gauge")
    assert found == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("http.server.duration", "http_server_duration"), ("a__b", "a__b"), ("1a", "_1a"),
     ("a-.b", "a_b")],
)  # fmt: skip
def test_names_without_suffixes(name: str, expected: str) -> None:
    assert metric_name(name, "s", counter=True, suffixes=False) == expected


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [("http.route", "http_route"), ("a..b", "a_b"), ("2nd", "key_2nd"), ("_private", "key_private"),
     ("__name__", "key_name_"), ("\u00e4", "key_"), ("A9", "A9")],
)  # fmt: skip
def test_label_names(attribute: str, expected: str) -> None:
    assert label_name(attribute) == expected


def test_labels_that_share_a_name_are_joined_in_key_order() -> None:
    pairs = [("a_b", "3"), ("a.b", "2"), ("a-b", "1")]
    assert attribute_labels(pairs) == {"a_b": "1;2;3"}


def test_an_empty_label_is_none() -> None:
    assert sorted_labels({"b": "2", "a": "", "__name__": "x"}) == (("__name__", "x"), ("b", "2"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (AnyValue(string_value="x"), "x"),
        (AnyValue(bool_value=True), "true"),
        (AnyValue(int_value=-7), "-7"),
        (AnyValue(double_value=10.0), "10"),
        (AnyValue(bytes_value=b"\x00\x01"), "AAE="),
        (AnyValue(), ""),
        (
            AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue()])),
            "[1,null]",
        ),
        (
            AnyValue(
                kvlist_value=KeyValueList(
                    values=[
                        KeyValue(key="b", value=AnyValue(string_value="\u00fc")),
                        KeyValue(key="a", value=AnyValue(double_value=0.5)),
                    ]
                )
            ),
            '{"a":0.5,"b":"\u00fc"}',
        ),
    ],
)
def test_values_as_text(value: AnyValue, expected: str) -> None:
    assert value_text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.005, "0.005"), (10.0, "10"), (float("inf"), "+Inf"), (1e22, "10000000000000000000000"),
     (2.5e-7, "0.00000025")],
)  # fmt: skip
def test_bounds_have_no_exponent(value: float, expected: str) -> None:
    assert plain_text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e21, "1e+21"),
        (1.5e-7, "1.5e-7"),
        (123456.5, "123456.5"),
        (0.0, "0"),
        (1e20, "1" + "0" * 20),
    ],
)
def test_doubles_as_attributes(value: float, expected: str) -> None:
    assert double_text(value) == expected
