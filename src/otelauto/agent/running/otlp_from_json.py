# SPDX-License-Identifier: Apache-2.0
"""OTLP messages from JSON.

The mapping is protobuf's (protobuf.dev, "ProtoJSON Format"), with OTLP's exception that the ids of
traces and spans are in hex (opentelemetry-proto, docs/specification.md, "JSON Protobuf Encoding").
What may stand where is read from the messages' descriptors; protobuf's own reader of JSON does the
same, and takes five times as long.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

Message = TypeVar("Message", TracesData, MetricsData)
Convert = Callable[[Any], Any]
# A field by either of its names: its name, how a value is read (``None``: it is a message, of the
# table that the function gives), and whether it is repeated.
_Field = tuple[str, Convert | None, Callable[[], "_Table"] | None, bool]
_Table = dict[str, _Field]
MAX_DIGITS = 400  # of a number; a double has 309 before its point
MAX_DEPTH = 100  # of messages in messages
_HEX = ("trace_id", "span_id", "parent_span_id")
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_Kind = FieldDescriptor


class BadJsonError(ValueError):
    """This is no OTLP message in JSON; the text says why."""


def from_json(kind: type[Message], body: bytes) -> Message:
    """The message; unknown fields are ignored, as OTLP demands.

    Raises:
        BadJsonError: it is none.
    """
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadJsonError("this is no JSON") from error
    message = kind()
    _fill(message, content, _table(kind.DESCRIPTOR), MAX_DEPTH)
    return message


def _fill(message: Any, found: Any, table: _Table, depth: int) -> None:
    """Set the fields of ``message`` from an object."""
    if type(found) is not dict:
        raise BadJsonError(f"an object was expected, not {str(found)[:50]}")
    if not depth:
        raise BadJsonError("there are too many objects in objects")
    for key, value in found.items():
        entry = table.get(key)
        if entry is None or value is None:
            continue
        try:
            _set(message, entry, value, depth)
        except BadJsonError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            raise BadJsonError(f'"{key}": {str(error)[:200]}') from error


def _set(message: Any, entry: _Field, value: Any, depth: int) -> None:
    name, convert, inner, repeated = entry
    if repeated and type(value) is not list:
        raise ValueError("this is no array")
    if convert is not None:
        if repeated:
            getattr(message, name).extend(map(convert, value))
        else:
            setattr(message, name, convert(value))
    elif inner is not None and repeated:
        add, below = getattr(message, name).add, inner()
        for each in value:
            _fill(add(), each, below, depth - 1)
    elif inner is not None:
        part = getattr(message, name)
        part.SetInParent()
        _fill(part, value, inner(), depth - 1)


@functools.cache
def _table(descriptor: Descriptor) -> _Table:
    made: _Table = {}
    for field in descriptor.fields:
        inner = field.message_type
        entry = (
            field.name,
            _converter(field) if inner is None else None,
            functools.partial(_table, inner) if inner is not None else None,
            isinstance(field.default_value, list),  # that of a repeated field
        )
        made[field.name] = made[field.json_name] = entry
    return made


def _converter(field: FieldDescriptor) -> Convert:
    """How a value of the field is read from JSON; it raises ``ValueError`` for what is none."""
    if field.enum_type is not None:
        names = {each.name: each.number for each in field.enum_type.values}
        return lambda value: names[value] if value in names else _integer(value)
    if field.type == _Kind.TYPE_STRING:
        return _text
    if field.type == _Kind.TYPE_BYTES:
        return _hex if field.name in _HEX else _base64
    if field.type == _Kind.TYPE_BOOL:
        return _bool
    return _double if field.type == _Kind.TYPE_DOUBLE else _integer


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{str(value)[:50]} is no string")
    return value


def _hex(value: Any) -> bytes:
    return bytes.fromhex(_text(value))


def _base64(value: Any) -> bytes:
    """Of either alphabet, with or without its end."""
    text = _text(value).replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{str(value)[:50]} is no bool")
    return value


def _integer(value: Any) -> int:
    """A number, or the text of one: 64-bit integers are strings in ProtoJSON."""
    if type(value) is int:
        return value
    if type(value) is str:
        _no_blanks(value)
        if value.lstrip("-").isdecimal():
            return int(value)
        value = float(value)
    if type(value) is float and value.is_integer():
        return int(value)
    raise ValueError(f"{str(value)[:50]} is no integer")


def _double(value: Any) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    if type(value) is str and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if type(value) is str:
        _no_blanks(value)
        number = float(value)
        if math.isfinite(number):
            return number
    raise ValueError(f"{str(value)[:50]} is no number")


def _no_blanks(text: str) -> None:
    if len(text) > MAX_DIGITS or text.strip() != text or "_" in text or not text.isascii():
        raise ValueError(f"{text[:50]} is no number")
