# SPDX-License-Identifier: Apache-2.0
"""Go's ``fmt.Sprintf`` for River's values (https://pkg.go.dev/fmt, "Printing").

What does not fit is told in the text, as Go does: ``%!d(string=hi)``, ``%!d(MISSING)``.
"""

from __future__ import annotations

import json
import math
import re

from otelauto.agent.river.lexer import quote
from otelauto.agent.river.values import UINT_MAX, Value, ValueFault

_VERB = re.compile(
    r"%(?P<flags>[+\-# 0]*)(?:(?:\[(?P<warg>\d+)\])?(?P<width>\*|\d+))?"
    r"(?:\.(?:(?:\[(?P<parg>\d+)\])?(?P<precision>\*|\d*)))?(?:\[(?P<arg>\d+)\])?(?P<verb>.)?",
    re.DOTALL,
)
_SIZE_MAX = 1_000_000  # Go's limit for width and precision
_BASES = {"b": "b", "o": "o", "d": "d", "x": "x", "X": "X", "O": "o"}


class _Arguments:
    """Arguments in their order, or by number from where ``[n]`` points to."""

    def __init__(self, values: tuple[Value, ...]) -> None:
        self._values = values
        self._next = 0
        self._reordered = False

    def point(self, number: str | None) -> bool:
        """Go on at argument ``number``, from 1; False: there is none."""
        if number is None:
            return True
        self._reordered = True
        self._next = int(number[:9]) - 1
        return 0 <= self._next < len(self._values)

    def left(self) -> bool:
        return self._next < len(self._values)

    def take(self) -> Value:
        self._next += 1
        return self._values[self._next - 1]

    def extra(self) -> str:
        """What Go writes about arguments that no verb took."""
        if self._reordered or not self.left():
            return ""
        rest = self._values[self._next :]
        return "%!(EXTRA " + ", ".join(f"{_go_type(v)}={_any(v)}" for v in rest) + ")"


def sprintf(spec: str, *values: Value) -> str:
    """``values`` as ``spec`` says; raises :class:`ValueFault` if the text would be endless."""
    arguments = _Arguments(values)
    found = _VERB.sub(lambda match: _one(match, arguments), spec)
    return found + arguments.extra()


def _one(match: re.Match[str], arguments: _Arguments) -> str:
    flags, verb = match["flags"], match["verb"]
    if verb is None:
        return "%!(NOVERB)"
    sizes: list[int | None] = []
    for size, number in ((match["width"], match["warg"]), (match["precision"], match["parg"])):
        if size == "*":
            if not arguments.point(number):
                return f"%!{verb}(BADINDEX)"
            given = arguments.take() if arguments.left() else None
            if not isinstance(given, int) or isinstance(given, bool):
                return "%!(BADWIDTH)" if not sizes else "%!(BADPREC)"
            sizes.append(given)
        else:
            sizes.append(None if size is None else int(size[:9] or 0))
        if sizes[-1] is not None and abs(sizes[-1]) > _SIZE_MAX:
            raise ValueFault(f"a width or precision is more than {_SIZE_MAX}", argument=0)
    width, precision = sizes
    if width is not None and width < 0:
        flags, width = flags + "-", -width
    if verb == "%":
        return "%"
    if not arguments.point(match["arg"]):
        return f"%!{verb}(BADINDEX)"
    if not arguments.left():
        return f"%!{verb}(MISSING)"
    value = arguments.take()
    return _pad(_verb(verb, flags, precision, value), flags, width, verb, value)


def _pad(text: str, flags: str, width: int | None, verb: str, value: Value) -> str:
    if width is None or len(text) >= width:
        return text
    if "-" in flags:
        return text.ljust(width)
    numeric = (
        isinstance(value, int | float) and not isinstance(value, bool) and verb in "bodxXeEfFgGv"
    )
    if "0" in flags and numeric and not text.startswith("%!"):
        sign = text[0] if text[:1] in ("+", "-", " ") else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _verb(verb: str, flags: str, precision: int | None, value: Value) -> str:
    sign = "+" if "+" in flags else " " if " " in flags else "-"
    found: str | None = None
    if verb == "v":
        return _any(value, "#" in flags)
    if verb == "T":
        return _go_type(value)
    match value:
        case bool():
            found = _any(value) if verb == "t" else None
        case int():
            found = _integer(verb, value, "#" in flags, sign)
        case float():
            found = _float(verb, value, precision, sign) if verb in "eEfFgG" else None
        case str():
            found = _string(verb, value, precision)
        case list():
            found = "[" + " ".join(_verb(verb, flags, precision, each) for each in value) + "]"
        case dict():
            pairs = (
                f"{_verb(verb, flags, precision, key)}:{_verb(verb, flags, precision, value[key])}"
                for key in sorted(value)
            )
            found = "map[" + " ".join(pairs) + "]"
    if found is not None:
        return found
    return f"%!{verb}({'' if value is None else _go_type(value) + '='}{_any(value)})"


def _string(verb: str, value: str, precision: int | None) -> str | None:
    text = value if precision is None else value[:precision]
    match verb:
        case "s":
            return text
        case "q":
            return quote(text)
        case "x":
            return text.encode("utf-8", "surrogateescape").hex()
        case "X":
            return text.encode("utf-8", "surrogateescape").hex().upper()
    return None


def _character(verb: str, value: int) -> str | None:
    """The verbs that take an integer for a character."""
    if verb == "U":
        return f"U+{value:04X}" if value >= 0 else f"U+{value & UINT_MAX:X}"
    known = 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000
    char = chr(value) if known else "\ufffd"
    if verb == "c":
        return char
    if verb == "q":
        return "'" + quote(char)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
    return None


def _integer(verb: str, value: int, sharp: bool, sign: str) -> str | None:
    if verb not in _BASES:
        return _character(verb, value)
    digits = format(abs(value), _BASES[verb])
    prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if sharp else ""
    if verb == "O":
        prefix = "0o"
    return ("-" if value < 0 else sign.strip("-")) + prefix + digits


def _float(verb: str, value: float, precision: int | None, sign: str) -> str:
    if math.isnan(value) or math.isinf(value):
        text = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
        return text[1:] if text[0] == "+" and sign == "-" else text
    if precision is None and verb in "gG":
        text = _shortest(value)
        return _signed(text.upper() if verb == "G" else text, sign)
    return _signed(format(value, f".{6 if precision is None else precision}{verb}"), sign)


def _signed(text: str, sign: str) -> str:
    return text if sign == "-" or text.startswith("-") else sign + text


def _shortest(value: float) -> str:
    """Go's ``%g`` without precision: the fewest digits, an exponent from 21 digits on."""
    mantissa, _, exponent = f"{value:e}".partition("e")
    digits = repr(value)
    if -4 <= int(exponent) < 21:
        from_repr = digits if "e" not in digits else f"{value:.0f}"
        return from_repr.removesuffix(".0")
    if "e" not in digits:  # repr uses an exponent later than Go does for small numbers
        mantissa = f"{value:.16e}".partition("e")[0].rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent):+03d}"
    mantissa, _, exponent = digits.partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+03d}"


def _any(value: Value, sharp: bool = False) -> str:
    """``%v``"""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _float("g", value, None, "-")
        case str():
            return json.dumps(value, ensure_ascii=False) if sharp else value
        case list():
            return "[" + " ".join(map(_any, value)) + "]"
        case dict():
            return "map[" + " ".join(f"{key}:{_any(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def _go_type(value: Value) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}"}
    if isinstance(value, dict):
        return "map[string]interface {}"
    return names.get(type(value), "<nil>" if value is None else "capsule")
