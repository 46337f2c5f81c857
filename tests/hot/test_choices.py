# SPDX-License-Identifier: Apache-2.0
"""Samplers, rules, filters and existing SDKs decide in the fast lane as on the general path."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest
from tests.hot.seeds import each
from tests.hot.test_lane import EXCHANGES_A_RUN, RUNS
from tests.hot.traffic import Traffic
from tests.hot.twin import METRICS, SERVICES, TRACES, Agent, Result, Services, compare
from tests.wire.transcripts import answer, get, post
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Wire

BOTH = {**TRACES, **METRICS}
SDK: Services = {
    tgid: type(found)(found.name, found.namespace, found.instance_id, found.attributes, "a test")
    for tgid, found in SERVICES.items()
}
PARENT = b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
RULES = (
    "always_off if http.route=/users/*,"
    "always_on if http.response.status_code>=500,"
    "parentbased_always_off if service.name=till"
)
CHOICES: tuple[tuple[dict[str, str], Services], ...] = (
    ({"OTEL_TRACES_SAMPLER": "always_on"}, SERVICES),
    ({"OTEL_TRACES_SAMPLER": "always_off", "OTELAUTO_SAMPLING_KEEP_ERRORS": "yes"}, SERVICES),
    ({"OTEL_TRACES_SAMPLER": "always_off", "OTELAUTO_SAMPLING_KEEP_SLOW": "1ms"}, SERVICES),
    ({"OTELAUTO_SAMPLING_RULES": RULES}, SERVICES),
    (
        {
            "OTELAUTO_FILTER_TRACES": "http.response.status_code=404,http.request.method!=GET",
            "OTELAUTO_FILTER_METRICS": "http.route=/users/* service.name=shop",
        },
        SERVICES,
    ),
    (
        {
            "OTELAUTO_METRICS_INCLUDE": "http.server.*=http.route http.*",
            "OTELAUTO_METRICS_EXCLUDE": "*.body.size=http.response.*",
            "OTELAUTO_METRICS_BUCKETS": "*.duration=0.001 0.1",
        },
        SERVICES,
    ),
    *(({"OTELAUTO_EXISTING_SDK": mode}, SDK) for mode in ("complement", "metrics", "skip")),
)


def taken_by_lane(number: int, seed: int) -> int:
    """How many exchanges of a seed's traffic the lane took, when both ways give the same."""
    environ, services = CHOICES[number]
    return compare(
        Traffic(f"choices {seed}").make(EXCHANGES_A_RUN), BOTH, environ, services
    ).in_lane


@pytest.mark.parametrize("number", range(len(CHOICES)))
def test_random_traffic(number: int) -> None:
    in_lane = sum(each(partial(taken_by_lane, number), range(number, RUNS, len(CHOICES))))
    assert in_lane > EXCHANGES_A_RUN / 20 * (RUNS // len(CHOICES))


def conversation(view: str) -> list[bytes | int]:
    """100 exchanges: by the parent's flag (1, 0, none), half of them failing."""
    wire = Wire(view=view).open()
    for number in range(100):
        flag = (b"1", b"0", b"")[number % 3]
        wire.send(CLIENT, get("/items", *([PARENT + flag] if flag else [])))
        wire.send(SERVER, answer(503 if number % 2 else 200, b"x"))
    return [*wire.records, wire.time + SECOND_NS]


def exported(view: str, environ: Mapping[str, str], services: Services = SERVICES) -> Result:
    return compare(conversation(view), BOTH, environ, services)


@pytest.mark.parametrize("view", [SERVER, CLIENT])
@pytest.mark.parametrize(
    ("sampler", "ratio", "count"),
    [
        # 34 have a parent that is sampled, 33 one that is not, 33 none.
        ("always_on", "", 100),
        ("always_off", "", 0),
        ("traceidratio", "0", 0),
        ("traceidratio", "1", 100),
        ("parentbased_always_on", "", 67),
        ("parentbased_always_off", "", 34),
        ("parentbased_traceidratio", "0", 34),
        ("parentbased_traceidratio", "1", 67),
    ],
)
def test_the_truth_table(view: str, sampler: str, ratio: str, count: int) -> None:
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": ratio}
    found = exported(view, environ)
    assert found.in_lane >= 90
    assert sum(found.spans.values()) == count
    assert found.counters.get(("spans_not_exported", "sampler"), 0) == 100 - count
    kept = exported(view, {**environ, "OTELAUTO_SAMPLING_KEEP_ERRORS": "true"})
    failed = [text for text in kept.spans.elements() if "STATUS_CODE_ERROR" in text]
    assert len(failed) == 50
    durations = [points for name, points in kept.series.items() if "request.duration" in name]
    assert sum(points[0] for points in durations) == 100


def test_slow_spans_are_kept() -> None:
    wire = Wire().open()
    for number in range(60):
        wire.send(CLIENT, get("/items"))
        wire.time += 2 * 10**6 if number % 4 == 0 else 0
        wire.send(SERVER, answer(200, b"x"))
    steps = [*wire.records, wire.time + SECOND_NS]
    environ = {"OTEL_TRACES_SAMPLER": "always_off", "OTELAUTO_SAMPLING_KEEP_SLOW": "2ms"}
    found = compare(steps, BOTH, environ)
    assert sum(found.spans.values()) == 15
    assert found.in_lane > 50


@pytest.mark.parametrize(
    ("mode", "server", "client", "measured"),
    [("ignore", 67, 67, 100), ("complement", 0, 33, 100), ("metrics", 0, 0, 100),
     ("skip", 0, 0, 0)],
)  # fmt: skip
def test_what_is_left_to_an_sdk(mode: str, server: int, client: int, measured: int) -> None:
    for view, count in ((SERVER, server), (CLIENT, client)):
        found = exported(view, {"OTELAUTO_EXISTING_SDK": mode}, SDK)
        assert sum(found.spans.values()) == count
        durations = [points for name, points in found.series.items() if "request.duration" in name]
        assert sum(points[0] for points in durations) == measured
        assert found.counters.get(("exchanges_not_measured", "sdk"), 0) == 100 - measured
        left = found.counters.get(("spans_not_exported", "sdk"), 0)
        unsampled = found.counters.get(("spans_not_exported", "sampler"), 0)
        assert left + unsampled == 100 - count


def test_an_sdk_is_known_by_its_exports_from_then_on() -> None:
    served, exports = Wire(cookie=1).open(), Wire(cookie=2, view=CLIENT).open()
    for wire, head in ((served, get("/a")), (exports, post("/v1/traces", b"spans"))):
        wire.time += 10**6
        for _ in range(40):
            wire.send(CLIENT, head).send(SERVER, answer(200, b"x"))
    first, later = served.records[:41], served.records[41:]
    steps = [*first, SECOND_NS * 10, *exports.records, *later, SECOND_NS * 20]
    found = compare(steps, BOTH)
    names = [text for text in found.spans.elements() if "SPAN_KIND_SERVER" in text]
    assert 15 <= len(names) <= 21  # those of before
    forwarding = [*Wire(cookie=3).open().send(CLIENT, post("/v1/traces", b"s"))
                  .send(SERVER, answer(200, b"x")).records]  # fmt: skip
    assert sum(compare([*forwarding, *steps], BOTH).spans.values()) == 81


@pytest.mark.parametrize(
    ("environ", "has_lane"),
    [
        ({}, True),
        ({"OTELAUTO_FILTER_TRACES": "url.path=/health"}, False),
        ({"OTELAUTO_SAMPLING_RULES": "always_off if user_agent.original=curl*"}, False),
        ({"OTELAUTO_METRICS_INCLUDE": "*=network.peer.address"}, False),
        ({"OTELAUTO_METRICS_INCLUDE": "*=http.* error.type"}, True),
        ({"OTELAUTO_NAMING": "2023", "OTELAUTO_FILTER_TRACES": "http.status_code=404"}, True),
        ({"OTELAUTO_NAMING": "2023", "OTELAUTO_FILTER_TRACES": "http.target=/a"}, False),
    ],
)
def test_what_differs_within_a_row_is_not_for_the_lane(
    environ: Mapping[str, str], has_lane: bool
) -> None:
    assert (Agent(BOTH, True, environ).publisher.lane is not None) is has_lane
