# SPDX-License-Identifier: Apache-2.0
"""Conditions in the OpenTelemetry Transformation Language (OTTL), as filters have them.

Source: opentelemetry-collector-contrib, pkg/ottl/LANGUAGE.md. Here are comparisons, ``and``,
``or``, ``not``, parentheses, literals, enums, paths with keys, and the functions of ``FUNCTIONS``.
There is no arithmetic, and there are no other functions; both are errors that say so.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otelauto.agent.running.values import text_of

Getter = Callable[[Any], Any]  # from an item's surroundings to a value; None is nil
MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<bytes>0x(?:[0-9a-fA-F]{2})+)
    |(?P<number>-?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>==|!=|<=|>=|[<>()\[\],.]))""",
    re.VERBOSE,
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
ENUMS: dict[str, int] = {
    **dict(Span.SpanKind.items()),
    **dict(Status.StatusCode.items()),
    **dict(AggregationTemporality.items()),
    "METRIC_DATA_TYPE_NONE": 0,
    "METRIC_DATA_TYPE_GAUGE": 1,
    "METRIC_DATA_TYPE_SUM": 2,
    "METRIC_DATA_TYPE_HISTOGRAM": 3,
    "METRIC_DATA_TYPE_EXPONENTIAL_HISTOGRAM": 4,
    "METRIC_DATA_TYPE_SUMMARY": 5,
}


class ConditionError(ValueError):
    """A condition that cannot be understood, or does not fit what it is asked about."""


@dataclass(frozen=True, slots=True)
class Function:
    """``call`` gets the surroundings of the item, then the arguments' values."""

    arguments: int
    call: Callable[..., Any]


def _is_match(_: Any, target: Any, pattern: Any) -> bool:
    if target is None:
        return False
    return pattern.search(text_of(target)) is not None


def _is(*kinds: type) -> Function:
    def call(_: Any, value: Any) -> bool:
        if isinstance(value, bool):
            return bool in kinds
        return isinstance(value, kinds)

    return Function(1, call)


FUNCTIONS: dict[str, Function] = {
    "IsMatch": Function(2, _is_match),
    "IsString": _is(str),
    "IsBool": _is(bool),
    "IsInt": _is(int),
    "IsDouble": _is(float),
    "IsMap": _is(dict),
    "IsList": _is(list),
    "Len": Function(1, lambda _, value: len(value)),
    "ToLowerCase": Function(1, lambda _, value: value.lower()),
    "ToUpperCase": Function(1, lambda _, value: value.upper()),
}


def condition(
    text: str, paths: Mapping[str, Getter], functions: Mapping[str, Function]
) -> Callable[[Any], bool]:
    """Whether an item meets ``text``. Raises :class:`ConditionError`; so may the result, for an
    item that does not fit.
    """
    parser = _Parser(text, paths, {**FUNCTIONS, **functions})
    found = parser.disjunction()
    parser.end()

    def holds(item: Any) -> bool:
        try:
            return bool(found(item))
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            raise ConditionError(f"{text}: {error}") from error

    return holds


class _Parser:
    """By recursive descent; each method reads one rule and gives its meaning."""

    def __init__(
        self, text: str, paths: Mapping[str, Getter], functions: Mapping[str, Function]
    ) -> None:
        self._text = text
        self._paths = paths
        self._functions = functions
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def _wrong(self, message: str) -> ConditionError:
        return ConditionError(f"{self._text}: {message}")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "its end")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _take(self, text: str) -> bool:
        kind, found = self._peek()
        if found != text or kind not in ("sign", "name"):
            return False
        self._at += 1
        return True

    def _must(self, text: str) -> None:
        if not self._take(text):
            raise self._wrong(f'expected "{text}", got {self._peek()[1]}')

    def end(self) -> None:
        """Nothing may follow."""
        if self._peek()[0] != "end":
            raise self._wrong(f"did not expect {self._peek()[1]}")

    def disjunction(self) -> Getter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong("too many parentheses")
        parts = [self._conjunction()]
        while self._take("or"):
            parts.append(self._conjunction())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else lambda item: any(part(item) for part in parts)

    def _conjunction(self) -> Getter:
        parts = [self._negation()]
        while self._take("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else lambda item: all(part(item) for part in parts)

    def _negation(self) -> Getter:
        if self._take("not"):
            inner = self._comparison()
            return lambda item: not inner(item)
        return self._comparison()

    def _comparison(self) -> Getter:
        if self._take("("):
            inner = self.disjunction()
            self._must(")")
            return inner
        left = self._value()
        kind, sign = self._peek()
        if kind != "sign" or sign not in ("==", "!=", *_COMPARISONS):
            return left
        self._at += 1
        right = self._value()
        if sign == "==":
            return lambda item: _equal(left(item), right(item))
        if sign == "!=":
            return lambda item: not _equal(left(item), right(item))
        compare = _COMPARISONS[sign]
        return lambda item: _ordered(compare, left(item), right(item))

    def _value(self) -> Getter:
        kind, text = self._next()
        if kind == "string":
            found: Any = _unquoted(text)
        elif kind == "number":
            found = float(text) if set(text) & set(".eE") else int(text)
        elif kind == "bytes":
            found = bytes.fromhex(text[2:])
        elif kind == "name":
            return self._named(text)
        else:
            raise self._wrong(f"expected a value, got {text}")
        return lambda _: found

    def _named(self, name: str) -> Getter:
        constants: dict[str, Any] = {"true": True, "false": False, "nil": None, **ENUMS}
        if name in constants:
            constant = constants[name]
            return lambda _: constant
        if self._peek() == ("sign", "("):
            return self._call(name)
        path = name
        while self._take("."):
            path = f"{path}.{self._next()[1]}"
        getter = self._paths.get(path)
        if getter is None:
            raise self._wrong(f'there is no "{path}" here; known are {", ".join(self._paths)}')
        while self._take("["):
            getter = self._keyed(getter)
        return getter

    def _keyed(self, getter: Getter) -> Getter:
        kind, text = self._next()
        self._must("]")
        if kind == "string":
            key = _unquoted(text)
            return lambda item: _entry(getter(item), key)
        if kind == "number" and text.isdecimal():
            index = int(text)
            return lambda item: _element(getter(item), index)
        raise self._wrong(f"{text} is no key")

    def _call(self, name: str) -> Getter:
        function = self._functions.get(name)
        if function is None:
            known = ", ".join(sorted(self._functions))
            raise self._wrong(f'there is no function "{name}" here; known are {known}')
        self._must("(")
        arguments: list[Getter] = []
        while not self._take(")"):
            if arguments:
                self._must(",")
            arguments.append(self._value())
        if len(arguments) != function.arguments:
            raise self._wrong(f"{name} takes {function.arguments} arguments")
        if name == "IsMatch":
            arguments[1] = self._pattern(arguments[1])
        return lambda item: function.call(item, *(each(item) for each in arguments))

    def _pattern(self, argument: Getter) -> Getter:
        """Compiled once; it has to be a literal."""
        try:
            compiled = re.compile(argument(None))
        except (re.error, TypeError, AttributeError, KeyError) as error:
            raise self._wrong(f"IsMatch needs a pattern: {error}") from error
        return lambda _: compiled


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ConditionError(f"{text}: {text[at : at + 10]!r} is not understood")
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t", "r": "\r"}.get(m[1], m[1]), text[1:-1])


def _equal(left: Any, right: Any) -> bool:
    """Values of different types are never equal, but numbers may be."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if not numbers and type(left) is not type(right):
        return False
    if left is None or isinstance(left, bool | dict | list):
        return False
    return compare(left, right)


def _entry(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _element(value: Any, index: int) -> Any:
    return value[index] if isinstance(value, list | str) and index < len(value) else None
