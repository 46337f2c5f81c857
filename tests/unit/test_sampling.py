# SPDX-License-Identifier: Apache-2.0
"""Samplers against the OpenTelemetry SDK's; conditions, filters and the shape of metrics."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace import sampling as sdk
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)
from tests.unit.test_spans_stages import SERVICE, STATUS, exchange

from otelauto.config.rule_kinds import BUCKETS, ENTRIES, RATIO, RULES, SAMPLERS, SELECTION
from otelauto.counters import Counters
from otelauto.flows.vocabulary import Exchange, Side, TraceContext
from otelauto.spans.chain import Stage, to_span
from otelauto.spans.conditions import every
from otelauto.spans.filter import NOT_MEASURED, Filters
from otelauto.spans.naming import Naming2023
from otelauto.spans.parent import Ids
from otelauto.spans.sampling import Sampling, thresholds
from otelauto.spans.select import Select
from otelauto.spans.shape import Shape
from otelauto.spans.span import Fate, Span

ROUTE = "http.route"


def reference(sampler: str, ratio: float) -> sdk.Sampler:
    roots = {
        "always_on": sdk.ALWAYS_ON,
        "always_off": sdk.ALWAYS_OFF,
        "traceidratio": sdk.TraceIdRatioBased(ratio),
    }
    root = roots[sampler.removeprefix("parentbased_")]
    return sdk.ParentBased(root) if sampler.startswith("parentbased_") else root


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("flags", [None, 0, 1, 3])
@pytest.mark.parametrize("ratio", [0.0, 0.001, 0.25, 0.9, 1.0])
def test_samplers_decide_as_the_sdks(sampler: str, flags: int | None, ratio: float) -> None:
    theirs, ours = reference(sampler, ratio), Sampling(thresholds(sampler, ratio))
    choice = random.Random(7)
    kept = 0
    for _ in range(300):
        trace_id = choice.randbytes(16)
        if flags is None:
            context, parent = None, None
        else:
            remote = SpanContext(
                int.from_bytes(trace_id), 5, is_remote=True, trace_flags=TraceFlags(flags)
            )
            context = set_span_in_context(NonRecordingSpan(remote))
            parent = TraceContext(trace_id, b"p" * 8, flags)
        found = theirs.should_sample(context, int.from_bytes(trace_id), "GET", SpanKind.SERVER)
        span = to_span(exchange(parent=parent), SERVICE, [Ids()])
        span.trace_id = trace_id
        ours(exchange(), span)
        expected = found.decision is sdk.Decision.RECORD_AND_SAMPLE
        assert (span.fate is Fate.EXPORTED) is expected
        assert not expected or span.trace_flags & 1
        kept += expected
    share = ratio if "ratio" in sampler else float(sampler.endswith("on"))
    if flags is None or "parentbased" not in sampler:
        assert kept == pytest.approx(300 * share, abs=40)


def test_a_lower_ratio_keeps_a_part_of_what_a_higher_one_keeps() -> None:
    choice = random.Random(8)
    for _ in range(500):
        low, high = sorted(choice.random() for _ in range(2))
        assert thresholds("traceidratio", low).root <= thresholds("traceidratio", high).root


def test_unknown_samplers_are_errors() -> None:
    for name in ("jaeger_remote", "", "parentbased_"):
        with pytest.raises(ValueError, match="no sampler"):
            thresholds(name)


def made(attributes: dict[str, object], *stages: Stage, **changes: object) -> Span:
    given: Exchange = exchange(**changes)  # type: ignore[arg-type]
    given.attributes |= attributes  # type: ignore[arg-type]
    return to_span(given, SERVICE, [Ids(), *stages])


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("http.route=/a", True), ("http.route=/*", True), ("http.route=/b", False),
        ("http.route!=/b*", True), ("missing=*", False), ("missing!=x", True),
        ("http.response.status_code>=200", True), ("http.response.status_code<200", False),
        ("http.response.status_code=2??", True), ("http.route>1", False), ("missing<1", False),
        ("custom=true", True), ("custom>0", False), ("service.name=sh?p", True),
        ("service.namespace=*", False), ("http.route=/a service.name=other", False),
        ("http.route=/a service.name=shop", True),
    ],
)  # fmt: skip
def test_conditions(text: str, holds: bool) -> None:
    (entry,) = ENTRIES.read(text)
    assert every(entry.conditions)(made({ROUTE: "/a"})) is holds


def test_the_first_rule_that_suits_counts() -> None:
    rules = RULES.read(
        "always_off if http.route=/health*,traceidratio 1 if http.route=/health,"
        "always_on if service.name=shop"
    )
    chosen = [(rule.entry.conditions, rule.sampler, rule.ratio) for rule in rules]
    sampling = Sampling(thresholds("always_off"), chosen)
    assert made({ROUTE: "/health"}, sampling).fate is Fate.UNSAMPLED
    assert made({ROUTE: "/a"}, sampling).fate is Fate.EXPORTED


def test_filters_are_by_signal() -> None:
    counters = Counters()
    (health, server_error) = ENTRIES.read("http.route=/health,http.response.status_code>=500")
    filters = Filters(counters, [health.conditions], [server_error.conditions])
    span = made({ROUTE: "/health"}, filters)
    assert (span.fate, bool(span.instruments)) == (Fate.FILTERED, True)
    span = made({STATUS: 503}, filters)
    assert (span.fate, span.instruments) == (Fate.EXPORTED, ())
    assert counters.get(NOT_MEASURED, "filter") == 1
    made({STATUS: 503}, filters, incomplete="aborted")
    assert counters.get(NOT_MEASURED, "filter") == 1  # it would not have been measured


def test_a_filtered_span_is_not_brought_back() -> None:
    filters = Filters(Counters(), [[("http.route", "=", "/a")]])
    sampling = Sampling(thresholds("always_on"), keep_errors=True, keep_slow_ns=1)
    assert made({ROUTE: "/a"}, filters, sampling, error=True).fate is Fate.FILTERED


def shaped(side: Side = Side.SERVER, as_2023: bool = False, **settings: str) -> dict[str, object]:
    """Attributes and buckets by metric."""
    kinds = {"include": SELECTION, "exclude": SELECTION, "buckets": BUCKETS}
    shape = Shape(**{name: kinds[name].read(text) for name, text in settings.items()})
    stages: list[Stage] = [Select(as_2023=as_2023), *([Naming2023()] if as_2023 else []), shape]
    span = made({}, *stages, side=side)
    return {each.name: (set(each.attributes), each.buckets) for each in span.instruments}


def test_metrics_get_the_attributes_that_are_chosen() -> None:
    found = shaped(include="http.server.request.duration=http.r* url.path")
    duration, size = (found[f"http.server.request.{what}"] for what in ("duration", "body.size"))
    assert duration[0] == {  # type: ignore[index]
        "http.request.method", "http.response.status_code", "http.route", "url.path",
    }  # fmt: skip
    assert size[0] == {"http.request.method"}  # type: ignore[index]
    found = shaped(include="*=http.* error.type", exclude="*.duration=*.status_code error.*")
    assert found["http.server.request.duration"][0] == {"http.request.method", "http.route"}  # type: ignore[index]
    found = shaped(side=Side.CLIENT, buckets="*client*duration=1 2,*=3", exclude="*=*")
    assert found["http.client.request.duration"] == (set(), (1.0, 2.0))
    assert found["http.client.request.body.size"] == (set(), (3.0,))
    found = shaped(as_2023=True, include="http.server.duration=http.method", buckets="*.size=1")
    assert found["http.server.duration"][0] == {"http.method"}  # type: ignore[index]
    assert found["http.server.request.size"][1] == (1.0,)  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (RULES, "always_on"), (RULES, "sometimes if a=b"), (RULES, "traceidratio if a=b"),
        (RULES, "always_on 0.5 if a=b"), (RULES, "traceidratio 2 if a=b"), (RULES, "always_on if"),
        (RULES, "traceidratio x if a=b"), (ENTRIES, "a"), (ENTRIES, "a=b c"), (ENTRIES, "=b"),
        (ENTRIES, "a>b"), (ENTRIES, "a>nan"), (SELECTION, "a"), (SELECTION, "a="),
        (SELECTION, "=b"), (SELECTION, "a=b,a=c"), (BUCKETS, "a=2 1"), (BUCKETS, "a=1 1"),
        (BUCKETS, "a=-1"), (BUCKETS, "a=x"), (BUCKETS, "a=1 inf"),
        (BUCKETS, "a=" + " ".join(map(str, range(201)))), (RATIO, "1.1"), (RATIO, "nan"),
    ],
)  # fmt: skip
def test_what_is_refused(kind: object, text: str) -> None:
    with pytest.raises(ValueError):
        kind.read(text)  # type: ignore[attr-defined]
