# SPDX-License-Identifier: Apache-2.0
"""The secrets of a running configuration: found, so that logs and the page do not show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import unquote

from otelauto.agent.river.values import Capsule, OptionalSecret, Secret, Value
from otelauto.agent.schema import Decoded

HIDDEN: Final = "(secret)"
SHORTEST: Final = 4  # characters: to mask less would spoil a log, and hide nothing
_USERINFO = re.compile(r"(?<=://)([^\s/@]*)@")
_NAMED = re.compile(r"authorization|cookie|token|secret|password|api-?key", re.IGNORECASE)


def secrets(contents: Iterable[Decoded]) -> list[str]:
    """Every secret text, the longest first; passwords of URLs as they are and decoded."""
    found: set[str] = set()
    for content in contents:
        for value in content.arguments.values():
            found.update(_in_value(value))
        for blocks in content.blocks.values():
            found.update(secrets(blocks))
    return sorted((text for text in found if len(text) >= SHORTEST), key=len, reverse=True)


def _in_value(value: Value) -> Iterator[str]:
    match value:
        case Secret(text) | OptionalSecret(text, True):
            yield text
            yield text.rpartition(" ")[2]  # of "Basic ...", as of a header
        case str():
            for userinfo in _USERINFO.findall(value):
                password = userinfo.partition(":")[2]
                yield from (password, unquote(password))
        case list():
            for each in value:
                yield from _in_value(each)
        case dict():
            for name, each in value.items():
                if isinstance(each, str) and _NAMED.search(name):
                    yield each
                yield from _in_value(each)


def harmless(value: Value, name: str = "") -> Any:
    """``value`` as the page shows it: what is secret, or named so, as ``(secret)``."""
    match value:
        case Secret() | OptionalSecret(_, True):
            return HIDDEN
        case OptionalSecret(text, False):
            return text
        case str() if name and _NAMED.search(name):
            return HIDDEN
        case str():
            return _USERINFO.sub(f"{HIDDEN}@", value)
        case Capsule(kind, inner):
            return getattr(inner, "id", kind)
        case list():
            return [harmless(each) for each in value]
        case dict():
            return {key: harmless(each, key) for key, each in value.items()}
    return value
