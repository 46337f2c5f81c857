# SPDX-License-Identifier: Apache-2.0
"""JSONPath, as ``json_path`` takes it (RFC 9535, and a leading ``$`` may be left out): ``$.a.b``,
``.a[0]``, ``['a b']``, ``[*]``, ``..a``, ``[1:3]``, ``[0,2]``, ``[?(@.a == 'x')]``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from otelauto.agent.river.values import ValueFault

_STEP = re.compile(
    r"""(?P<deep>\.\.)?(?:\.?(?P<name>[^\W\d][\w-]*|\*)
    |\[\s*(?P<slice>-?\d*\s*:\s*-?\d*\s*(?::\s*-?\d*)?)\s*\]
    |\[\s*(?P<union>(?:-?\d+|\*|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
       (?:\s*,\s*(?:-?\d+|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))*)\s*\]
    |\[\s*\?\s*\(?\s*@(?P<path>(?:\.[\w-]+)*)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*
       (?P<operand>-?\d+(?:\.\d+)?|true|false|null|'[^']*'|"[^"]*"))?\s*\)?\s*\])""",
    re.VERBOSE,
)
_ITEM = re.compile(r"-?\d+|\*|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_WORDS = {"true": True, "false": False, "null": None}
FOUND_MAX = 100_000


def find(document: Any, path: str) -> list[Any]:
    """All that ``path`` finds in ``document``, in its order. Raises :class:`ValueFault`."""
    at = 1 if path[:1] in ("$", "@") else 0
    found = [document]
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None or step.end() == at:
            raise ValueFault(f'"{path}" is no JSONPath that is understood here', argument=1)
        starts = found if step["deep"] is None else [d for each in found for d in _below(each)]
        found = []
        for each in starts:
            found.extend(_children(each, step))
            if len(found) > FOUND_MAX:
                raise ValueFault(f"finds more than {FOUND_MAX} values", argument=1)
        at = step.end()
    return found


def _below(value: Any) -> Iterator[Any]:
    """``value`` and everything in it, outermost first."""
    yield value
    for child in _all(value):
        yield from _below(child)


def _all(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _children(value: Any, step: re.Match[str]) -> list[Any]:
    if (name := step["name"]) is not None:
        return _pick(value, name)
    if (union := step["union"]) is not None:
        return [child for item in _ITEM.findall(union) for child in _pick(value, item)]
    if (bounds := step["slice"]) is not None:
        if not isinstance(value, list):
            return []
        parts = [int(part) if part.strip() else None for part in bounds.split(":")]
        if len(parts) == 3 and parts[2] == 0:
            return []
        return value[slice(*parts)]
    return [child for child in _all(value) if _matches(child, step)]


def _pick(value: Any, item: str) -> list[Any]:
    """The child named ``item``: a name, a quoted name, an index or ``*``."""
    if item == "*":
        return _all(value)
    if isinstance(value, list) and re.fullmatch(r"-?\d{1,9}", item):
        index = int(item)
        return [value[index]] if -len(value) <= index < len(value) else []
    name = re.sub(r"\\(.)", r"\1", item[1:-1]) if item[0] in "'\"" else item
    return [value[name]] if isinstance(value, dict) and name in value else []


def _matches(child: Any, step: re.Match[str]) -> bool:
    for name in step["path"].split(".")[1:]:
        if not isinstance(child, dict) or name not in child:
            return False
        child = child[name]
    if step["op"] is None:
        return True
    text = step["operand"]
    operand = _WORDS[text] if text in _WORDS else text[1:-1] if text[0] in "'\"" else float(text)
    try:
        return _COMPARE[step["op"]](child, operand)
    except TypeError:  # no order between a text and a number
        return False
