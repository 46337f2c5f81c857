# SPDX-License-Identifier: Apache-2.0
"""The beginning of a body in JSON (RFC 8259): members of its outermost object.

A body may be cut short, and is a stranger's: what cannot be read is not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Any

BODY_MAX = 16 * 1024  # bytes kept of one body
_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


class Body:
    """Keeps the first bytes of a body, up to the first that is not known."""

    __slots__ = ("_data", "whole")

    def __init__(self) -> None:
        self._data = b""
        self.whole = True

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        if self.whole:
            self._data += data[: BODY_MAX - len(self._data)]
            self.whole = len(self._data) < BODY_MAX

    def skip(self, count: int) -> None:
        """The next bytes are not known."""
        self.whole = False

    def text(self) -> str:
        """What is known, as text; a character that is cut or wrong is replaced."""
        return self._data.decode("utf-8", "replace")


def members(text: str, wanted: Container[str]) -> dict[str, Any]:
    """The ``wanted`` members of the object that ``text`` begins with, as far as they are whole.

    Empty if it is no object. Of a name that is there twice, the last value.
    """
    found: dict[str, Any] = {}
    at = _space(text, 0)
    if text[at : at + 1] != "{":
        return found
    try:
        while True:
            name, at = _decode(text, _space(text, at + 1))
            at = _space(text, at)
            if not isinstance(name, str) or text[at : at + 1] != ":":
                return found
            value, at = _decode(text, _space(text, at + 1))
            if name in wanted:
                found[name] = value
            at = _space(text, at)
            if text[at : at + 1] != ",":
                return found
    except (ValueError, RecursionError):
        return found


def whole(data: bytes) -> dict[str, Any] | None:
    """The object that ``data`` is, ``None`` if it is none, or cut short."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()
