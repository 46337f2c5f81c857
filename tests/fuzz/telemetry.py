# SPDX-License-Identifier: Apache-2.0
"""What a receiver gets, and what is asked about it: decoded, changed and encoded, or refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from tests.unit.agent_parts import attributes, message, span, spans, sums
from tests.unit.test_agent_compression import PACKERS

from otelauto.agent.pipeline import Payload
from otelauto.agent.running.conditions import ConditionError, condition
from otelauto.agent.running.filtering import SPAN_FUNCTIONS, SPAN_PATHS, _Item
from otelauto.agent.running.otlp_intake import decoded
from otelauto.agent.running.split import split
from otelauto.agent.running.unpacking import ENCODINGS, UnusableError, decompressed
from otelauto.export.otlp_json import Json

LIMIT = 64 * 1024
SIGNALS = ("traces", "metrics")
SPAN = span(attributes=attributes(n=41, text="x", real=1.5))
ITEM = _Item(SPAN, message([SPAN]).resource_spans[0].scope_spans[0].scope,
             message([SPAN]).resource_spans[0].resource)  # fmt: skip
CONDITIONS = (
    'name == "GET" and attributes["n"] > 40',
    'not IsMatch(attributes["text"], "^x$") or kind == SPAN_KIND_SERVER',
    '(status.code == STATUS_CODE_ERROR or attributes["real"] <= 1.5e0) and trace_id != 0x00',
    'resource.attributes["service.name"] == "shop" and attributes["absent"] == nil',
    'IsRootSpan() and Len(name) < 5 and ToLowerCase(name) != "a\\"\\\\b"',
    "true or false",
)


def otlp_request(data: bytes) -> None:
    """The first byte says which signal it is, how it is written and packed."""
    choice, body = data[:1] or b"\0", data[1:]
    encoding = ("", *ENCODINGS)[choice[0] >> 2 & 7]
    signal = SIGNALS[choice[0] & 1]
    try:
        plain = decompressed(body, encoding, LIMIT) if encoding else body
        assert len(plain) <= max(LIMIT, len(body))
        payload, invalid = decoded(signal, plain, bool(choice[0] & 2))
    except UnusableError:
        return
    assert invalid >= 0
    again: Any = Payload(payload.kind, payload.items, payload.encoded)
    assert again.message == payload.message or b"nan" in str(again.message).encode()
    parts = list(split(payload, 3))
    assert sum(each.items for each in parts) == payload.items
    assert all(0 < each.items <= 3 for each in parts)


def filter_condition(data: bytes) -> None:
    """A condition: refused, or it has an answer, or it does not fit."""
    with suppress(ConditionError):
        holds = condition(data.decode("utf-8", "replace"), SPAN_PATHS, SPAN_FUNCTIONS)
        assert isinstance(holds(ITEM), bool)


TARGETS = {"otlp_request": otlp_request, "filter_condition": filter_condition}


def seeds(target: str) -> list[bytes]:
    """Inputs to start from."""
    if target == "filter_condition":
        return [each.encode() for each in CONDITIONS]
    bodies = {
        "traces": message([*spans(4, attributes=attributes(a="b", n=1)), span(9, span_id=b"")]),
        "metrics": sums(5).message,
    }
    found = []
    for number, signal in enumerate(SIGNALS):
        plain = bodies[signal].SerializeToString()
        found += [bytes([number]) + plain, bytes([number | 2]) + Json(signal).encode(plain)]
        found += [
            bytes([number | place << 2]) + PACKERS[encoding](plain)
            for place, encoding in enumerate(ENCODINGS, 1)
        ]
    return found
