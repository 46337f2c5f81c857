# SPDX-License-Identifier: Apache-2.0
"""Kinds of values: durations, ports, lists, endpoints, headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelauto.config import kinds, otlp
from otelauto.config.interpolate import interpolate
from otelauto.config.kinds import Ports

UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0), ("500ms", 0.5), ("1m30s", 90.0), ("1.5h", 5400.0), ("0", 0.0), ("0s", 0.0),
        ("100us", 1e-4), ("7µs", 7e-6), ("250ns", 2.5e-7), (" 2s ", 2.0), (".5s", 0.5),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    assert kinds.read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1 s", "5", "1e3s", "1s2", "1d", "١s", "inf", "nan"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError):
        kinds.read_duration(text)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(UNITS))), min_size=1))
def test_duration_is_the_sum_of_its_parts(parts):
    text = "".join(f"{number}{unit}" for number, unit in parts)
    nanoseconds = sum(number * UNITS[unit] for number, unit in parts)
    assert kinds.read_duration(text) == pytest.approx(nanoseconds / 1e9)


@given(st.integers(0, 10**15))
def test_a_shown_duration_reads_the_same(microseconds):
    seconds = microseconds / 1e6
    assert kinds.read_duration(kinds.show_duration(seconds)) == pytest.approx(seconds, rel=1e-9)


@given(st.text())
def test_readers_raise_only_value_error(text):
    readers = [
        kinds.read_duration, kinds.read_ports, kinds.read_boolean, kinds.read_integer,
        kinds.PIDS.read, kinds.PATTERNS.read, otlp.HEADERS.read, otlp.ATTRIBUTES.read,
        otlp.endpoint_base("traces").read, otlp.endpoint_generic("traces").read,
        otlp.ENDPOINT_AS_GIVEN.read, otlp.PROTOCOL.read,
    ]  # fmt: skip
    for read in readers:
        try:
            read(text)
        except ValueError:
            continue


PORT = st.integers(1, 65535)


@given(st.lists(st.tuples(PORT, PORT), min_size=1, max_size=5))
def test_ports_hold_exactly_what_was_written(pairs):
    ranges = [(min(pair), max(pair)) for pair in pairs]
    text = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
    ports = kinds.read_ports(text)
    edges = {edge + step for pair in ranges for edge in pair for step in (-1, 0, 1)}
    for port in edges:
        assert (port in ports) == any(low <= port <= high for low, high in ranges)
    assert kinds.read_ports(str(ports)) == ports
    assert all(a[1] + 1 < b[0] for a, b in zip(ports.ranges, ports.ranges[1:], strict=False))


@pytest.mark.parametrize(
    "text", ["", ",", "0", "65536", "90-80", "-80", "80-", "1-2-3", "http", "٣"]
)
def test_what_is_no_port(text):
    with pytest.raises(ValueError):
        kinds.read_ports(text)


def test_ports_in_the_forms_users_write():
    assert list(kinds.read_ports("80,443")) == [80, 443]
    assert kinds.PORTS.read(["80", "8000-8002"]) == Ports(((80, 80), (8000, 8002)))
    assert kinds.read_ports("8001,8000-8000") == Ports(((8000, 8001),))
    assert not Ports()


@pytest.mark.parametrize(
    ("kind", "text", "url"),
    [
        ("yaml", "http://h:4318", "http://h:4318/v1/traces"),
        ("yaml", "http://h:4318/", "http://h:4318/v1/traces"),
        ("yaml", "http://h/otlp", "http://h/otlp/v1/traces"),
        ("yaml", "http://h/v1/traces", "http://h/v1/traces"),
        ("yaml", "http://h/v1/metrics", "http://h/v1/metrics/v1/traces"),
        ("generic", "http://h/mycollector/", "http://h/mycollector/v1/traces"),
        ("generic", "http://h/v1/traces", "http://h/v1/traces/v1/traces"),
        ("as_is", "http://h:4318", "http://h:4318/"),
        ("as_is", "https://h/x?y=1", "https://h/x?y=1"),
        ("yaml", "http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_endpoints(kind, text, url):
    readers = {
        "yaml": otlp.endpoint_base("traces"),
        "generic": otlp.endpoint_generic("traces"),
        "as_is": otlp.ENDPOINT_AS_GIVEN,
    }
    assert readers[kind].read(text).full_url == url


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:1", True), ("http://127.9.9.9", True), ("http://[::1]:4318", True),
        ("http://10.0.0.1", False), ("http://localhost.example.com", False),
        ("http://127.0.0.1.nip.io", False), ("http://0.0.0.0:4318", False),
    ],
)  # fmt: skip
def test_loopback(url, local):
    assert otlp.ENDPOINT_AS_GIVEN.read(url).is_loopback() is local


def test_url_with_password_shows_neither_password_nor_query_values():
    endpoint = otlp.endpoint_base("traces").read("https://user:s3cr%40t@h:9/?api_key=hunter2")
    assert endpoint.url == "https://h:9/v1/traces?api_key=hunter2"
    assert endpoint.credentials == ("user", "s3cr@t")
    assert "s3cr" not in repr(endpoint) + str(endpoint)
    assert "hunter2" not in repr(endpoint)
    assert (endpoint.host, endpoint.port) == ("h", 9)


@given(password=st.text(st.characters(categories=["L", "N"]), min_size=8))
def test_masking_hides_any_password(password):
    for text in (
        f"http://u:{password}@h",
        f"u:{password}@h",
        f"://{password}@h",
        f"x?k={password}",
    ):
        assert password not in otlp.mask_url(text).replace("://", "")


def test_headers_in_the_form_of_the_variable():
    headers = otlp.HEADERS.read("Authorization=Basic%20dTpw, x-scope = a b ,tail=k=v==")
    assert dict(headers) == {"authorization": "Basic dTpw", "x-scope": "a b", "tail": "k=v=="}
    assert dict(otlp.HEADERS.read("Authorization=Basic dTpw==")) == {
        "authorization": "Basic dTpw=="
    }
    assert "dTpw" not in repr(headers)


def test_headers_in_yaml_are_taken_literally():
    assert dict(otlp.HEADERS.read([("X-A", "50%20,=")])) == {"x-a": "50%20,="}


@pytest.mark.parametrize("text", ["novalue", "a b=c", "x=1%0d%0aInjected: yes", "=v", "x=%00"])
def test_headers_that_are_none(text):
    with pytest.raises(ValueError):
        otlp.HEADERS.read(text)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a${X}b", "a1b"), ("${env:X}", "1"), ("${NONE:-d}", "d"), ("${EMPTY:-d}", "d"),
        ("${NONE:-}", ""), ("$${X}", "${X}"), ("${X}${X}", "11"), ("$X 5$", "$X 5$"),
        ("${REF}", "${X}"), ("${NONE:-http://h:1}", "http://h:1"),
    ],
)  # fmt: skip
def test_references(text, result):
    assert interpolate(text, {"X": "1", "EMPTY": "", "REF": "${X}"}) == result


@pytest.mark.parametrize(
    "text", ["${NONE}", "${", "${}", "${a b}", "${file:/no/such}", "${X", "${file:\0}"]
)
def test_references_that_cannot_be_resolved(text):
    with pytest.raises(ValueError, match=r"\w+"):
        interpolate(text, {"X": "1"})


def test_secrets_from_files_and_credentials(tmp_path):
    (tmp_path / "token").write_text("t0ken\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert interpolate(f"${{file:{tmp_path}/token}}", {}) == "t0ken"
    assert interpolate("${credential:token}", environ) == "t0ken"
    for bad in ("${credential:../x}", "${credential:}", "${credential:absent}"):
        with pytest.raises(ValueError):
            interpolate(bad, environ)
    with pytest.raises(ValueError, match="LoadCredential"):
        interpolate("${credential:token}", {})
