# SPDX-License-Identifier: Apache-2.0
"""The text formats and the scrape server, over real sockets."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from otelauto.counters import Counters, Meaning
from otelauto.errors import OtelautoError
from otelauto.export.exposition import (
    Family,
    Format,
    Kind,
    bound,
    label_name,
    labels,
    metric_name,
    render_family,
)
from otelauto.export.own_metrics import counter_families, process_families
from otelauto.export.own_traffic import OwnTraffic
from otelauto.export.prometheus import (
    MAX_SCRAPES,
    Page,
    Prometheus,
    accepts_gzip,
    metrics_page,
    negotiate,
)
from otelauto.export.red import Red
from otelauto.flows.vocabulary import Address, Instrument, Side
from otelauto.flows.vocabulary import Family as AddressFamily
from otelauto.spans.span import Service, Span

DURATION = Instrument(
    "http.server.request.duration", "s", 'Duration of "server" requests.\\', (0.005, 1.0, 10.0),
    ("http.request.method", "http.response.status_code"),
)  # fmt: skip
SHOP = Service("shop", "eu", "7", {"host.name": 'w"1"\n\\', "process.pid": 42})


def span(method: str, took_s: float, service: Service = SHOP) -> Span:
    return Span(
        service, method, Side.SERVER, b"t" * 16, b"s" * 8, b"", 1, 0, int(took_s * 1e9),
        {"http.request.method": method, "http.response.status_code": 200}, False, None, (DURATION,),
    )  # fmt: skip


def filled() -> Red:
    red = Red(Counters())
    red.add([span("GET", 0.005), span("GET", 0.5), span("GET", 60.0), span("PUT", 10.0)])
    red.add([span("GET", 0.25, Service("cart", "", ""))])
    return red


@contextmanager
def serving(page: Page, path: str = "/metrics", **settings: object) -> Iterator[Prometheus]:
    server = Prometheus("127.0.0.1", 0, {path: page}, **settings)  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.close(5)


def fetch(
    server: Prometheus, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=20)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=sent)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


TEXT = r"""# HELP target_info The resource of each instrumented service.
# TYPE target_info gauge
target_info{host_name="w\"1\"\n\\",process_pid="42",service_instance_id="7",service_name="shop",service_namespace="eu"} 1
target_info{service_name="cart"} 1
# HELP http_server_request_duration_seconds Duration of "server" requests.\\
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{@GET,le="0.005"} 1
http_server_request_duration_seconds_bucket{@GET,le="1"} 2
http_server_request_duration_seconds_bucket{@GET,le="10"} 2
http_server_request_duration_seconds_bucket{@GET,le="+Inf"} 3
http_server_request_duration_seconds_sum{@GET} 60.505
http_server_request_duration_seconds_count{@GET} 3
http_server_request_duration_seconds_bucket{@PUT,le="0.005"} 0
http_server_request_duration_seconds_bucket{@PUT,le="1"} 0
http_server_request_duration_seconds_bucket{@PUT,le="10"} 1
http_server_request_duration_seconds_bucket{@PUT,le="+Inf"} 1
http_server_request_duration_seconds_sum{@PUT} 10.0
http_server_request_duration_seconds_count{@PUT} 1
http_server_request_duration_seconds_bucket{@CART,le="0.005"} 0
http_server_request_duration_seconds_bucket{@CART,le="1"} 1
http_server_request_duration_seconds_bucket{@CART,le="10"} 1
http_server_request_duration_seconds_bucket{@CART,le="+Inf"} 1
http_server_request_duration_seconds_sum{@CART} 0.25
http_server_request_duration_seconds_count{@CART} 1
"""  # noqa: E501
_SHOP = 'service_instance_id="7",service_name="shop",service_namespace="eu"'
for _word, _method, _identity in (
    ("@GET", "GET", _SHOP), ("@PUT", "PUT", _SHOP), ("@CART", "GET", 'service_name="cart"'),
):  # fmt: skip
    TEXT = TEXT.replace(
        _word, f'http_request_method="{_method}",http_response_status_code="200",{_identity}'
    )


def test_text_format() -> None:
    assert b"".join(metrics_page(filled())(Format.TEXT)).decode() == TEXT


def test_openmetrics_format() -> None:
    page = metrics_page(filled())
    first, second = (b"".join(page(Format.OPENMETRICS)).decode() for _ in range(2))
    expected = (
        TEXT.replace('le="1"', 'le="1.0"')
        .replace('le="10"', 'le="10.0"')
        .replace("# HELP target_info", "# HELP target")
        .replace("# TYPE target_info gauge", "# TYPE target info")
        .replace('Duration of "server" requests.', r"Duration of \"server\" requests.")
        .replace("_seconds histogram\n", "_seconds histogram\n# UNIT http_server_request_duration"
                 "_seconds seconds\n")
    )  # fmt: skip
    assert first == second == expected + "# EOF\n"


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        ("http.server.request.duration", "s", ("http_server_request_duration_seconds", "seconds")),
        ("http.server.request.size", "By", ("http_server_request_size_bytes", "bytes")),
        ("a.bytes", "By", ("a_bytes", "bytes")),
        ("http.server.active_requests", "{request}", ("http_server_active_requests", "")),
        ("9.lives", "1", ("_9_lives", "")),
        ("a..b--c", "", ("a_b_c", "")),
    ],
)
def test_metric_names(name: str, unit: str, expected: tuple[str, str]) -> None:
    assert metric_name(name, unit) == expected


def test_labels() -> None:
    assert label_name("http.request-method") == "http_request_method"
    assert label_name("1st") == "key_1st"
    assert labels({"a.b": 'x"\\\n', "a_b": 1.5, "c": True}) == r'a_b="x\"\\\n;1.5",c="true"'
    assert bound(0.005, Format.TEXT) == bound(0.005, Format.OPENMETRICS) == "0.005"
    assert (bound(10, Format.TEXT), bound(10, Format.OPENMETRICS)) == ("10", "10.0")


def test_label_values_may_hold_anything() -> None:
    values = ("100%", "%d %s %b", "a\0b", "", "é\U0001f600", 'q"\\', "half \ud800 pair")
    red = Red(Counters())
    red.add([span(value, 0.5) for value in values])
    shown = ("100%", "%d %s %b", "a\0b", "", "é\U0001f600", r"q\"\\", "half ? pair")
    for fmt in (Format.TEXT, Format.OPENMETRICS):
        lines = b"".join(metrics_page(red)(fmt)).decode().splitlines()
        counts = [line for line in lines if "_count{" in line]
        assert [line.split(",")[0].partition("{")[2] for line in counts] == [
            f'http_request_method="{value}"' for value in shown
        ]
        assert len([line for line in lines if "_bucket{" in line]) == 4 * len(values)


def test_own_metrics() -> None:
    counters = Counters()
    lost = Meaning("records_lost", "Records lost.", "reason")
    counters.add(lost, 3, "ring_full")
    counters.add(lost, 1, "gap")
    counters.add(Meaning("scrapes", "Scrapes."), 2)
    text = "".join(render_family(f, Format.TEXT) for f in counter_families(counters))
    assert text == (
        "# HELP otelauto_records_lost_total Records lost.\n"
        "# TYPE otelauto_records_lost_total counter\n"
        'otelauto_records_lost_total{reason="gap"} 1\n'
        'otelauto_records_lost_total{reason="ring_full"} 3\n'
        "# HELP otelauto_scrapes_total Scrapes.\n"
        "# TYPE otelauto_scrapes_total counter\n"
        "otelauto_scrapes_total 2\n"
    )
    families = {f.name: f for f in process_families("1.2")}
    assert 'version="1.2"' in render_family(families["otelauto_build_info"], Format.TEXT)
    openmetrics = render_family(families["otelauto_process_cpu_seconds"], Format.OPENMETRICS)
    assert "# TYPE otelauto_process_cpu_seconds counter\n" in openmetrics
    assert "# UNIT otelauto_process_cpu_seconds seconds\n" in openmetrics
    assert "\notelauto_process_cpu_seconds_total " in openmetrics
    (memory,) = families["otelauto_process_resident_memory_bytes"].samples()
    assert memory[1] > 1_000_000
    assert render_family(Family("x", Kind.GAUGE, "X.", list), Format.TEXT) == ""


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, Format.TEXT), ("", Format.TEXT), ("*/*", Format.TEXT),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
         Format.OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; q=0.2, text/plain;q=0.5", Format.TEXT),
        ("application/openmetrics-text;version=0.0.1,text/plain;q=0.1", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("application/vnd.google.protobuf,application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1",
         Format.OPENMETRICS),
        ("application/openmetrics-text;q=0, text/plain", Format.TEXT),
        ("application/openmetrics-text;q=oops", Format.TEXT), ("text/html,;;;,==", Format.TEXT),
    ],
)  # fmt: skip
def test_negotiation(accept: str | None, expected: Format) -> None:
    assert negotiate(accept) is expected


PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (f"{PROTOBUF},application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1", Format.PROTOBUF),
        (f"{PROTOBUF};q=0.5,application/openmetrics-text;version=1.0.0;q=0.8", Format.OPENMETRICS),
        (PROTOBUF.replace("delimited", "text"), Format.TEXT),
        ("application/vnd.google.protobuf", Format.TEXT),
        ("*/*", Format.TEXT),
    ],
)
def test_protobuf_is_negotiated_where_it_can_be_had(accept: str, expected: Format) -> None:
    assert negotiate(accept, protobuf=True) is expected
    assert negotiate(accept) is not Format.PROTOBUF


@pytest.mark.parametrize(
    ("accept", "expected"),
    [(None, False), ("gzip", True), ("deflate, gzip;q=1.0", True), ("gzip;q=0", False),
     ("*", True), ("br", False)],
)  # fmt: skip
def test_gzip_is_negotiated(accept: str | None, expected: bool) -> None:
    assert accepts_gzip(accept) is expected


def test_scraping() -> None:
    with serving(metrics_page(filled())) as server:
        status, headers, body = fetch(server)
        assert status == 200
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert body.decode() == TEXT
        _, headers, body = fetch(
            server, Accept="application/openmetrics-text", Accept_Encoding="gzip"
        )
        assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert gzip.decompress(body).decode().endswith("# EOF\n")
        status, headers, body = fetch(server, "/metrics?x=1", "HEAD")
        assert (status, body) == (200, b"")
        status, _, body = fetch(server, "/")
        assert (status, body) == (404, b"there is nothing here; try /metrics\n")
        assert fetch(server, "/", "HEAD")[::2] == (404, b"")
        assert fetch(server, method="POST")[0] == 501
        assert server.status()["scrapes"] == 2
        _, port = server.address
        assert server.status()["url"] == f"http://127.0.0.1:{port}/metrics"


def test_http_10_and_kept_connections() -> None:
    with serving(metrics_page(filled()), "own/page") as server:
        with socket.create_connection(server.address, 20) as raw:
            raw.sendall(b"GET /own/page HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        assert answer.partition(b"\r\n\r\n")[2].decode() == TEXT
        connection = http.client.HTTPConnection(*server.address, timeout=20)
        for _ in range(3):
            connection.request("GET", "/own/page")
            assert connection.getresponse().read().decode() == TEXT
        connection.close()


def test_many_series_arrive_whole() -> None:
    red = Red(Counters())
    red.add([span(f"M{n}", 0.5) for n in range(2000)])
    with serving(metrics_page(red)) as server:
        plain = fetch(server)[2]
        assert gzip.decompress(fetch(server, Accept_Encoding="gzip")[2]) == plain
    assert plain.count(b"_seconds_count{") == 2000
    assert len(set(plain.split(b"\n"))) == 2000 * 6 + 5 + 1


def test_a_taken_port_is_an_error_with_a_remedy() -> None:
    with serving(metrics_page(None)) as server:
        port = server.address[1]
        with pytest.raises(OtelautoError) as caught:
            Prometheus("127.0.0.1", port, {}).start()
    assert caught.value.message == (
        f"metrics cannot be served on port {port} of 127.0.0.1: address already in use"
    )
    assert "prometheus_export.port" in caught.value.remedy


@pytest.mark.parametrize(("host", "port"), [("256.1.1.1", 9400), ("192.0.2.1", 0), ("::1", 70000)])
def test_bad_addresses_are_errors(host: str, port: int) -> None:
    with pytest.raises(OtelautoError) as caught:
        Prometheus(host, port, {}).start()
    assert caught.value.remedy


def test_ipv6_and_closing() -> None:
    server = Prometheus("::1", 0, {"/metrics": metrics_page(None)})
    server.start()
    assert server.urls == [f"http://[::1]:{server.address[1]}/metrics"]
    assert fetch(server)[0] == 200
    address = server.address
    server.close(5)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)


def test_scrapes_at_once_are_bounded() -> None:
    entered, go_on = threading.Semaphore(0), threading.Event()

    def page(_format: Format) -> Iterator[bytes]:
        entered.release()
        go_on.wait(30)
        yield b"x 1\n"

    with serving(page) as server:
        results: list[int] = []
        threads = [
            threading.Thread(target=lambda: results.append(fetch(server)[0]))
            for _ in range(MAX_SCRAPES)
        ]
        for thread in threads:
            thread.start()
            assert entered.acquire(timeout=20)
        assert fetch(server)[0] == 503
        go_on.set()
        for thread in threads:
            thread.join(20)
        assert results == [200] * MAX_SCRAPES


def test_a_defect_is_seen_by_the_scraper() -> None:
    def page(_format: Format) -> Iterator[bytes]:
        raise ZeroDivisionError("oops")
        yield b""

    with serving(page) as server:
        assert fetch(server)[0] == 500
        assert "oops" in str(server.status()["last_error"])


def test_scrape_connections_are_own_traffic() -> None:
    own = OwnTraffic()
    with serving(metrics_page(None), own_traffic=own) as server:
        connection = http.client.HTTPConnection(*server.address, timeout=20)
        connection.request("GET", "/metrics")
        here = connection.sock.getsockname()
        connection.getresponse().read()
        ends = [Address(AddressFamily.INET, *end) for end in (here, server.address)]
        assert own.owns(ends[0], ends[1])
        assert own.owns(ends[1], ends[0])
        assert not own.owns(ends[0], ends[0])
        connection.close()


def test_closed_own_connections_are_forgotten_in_time() -> None:
    now = [0.0]
    own = OwnTraffic(lambda: now[0])
    left, right = socket.create_server(("127.0.0.1", 0)), socket.socket()
    right.connect(left.getsockname())
    ends = own.opened(right)
    here, there = (Address(AddressFamily.INET, *s.getsockname()) for s in (right, left))
    own.closed(ends)
    assert own.owns(here, there)
    now[0] = 61
    unrelated, pair = socket.socketpair()
    assert own.opened(unrelated) is None
    second = socket.create_connection(left.getsockname())
    own.opened(second)
    assert not own.owns(here, there)
    for each in (left, right, unrelated, pair, second):
        each.close()
