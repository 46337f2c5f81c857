# SPDX-License-Identifier: Apache-2.0
"""What the operators do with values. Both sides are evaluated always: nothing short-circuits."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from otelauto.agent.river.lexer import Kind
from otelauto.agent.river.values import (
    ANY,
    INT_MAX,
    Capsule,
    Function,
    OptionalSecret,
    Secret,
    Unknown,
    Value,
    ValueFault,
    integer,
    plain,
    type_name,
)

LEFT, RIGHT = 0, 1  # ValueFault.argument: which side is wrong

_NUMBER_OR_STRING = ("number", "string")
_ALLOWED: dict[Kind, tuple[str, ...]] = {
    **dict.fromkeys((Kind.OR, Kind.AND), ("bool",)),
    **dict.fromkeys((Kind.ADD, Kind.LT, Kind.LTE, Kind.GT, Kind.GTE), _NUMBER_OR_STRING),
    **dict.fromkeys((Kind.SUB, Kind.MUL, Kind.DIV, Kind.MOD, Kind.POW), ("number",)),
}
_BOOL_RESULT = {Kind.OR, Kind.AND, Kind.LT, Kind.LTE, Kind.GT, Kind.GTE, Kind.EQ, Kind.NEQ}
_COMPARE: dict[Kind, Callable[[Value, Value], bool]] = {
    Kind.LT: operator.lt,
    Kind.LTE: operator.le,
    Kind.GT: operator.gt,
    Kind.GTE: operator.ge,
    Kind.OR: operator.or_,
    Kind.AND: operator.and_,
}


def unary(kind: Kind, value: Value) -> Value:
    """``!value`` or ``-value``; raises :class:`ValueFault`."""
    wanted = "bool" if kind is Kind.NOT else "number"
    value = plain(value)
    actual = type_name(value)
    if actual not in (wanted, ANY):
        raise ValueFault(f"should be {wanted}, got {actual}")
    if isinstance(value, Unknown):
        return Unknown(wanted)
    if kind is Kind.NOT:
        return not value
    return integer(-value) if isinstance(value, int) else -value


def binary(kind: Kind, left: Value, right: Value) -> Value:
    """``left kind right``; raises :class:`ValueFault`."""
    left, right = plain(left), plain(right)
    if kind in (Kind.EQ, Kind.NEQ):
        if isinstance(left, Unknown) or isinstance(right, Unknown):
            return Unknown("bool")
        return equal(left, right) == (kind is Kind.EQ)
    allowed = _ALLOWED[kind]
    for side, value in ((LEFT, left), (RIGHT, right)):
        actual = type_name(value)
        if actual not in (*allowed, ANY):
            shown = "capsule" if actual == "secret" else actual
            message = f"should be one of [{' '.join(allowed)}] for binop {kind}, got {shown}"
            raise ValueFault(message, argument=side)
    types = {type_name(left), type_name(right)} - {ANY}
    if len(types) > 1:
        message = f"should be {type_name(left)}, got {type_name(right)}"
        raise ValueFault(message, argument=RIGHT)
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return Unknown("bool" if kind in _BOOL_RESULT else types.pop() if types else ANY)
    if kind in _COMPARE:
        if isinstance(left, str):  # by bytes, as in Go: not by Python's view of surrogates
            left, right = (text.encode("utf-8", "surrogateescape") for text in (left, right))
        return _COMPARE[kind](left, right)
    return left + right if isinstance(left, str) else _arithmetic(kind, left, right)


def _arithmetic(kind: Kind, left: float, right: float) -> int | float:
    if kind in (Kind.DIV, Kind.MOD) and right == 0:
        raise ValueFault("divide by zero error", argument=RIGHT)
    if isinstance(left, int) and isinstance(right, int):
        return _integers(kind, left, right)
    a, b = float(left), float(right)
    try:
        match kind:
            case Kind.ADD:
                return a + b
            case Kind.SUB:
                return a - b
            case Kind.MUL:
                return a * b
            case Kind.DIV:
                return a / b
            case Kind.MOD:
                return math.fmod(a, b)
            case _:
                return math.pow(a, b)
    except OverflowError:
        return math.inf
    except ValueError:  # such as (-8.0) ^ 0.5
        return math.nan


def _integers(kind: Kind, left: int, right: int) -> int:
    """Division is towards zero, as in Go; the result has 64 bits or is an error."""
    match kind:
        case Kind.ADD:
            return integer(left + right)
        case Kind.SUB:
            return integer(left - right)
        case Kind.MUL:
            return integer(left * right)
        case Kind.POW:
            return _power(left, right)
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return integer(quotient if kind is Kind.DIV else left - quotient * right)


def _power(base: int, exponent: int) -> int:
    """A negative exponent gives the base: River multiplies while it counts up to the exponent."""
    if exponent <= 1:
        return 1 if exponent == 0 or base == 1 else base
    if base in (-1, 0, 1):
        return base if exponent % 2 else abs(base)
    return integer(base ** min(exponent, 65))


def equal(left: Value, right: Value) -> bool:
    """Whether two values are equal. Any types can be compared: ``1 == 1.0``, but ``"1" != 1``."""
    left, right = plain(left), plain(right)
    if type_name(left) != type_name(right) or isinstance(left, Function):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, Secret | OptionalSecret | Capsule):
        return type(left) is type(right) and bool(left == right)
    if isinstance(left, float) != isinstance(right, float):  # mixed: as floats, as in River
        return (
            float(left) == float(right) if max(abs(left), abs(right)) <= INT_MAX else left == right
        )
    return bool(left == right)
