# SPDX-License-Identifier: Apache-2.0
"""Routes: patterns, what is learnt, and the caps."""

from __future__ import annotations

import os
import random
import string
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelauto.counters import Counters
from otelauto.errors import ConfigError
from otelauto.flows.vocabulary import Address, Exchange, Family, Side
from otelauto.spans.chain import begin
from otelauto.spans.routes import OTHER, ROUTES_OVERFLOWED, Patterns, Routes, Unmatched
from otelauto.spans.span import Service, Span
from otelauto.spans.templates import MAX_NODES, Templates, looks_like_id

SERVICE = Service("shop", "", "1")
HERE = Address(Family.INET, "127.0.0.1", 80)


def routed(
    routes: Routes, path: str | None, side: Side = Side.SERVER, service: Service = SERVICE
) -> Span:
    exchange = Exchange(
        protocol="http", side=side, connection=1, tgid=1, tid=1, start_ns=0, end_ns=1,
        local=HERE, peer=HERE, name="GET", attributes={}, instruments=(), path=path,
    )  # fmt: skip
    span = begin(exchange, service)
    routes(exchange, span)
    return span


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (["/users/:id"], "/users/7", "/users/:id"),
        (["/users/{id}"], "/users/7/", "/users/{id}"),
        (["users/{id}/"], "//users/7", "users/{id}/"),
        (["/users/:id"], "/users", None),
        (["/users/:id"], "/users/7/pets", None),
        (["/users/:id"], "/users/", None),
        (["/"], "/", "/"),
        (["/:page"], "/", None),
        (["/users/:id", "/users/me"], "/users/me", "/users/me"),
        (["/a/:x/c", "/a/b/d"], "/a/b/c", "/a/:x/c"),
        (["/static/*"], "/static/css/main.css", "/static/*"),
        (["/static/*", "/static/:file"], "/static/a", "/static/:file"),
        (["/static/*", "/static/css/x"], "/static/css/y", "/static/*"),
        (["/*"], "/", "/*"),
        (["/a/:"], "/a/b", "/a/:"),
        (["/a/{x"], "/a/b", None),
        (["/a/:x/b", "/a/:y"], "/a/1", "/a/:y"),
    ],
)
def test_patterns(patterns: list[str], path: str, expected: str | None) -> None:
    assert Patterns(patterns).match(path) == expected


@pytest.mark.parametrize("pattern", ["", "  ", "/a/*/b"])
def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError):
        Patterns([pattern])


@pytest.mark.parametrize(
    ("unmatched", "route", "name"),
    [
        (Unmatched.UNSET, None, "GET"),
        (Unmatched.PATH, "/carts/9", "GET"),
        (Unmatched.WILDCARD, "*", "GET *"),
        (Unmatched.LOW_CARDINALITY, "/carts/*", "GET /carts/*"),
    ],
)
def test_unmatched(unmatched: Unmatched, route: str | None, name: str) -> None:
    routes = Routes(Counters(), ["/users/:id"], unmatched)
    span = routed(routes, "/carts/9")
    assert span.attributes.get("http.route") == route
    assert span.name == name
    assert routed(routes, "/users/9").name == "GET /users/:id"


def test_clients_and_protocols_without_paths_have_no_route() -> None:
    routes = Routes(Counters(), ["/users/:id"])
    for span in (routed(routes, "/users/9", Side.CLIENT), routed(routes, None)):
        assert "http.route" not in span.attributes
        assert span.name == "GET"


@pytest.mark.parametrize("unmatched", [Unmatched.PATH, Unmatched.LOW_CARDINALITY])
def test_routes_are_capped_per_service_and_the_overflow_is_counted(unmatched: Unmatched) -> None:
    counters = Counters()
    routes = Routes(counters, ["/known/:id"], unmatched, max_routes=3)
    paths = ["/a", "/b", "/c", "/d", "/e", "/a"]
    found = [routed(routes, path).attributes["http.route"] for path in paths]
    assert found == ["/a", "/b", "/c", OTHER, OTHER, "/a"]
    assert counters.get(ROUTES_OVERFLOWED) == 2
    assert routed(routes, "/d").name == "GET other"
    assert routed(routes, "/known/1").attributes["http.route"] == "/known/:id"
    another = Service("cart", "", "1")
    assert routed(routes, "/d", service=another).attributes["http.route"] == "/d"
    routes.forget(SERVICE)
    assert routed(routes, "/d").attributes["http.route"] == "/d"


@pytest.mark.parametrize(
    "segment",
    [
        "7", "2024-01-02", "-12.5", str(uuid.UUID(int=2**127 + 5)), "deadbee1", "9f86d081884c",
        "5f4dcc3b5aa765d61d8327deb882cf99", "a@example.org", "a%20b", "item-42", "user123",
        "app.3f9c01d2.js", "x" * 41, "eyJhbGciOiJIUzI1NiIsInR5", "abcdefabcdefabcdef",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    ],
)  # fmt: skip
def test_ids(segment: str) -> None:
    assert looks_like_id(segment)


@pytest.mark.parametrize(
    "segment",
    ["", "users", "v1", "v2beta1", "oauth2", "feedback", "decade", "health-check", "main.css",
     "section-1", "file-1k", "s3", "internationalization", "getOrderById", "user_profiles"],
)  # fmt: skip
def test_words(segment: str) -> None:
    assert not looks_like_id(segment)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def name_of(number: int) -> str:
    """A distinct name without digits."""
    letters = ""
    while True:
        number, rest = divmod(number, 26)
        letters += string.ascii_lowercase[rest]
        if number == 0:
            return "n" + letters


@pytest.mark.parametrize("make", [str, name_of, lambda n: str(uuid.UUID(int=n << 64))])
def test_2000_distinct_ids_are_few_routes(make: object) -> None:
    templates = Templates()
    assert callable(make)
    found = [templates.template(f"/users/{make(n)}/orders") for n in range(2000)]
    assert len(set(found)) <= 21
    assert set(found[-1900:]) == {"/users/*/orders"}


def test_busy_endpoints_stay_when_many() -> None:
    templates = Templates()
    endpoints = [f"/api/{name_of(n)}" for n in range(60)]
    for _ in range(20):
        for endpoint in endpoints[:20]:
            templates.template(endpoint)
    for _ in range(20):
        found = {templates.template(endpoint) for endpoint in endpoints[:40]}
    assert found == set(endpoints[:40])


def test_names_of_things_do_not_hide_busy_endpoints_beside_them() -> None:
    templates = Templates()
    for _ in range(50):
        templates.template("/api/orders")
    for n in range(500):
        templates.template(f"/api/{name_of(n)}")
    assert templates.template("/api/orders") == "/api/orders"
    assert templates.template("/api/unseen") == "/api/*"


def test_learning_is_deterministic() -> None:
    random_paths = random.Random(7)
    paths = [
        "/".join(["", *(name_of(random_paths.randrange(300)) for _ in range(3))])
        for _ in range(3000)
    ]
    one, two = Templates(), Templates()
    assert [one.template(p) for p in paths] == [two.template(p) for p in paths]


def test_memory_is_bounded_with_a_million_urls() -> None:
    counters = Counters()
    routes = Routes(counters)
    templates = Templates()
    before = resident_bytes()
    for n in range(1_000_000):
        a, b = divmod(n, 1000)
        templates.template(f"/{name_of(a)}/{name_of(b)}/x")
    assert resident_bytes() - before < 16_000_000
    for n in range(3000):
        routed(routes, f"/{name_of(n)}/{name_of(n * 7)}/x")
    distinct = {routed(routes, f"/{name_of(n)}/z/y").attributes["http.route"] for n in range(3000)}
    assert len(distinct) <= 101


def test_a_full_tree_says_so() -> None:
    templates = Templates()
    shape = random.Random(3)
    found = [
        templates.template("/" + "/".join(name_of(shape.randrange(15)) for _ in range(10)))
        for _ in range(2000)
    ]
    assert None in found
    assert templates.template("/" + "/".join(["x"] * 50)) is None
    assert len({t for t in found if t}) <= MAX_NODES


@given(st.lists(st.text(max_size=60), max_size=60))
def test_any_path_has_a_template_that_is_stable_or_folded(paths: list[str]) -> None:
    templates = Templates()
    for path in paths:
        template = templates.template("/" + path)
        assert template is not None
        assert template.startswith("/")
        assert template.count("/") <= 12
