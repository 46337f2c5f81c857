# SPDX-License-Identifier: Apache-2.0
"""What a block may hold, as data: arguments with their types, blocks, exports, rules.

Types are written as in the documentation: ``string``, ``secret``, ``number``, ``bool``,
``duration`` (as Go's ``time.ParseDuration`` reads it), ``size`` (``4MiB``), ``list(T)``,
``map(T)``, ``any``, or the name of a capsule such as ``otelcol.Consumer``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from otelauto.agent.river.values import (
    Capsule,
    OptionalSecret,
    Unknown,
    Value,
    ValueFault,
    convert,
    type_name,
)

CONSUMER = "otelcol.Consumer"
HANDLER = "otelcol.Handler"
APPENDABLE = "prometheus.Appendable"
STORAGE = "otelcol.Storage"
CAPSULES = (CONSUMER, HANDLER, APPENDABLE, STORAGE)
NS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": 10**9,
      "m": 60 * 10**9, "h": 3600 * 10**9}  # fmt: skip
DURATION_MAX_NS = (1 << 63) - 1
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?", re.IGNORECASE | re.ASCII)
_PREFIXES = "KMGT"

Rule = Callable[["Decoded"], str]


@dataclass(frozen=True, slots=True)
class Argument:
    """An attribute of a block. ``default`` is what it is without being given; ``choices`` are all
    the strings that it takes, if not any.
    """

    name: str
    type: str
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A block in a block, or a whole component (:class:`Component`). ``free`` is the type of
    arguments of any name. A rule returns what is wrong, or nothing.
    """

    name: str
    arguments: tuple[Argument, ...] = ()
    blocks: tuple[Block, ...] = ()
    required: bool = False
    repeated: bool = False
    rules: tuple[Rule, ...] = ()

    def argument(self, name: str) -> Argument | None:
        return next((each for each in self.arguments if each.name == name), None)

    def block(self, name: str) -> Block | None:
        return next((each for each in self.blocks if each.name == name), None)


@dataclass(frozen=True, slots=True)
class Component(Block):
    """A component; ``exports`` are the types of what others may refer to by its id.

    ``labelled``: it is named, and there can be several; else it is part of the agent itself.
    """

    exports: tuple[tuple[str, str], ...] = ()
    labelled: bool = True


@dataclass(slots=True)
class Decoded:
    """The contents of a block: arguments with their values, and the blocks in it by name.

    Durations are nanoseconds, sizes bytes; what is known only at run time is an ``Unknown``.
    """

    schema: Block
    arguments: dict[str, Value] = field(default_factory=dict)
    blocks: dict[str, list[Decoded]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Value:
        """The argument's value, given or default; ``None`` for an ``Unknown``."""
        argument = self.schema.argument(name)
        value = self.arguments.get(name)
        if value is None and argument is not None and argument.default is not None:
            return decode(argument.default, argument)
        return None if isinstance(value, Unknown) else value

    def section(self, name: str) -> Decoded:
        """The block ``name``, which cannot be repeated; where it is not given, its defaults."""
        found = self.blocks.get(name)
        if found:
            return found[0]
        schema = self.schema.block(name)
        assert schema is not None  # noqa: S101 - of the schema's own names
        return Decoded(schema)

    def given(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` that are set, as arguments or as blocks."""
        return [name for name in names if name in self.arguments or self.blocks.get(name)]


def optional(name: str, kind: str, default: Any = None, *choices: str) -> Argument:
    """An argument that may be left out."""
    return Argument(name, kind, default, choices=choices)


def required(name: str, kind: str, *choices: str) -> Argument:
    """An argument that may not."""
    return Argument(name, kind, required=True, choices=choices)


def at_most_one(*names: str) -> Rule:
    """Of these arguments and blocks one excludes the others."""

    def rule(found: Decoded) -> str:
        given = found.given(names)
        return f"at most one of {', '.join(given)} may be given" if len(given) > 1 else ""

    return rule


def exactly_one(*names: str) -> Rule:
    """One of these arguments and blocks has to be there."""

    def rule(found: Decoded) -> str:
        if len(found.given(names)) == 1:
            return ""
        return f"exactly one of {', '.join(names)} has to be given"

    return rule


def at_least(name: str, smallest: float, unit: str = "") -> Rule:
    """The argument may not be smaller; ``smallest`` in nanoseconds or bytes where it is one."""

    def rule(found: Decoded) -> str:
        value = found[name]
        small = isinstance(value, int | float) and value < smallest
        return f'"{name}" must be at least {unit or smallest}' if small else ""

    return rule


def not_above(lower: str, upper: str, unless: int | None = None) -> Rule:
    """``lower`` may not be greater than ``upper``, unless the latter is ``unless`` (no limit)."""

    def rule(found: Decoded) -> str:
        low, high = found[lower], found[upper]
        wrong = isinstance(low, int | float) and isinstance(high, int | float) and low > high
        return f'"{upper}" must not be less than "{lower}"' if wrong and high != unless else ""

    return rule


def http_url(name: str) -> Rule:
    """The argument is an HTTP URL, and no ``/``, ``?`` or ``#`` of a key ends its host early (RFC
    3986 section 3.2). An empty one is what a variable gave that is not set here.
    """

    def rule(found: Decoded) -> str:
        value = found[name]
        if not isinstance(value, str) or not value:
            return ""
        scheme, _, rest = value.partition("://")
        if scheme.lower() not in ("http", "https"):
            return f'"{name}" must be a URL that begins with http:// or https://'
        authority = re.split("[/?#]", rest, maxsplit=1)[0]
        port = authority.rpartition("]")[2].rpartition(":")[2]
        if "@" in rest and "@" not in authority and ":" in authority and not port.isdecimal():
            return (
                f'the user name or key in "{name}" holds a "/", "?" or "#", where a URL\'s host '
                "ends; use a basic_auth block"
            )
        return ""

    return rule


def duration_ns(text: str) -> int:
    """Nanoseconds of a duration such as ``1h30m`` or ``-1.5s`` (Go's ``time.ParseDuration``: the
    units are ns, us, ms, s, m, h, without days). Raises :class:`ValueFault`.
    """
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    parts = _DURATION_PART.findall(body)
    if not parts or "".join(map("".join, parts)) != body or len(body) > 100:
        raise ValueFault('is no duration such as "1h30m", "5s" or "200ms"')
    total = 0
    for number, unit in parts:
        whole, _, fraction = number.partition(".")
        total += int(whole or 0) * NS[unit] + int(fraction or 0) * NS[unit] // 10 ** len(fraction)
    if total > DURATION_MAX_NS:
        raise ValueFault("is a longer duration than 292 years")
    return -total if text[0] == "-" else total


def size_bytes(text: str) -> int:
    """Bytes of a size such as ``512KiB``, ``4MB`` or ``1024``. Raises :class:`ValueFault`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(text) > 40:
        raise ValueFault('is no size such as "512KiB", "20MiB" or "1024"')
    number, prefix, binary = match.groups()
    power = _PREFIXES.index(prefix.upper()) + 1 if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def decode(value: Value, argument: Argument) -> Value:
    """``value`` as ``argument`` takes it; raises :class:`ValueFault` with the path to the fault."""
    if value is None:
        return None
    found = _decode(value, argument.type)
    wrong = argument.choices and isinstance(found, str) and found not in argument.choices
    if wrong:
        raise ValueFault("must be one of " + ", ".join(f'"{each}"' for each in argument.choices))
    return found


def _decode(value: Value, kind: str) -> Value:
    outer, _, rest = kind.partition("(")
    if rest:
        return _decode_each(value, outer, rest[:-1])
    if kind in ("duration", "size"):
        text = convert(value, "string")
        if isinstance(text, Unknown):
            return text
        return duration_ns(text) if kind == "duration" else size_bytes(text)
    if kind in CAPSULES:
        actual = value.kind if isinstance(value, Capsule) else type_name(value)
        if actual not in (kind, "any"):
            raise ValueFault(f"should be {kind}, got {actual}")
        return value
    if kind == "any" and isinstance(value, OptionalSecret):
        return value
    return convert(value, kind)


def _decode_each(value: Value, outer: str, inner: str) -> Value:
    found = convert(value, "array" if outer == "list" else "object")
    if isinstance(found, Unknown):
        return found
    steps = list(enumerate(found)) if outer == "list" else list(found.items())
    decoded = []
    for step, each in steps:
        try:
            decoded.append((step, _decode(each, inner)))
        except ValueFault as fault:
            raise ValueFault(fault.message, (step, *fault.path)) from None
    return [each for _, each in decoded] if outer == "list" else dict(decoded)
