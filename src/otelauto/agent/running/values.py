# SPDX-License-Identifier: Apache-2.0
"""Attribute values of OTLP as values of Python, and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_KINDS: dict[int, str] = {number: name for name, number in Span.SpanKind.items()}
_STATUSES: dict[int, str] = {number: name for name, number in Status.StatusCode.items()}
Attribute = str | bool | int | float | bytes | list[Any] | dict[str, Any] | None


def value_of(value: AnyValue) -> Attribute:
    """The value; ``None`` if it is empty."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [value_of(each) for each in value.array_value.values]
    if which == "kvlist_value":
        return {each.key: value_of(each.value) for each in value.kvlist_value.values}
    found: Attribute = getattr(value, which)
    return found


def find(attributes: Iterable[KeyValue], key: str) -> AnyValue | None:
    """The value of the attribute ``key``."""
    for each in attributes:
        if each.key == key:
            return each.value
    return None


def set_value(target: AnyValue, value: Attribute) -> None:
    """Make ``target`` hold ``value``.

    Raises:
        ValueError: an integer that 64 bits do not hold; ``target`` is as it was.
    """
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, list):
        target.Clear()
        target.array_value.SetInParent()
        for each in value:
            set_value(target.array_value.values.add(), each)
    elif isinstance(value, dict):
        target.Clear()
        target.kvlist_value.SetInParent()
        for key, each in value.items():
            set_value(target.kvlist_value.values.add(key=key).value, each)
    else:
        target.Clear()


def text_of(value: Attribute) -> str:
    """The value as text, as the Collector's pdata writes it (``Value.AsString``)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"), default=text_of, ensure_ascii=False)
    return str(value)


def number_text(value: float) -> str:
    """A double as Go's encoding/json writes it: the shortest text, no exponent where it is long."""
    if value != value or value in (float("inf"), float("-inf")):
        return json.dumps(value)
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def same_attributes(attributes: Mapping[str, Attribute]) -> tuple[tuple[str, str, str], ...]:
    """Something hashable that is equal for equal attributes, in whatever order."""
    return tuple(sorted((key, type(v).__name__, text_of(v)) for key, v in attributes.items()))


def kind_text(kind: int) -> str:
    """The name of a span's kind; an unknown one is unspecified."""
    return _KINDS.get(kind, "SPAN_KIND_UNSPECIFIED")


def status_text(code: int) -> str:
    """The name of a status; an unknown one is unset."""
    return _STATUSES.get(code, "STATUS_CODE_UNSET")
