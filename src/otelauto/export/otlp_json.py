# SPDX-License-Identifier: Apache-2.0
"""OTLP messages in JSON, from their protobuf form.

The mapping is that of protobuf (protobuf.dev, "ProtoJSON Format") with OTLP's exceptions
(opentelemetry-proto, docs/specification.md, "JSON Protobuf Encoding"): lower camel case names,
64-bit integers as strings, enums as integers, trace and span ids in hex, other bytes in base64.
Field numbers are those of opentelemetry-proto 1.x.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable
from typing import Any, Final

from otelauto.export.protobuf import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    MalformedError,
    fields,
    varints,
)
from otelauto.export.transport import Answer, Verdict, shown

MAX_DIGITS = 19  # of a count that an int64 can hold
_SIGN = 1 << 63


def _int64(value: int) -> str:
    return str(value - (_SIGN << 1) if value & _SIGN else value)


def _int32(value: int) -> int:
    low = value & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low


def _sint32(value: int) -> int:
    return value >> 1 ^ -(value & 1)


def _double(data: bytes) -> float | str:
    (value,) = struct.unpack("<d", data)
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class _Scalar:
    """How a field that is no message is written; ``size`` is that of one in a packed field."""

    def __init__(self, wire: int, show: Callable[[Any], Any], size: int = 0) -> None:
        self.wire = wire
        self.show = show
        self.size = size


_STRING = _Scalar(LENGTH, _text)
_HEX = _Scalar(LENGTH, bytes.hex)
_BYTES = _Scalar(LENGTH, _base64)
_BOOL = _Scalar(VARINT, bool)
_ENUM = _Scalar(VARINT, _int32)
_UINT32 = _Scalar(VARINT, int)
_SINT32 = _Scalar(VARINT, _sint32)
_INT64 = _Scalar(VARINT, _int64)
_UINT64 = _Scalar(VARINT, str)
_FIXED32 = _Scalar(FIXED32, lambda data: int.from_bytes(data, "little"), 4)
_FIXED64 = _Scalar(FIXED64, lambda data: str(int.from_bytes(data, "little")), 8)
_SFIXED64 = _Scalar(FIXED64, lambda data: str(int.from_bytes(data, "little", signed=True)), 8)
_DOUBLE = _Scalar(FIXED64, _double, 8)

# number -> (name, how its value is written, whether it is repeated); a message is a table itself.
_Table = dict[int, tuple[str, Any, bool]]

_ANY: _Table = {
    1: ("stringValue", _STRING, False),
    2: ("boolValue", _BOOL, False),
    3: ("intValue", _INT64, False),
    4: ("doubleValue", _DOUBLE, False),
    7: ("bytesValue", _BYTES, False),
}
_KEY_VALUE: _Table = {1: ("key", _STRING, False), 2: ("value", _ANY, False)}
_ANY[5] = ("arrayValue", {1: ("values", _ANY, True)}, False)
_ANY[6] = ("kvlistValue", {1: ("values", _KEY_VALUE, True)}, False)
_RESOURCE: _Table = {
    1: ("attributes", _KEY_VALUE, True),
    2: ("droppedAttributesCount", _UINT32, False),
}
_SCOPE: _Table = {
    1: ("name", _STRING, False),
    2: ("version", _STRING, False),
    3: ("attributes", _KEY_VALUE, True),
    4: ("droppedAttributesCount", _UINT32, False),
}
_EVENT: _Table = {
    1: ("timeUnixNano", _FIXED64, False),
    2: ("name", _STRING, False),
    3: ("attributes", _KEY_VALUE, True),
    4: ("droppedAttributesCount", _UINT32, False),
}
_LINK: _Table = {
    1: ("traceId", _HEX, False),
    2: ("spanId", _HEX, False),
    3: ("traceState", _STRING, False),
    4: ("attributes", _KEY_VALUE, True),
    5: ("droppedAttributesCount", _UINT32, False),
    6: ("flags", _FIXED32, False),
}
_SPAN: _Table = {
    1: ("traceId", _HEX, False),
    2: ("spanId", _HEX, False),
    3: ("traceState", _STRING, False),
    4: ("parentSpanId", _HEX, False),
    5: ("name", _STRING, False),
    6: ("kind", _ENUM, False),
    7: ("startTimeUnixNano", _FIXED64, False),
    8: ("endTimeUnixNano", _FIXED64, False),
    9: ("attributes", _KEY_VALUE, True),
    10: ("droppedAttributesCount", _UINT32, False),
    11: ("events", _EVENT, True),
    12: ("droppedEventsCount", _UINT32, False),
    13: ("links", _LINK, True),
    14: ("droppedLinksCount", _UINT32, False),
    15: ("status", {2: ("message", _STRING, False), 3: ("code", _ENUM, False)}, False),
    16: ("flags", _FIXED32, False),
}
_EXEMPLAR: _Table = {
    2: ("timeUnixNano", _FIXED64, False),
    3: ("asDouble", _DOUBLE, False),
    4: ("spanId", _HEX, False),
    5: ("traceId", _HEX, False),
    6: ("asInt", _SFIXED64, False),
    7: ("filteredAttributes", _KEY_VALUE, True),
}
_NUMBER: _Table = {
    2: ("startTimeUnixNano", _FIXED64, False),
    3: ("timeUnixNano", _FIXED64, False),
    4: ("asDouble", _DOUBLE, False),
    5: ("exemplars", _EXEMPLAR, True),
    6: ("asInt", _SFIXED64, False),
    7: ("attributes", _KEY_VALUE, True),
    8: ("flags", _UINT32, False),
}
_HISTOGRAM: _Table = {
    2: ("startTimeUnixNano", _FIXED64, False),
    3: ("timeUnixNano", _FIXED64, False),
    4: ("count", _FIXED64, False),
    5: ("sum", _DOUBLE, False),
    6: ("bucketCounts", _FIXED64, True),
    7: ("explicitBounds", _DOUBLE, True),
    8: ("exemplars", _EXEMPLAR, True),
    9: ("attributes", _KEY_VALUE, True),
    10: ("flags", _UINT32, False),
    11: ("min", _DOUBLE, False),
    12: ("max", _DOUBLE, False),
}
_BUCKETS: _Table = {1: ("offset", _SINT32, False), 2: ("bucketCounts", _UINT64, True)}
_EXPONENTIAL: _Table = {
    1: ("attributes", _KEY_VALUE, True),
    2: ("startTimeUnixNano", _FIXED64, False),
    3: ("timeUnixNano", _FIXED64, False),
    4: ("count", _FIXED64, False),
    5: ("sum", _DOUBLE, False),
    6: ("scale", _SINT32, False),
    7: ("zeroCount", _FIXED64, False),
    8: ("positive", _BUCKETS, False),
    9: ("negative", _BUCKETS, False),
    10: ("flags", _UINT32, False),
    11: ("exemplars", _EXEMPLAR, True),
    12: ("min", _DOUBLE, False),
    13: ("max", _DOUBLE, False),
    14: ("zeroThreshold", _DOUBLE, False),
}
_SUMMARY: _Table = {
    2: ("startTimeUnixNano", _FIXED64, False),
    3: ("timeUnixNano", _FIXED64, False),
    4: ("count", _FIXED64, False),
    5: ("sum", _DOUBLE, False),
    6: ("quantileValues", {1: ("quantile", _DOUBLE, False), 2: ("value", _DOUBLE, False)}, True),
    7: ("attributes", _KEY_VALUE, True),
    8: ("flags", _UINT32, False),
}
_TEMPORALITY = ("aggregationTemporality", _ENUM, False)
_METRIC: _Table = {
    1: ("name", _STRING, False),
    2: ("description", _STRING, False),
    3: ("unit", _STRING, False),
    5: ("gauge", {1: ("dataPoints", _NUMBER, True)}, False),
    7: (
        "sum",
        {1: ("dataPoints", _NUMBER, True), 2: _TEMPORALITY, 3: ("isMonotonic", _BOOL, False)},
        False,
    ),
    9: ("histogram", {1: ("dataPoints", _HISTOGRAM, True), 2: _TEMPORALITY}, False),
    10: ("exponentialHistogram", {1: ("dataPoints", _EXPONENTIAL, True), 2: _TEMPORALITY}, False),
    11: ("summary", {1: ("dataPoints", _SUMMARY, True)}, False),
    12: ("metadata", _KEY_VALUE, True),
}


def _request(signal: str, scope: str, item: str, table: _Table) -> _Table:
    """An Export*ServiceRequest: resources, scopes, items, with the same numbers for each signal."""
    schema = ("schemaUrl", _STRING, False)
    scopes: _Table = {1: ("scope", _SCOPE, False), 2: (item, table, True), 3: schema}
    of_resource: _Table = {1: ("resource", _RESOURCE, False), 2: (scope, scopes, True), 3: schema}
    return {1: (signal, of_resource, True)}


REQUESTS: Final = {
    "traces": _request("resourceSpans", "scopeSpans", "spans", _SPAN),
    "metrics": _request("resourceMetrics", "scopeMetrics", "metrics", _METRIC),
}


class Json:
    """The JSON form of the requests of ``signal`` (traces or metrics), and of their answers."""

    def __init__(self, signal: str) -> None:
        self._table = REQUESTS[signal]

    def encode(self, message: bytes) -> bytes:
        """``message``, an Export*ServiceRequest in protobuf, as JSON.

        Raises:
            MalformedError: it is no such message.
        """
        return json.dumps(_object(message, self._table), separators=(",", ":")).encode()


def accepted(data: bytes) -> Answer:
    """As :func:`otelauto.export.transport.accepted`, of an Export*ServiceResponse in JSON."""
    partial = _loaded(data).get("partialSuccess")
    if not isinstance(partial, dict):
        return Answer(Verdict.ACCEPTED)
    counts = (partial.get(name) for name in ("rejectedSpans", "rejectedDataPoints"))
    text = str(next((count for count in counts if count is not None), 0))
    rejected = int(text) if text.isdecimal() and len(text) < MAX_DIGITS else 0
    return Answer(Verdict.ACCEPTED, _message(partial, "errorMessage"), rejected)


def rpc_message(data: bytes) -> str:
    """The message of a google.rpc.Status in JSON; what is none says itself, shortened."""
    return _message(_loaded(data), "message") or shown(data)


def _loaded(data: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _message(found: dict[str, Any], name: str) -> str:
    return shown(str(found.get(name) or "").encode("utf-8", "replace"))


def _object(message: bytes, table: _Table) -> dict[str, Any]:
    """A message as a JSON object. What the table does not know is left out."""
    found: dict[str, Any] = {}
    for number, value in fields(message):
        if number not in table:
            continue
        name, kind, repeated = table[number]
        values = _values(value, kind)
        if repeated:
            found.setdefault(name, []).extend(values)
        elif values:
            found[name] = values[-1]
    return found


def _values(value: int | bytes, kind: Any) -> list[Any]:
    """What one field on the wire holds: several values if it is packed.

    Raises:
        MalformedError: the field is not of the type that the table says.
    """
    if isinstance(kind, dict) and isinstance(value, bytes):
        return [_object(value, kind)]
    if isinstance(kind, _Scalar):
        if isinstance(value, int) and kind.wire == VARINT:
            return [kind.show(value)]
        if isinstance(value, bytes) and kind.wire == LENGTH:
            return [kind.show(value)]
        if isinstance(value, bytes) and kind.wire == VARINT:
            return [kind.show(each) for each in varints(value)]
        if isinstance(value, bytes) and len(value) % kind.size == 0:
            parts = range(0, len(value), kind.size)
            return [kind.show(value[at : at + kind.size]) for at in parts]
    raise MalformedError("a field of another type")
