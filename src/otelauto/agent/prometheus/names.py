# SPDX-License-Identifier: Apache-2.0
"""Names and labels in Prometheus of what OpenTelemetry calls otherwise.

Source: the OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility", and what
Prometheus's own translator (github.com/prometheus/otlptranslator) makes of units.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otelauto.agent.pipeline import Labels
from otelauto.agent.river.values import number_text

NAME = "__name__"
_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds",
    "us": "microseconds", "ns": "nanoseconds", "By": "bytes", "KiBy": "kibibytes",
    "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes", "KBy": "kilobytes",
    "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes", "m": "meters", "V": "volts",
    "A": "amperes", "J": "joules", "W": "watts", "g": "grams", "Cel": "celsius", "Hz": "hertz",
    "1": "", "%": "percent",
}  # fmt: skip
_PER = {
    "s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year",
}  # fmt: skip
_BETWEEN_TOKENS = re.compile(r"[^a-zA-Z0-9:]+")
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9:_]+")
_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9]+")
_EXPONENT_BELOW, _EXPONENT_FROM = 1e-6, 1e21


def metric_name(
    name: str, unit: str, *, counter: bool = False, gauge: bool = False, suffixes: bool = True
) -> str:
    """The Prometheus name of an OpenTelemetry metric; "" if nothing of it can stand in one.

    ``counter``: a monotonic cumulative sum. ``gauge``: a gauge, not a sum that goes up and down.
    """
    if not suffixes:
        cleaned = "_".join(filter(None, _NOT_IN_NAME.split(name)))
        return f"_{cleaned}" if cleaned[:1].isdigit() else cleaned
    tokens = [token for token in _BETWEEN_TOKENS.split(name) if token]
    tokens += [suffix for suffix in _unit_suffixes(unit) if suffix not in tokens]
    if counter:
        tokens = [*(token for token in tokens if token != "total"), "total"]  # noqa: S105
    elif gauge and unit == "1":
        tokens = [*(token for token in tokens if token != "ratio"), "ratio"]  # noqa: S105
    cleaned = "_".join(tokens)
    return f"_{cleaned}" if cleaned[:1].isdigit() else cleaned


def _unit_suffixes(unit: str) -> list[str]:
    """What a unit adds to the name; a part with an annotation (``{request}``) adds nothing."""
    main, _, per = unit.partition("/")
    found = []
    main = main.strip()
    if main and not set("{}") & set(main):
        found.append(_cleaned_unit(_UNITS.get(main, main)))
    per = per.strip()
    if per and not set("{}") & set(per):
        cleaned = _cleaned_unit(_PER.get(per, per))
        found.append(f"per_{cleaned}" if cleaned else "")
    return [suffix for suffix in found if suffix]


def _cleaned_unit(unit: str) -> str:
    return _BETWEEN_TOKENS.sub("_", unit).strip("_")


def label_name(attribute: str) -> str:
    """The label of an attribute: never one that is reserved, which begins with ``__``."""
    cleaned = _NOT_IN_LABEL.sub("_", attribute)
    if cleaned[:1].isdigit():
        return f"key_{cleaned}"
    return f"key{cleaned}" if cleaned[:1] == "_" else cleaned


def attribute_pairs(attributes: Iterable[KeyValue]) -> tuple[tuple[str, str], ...]:
    """The attributes as text, as they come: what tells one data point from another."""
    return tuple([(a.key, a.value.string_value or value_text(a.value)) for a in attributes])


def attribute_labels(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Labels of attributes; the values of those that share a name are joined with ``;`` in key
    order (specification, "Metric Attributes"). Where nothing is left of a name, there is no label.
    """
    found: dict[str, str] = {}
    for key, text in sorted(pairs):
        name = label_name(key)
        if name:
            found[name] = f"{found[name]};{text}" if name in found else text
    return found


def sorted_labels(labels: dict[str, str]) -> Labels:
    """As a series has them: sorted by name, none of them empty (an empty one is none)."""
    return tuple(sorted((name, text) for name, text in labels.items() if text))


def value_text(value: AnyValue) -> str:
    """An attribute's value as text: as it is, or as JSON for arrays and maps."""
    kind = value.WhichOneof("value")
    match kind:
        case None:
            return ""
        case "string_value":
            return value.string_value
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return double_text(value.double_value)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: AnyValue) -> object:
    match value.WhichOneof("value"):
        case "array_value":
            return [_plain(each) for each in value.array_value.values]
        case "kvlist_value":
            return {each.key: _plain(each.value) for each in value.kvlist_value.values}
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case None:
            return None
    return value_text(value)


def double_text(value: float) -> str:
    """The fewest digits; with an exponent only below 1e-6 and from 1e21 on (as in ECMAScript)."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    if value == 0 or _EXPONENT_BELOW <= abs(value) < _EXPONENT_FROM:
        return plain_text(value)
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def plain_text(value: float) -> str:
    """The fewest digits, never with an exponent: ``0.005``, ``10``, ``+Inf``; of bounds."""
    return number_text(float(value))
