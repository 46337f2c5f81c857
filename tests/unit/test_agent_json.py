# SPDX-License-Identifier: Apache-2.0
"""OTLP in JSON is read as protobuf's own reader reads it, but for the ids."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from tests.interop.pipelines import kinds, stream

from otelauto.agent.running.otlp_from_json import MAX_DEPTH, BadJsonError, from_json
from otelauto.export.otlp_json import Json

KINDS = {"traces": TracesData, "metrics": MetricsData}


@pytest.mark.parametrize("sent", [stream(), kinds()], ids=list(KINDS))
def test_everything_that_otlp_has(sent: Any) -> None:
    signal = "traces" if isinstance(sent, TracesData) else "metrics"
    assert from_json(type(sent), Json(signal).encode(sent.SerializeToString())) == sent


@pytest.mark.parametrize("original_names", [False, True])
@pytest.mark.parametrize("sent", [stream(), kinds()], ids=list(KINDS))
def test_what_protobuf_itself_writes(sent: Any, original_names: bool) -> None:
    """Its ids are in base64; here they are left out."""
    text = MessageToJson(sent, preserving_proto_field_name=original_names)
    found = json.loads(text, object_hook=without_ids)
    text = json.dumps(found)
    assert from_json(type(sent), text.encode()) == Parse(text, type(sent)())


def without_ids(found: dict[str, Any]) -> dict[str, Any]:
    gone = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
    return {key: value for key, value in found.items() if key not in gone}


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 66), 1 << 66), st.floats(),
    st.sampled_from(["", "1", "-1", " 1", "1.5", "1e3", "NaN", "-Infinity", "x", "AA==", "_-8",
                     "SPAN_KIND_SERVER", "1" * 30, "\ud800"]),
    st.lists(st.integers(0, 3), max_size=2), st.dictionaries(st.just("k"), st.none(), max_size=1),
)  # fmt: skip
FIELDS = {
    "traces": ["name", "kind", "startTimeUnixNano", "droppedAttributesCount", "flags", "attributes",
               "status", "links", "traceState", "somethingNew"],
    "metrics": ["count", "sum", "bucketCounts", "explicitBounds", "min", "flags", "timeUnixNano"],
}  # fmt: skip


@given(st.sampled_from(sorted(KINDS)), st.data(), VALUES)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_single_values_mean_the_same(signal: str, data: st.DataObject, value: Any) -> None:
    item = {data.draw(st.sampled_from(FIELDS[signal])): value}
    if signal == "traces":
        found: Any = {"resourceSpans": [{"scopeSpans": [{"spans": [item]}]}]}
    else:
        metric = {"histogram": {"dataPoints": [item]}}
        found = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    text, kind = json.dumps(found), KINDS[signal]
    try:
        expected = Parse(text, kind(), ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError):
        expected = None
    try:
        got = from_json(kind, text.encode())
    except BadJsonError:
        got = None
    if got is not None and expected is not None:
        assert repr(got) == repr(expected)
    elif got is not None:
        assert isinstance(value, float)
        assert not math.isfinite(value)  # JSON has no such token; some write it nevertheless
    elif expected is not None:
        # There a number may be a bool or have blanks, and what is no name of an enum, or no
        # object, is left out.
        (name,) = item
        left_out = name in ("kind", "status", "attributes", "links")
        assert isinstance(value, bool) or value == " 1" or left_out


@pytest.mark.parametrize("depth", [MAX_DEPTH // 2, MAX_DEPTH * 3])
def test_objects_in_objects_have_an_end(depth: int) -> None:
    inner: dict[str, Any] = {"stringValue": "x"}
    for _ in range(depth // 2):
        inner = {"arrayValue": {"values": [inner]}}
    span = {"attributes": [{"key": "k", "value": inner}]}
    text = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    if depth < MAX_DEPTH:
        assert from_json(TracesData, text).resource_spans
        return
    with pytest.raises(BadJsonError, match="too many"):
        from_json(TracesData, text)
