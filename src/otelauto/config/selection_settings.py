# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - setting() returns dataclass fields
"""Settings of what is exported of what is seen: sampling, filters, metrics' shape.

Units: durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from otelauto.config import kinds
from otelauto.config.rule_kinds import (
    BUCKETS,
    ENTRIES,
    RATIO,
    RULES,
    SAMPLERS,
    SELECTION,
    Buckets,
    Entry,
    SamplingRule,
    Selection,
)
from otelauto.config.setting import Variable, setting

_SAMPLER = kinds.choice(*SAMPLERS)
_EXEMPLARS = kinds.choice("trace_based", "always_off")


@dataclass(frozen=True)
class Sampling:
    """Which spans are exported. Metrics measure every exchange."""

    sampler: str = setting(
        "parentbased_always_on",
        _SAMPLER,
        "Which traces are exported; the `parentbased_` ones follow the caller's flag where a "
        "`traceparent` was seen.",
        env=(Variable("OTEL_TRACES_SAMPLER", _SAMPLER, lenient=True),),
    )
    ratio: float = setting(
        1.0,
        RATIO,
        "The share of traces of the `traceidratio` samplers.",
        env=(Variable("OTEL_TRACES_SAMPLER_ARG", RATIO, lenient=True),),
    )
    keep_errors: bool = setting(
        False,
        kinds.BOOLEAN,
        "Export the span of each failed exchange, sampled or not.",
    )
    keep_slow: float = setting(
        0.0,
        kinds.duration(example="500ms"),
        "Export the span of each exchange that took so long, sampled or not.",
        default_note="none",
    )
    rules: tuple[SamplingRule, ...] = setting(
        (),
        RULES,
        "Samplers for some spans, the first that suits: `SAMPLER [RATIO] if CONDITIONS`, where the "
        "conditions are as in `filter.traces`.",
        default_note="none",
    )


_CONDITIONS = (
    "`ATTRIBUTE=PATTERN` or `!=` with shell patterns, or `<`, `<=`, `>`, `>=` with numbers; of "
    "those in one entry, separated by blanks, all must hold. Beside the span's attributes there "
    "are `service.name`, `service.namespace`, `service.instance.id`."
)


@dataclass(frozen=True)
class Filter:
    """What is left out, by what it says of itself."""

    traces: tuple[Entry, ...] = setting(
        (),
        ENTRIES,
        f"Spans that are not exported. {_CONDITIONS}",
        default_note="none",
    )
    metrics: tuple[Entry, ...] = setting(
        (),
        ENTRIES,
        "Exchanges that are not measured; conditions as in `filter.traces`.",
        default_note="none",
    )


@dataclass(frozen=True)
class Metrics:
    """The shape of metrics: their attributes, buckets and exemplars."""

    include: Selection = setting(
        (),
        SELECTION,
        "Metrics that get these attributes instead of their own. Shell patterns in both; a pattern "
        "of attributes stands for the metric's own ones, a name for that attribute of the span.",
        default_note="none",
    )
    exclude: Selection = setting(
        (),
        SELECTION,
        "Attributes that metrics do not get. Shell patterns in both.",
        default_note="none",
    )
    buckets: Buckets = setting(
        (),
        BUCKETS,
        "Upper bounds of the buckets of metrics. The first that suits counts.",
        default_note="those of docs/metrics-and-spans.md",
    )
    exemplars: str = setting(
        "trace_based",
        _EXEMPLARS,
        "Whether buckets name the last exported span that fell into them.",
        env=(Variable("OTEL_METRICS_EXEMPLAR_FILTER", _EXEMPLARS, lenient=True),),
    )
