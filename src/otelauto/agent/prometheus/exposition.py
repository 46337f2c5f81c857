# SPDX-License-Identifier: Apache-2.0
"""Reads what is scraped: the Prometheus text format 0.0.4 and OpenMetrics 1.0.

Sources: prometheus.io/docs/instrumenting/exposition_formats and the OpenMetrics 1.0 specification.
As Prometheus does, samples are read one by one; families need not be contiguous.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from otelauto.agent.pipeline import Exemplar, Metadata
from otelauto.agent.prometheus.names import NAME, sorted_labels

OPENMETRICS_TYPE: Final = "application/openmetrics-text"
EXEMPLAR_MAX: Final = 128  # characters of the labels (OpenMetrics, "Exemplars")
KINDS: Final = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})
OPENMETRICS_KINDS: Final = frozenset(
    {"counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset", "unknown"}
)
TIMESTAMP_MAX_MS: Final = 1 << 62
_SERIES: Final = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*(?:\{((?:[^"}]|"(?:\\.|[^"\\])*")*)\})?', re.DOTALL
)
_LABEL: Final = re.compile(
    r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:\\.|[^"\\])*)"[ \t]*(,|$)', re.DOTALL
)
_REST: Final = re.compile(r"[ \t]*(\S+)(?:[ \t]+(\S+))?[ \t]*\Z")
_EXEMPLAR: Final = re.compile(
    r'[ \t]*\{((?:[^"}]|"(?:\\.|[^"\\])*")*)\}[ \t]+(\S+)(?:[ \t]+(\S+))?[ \t]*\Z', re.DOTALL
)
_NUMBER: Final = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?|nan)\Z", re.IGNORECASE | re.ASCII
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "\\": "\\", '"': '"'}


class ExpositionError(ValueError):
    """What was scraped is no exposition; says which line, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Scraped:
    """One line: labels (``__name__`` among them), value, and its own time if it has one, in
    milliseconds since the epoch.
    """

    labels: dict[str, str]
    value: float
    timestamp_ms: int | None
    exemplar: Exemplar | None


@dataclass(slots=True)
class _About:
    kind: str = ""
    help: str = ""
    unit: str = ""


class Exposition:
    """The samples of an exposition, by iterating; then ``metadata`` is complete, too.

    Raises:
        ExpositionError: while it is iterated over, with the first line that is wrong.
    """

    def __init__(self, data: bytes, *, openmetrics: bool) -> None:
        self._data = data
        self._openmetrics = openmetrics
        self._families: dict[str, _About] = {}

    @property
    def metadata(self) -> list[Metadata]:
        """What was said of the families so far."""
        return [
            Metadata(name, about.kind or "unknown", about.help, about.unit)
            for name, about in self._families.items()
        ]

    def __iter__(self) -> Iterator[Scraped]:
        try:
            text = self._data.decode()
        except UnicodeDecodeError as error:
            raise ExpositionError(f"byte {error.start} is no UTF-8") from None
        lines = text.split("\n")
        last = lines.pop()
        if last:
            raise ExpositionError("the last line has no end")
        ended = False
        for number, given in enumerate(lines, 1):
            line = given if self._openmetrics else given.strip(" \t\r")
            try:
                if ended:
                    raise ExpositionError("there is something behind # EOF")
                if line.startswith("#"):
                    ended = self._comment(line)
                elif line:
                    yield self._sample(line)
                elif self._openmetrics:
                    raise ExpositionError("an empty line")
            except ExpositionError as error:
                raise ExpositionError(f"line {number}: {error}") from None
        if self._openmetrics and not ended:
            raise ExpositionError("there is no # EOF at the end")

    def _comment(self, line: str) -> bool:
        """Note what a comment says; true for the end of an OpenMetrics exposition."""
        if self._openmetrics and line == "# EOF":
            return True
        parts = line.split(None, 3)
        if len(parts) < 3 or parts[0] != "#" or parts[1] not in ("HELP", "TYPE", "UNIT"):
            if self._openmetrics:
                raise ExpositionError("a comment that is no HELP, TYPE or UNIT")
            return False
        _, what, name = parts[:3]
        text = parts[3] if len(parts) == 4 else ""
        about = self._families.setdefault(name, _About())
        if what == "HELP":
            about.help = _unescaped(text)
        elif what == "UNIT":
            about.unit = text
        else:
            known = OPENMETRICS_KINDS if self._openmetrics else KINDS
            if text.strip() not in known:
                raise ExpositionError(f"the type {text[:40]!r} is not known")
            about.kind = text.strip()
        return False

    def _sample(self, line: str) -> Scraped:
        match = _SERIES.match(line)
        if match is None:
            raise ExpositionError("no metric name")
        labels = _labels(match[2] or "")
        if NAME in labels:
            raise ExpositionError("a label is called __name__")
        labels[NAME] = match[1]
        rest, _, about = line[match.end() :].partition("#")
        found = _REST.match(rest)
        if found is None:
            raise ExpositionError("no value, or more than a value and a time")
        exemplar = None
        if about or rest != line[match.end() :]:
            if not self._openmetrics:
                raise ExpositionError("an exemplar, which this format does not have")
            exemplar = self._exemplar(about)
        time_ms = self._milliseconds(found[2]) if found[2] else None
        return Scraped(labels, _number(found[1]), time_ms, exemplar)

    def _exemplar(self, text: str) -> Exemplar:
        match = _EXEMPLAR.match(text)
        if match is None:
            raise ExpositionError("an exemplar that is none")
        labels = _labels(match[1])
        if sum(len(name) + len(value) for name, value in labels.items()) > EXEMPLAR_MAX:
            raise ExpositionError(f"an exemplar with more than {EXEMPLAR_MAX} characters")
        time_ms = self._milliseconds(match[3]) if match[3] else 0
        return Exemplar(sorted_labels(labels), _number(match[2]), time_ms)

    def _milliseconds(self, text: str) -> int:
        """A time: seconds in OpenMetrics, else milliseconds."""
        if self._openmetrics:
            seconds = _number(text)
            milliseconds = seconds * 1000
            if not abs(milliseconds) < TIMESTAMP_MAX_MS:  # NaN is not, either
                raise ExpositionError("a time that is none")
            return round(milliseconds)
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or abs(int(text)) >= TIMESTAMP_MAX_MS:
            raise ExpositionError("a time that is no number of milliseconds")
        return int(text)


def _labels(text: str) -> dict[str, str]:
    """The labels between braces; a comma may follow the last."""
    found: dict[str, str] = {}
    at = 0
    end = len(text.rstrip(" \t"))
    while at < end:
        match = _LABEL.match(text, at)
        if match is None:
            raise ExpositionError("labels that are none")
        name, value, _ = match.groups()
        if name in found:
            raise ExpositionError(f"the label {name} twice")
        found[name] = _unescaped(value) if "\\" in value else value
        at = match.end()
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[0]), text)


def _number(text: str) -> float:
    """As Go's ``ParseFloat`` reads it, without hexadecimal digits and underscores."""
    if _NUMBER.match(text) is None:
        raise ExpositionError(f"{text[:40]!r} is no number")
    return float(text)
