# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes the endpoint in both formats; promtool judges the text."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest
from tests.certificates import self_signed
from tests.e2e.harness.process import free_port

from otelauto.counters import Counters, Meaning
from otelauto.export.exposition import Family, Format
from otelauto.export.own_metrics import counter_families, process_families
from otelauto.export.prometheus import Page, Prometheus, metrics_page
from otelauto.export.red import Red
from otelauto.export.web_config import WebConfig
from otelauto.flows.vocabulary import Instrument, Side
from otelauto.spans.span import Service, Span

pytestmark = pytest.mark.interop

ROUTE = "http.route"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
INSTRUMENTS = (
    Instrument("http.server.request.duration", "s", "Duration.", BUCKETS, (ROUTE,)),
    Instrument("http.server.request.body.size", "By", "Size.", (0.0, 1024.0), (ROUTE,), "size"),
)
ODD = 'a"b\\c\nd\u00fc'


def own_families() -> list[Callable[[], Iterable[Family]]]:
    counters = Counters()
    counters.add(Meaning("records_lost", "Records.", "reason"), 5, "ring_full")
    return [lambda: counter_families(counters), lambda: process_families("1.0")]


SHOP = Service("shop", "eu", "7", {"host.name": "web"})
CART = Service("cart", "", "")


def filled() -> tuple[Red, Page]:
    red = Red(Counters(), exemplars=True, exponential=True, ttl_s=0)
    for service in (SHOP, CART):
        for n in range(1, 101):
            red.add(
                [
                    Span(
                        service, "GET", Side.SERVER, n.to_bytes(16), n.to_bytes(8), b"", 1, 0,
                        n * 10_000_000, {ROUTE: f"/{ODD}/{n % 2}", "size": n}, False, None,
                        INSTRUMENTS,
                    )
                ]
            )  # fmt: skip
    started = time.time_ns()  # exemplars may not be old
    return red, metrics_page(red, own_families(), lambda boot_ns: started + boot_ns)


class RealPrometheus:
    """Scrapes ``targets`` (job to host and port); ``settings`` are of single jobs.

    It takes 5 s before its first scrape: all tests share one.
    """

    def __init__(
        self,
        directory: Path,
        targets: dict[str, str],
        settings: Mapping[str, Mapping[str, object]],
    ) -> None:
        self.port = free_port()
        jobs = [
            {
                "job_name": job,
                "static_configs": [{"targets": [target]}],
                **settings.get(job, {}),
            }
            for job, target in targets.items()
        ]
        config = {"global": {"scrape_interval": "200ms"}, "scrape_configs": jobs}
        (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self.log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [
                "prometheus", f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--enable-feature=native-histograms,exemplar-storage",
            ],
            stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def get(self, path: str) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())["data"]
        finally:
            connection.close()

    def query(self, expression: str) -> dict[str, float]:
        """Value by job of an instant query."""
        data = self.get(f"/api/v1/query?query={urllib.parse.quote(expression)}")
        assert isinstance(data, dict)
        return {one["metric"].get("job", ""): float(one["value"][1]) for one in data["result"]}

    def wait_for(self, expression: str, expected: dict[str, float]) -> None:
        end = time.monotonic() + 60
        found: object = None
        while time.monotonic() < end:
            try:
                found = self.query(expression)
            except (OSError, KeyError, ValueError) as error:
                found = error
            if found == expected:
                return
            time.sleep(0.1)
        pytest.fail(f"{expression}: {found!r} instead of {expected}; {self.targets()}")

    def wait_for_scrapes(self, *jobs: str) -> None:
        """Until each of ``jobs`` was scraped."""
        self.wait_for(f'up{{job=~"{"|".join(jobs)}"}}', dict.fromkeys(jobs, 1.0))

    def targets(self) -> object:
        return self.get("/api/v1/targets")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


class TextOnly(Prometheus):
    """Answers as to a scraper that does not know OpenMetrics."""

    def start(self) -> None:
        super().start()
        assert self._server is not None
        handler = self._server.RequestHandlerClass

        class Handler(handler):  # type: ignore[misc, valid-type]
            def parse_request(self) -> bool:
                parsed = super().parse_request()
                if parsed:
                    del self.headers["Accept"]
                return bool(parsed)

        self._server.RequestHandlerClass = Handler


@dataclass(frozen=True)
class Pages:
    """What is scraped, by job. The pages are of one aggregator, but that of ``ending``."""

    servers: dict[str, Prometheus]
    ending: Red
    settings: dict[str, dict[str, object]]


def pages(directory: Path) -> Pages:
    _, page = filled()
    ending, ending_page = filled()
    own, friend = (self_signed(directory, name) for name in ("own", "friend"))
    hashed = bcrypt.hashpw(b"pass", bcrypt.gensalt(4)).decode()
    file = directory / "web.yml"
    tls = {
        "cert_file": own[0], "key_file": own[1], "client_ca_file": friend[0],
        "client_auth_type": "RequireAndVerifyClientCert",
    }  # fmt: skip
    file.write_text(json.dumps({"tls_server_config": tls, "basic_auth_users": {"p": hashed}}))
    web = WebConfig(str(file))
    secured = Prometheus("127.0.0.1", 0, {"/own/metrics": page}, web=web)
    user = {"username": "p", "password": "pass"}
    client = {
        "ca_file": own[0], "cert_file": friend[0], "key_file": friend[1],
        "server_name": "localhost",
    }  # fmt: skip
    stranger = {"ca_file": own[0], "server_name": "localhost"}
    where: dict[str, object] = {"scheme": "https", "metrics_path": "/own/metrics"}
    return Pages(
        {
            "openmetrics": Prometheus("127.0.0.1", 0, {"/metrics": page}),
            "text": TextOnly("127.0.0.1", 0, {"/metrics": page}),
            "native": Prometheus("127.0.0.1", 0, {"/metrics": page}, protobuf=True),
            "ending": Prometheus("127.0.0.1", 0, {"/metrics": ending_page}),
            "right": secured,
            "no_password": secured,
            "no_certificate": secured,
        },
        ending,
        {
            "right": {**where, "tls_config": client, "basic_auth": user},
            "no_password": {**where, "tls_config": client},
            "no_certificate": {**where, "tls_config": stranger, "basic_auth": user},
        },
    )


@pytest.fixture(scope="module", name="scraped")
def fixture_scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    made = pages(tmp_path_factory.mktemp("pages"))
    servers = list(dict.fromkeys(made.servers.values()))
    for server in servers:
        server.start()
    yield made
    for server in servers:
        server.close(5)


@pytest.fixture(scope="module", name="scraping")
def fixture_scraping(
    scraped: Pages, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealPrometheus]:
    targets = {job: f"127.0.0.1:{one.address[1]}" for job, one in scraped.servers.items()}
    prometheus = RealPrometheus(tmp_path_factory.mktemp("prometheus"), targets, scraped.settings)
    yield prometheus
    prometheus.stop()


def test_prometheus_reads_both_formats(scraping: RealPrometheus) -> None:
    both = {"openmetrics": 200.0, "text": 200.0}
    name = "http_server_request_duration_seconds"
    jobs = 'job=~"openmetrics|text"'
    scraping.wait_for(f"sum by (job) ({name}_count{{{jobs}}})", both)
    scraping.wait_for_scrapes("openmetrics", "text")
    scraping.wait_for(f'sum by (job) ({name}_bucket{{le="+Inf",{jobs}}})', both)
    assert scraping.query(f'sum by (job) ({name}_bucket{{le=~"1(.0)?",{jobs}}})') == both
    assert scraping.query(f'sum by (job) ({name}_bucket{{le="0.25",{jobs}}})') == {
        "openmetrics": 50.0, "text": 50.0,
    }  # fmt: skip
    total = scraping.query(f'sum by (job) ({name}_sum{{service_name="shop",{jobs}}})')
    assert total == pytest.approx({"openmetrics": 50.5, "text": 50.5})
    odd = ODD.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    one = f'{name}_count{{service_name="cart",http_route="/{odd}/1",{jobs}}}'
    assert scraping.query(one) == {"openmetrics": 50.0, "text": 50.0}
    info = f'target_info{{service_name="shop",host_name="web",service_instance_id="7",{jobs}}}'
    assert scraping.query(info) == {"openmetrics": 1.0, "text": 1.0}
    assert scraping.query(f'otelauto_records_lost_total{{reason="ring_full",{jobs}}}') == {
        "openmetrics": 5.0, "text": 5.0,
    }  # fmt: skip
    size = f'http_server_request_body_size_bytes_bucket{{le=~"1024.*",{jobs}}}'
    assert scraping.query(f"sum by (job) ({size})") == both


def test_prometheus_knows_the_types(scraping: RealPrometheus) -> None:
    scraping.wait_for_scrapes("openmetrics", "text")
    found = scraping.get("/api/v1/metadata")
    assert isinstance(found, dict)
    assert {one["type"] for one in found["http_server_request_duration_seconds"]} == {"histogram"}
    assert {one["unit"] for one in found["http_server_request_duration_seconds"]} == {
        "", "seconds",
    }  # fmt: skip
    assert found["otelauto_records_lost_total"][0]["type"] == "counter"


def test_prometheus_keeps_exemplars(scraping: RealPrometheus) -> None:
    name = "http_server_request_duration_seconds"
    scraping.wait_for_scrapes("openmetrics", "text")
    now = time.time()
    series = f'{name}_bucket{{job=~"openmetrics|text"}}'
    asked = {"query": series, "start": now - 3600, "end": now + 3600}
    data = scraping.get(f"/api/v1/query_exemplars?{urllib.parse.urlencode(asked)}")
    assert isinstance(data, list)
    assert {series["seriesLabels"]["job"] for series in data} == {"openmetrics"}
    found = {
        (exemplar["labels"]["trace_id"], exemplar["labels"]["span_id"], float(exemplar["value"]))
        for series in data
        if series["seriesLabels"]["service_name"] == "shop"
        for exemplar in series["exemplars"]
    }
    # Of each route the last span in each bucket: at 0.01, 0.02 (0.025), 0.05 ... 1 s.
    numbers = {1, 2, 5, 4, 7, 6, 9, 10, 25, 24, 49, 50, 75, 74, 99, 100}
    assert found == {(f"{n:032x}", f"{n:016x}", n / 100) for n in numbers}


def test_prometheus_scrapes_what_is_secured(scraping: RealPrometheus) -> None:
    jobs = 'job=~"right|no_.*"'
    scraping.wait_for(f"up{{{jobs}}}", {"right": 1.0, "no_password": 0.0, "no_certificate": 0.0})
    name = "http_server_request_duration_seconds"
    assert scraping.query(f"sum by (job) ({name}_count{{{jobs}}})") == {"right": 200.0}


def test_prometheus_reads_native_histograms(scraping: RealPrometheus) -> None:
    scraping.wait_for_scrapes("native")
    name = "http_server_request_duration_seconds"
    durations = f'{name}{{job="native"}}'
    scraping.wait_for(f"sum by (job) (histogram_count({durations}))", {"native": 200.0})
    shop = f'{name}{{job="native",service_name="shop"}}'
    total = scraping.query(f"sum by (job) (histogram_sum({shop}))")
    assert total == pytest.approx({"native": 50.5})
    for share in (0.1, 0.5, 0.9, 0.99):
        found = scraping.query(f"histogram_quantile({share}, sum by (job) ({durations}))")
        # 0.01 to 1.00 s: 160 buckets are of scale 4, each 4.4 % wide; values are 0.01 apart.
        assert found["native"] == pytest.approx(share, rel=0.045, abs=0.01)
    sizes = 'http_server_request_body_size_bytes{job="native"}'
    assert scraping.query(f"sum by (job) (histogram_count({sizes}))") == {"native": 200.0}
    info = 'target_info{service_name="shop",host_name="web",job="native"}'
    assert scraping.query(info) == {"native": 1.0}
    lost = scraping.query('otelauto_records_lost_total{reason="ring_full",job="native"}')
    assert lost == {"native": 5.0}
    asked = {"match_target": '{job="native"}', "metric": name}
    metadata = scraping.get(f"/api/v1/targets/metadata?{urllib.parse.urlencode(asked)}")
    assert isinstance(metadata, list)
    assert {one["type"] for one in metadata} == {"histogram"}


def test_series_of_a_service_that_went_are_marked_stale(
    scraped: Pages, scraping: RealPrometheus
) -> None:
    """At once: what only stops to be there is answered for five minutes more."""
    count = 'sum by (service_name) (http_server_request_duration_seconds_count{job="ending"})'
    by_service = f'label_replace({count}, "job", "$1", "service_name", "(.*)")'
    scraping.wait_for(by_service, {"shop": 100.0, "cart": 100.0})
    scraped.ending.forget(CART)
    scraping.wait_for(by_service, {"shop": 100.0})
    assert scraping.query('target_info{job="ending",service_name="cart"}') == {}


@pytest.mark.parametrize("kind", ["all", "own", "red"])
def test_promtool_finds_nothing_wrong(kind: str) -> None:
    pages = {
        "all": filled()[1],
        "own": metrics_page(None, own_families()),
        "red": metrics_page(Red(Counters()), own_families()),
    }
    text = b"".join(pages[kind](Format.TEXT)).decode()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    complaints = [
        line
        for line in done.stderr.splitlines()
        # "target_info" is the name that the OpenTelemetry specification gives.
        if not line.startswith("target_info ")
    ]
    assert complaints == []
    assert "error while linting" not in done.stderr
