# SPDX-License-Identifier: Apache-2.0
"""OTLP messages from JSON.

The mapping is protobuf's (protobuf.dev, "ProtoJSON Format"), with OTLP's exception that the ids of
traces and spans are in hex (opentelemetry-proto, docs/specification.md, "JSON Protobuf Encoding").
"""

from __future__ import annotations

import base64
import json
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

Message = TypeVar("Message", TracesData, MetricsData)
MAX_DEPTH = 100
_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")


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
    if not isinstance(content, dict):
        raise BadJsonError("this is no JSON object")
    _ids_to_base64(content)
    message = kind()
    try:
        ParseDict(content, message, ignore_unknown_fields=True, max_recursion_depth=MAX_DEPTH)
    except (ParseError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise BadJsonError(f"this is no OTLP message: {str(e)[:200]}") from e
    return message


def _ids_to_base64(content: dict[str, Any]) -> None:
    """In place. Keys of the senders' own are values in OTLP, so that none is mistaken for an id."""
    waiting: list[Any] = [content]
    while waiting:
        at = waiting.pop()
        if isinstance(at, list):
            waiting += [each for each in at if isinstance(each, dict | list)]
            continue
        for name in _IDS:
            text = at.get(name)
            if isinstance(text, str) and text:
                try:
                    at[name] = base64.b64encode(bytes.fromhex(text)).decode()
                except ValueError as error:
                    raise BadJsonError(f'"{name}" is not in hex') from error
        waiting += [each for each in at.values() if isinstance(each, dict | list)]
