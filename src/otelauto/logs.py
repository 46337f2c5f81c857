# SPDX-License-Identifier: Apache-2.0
"""Log lines on standard error: ``time=... level=INFO msg="..."`` or JSON, without secrets."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TextIO

MASK: Final = "****"

_NAMES = {"WARNING": "WARN", "CRITICAL": "ERROR"}
_hidden: list[str] = []


def hide(secrets: Iterable[str]) -> None:
    """Replace these texts by asterisks in whatever is logged from now on."""
    _hidden[:] = [text for text in secrets if text]


def masked(text: str) -> str:
    """``text`` without the secrets given to :func:`hide`."""
    for secret in _hidden:
        text = text.replace(secret, MASK)
    return text


def quoted(text: str) -> str:
    """``text`` in double quotes; quotes, backslashes and what is not printable are escaped."""
    escaped = (
        f"\\{char}" if char in '"\\' else char if char.isprintable() else _escape(char)
        for char in text
    )
    return f'"{"".join(escaped)}"'


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode()


class LineFormatter(logging.Formatter):
    """One line a record. A traceback is part of the line, and only at level DEBUG."""

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__()
        self.tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        time, level, *texts = self._fields(record).items()
        line = f"time={time[1]} level={level[1]}"
        return line + "".join(f" {name}={quoted(text)}" for name, text in texts)

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        moment = datetime.fromtimestamp(record.created, tz=UTC)
        fields = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": _NAMES.get(record.levelname, record.levelname),
            "msg": masked(record.getMessage()),
        }
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields["error"] = masked(f"{type(error).__name__}: {error}")
            if self.tracebacks:
                fields["traceback"] = masked("".join(traceback.format_exception(error)))
        return fields


class JsonFormatter(LineFormatter):
    """The same fields as an object of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self._fields(record))


def setup(level: str, stream: TextIO | None = None, *, as_json: bool = False) -> None:
    """Log records of ``level`` (DEBUG, INFO, WARN, ERROR) and above to ``stream`` (stderr)."""
    number = {"DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40}[level]
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    kind = JsonFormatter if as_json else LineFormatter
    handler.setFormatter(kind(tracebacks=number <= logging.DEBUG))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
