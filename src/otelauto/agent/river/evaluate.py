# SPDX-License-Identifier: Apache-2.0
"""Expressions to values. What is wrong with a value is told with the expression it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NoReturn

from otelauto.agent.river import ast, operators
from otelauto.agent.river.diagnostics import Diagnostic, Position, RiverError, Source
from otelauto.agent.river.lexer import Kind, unquote
from otelauto.agent.river.printer import expression_text
from otelauto.agent.river.values import (
    Function,
    OptionalSecret,
    Secret,
    Unknown,
    Value,
    ValueFault,
    convert,
    parse_number,
    plain,
    type_name,
)

_SHOWN_MAX = 80  # characters of an expression in a message


class Evaluator:
    """Evaluates expressions of one source in a scope of names.

    With ``covered`` literals are not shown in messages: the argument is a secret.
    """

    def __init__(
        self, source: Source, scope: Mapping[str, Value], *, covered: bool = False
    ) -> None:
        self._source = source
        self._scope = scope
        self._covered = covered

    def __call__(self, expr: ast.Expr) -> Value:
        """The value of ``expr``; raises :class:`RiverError` with one diagnostic."""
        match expr:
            case ast.Literal(kind, text):
                return self._literal(expr, kind, text)
            case ast.Identifier():
                return self._identifier(expr)
            case ast.Paren(inner):
                return self(inner)
            case ast.Array(elements):
                return [self(element) for element in elements]
            case ast.Object(fields):
                return {name.text: self(value) for name, value in fields}
            case ast.Access():
                return self._access(expr)
            case ast.Index():
                return self._index(expr)
            case ast.Call():
                return self._call(expr)
            case ast.Unary():
                return self._unary(expr)
            case ast.Binary():
                return self._binary(expr)

    def _identifier(self, expr: ast.Identifier) -> Value:
        if expr.name not in self._scope:
            self._fail(expr.position, f'identifier "{expr.name}" does not exist')
        return self._scope[expr.name]

    def _fail(self, position: Position, message: str) -> NoReturn:
        raise RiverError([Diagnostic(self._source, position, message)])

    def blame(self, expr: ast.Expr, fault: ValueFault) -> NoReturn:
        """Tell ``fault`` of the value of ``expr``, or of the part of it that stands in the file."""
        path = list(fault.path)
        while path:
            step = path[0]
            if isinstance(expr, ast.Array) and isinstance(step, int):
                expr = expr.elements[step]
                del path[0]
            elif isinstance(expr, ast.Object) and isinstance(step, str):
                wanted = step
                del path[0]
                expr = next(v for name, v in reversed(expr.fields) if name.text == wanted)
            elif isinstance(expr, ast.Paren):
                expr = expr.inner
            else:
                break
        rest = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        text = expression_text(expr, covered=self._covered)
        if len(text) > _SHOWN_MAX:
            text = text[: _SHOWN_MAX - 3] + "..."
        self._fail(expr.position, f"{text}{rest} {fault.message}")

    def _literal(self, expr: ast.Literal, kind: Kind, text: str) -> Value:
        match kind:
            case Kind.STRING:
                return unquote(text)
            case Kind.BOOL:
                return text == "true"
            case Kind.NULL:
                return None
        try:
            return float(parse_number(text)) if kind is Kind.FLOAT else parse_number(text)
        except ValueFault as fault:
            self.blame(expr, fault)

    def _unary(self, expr: ast.Unary) -> Value:
        value = self(expr.value)
        try:
            return operators.unary(expr.operator, value)
        except ValueFault as fault:
            self.blame(expr.value, fault)

    def _access(self, expr: ast.Access) -> Value:
        value, name = plain(self(expr.value)), expr.name
        if isinstance(value, dict):
            if name.text in value:
                return value[name.text]
            self._fail(name.position, f'field "{name.text}" does not exist')
        if value in (Unknown(), Unknown("object")):
            return Unknown()
        message = f'cannot access field "{name.text}" on value of type {type_name(value)}'
        return self.blame(expr.value, ValueFault(message))

    def _index(self, expr: ast.Index) -> Value:
        value, index = plain(self(expr.value)), plain(self(expr.index))
        actual = type_name(value)
        if actual == "any" or (isinstance(value, Unknown) and actual in ("array", "object")):
            return Unknown()
        if actual not in ("array", "object"):
            self.blame(expr.value, ValueFault(f"expected object or array, got {actual}"))
        wanted = "number" if actual == "array" else "string"
        if isinstance(index, Unknown):
            return Unknown()
        if type_name(index) != wanted:
            self.blame(expr.index, ValueFault(f"should be {wanted}, got {type_name(index)}"))
        if isinstance(value, dict):
            return value.get(index)
        number = int(index) if math.isfinite(index) else -1
        if not 0 <= number < len(value):
            message = f"index {number} is out of range of array with length {len(value)}"
            self.blame(expr.index, ValueFault(message))
        return value[number]

    def _binary(self, expr: ast.Binary) -> Value:
        value, done = self(expr.first), expr.first
        for number, (kind, operand) in enumerate(expr.rest):
            right = self(operand)
            try:
                value = operators.binary(kind, value, right)
            except ValueFault as fault:
                self.blame(operand if fault.argument == operators.RIGHT else done, fault)
            done = ast.Binary(expr.first, expr.rest[: number + 1], expr.position)
        return value

    def _call(self, expr: ast.Call) -> Value:
        function = self(expr.value)
        if isinstance(function, Unknown):
            return Unknown()
        if not isinstance(function, Function):
            message = f"should be function, got {type_name(function)}"
            self.blame(expr.value, ValueFault(message))
        values = [self(argument) for argument in expr.arguments]
        expected = len(function.parameters)
        if len(values) < expected or (len(values) > expected and not function.variadic):
            few = "at least " if function.variadic else ""
            message = f"{function.name} expected {few}{expected} args, got {len(values)}"
            self._fail(expr.position, message)
        wanted = function.parameters + (function.variadic,) * (len(values) - expected)
        for number, value in enumerate(values):
            try:
                values[number] = _argument(value, wanted[number], function.name)
            except ValueFault as fault:
                self.blame(expr.arguments[number], fault)
        if any(map(_holds_unknown, values)):
            return Unknown()
        try:
            return function.call(*values)
        except ValueFault as fault:
            if fault.argument >= 0:
                self.blame(expr.arguments[fault.argument], fault)
            self._fail(expr.position, f"{function.name}: {fault.message}")


def _argument(value: Value, wanted: str, function: str) -> Value:
    """``value`` as a parameter of the type ``wanted``; ``strings`` is an array of strings."""
    if wanted == "plain":
        _refuse_secrets(value, function)
        return plain(value)
    if wanted != "strings":
        return convert(value, wanted)
    found = convert(value, "array")
    return found if isinstance(found, Unknown) else convert_each(found, "string")


def convert_each(values: list[Value], wanted: str) -> list[Value]:
    """Each of ``values`` as a ``wanted``; the fault's path leads to the wrong one."""
    found = []
    for number, value in enumerate(values):
        try:
            found.append(convert(value, wanted))
        except ValueFault as fault:
            raise ValueFault(fault.message, (number, *fault.path)) from None
    return found


def _refuse_secrets(value: Value, function: str) -> None:
    """A function that makes text of anything would make a secret readable."""
    secret = isinstance(value, Secret) or value == Unknown("secret")
    if secret or (isinstance(value, OptionalSecret) and value.is_secret):
        raise ValueFault(f"is a secret, which {function} does not take")
    steps: list[tuple[int | str, Value]] = []
    if isinstance(value, list):
        steps = list(enumerate(value))
    elif isinstance(value, dict):
        steps = list(value.items())
    for step, part in steps:
        try:
            _refuse_secrets(part, function)
        except ValueFault as fault:
            raise ValueFault(fault.message, (step, *fault.path)) from None


def _holds_unknown(value: Value) -> bool:
    if isinstance(value, list):
        return any(map(_holds_unknown, value))
    if isinstance(value, dict):
        return any(map(_holds_unknown, value.values()))
    return isinstance(value, Unknown)
