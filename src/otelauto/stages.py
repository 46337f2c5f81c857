# SPDX-License-Identifier: Apache-2.0
"""The span stages as the configuration wants them, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from otelauto.config import Config
from otelauto.counters import Counters
from otelauto.spans.bounded import Bounded
from otelauto.spans.chain import Stage
from otelauto.spans.existing_sdk import ExistingSdk, Mode
from otelauto.spans.filter import Filters
from otelauto.spans.naming import Naming2023
from otelauto.spans.parent import Ids
from otelauto.spans.routes import Routes
from otelauto.spans.sampling import Sampling, thresholds
from otelauto.spans.select import Select
from otelauto.spans.shape import Shape
from otelauto.spans.span import Service

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stages:
    """``every`` in order; the others are those of them that are spoken to by name."""

    every: list[Stage]
    sampling: Sampling
    existing_sdk: ExistingSdk
    bounded: Bounded


def stages(
    config: Config, counters: Counters, routes: Routes, on_sdk: Callable[[Service], None]
) -> Stages:
    """The chain of ``config``. ``on_sdk`` is told of services whose SDK shows in their traffic."""
    as_2023 = config.naming == "2023"
    metrics = (config.otel_metrics_export, config.prometheus_export)
    bounded = Bounded(counters, config.limits.operations_per_service)
    chain: list[Stage] = [
        Ids(),
        routes,
        bounded,
        Select(
            report_target=any(part.report_target for part in metrics),
            report_peer=any(part.report_peer for part in metrics),
            as_2023=as_2023,
        ),
    ]
    if as_2023:
        chain.append(Naming2023())
    shape = config.metrics
    if shape.include or shape.exclude or shape.buckets:
        chain.append(Shape(shape.include, shape.exclude, shape.buckets))
    existing_sdk = ExistingSdk(counters, Mode(config.existing_sdk), on_sdk)
    chain.append(existing_sdk)
    chosen = config.filter
    if chosen.traces or chosen.metrics:
        chain.append(
            Filters(
                counters,
                [entry.conditions for entry in chosen.traces],
                [entry.conditions for entry in chosen.metrics],
            )
        )
    sampling = make_sampling(config)
    chain.append(sampling)
    return Stages(chain, sampling, existing_sdk, bounded)


def make_sampling(config: Config) -> Sampling:
    """The sampler of ``config``."""
    chosen = config.sampling
    return Sampling(
        thresholds(chosen.sampler, chosen.ratio),
        [(rule.entry.conditions, rule.sampler, rule.ratio) for rule in chosen.rules],
        keep_errors=chosen.keep_errors,
        keep_slow_ns=round(chosen.keep_slow * NS_PER_S),
    )
