# SPDX-License-Identifier: Apache-2.0
"""Values that are small texts with a grammar: conditions, sampling rules, metric selections.

CONDITION   NAME OP VALUE              http.route=/pay/*   http.response.status_code>=500
ENTRY       CONDITION { CONDITION }    all of them must hold
RULE        SAMPLER [RATIO] if ENTRY   traceidratio 0.1 if service.name=shop http.route=/a
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from otelauto.config.kinds import Kind, Pairs, split_list

Written = tuple[str, str, str]  # attribute, operator, text
Selection = tuple[tuple[str, tuple[str, ...]], ...]  # pattern of metrics, patterns of attributes
Buckets = tuple[tuple[str, tuple[float, ...]], ...]  # pattern of metrics, upper bounds

SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
MOST_BUCKETS: Final = 200
_CONDITION: Final = re.compile(r"([A-Za-z][\w.-]*)(!=|<=|>=|=|<|>)(\S+)", re.ASCII)
_ENTRY_REMEDY: Final = "Write attribute=pattern, for example http.route=/health*."
_RULE_REMEDY: Final = (
    "Write a sampler, the ratio of a ratio sampler, and when: "
    "traceidratio 0.1 if http.route=/items/*"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """Conditions all of which must hold."""

    conditions: tuple[Written, ...]

    def __str__(self) -> str:
        return " ".join(name + sign + text for name, sign, text in self.conditions)


@dataclass(frozen=True, slots=True)
class SamplingRule:
    """The sampler of the spans that ``entry`` describes. ``ratio`` is 1 where there is none."""

    sampler: str
    ratio: float
    entry: Entry

    def __str__(self) -> str:
        ratio = f" {self.ratio!r}" if self.sampler.endswith("traceidratio") else ""
        return f"{self.sampler}{ratio} if {self.entry}"


def read_entry(text: str) -> Entry:
    """Conditions separated by blanks."""
    found = [_CONDITION.fullmatch(word) for word in text.split()]
    if not found or None in found:
        raise ValueError(_ENTRY_REMEDY)
    conditions = tuple((m[1], m[2], m[3]) for m in found if m is not None)
    for name, sign, value in conditions:
        if sign[0] in "<>" and not _is_finite(value):
            raise ValueError(f"Compare {name} with a number, not with {value}.")
    return Entry(conditions)


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_ratio(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def read_rule(text: str) -> SamplingRule:
    """A sampler, its ratio, and when."""
    head, word, tail = text.partition(" if ")
    sampler, *ratio = head.split() or [""]
    if not word or sampler not in SAMPLERS or len(ratio) != sampler.endswith("traceidratio"):
        raise ValueError(_RULE_REMEDY)
    try:
        return SamplingRule(sampler, read_ratio(ratio[0]) if ratio else 1.0, read_entry(tail))
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith("Write") else _RULE_REMEDY) from None


def _list_of(name: str, allowed: str, example: str, read: Callable[[str], Any]) -> Kind[Any]:
    return Kind(
        name,
        allowed,
        example,
        lambda text: tuple(read(item) for item in split_list(text)),
        lambda items: tuple(read(item) for item in items),
        show=lambda values: [str(value) for value in values],
    )


def _pairs_of_text(text: str) -> list[tuple[str, str]]:
    """``name=a b,name=c``: as a variable gives what is a mapping in YAML."""
    pairs = [item.partition("=") for item in split_list(text)]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError('Write "name=value value" pairs, separated by commas.')
    if len({name.strip() for name, _, _ in pairs}) < len(pairs):
        raise ValueError("Name each metric once.")
    return [(name.strip(), value) for name, _, value in pairs]


def _items(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _read_selection(pairs: Pairs) -> Selection:
    if any(not name or not _items(text) for name, text in pairs):
        raise ValueError("Give a metric and its attributes, with * where all are meant.")
    return tuple((name, tuple(_items(text))) for name, text in pairs)


def _read_bounds(text: str) -> tuple[float, ...]:
    bounds = tuple(float(item) for item in _items(text))
    ascending = all(low < high for low, high in pairwise(bounds))
    if not bounds or not ascending or not all(map(math.isfinite, bounds)) or bounds[0] < 0:
        raise ValueError("Bounds are numbers of 0 or more, each above the one before.")
    if len(bounds) > MOST_BUCKETS:
        raise ValueError(f"Give at most {MOST_BUCKETS} bounds.")
    return bounds


def _read_buckets(pairs: Pairs) -> Buckets:
    if any(not name for name, _ in pairs):
        raise ValueError("Give a metric and its bounds.")
    return tuple((name, _read_bounds(text)) for name, text in pairs)


def _show(pairs: Sequence[tuple[str, Sequence[object]]]) -> dict[str, str]:
    return {name: " ".join(map(str, values)) for name, values in pairs}


RATIO: Final[Kind[float]] = Kind("ratio", "a number from 0 to 1", "0.1", read_ratio)
ENTRIES: Final[Kind[tuple[Entry, ...]]] = _list_of(
    "list of conditions",
    "conditions on attributes (= and != with shell patterns, < <= > >= with numbers)",
    "http.route=/health*",
    read_entry,
)
RULES: Final[Kind[tuple[SamplingRule, ...]]] = _list_of(
    "list of rules",
    "rules: a sampler, if it has one its ratio, and when",
    "traceidratio 0.1 if http.route=/items/*",
    read_rule,
)
SELECTION: Final[Kind[Selection]] = Kind(
    "metric: attributes",
    "metrics with lists of attributes, both with shell patterns",
    "http.server.*=http.route http.request.method",
    lambda text: _read_selection(_pairs_of_text(text)),
    from_pairs=_read_selection,
    show=_show,
)
BUCKETS: Final[Kind[Buckets]] = Kind(
    "metric: bounds",
    "metrics (with shell patterns) and the ascending upper bounds of their buckets",
    "http.server.request.duration=0.01 0.1 1",
    lambda text: _read_buckets(_pairs_of_text(text)),
    from_pairs=_read_buckets,
    show=_show,
)
