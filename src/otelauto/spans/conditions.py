# SPDX-License-Identifier: Apache-2.0
"""Conditions on what a span says, as rules of sampling and filters are made of."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from otelauto.flows.vocabulary import AttributeValue
from otelauto.spans.span import Service, Span

# (attribute, operator, text); of a service its name, namespace and instance id have attributes.
Written = tuple[str, str, str]
Test = Callable[[Span], bool]

RESOURCE: Final[Mapping[str, Callable[[Service], str]]] = {
    "service.name": lambda service: service.name,
    "service.namespace": lambda service: service.namespace,
    "service.instance.id": lambda service: service.instance_id,
}
_COMPARED: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def every(conditions: Sequence[Written]) -> Test:
    """Whether all of ``conditions`` hold. Raises ValueError for an operator that is none."""
    tests = [_test(*condition) for condition in conditions]
    return lambda span: all(test(span) for test in tests)


def _test(name: str, sign: str, text: str) -> Test:
    """``=`` and ``!=`` compare with a shell pattern, the others numbers.

    What is not there is not equal to anything, and neither less nor more than anything.
    """
    if sign in _COMPARED:
        compare, limit = _COMPARED[sign], float(text)
        return lambda span: _is_number(value := _value(span, name)) and compare(value, limit)  # type: ignore[arg-type]
    if sign not in {"=", "!="}:
        raise ValueError(f"no operator: {sign!r}")
    matches = re.compile(fnmatch.translate(text)).match
    wanted = sign == "="

    def test(span: Span) -> bool:
        value = _value(span, name)
        return (value is not None and matches(_text(value)) is not None) is wanted

    return test


def _value(span: Span, name: str) -> AttributeValue | None:
    of_service = RESOURCE.get(name)
    return span.attributes.get(name) if of_service is None else of_service(span.service) or None


def _is_number(value: AttributeValue | None) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: AttributeValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
