# SPDX-License-Identifier: Apache-2.0
"""The Prometheus text formats: 0.0.4 and OpenMetrics 1.0, and the names metrics get in them.

Sources: prometheus.io/docs/instrumenting/exposition_formats, the OpenMetrics 1.0 specification, and
the OpenTelemetry specification "Prometheus and OpenMetrics Compatibility".
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from otelauto.export.red import Collected
from otelauto.flows.vocabulary import Attributes, Instrument, ResourceValue
from otelauto.hot.cells import Lines, Series
from otelauto.spans.service import identity_attributes
from otelauto.spans.span import Service


class Format(enum.Enum):
    """An exposition format; the value is its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    PROTOBUF = (
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily;"
        " encoding=delimited"
    )


_UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "%": "percent",
}
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9:]+")
_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9_]+")
_ANNOTATION = re.compile(r"\{[^}]*\}")
NS_PER_S = 1_000_000_000


def encoded(text: str) -> bytes:
    """UTF-8, which both formats are in; what it cannot say (half a surrogate pair) is a ``?``."""
    return text.encode("utf-8", "replace")


def metric_name(name: str, unit: str) -> tuple[str, str]:
    """The Prometheus name of an OpenTelemetry metric, and the unit it ends in ("" if none)."""
    cleaned = _NOT_IN_NAME.sub("_", name).strip("_")
    if cleaned[:1].isdigit():
        cleaned = f"_{cleaned}"
    bare = _ANNOTATION.sub("", unit).strip()
    suffix = _UNITS.get(bare, "")
    if not suffix or cleaned.endswith(f"_{suffix}"):
        return cleaned, suffix
    if suffix in cleaned.split("_"):
        return cleaned, ""
    return f"{cleaned}_{suffix}", suffix


def label_name(attribute: str) -> str:
    """The label of an attribute."""
    cleaned = _NOT_IN_LABEL.sub("_", attribute)
    return f"key_{cleaned}" if cleaned[:1].isdigit() else cleaned


def labels(attributes: Mapping[str, ResourceValue]) -> str:
    """``a="x",b="y"`` of :func:`label_pairs`."""
    return ",".join(f'{name}="{_escape(text)}"' for name, text in label_pairs(attributes).items())


def label_pairs(attributes: Mapping[str, ResourceValue]) -> dict[str, str]:
    """Labels of attributes; those that share a label name are joined with ``;`` in key order.

    A list is written as JSON, as OpenTelemetry's compatibility with Prometheus has it.
    """
    merged: dict[str, str] = {}
    for key in sorted(attributes):
        value = attributes[key]
        listed = isinstance(value, bool | tuple)
        text = json.dumps(value, separators=(",", ":")) if listed else str(value)
        name = label_name(key)
        merged[name] = f"{merged[name]};{text}" if name in merged else text
    return merged


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number(value: float) -> str:
    """A sample value."""
    if value == float("inf"):
        return "+Inf"
    return str(value)


def bound(value: float, fmt: Format) -> str:
    """The text of an ``le``: a float in OpenMetrics (``10.0``), shortest in 0.0.4 (``10``)."""
    text = repr(float(value))
    return text if fmt is Format.OPENMETRICS else text.removesuffix(".0")


class Kind(enum.StrEnum):
    """The types of otelauto's own metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"


Sample = tuple[Attributes, float]


@dataclass(frozen=True, slots=True)
class Family:
    """One of otelauto's own metrics. A counter's ``name`` comes without ``_total``."""

    name: str
    kind: Kind
    help: str
    samples: Callable[[], Iterable[Sample]]
    unit: str = ""  # "seconds", "bytes"; then the name ends in it


def header(name: str, kind: str, help_text: str, unit: str, fmt: Format) -> str:
    """The HELP, TYPE and (OpenMetrics) UNIT lines of a family."""
    escaped = help_text.replace("\\", r"\\").replace("\n", r"\n")
    if fmt is Format.OPENMETRICS:
        escaped = escaped.replace('"', r"\"")
    lines = [f"# HELP {name} {escaped}", f"# TYPE {name} {kind}"]
    if unit and fmt is Format.OPENMETRICS:
        lines.append(f"# UNIT {name} {unit}")
    return "\n".join(lines) + "\n"


def render_family(family: Family, fmt: Format) -> str:
    """All lines of one of otelauto's own metrics; nothing if it has no samples."""
    sample = f"{family.name}_total" if family.kind is Kind.COUNTER else family.name
    named = family.name if fmt is Format.OPENMETRICS else sample
    lines = [
        f"{sample}{{{text}}} {number(value)}\n" if (text := labels(attributes)) else
        f"{sample} {number(value)}\n"
        for attributes, value in family.samples()
    ]  # fmt: skip
    if not lines:
        return ""
    return header(named, family.kind, family.help, family.unit, fmt) + "".join(lines)


class RedExposition:
    """Writes collected RED metrics. Label texts are kept from one scrape to the next.

    Scrapes may overlap: each reads the texts of one that is done, and replaces them when it is.
    ``wall_ns`` makes wall time of the boot-clock time of exemplars.
    """

    def __init__(self, wall_ns: Callable[[int], int]) -> None:
        self._wall_ns = wall_ns
        self._labels: dict[Series, bytes] = {}

    def render(self, collected: Sequence[Collected], fmt: Format) -> Iterator[bytes]:
        """Pieces of UTF-8: ``target_info``, then each histogram family, a series a piece."""
        if collected:
            yield encoded(self._target_info(collected, fmt))
        families: dict[str, list[tuple[Instrument, Service, list[Series]]]] = {}
        for one in collected:
            for instrument, every in one.series:
                name, _ = metric_name(instrument.name, instrument.unit)
                families.setdefault(name, []).append((instrument, one.service, every))
        kept: dict[Series, bytes] = {}
        for name in sorted(families):
            members = families[name]
            instrument = members[0][0]
            _, unit = metric_name(instrument.name, instrument.unit)
            yield encoded(header(name, "histogram", instrument.description, unit, fmt))
            for member, service, every in members:
                lines = _lines(name, member, fmt)
                base = identity_attributes(service)
                for series in every:
                    text = kept[series] = self._label_text(series, base)
                    written = lines.written(series, text)
                    if fmt is Format.OPENMETRICS:
                        written = self._with_exemplars(written, series)
                    yield written
        self._labels = kept

    def _with_exemplars(self, lines: bytes, series: Series) -> bytes:
        """The lines of a histogram, its buckets first, with what they had last."""
        exemplars = series.copied_exemplars()
        if not exemplars:
            return lines
        split = lines.split(b"\n")
        for bucket, value, time_ns, trace_id, span_id in exemplars:
            split[bucket] += encoded(
                f' # {{trace_id="{trace_id.hex()}",span_id="{span_id.hex()}"}} {number(value)}'
                f" {self._wall_ns(time_ns) / NS_PER_S:.3f}"
            )
        return b"\n".join(split)

    def _label_text(self, series: Series, base: Attributes) -> bytes:
        text = self._labels.get(series)
        return encoded(labels({**series.attributes, **base})) if text is None else text

    def _target_info(self, collected: Sequence[Collected], fmt: Format) -> str:
        openmetrics = fmt is Format.OPENMETRICS
        name, kind = ("target", "info") if openmetrics else ("target_info", "gauge")
        lines = [header(name, kind, "The resource of each instrumented service.", "", fmt)]
        for one in collected:
            resource = {**one.service.attributes, **identity_attributes(one.service)}
            lines.append(f"target_info{{{labels(resource)}}} 1\n")
        return "".join(lines)


def _lines(name: str, instrument: Instrument, fmt: Format) -> Lines:
    """All lines of the histograms of an instrument, but for their labels and numbers."""
    texts = [*(bound(b, fmt) for b in instrument.buckets), "+Inf"]
    return Lines(
        encoded(f"{name}_bucket{{"),
        [encoded(f',le="{text}"}} ') for text in texts],
        encoded(f"{name}_sum{{"),
        encoded(f"{name}_count{{"),
    )
