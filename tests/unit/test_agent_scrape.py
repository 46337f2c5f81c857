# SPDX-License-Identifier: Apache-2.0
"""``prometheus.scrape``: what is read, what it becomes, and what is refused."""

from __future__ import annotations

import gzip

import pytest
from tests.e2e.harness.process import wait_until
from tests.unit.prometheus_parts import (
    Request,
    Store,
    bits,
    content_of,
    context_of,
    labels,
    web,
)

from otelauto.agent.pipeline import STALE, Exemplar, Health, Metadata
from otelauto.agent.prometheus.counted import SCRAPE_SAMPLES_DROPPED, SCRAPES_FAILED
from otelauto.agent.prometheus.exposition import Exposition, ExpositionError
from otelauto.agent.prometheus.scraping import target_url
from otelauto.agent.running.scrape import Scrape
from otelauto.counters import Counters
from otelauto.errors import ConfigError

TEXT = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
OPENMETRICS = {"content-type": "application/openmetrics-text; version=1.0.0; charset=utf-8"}


def parsed(text: str, *, openmetrics: bool = False):
    found = Exposition(text.encode(), openmetrics=openmetrics)
    return [(dict(s.labels), s.value, s.timestamp_ms) for s in found], found.metadata


PAGE = r"""# HELP http_requests_total The total\\number\nof requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400",} 3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="None:\n\"FILE.TXT\""} 1.458255915e9
  # a comment with blanks before it
metric_without_timestamp_and_labels 12.47
something_weird{problem="division by zero"} +Inf -3982045
# TYPE h histogram
h_bucket { le = "0.05" , x="a}b#c" } 24054
h_sum NaN
braces{} 5
"""


def test_the_text_format() -> None:
    """The page of Prometheus's documentation, and what else there is."""
    found, metadata = parsed(PAGE)
    assert [s for s in found if s[1] == s[1]] == [
        ({"__name__": "http_requests_total", "method": "post", "code": "200"}, 1027, 1395066363000),
        ({"__name__": "http_requests_total", "method": "post", "code": "400"}, 3, 1395066363000),
        (
            {
                "__name__": "msdos_file_access_time_seconds",
                "path": "C:\\DIR\\FILE.TXT",
                "error": 'None:\n"FILE.TXT"',
            },
            1.458255915e9,
            None,
        ),
        ({"__name__": "metric_without_timestamp_and_labels"}, 12.47, None),
        ({"__name__": "something_weird", "problem": "division by zero"}, float("inf"), -3982045),
        ({"__name__": "h_bucket", "le": "0.05", "x": "a}b#c"}, 24054, None),
        ({"__name__": "braces"}, 5, None),
    ]
    assert len(found) == 8
    assert metadata == [
        Metadata("http_requests_total", "counter", "The total\\number\nof requests.", ""),
        Metadata("h", "histogram", "", ""),
    ]


OPEN_PAGE = """# TYPE acme_http_router_request_seconds summary
# UNIT acme_http_router_request_seconds seconds
# HELP acme_http_router_request_seconds Latency.
acme_http_router_request_seconds_sum{path="/api/v1",method="GET"} 9036.32
acme_http_router_request_seconds_count{path="/api/v1",method="GET"} 807283.0 1605281325.25
# TYPE foo histogram
foo_bucket{le="0.01"} 0
foo_bucket{le="0.1"} 8 # {} 0.054
foo_bucket{le="1"} 11 # {trace_id="KOO5S4vxi0o"} 0.67
foo_bucket{le="10"} 17 123.5 # {trace_id="oHg5SJYRHA0"} 9.8 1520879607.789
# EOF
"""


def test_openmetrics() -> None:
    found, metadata = parsed(OPEN_PAGE, openmetrics=True)
    assert found[1] == (
        {
            "__name__": "acme_http_router_request_seconds_count",
            "path": "/api/v1",
            "method": "GET",
        },
        807283.0,
        1605281325250,
    )
    exemplars = [s.exemplar for s in Exposition(OPEN_PAGE.encode(), openmetrics=True)]
    assert exemplars[3:] == [
        Exemplar((), 0.054, 0),
        Exemplar((("trace_id", "KOO5S4vxi0o"),), 0.67, 0),
        Exemplar((("trace_id", "oHg5SJYRHA0"),), 9.8, 1520879607789),
    ]
    about = Metadata("acme_http_router_request_seconds", "summary", "Latency.", "seconds")
    assert metadata[0] == about


@pytest.mark.parametrize(
    "text",
    [
        "a 1", "a\n", "a one\n", "1a 1\n", 'a{b="c} 1\n', "a{b=c} 1\n", 'a{b="c" d="e"} 1\n',
        'a{b="1",b="2"} 1\n', "a{ 1\n", "a 1 x\n", "a 1 1.5\n", "a 1 2 3\n", "a 1 # {} 1\n",
        "# TYPE a what\n", 'a{__name__="b"} 1\n', "a 1_000\n", "a 0x1\n", "a\u00e9 1\n",
        'a{,} 1\n', "a 1 99999999999999999999\n", "{} 1\n",
    ],
)  # fmt: skip
def test_a_bad_line_is_named(text: str) -> None:
    good = "first 1\n"
    with pytest.raises(ExpositionError, match=r"line 2|no end"):
        parsed(good + text)


@pytest.mark.parametrize(
    "text",
    ["a 1\n", "a 1\n\n# EOF\n", "# EOF\na 1\n", "a 1 nan\n# EOF\n", "# hello\n# EOF\n",
     "# TYPE a untyped\n# EOF\n", 'a 1 # {x="' + "y" * 128 + '"} 1\n# EOF\n', "a 1 # x\n# EOF\n"],
)  # fmt: skip
def test_what_openmetrics_does_not_allow(text: str) -> None:
    with pytest.raises(ExpositionError):
        parsed(text, openmetrics=True)


def test_what_is_no_text() -> None:
    with pytest.raises(ExpositionError, match="byte 2"):
        list(Exposition(b"a \xff\n", openmetrics=False))


class Page:
    """A page that a server shows; what it is can be changed."""

    def __init__(self, *bodies: str, headers: dict[str, str] | None = None, status: int = 200):
        self.bodies = list(bodies)
        self.headers = TEXT if headers is None else headers
        self.status = status

    def __call__(self, request: Request):
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        return self.status, self.headers, body.encode()


ONCE = 'scrape_interval = "1h"\nscrape_timeout = "30s"\n'


def scrape(tmp_path, server, store, more: str = ONCE, target: str = "", counters=None):
    address = server.url.partition("//")[2]
    text = (
        f'prometheus.scrape "x" {{\ntargets = [{{ "__address__" = "{address}"{target} }}]\n'
        f"forward_to = [STORE]\n{more}\n}}"
    )
    context = context_of(tmp_path, counters)
    return Scrape(context, content_of(text, STORE=store))


def scraped_once(tmp_path, page, more: str = ONCE, target: str = ""):
    """The samples of one scrape, and the server."""
    store, counters = Store(), Counters()
    with web(page) as server:
        component = scrape(tmp_path, server, store, more, target, counters)
        component.start()
        wait_until(lambda: any(s.labels[0][1].startswith("up") for s in store.samples), "scraped")
        health = component.health()
        component.stop(5)
    return store, server, counters, health


def own(server, **more: str) -> dict[str, str]:
    return {"job": "prometheus.test.x", "instance": server.url.partition("//")[2], **more}


def test_samples_get_the_labels_of_their_target(tmp_path) -> None:
    page = Page('a{instance="other",job="",x="1"} 5\nb 6 7000\n')
    store, server, _, health = scraped_once(tmp_path, page, ONCE, ', "env" = "prod", "__x" = "y"')
    mine = own(server, env="prod")
    values = store.values()
    assert values[labels("a", x="1", exported_instance="other", **mine)] == 5.0
    assert values[labels("up", **mine)] == 1.0
    assert values[labels("scrape_samples_scraped", **mine)] == 2.0
    assert values[labels("scrape_series_added", **mine)] == 1.0  # b has a time of its own
    assert [s.timestamp_ms for s in store.samples if s.labels == labels("b", **mine)] == [7000]
    assert health[0] is Health.HEALTHY
    assert len(values) == 7


def test_honor_labels_and_no_timestamps(tmp_path) -> None:
    page = Page('a{instance="other",x="1"} 5 7000\n')
    more = ONCE + "honor_labels = true\nhonor_timestamps = false\nextra_metrics = true\n"
    store, server, *_ = scraped_once(tmp_path, page, more + 'job_name = "mine"\n')
    (sample,) = (s for s in store.samples if s.labels[0][1] == "a")
    assert sample.labels == labels("a", x="1", instance="other", job="mine")
    assert sample.timestamp_ms != 7000
    limits = labels("scrape_timeout_seconds", **own(server, job="mine"))
    assert store.values()[limits] == 30.0


def test_exemplars_get_a_time(tmp_path) -> None:
    page = Page('a_total 1 # {trace_id="x"} 0.5\n# EOF\n', headers=OPENMETRICS)
    store, *_ = scraped_once(tmp_path, page)
    (sample,) = (s for s in store.samples if s.exemplars)
    assert sample.exemplars[0].timestamp_ms == sample.timestamp_ms


@pytest.mark.parametrize(
    ("page", "more", "reason"),
    [
        (Page("a 1\n", status=500), "", "status"),
        (Page("a\n"), "", "malformed"),
        (Page("a 1\nb 2\n"), "sample_limit = 1", "sample_limit"),
        (Page('a{x="1",y="2"} 1\n'), "label_limit = 4", "label_limit"),
        (Page('a{xyz="1"} 1\n'), "label_name_length_limit = 9\n", ""),
        (Page('a{x="12345678901"} 1\n'), "label_value_length_limit = 10", "label_limit"),
        (Page("a 1\n" * 100), 'body_size_limit = "10B"', "body_size_limit"),
        (Page("x", headers=TEXT | {"content-encoding": "gzip"}), "", "malformed"),
        (lambda _: None, "", "unreachable"),
    ],
)
def test_a_scrape_that_fails_is_down(tmp_path, page, more: str, reason: str) -> None:
    store, server, counters, health = scraped_once(tmp_path, page, ONCE + more)
    up = store.values()[labels("up", **own(server))]
    assert up == (0.0 if reason else 1.0)
    assert health[0] is (Health.UNHEALTHY if reason else Health.HEALTHY)
    if reason:
        assert counters.get(SCRAPES_FAILED, reason) == 1
        assert len(store.samples) == 5


def test_a_packed_page_and_a_bomb(tmp_path) -> None:
    def packed(request: Request):
        assert request.headers["accept-encoding"] == "gzip"
        assert float(request.headers["x-prometheus-scrape-timeout-seconds"]) == 30
        return 200, TEXT | {"content-encoding": "gzip"}, gzip.compress(b"a 1\n" * 10_000)

    _, _, counters, health = scraped_once(tmp_path, packed)
    assert health[0] is Health.HEALTHY
    assert counters.get(SCRAPE_SAMPLES_DROPPED, "twice") == 9999
    *_, counters, _ = scraped_once(tmp_path, packed, ONCE + 'body_size_limit = "2KB"')
    assert counters.get(SCRAPES_FAILED, "body_size_limit") == 1


def test_series_that_vanish_become_stale(tmp_path) -> None:
    store = Store()
    page = Page('a{n="1"} 1\na{n="2"} 2\nb 1 5000\n', 'a{n="1"} 3\n')
    more = 'scrape_interval = "20ms"\nscrape_timeout = "20ms"'
    with web(page) as server:
        component = scrape(tmp_path, server, store, more)
        component.start()
        mine = own(server)

        def of(name: str, **more: str):
            return [s for s in list(store.samples) if s.labels == labels(name, **more, **mine)]

        wait_until(lambda: any(s.value == 3.0 for s in of("a", n="1")), "the second page")
        wait_until(lambda: len(of("a", n="2")) > 1, "stale")
        page.bodies = ["a\n"]  # nothing is left of it
        wait_until(lambda: any(bits(s.value) == bits(STALE) for s in of("a", n="1")), "stale, too")
        component.stop(5)
    second = of("a", n="2")
    assert [s.value for s in second[:-1]] == [2.0] * (len(second) - 1)
    assert bits(second[-1].value) == bits(STALE)
    assert second[-1].timestamp_ms > second[-2].timestamp_ms
    assert not any(bits(s.value) == bits(STALE) for s in of("b"))
    assert 0.0 in {s.value for s in of("up")}


def test_what_is_refused_is_counted(tmp_path) -> None:
    store, counters = Store(), Counters()
    store.refusing = "full"
    with web(Page("a 1\n")) as server:
        component = scrape(tmp_path, server, store, ONCE, "", counters)
        component.start()
        wait_until(lambda: counters.get(SCRAPE_SAMPLES_DROPPED, "refused") == 6, "counted")
        wait_until(lambda: "full" in component.health()[1], "said")
        component.stop(5)


def test_where_a_target_is() -> None:
    text = (
        'prometheus.scrape "x" {\ntargets = []\nforward_to = []\nscheme = "https"\n'
        'metrics_path = "own"\nparams = { "a" = ["1", "2"], "b" = ["x y"] }\n}'
    )
    content = content_of(text)
    assert target_url({"__address__": "h:1"}, content) == "https://h:1/own?a=1&a=2&b=x+y"
    target = {
        "__address__": "h:1", "__scheme__": "http", "__metrics_path__": "/m?z=1",
        "__param_a": "3", "__param_c": "4",
    }  # fmt: skip
    assert target_url(target, content) == "http://h:1/m?z=1&a=3&a=2&b=x+y&c=4"
    for address in ("", "http://h:1", "h:1/x"):
        with pytest.raises(ConfigError, match="__address__"):
            target_url({"__address__": address}, content)


def test_more_targets_than_allowed(tmp_path) -> None:
    text = (
        'prometheus.scrape "x" {\ntargets = [{ "__address__" = "a" }, { "__address__" = "b" }]\n'
        "forward_to = [STORE]\ntarget_limit = 1\n}"
    )
    with pytest.raises(ConfigError, match="2 targets"):
        Scrape(context_of(tmp_path), content_of(text, STORE=Store()))
