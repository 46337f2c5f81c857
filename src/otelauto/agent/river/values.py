# SPDX-License-Identifier: Apache-2.0
"""Values and the conversions between their types.

================  ==========================================================================
River             Python
================  ==========================================================================
null              ``None``
bool, string      ``bool``, ``str`` (bytes that are no UTF-8 as surrogates)
number            ``int`` from -2**63 to 2**64 - 1 (int64 or uint64 in River), ``float``
array, object     ``list``, ``dict`` with ``str`` keys
function          :class:`Function`
capsule           :class:`Secret`, :class:`OptionalSecret`, :class:`Capsule`
================  ==========================================================================

:class:`Unknown` stands for what only a running component gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Value = Any

INT_MIN, INT_MAX, UINT_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
ANY = "any"


@dataclass(frozen=True, slots=True)
class Secret:
    """Text that is never shown: not in messages, nor in ``repr``."""

    text: str = field(repr=False)

    def __repr__(self) -> str:
        return "(secret)"


@dataclass(frozen=True, slots=True)
class OptionalSecret:
    """Text of which the configuration says whether it is a secret. If not, it acts as a string."""

    text: str = field(repr=False)
    is_secret: bool

    def __repr__(self) -> str:
        return "(secret)" if self.is_secret else repr(self.text)


@dataclass(frozen=True, slots=True)
class Capsule:
    """Something of a component's own that values can only carry: a consumer, an authenticator."""

    kind: str
    inner: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that is not known before the components run; ``type`` is, or is :data:`ANY`."""

    type: str = ANY


@dataclass(frozen=True, slots=True)
class Function:
    """``parameters`` are the types that the arguments are converted to; ``variadic`` is that of
    any further ones. ``call`` gets them and raises :class:`ValueFault`.
    """

    name: str
    parameters: tuple[str, ...]
    call: Callable[..., Value] = field(repr=False)
    variadic: str = ""


class ValueFault(Exception):  # noqa: N818 - the user's fault, told as a diagnostic
    """What is wrong with a value. ``path`` leads to the part of it; ``argument`` is which argument
    of a call it is about (-1: the call itself).
    """

    def __init__(self, message: str, path: tuple[int | str, ...] = (), argument: int = -1) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.argument = argument


def type_name(value: Value) -> str:
    """The River type of ``value``, as messages call it."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case Function():
            return "function"
        case Unknown():
            return value.type
    return "capsule"


def plain(value: Value) -> Value:
    """``value``; the text of an optional secret that is none."""
    if isinstance(value, OptionalSecret) and not value.is_secret:
        return value.text
    return value


def number_text(value: float) -> str:
    """A number as conversion to a string gives it: the fewest digits, no exponent."""
    if isinstance(value, int):
        return str(value)
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    return _without_exponent(repr(value))


def _without_exponent(text: str) -> str:
    mantissa, _, exponent = text.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    if exponent:
        shift = int(exponent)
        if shift >= 0:
            fraction = fraction.ljust(shift, "0")
            whole, fraction = whole + fraction[:shift], fraction[shift:]
        else:
            whole = whole.rjust(1 - shift, "0")
            whole, fraction = whole[:shift], whole[shift:] + fraction
        whole = whole.lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def parse_number(text: str) -> int | float:
    """The number that the digits of a literal, or a string, stand for (Go's ``ParseInt`` with base
    0, then ``ParseUint``, then ``ParseFloat``). Raises :class:`ValueFault`.
    """
    if re.fullmatch(r"-?[0-9]+", text):
        digits = text.lstrip("-")
        octal = len(digits) > 1 and digits[0] == "0"
        if not octal or re.fullmatch("[0-7]+", digits):
            # Longer ones are no integers of 64 bits, and slow to convert.
            value = int(digits[:40], 8 if octal else 10) * (-1 if text[0] == "-" else 1)
            if len(digits) <= 40 and INT_MIN <= value <= UINT_MAX:
                return value
    elif not re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", text, re.IGNORECASE):
        raise ValueFault("should be number, got string")
    value_float = float(text)
    if value_float in (float("inf"), float("-inf")):
        raise ValueFault("is out of the range of numbers")
    return value_float


def integer(value: int) -> int:
    """``value`` if 64 bits hold it; raises :class:`ValueFault`. Nothing wraps around in silence."""
    if not INT_MIN <= value <= UINT_MAX:
        raise ValueFault("overflows 64 bits")
    return value


def convert(value: Value, wanted: str) -> Value:
    """``value`` as a value of the type ``wanted``: null, bool, number, string, array, object,
    function, secret or any.

    Numbers become strings and strings numbers; a string becomes a secret, never the reverse; null
    becomes the zero of the type. Raises :class:`ValueFault`.
    """
    value = plain(value)
    actual = type_name(value)
    if wanted in (ANY, actual) or actual == ANY:
        return value
    if value is None:
        return _zero(wanted)
    if wanted == "secret":
        return _to_secret(value, actual)
    if isinstance(value, Unknown):
        if {actual, wanted} <= {"string", "number"}:
            return Unknown(wanted)
    elif wanted == "string" and actual == "number":
        return number_text(value)
    elif wanted == "number" and actual == "string":
        return parse_number(value)
    raise ValueFault(f"should be {wanted}, got {_shown(actual)}")


def _shown(actual: str) -> str:
    return "capsule" if actual == "secret" else actual


def _to_secret(value: Value, actual: str) -> Value:
    match value:
        case Secret():
            return value
        case OptionalSecret(text):
            return Secret(text)
        case Unknown():
            if actual in ("string", "number", "secret"):
                return Unknown("secret")
        case str():
            return Secret(value)
        case int() | float() if not isinstance(value, bool):
            return Secret(number_text(value))
    raise ValueFault(f"should be string or secret, got {actual}")


def _zero(wanted: str) -> Value:
    zeros = {"string": "", "number": 0, "bool": False, "secret": Secret("")}
    if wanted in zeros:
        return zeros[wanted]
    return {"array": [], "object": {}}.get(wanted)
