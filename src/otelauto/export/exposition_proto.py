# SPDX-License-Identifier: Apache-2.0
"""The Prometheus protobuf format: delimited ``io.prometheus.client.MetricFamily`` messages, in
which histograms have native (exponential) buckets beside the classic ones.

Fields: github.com/prometheus/client_model, io/prometheus/client/metrics.proto; native histograms:
https://prometheus.io/docs/specs/native_histograms/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

from otelauto.export.exposition import Family, Kind, label_pairs, metric_name
from otelauto.export.points import Exemplar, Exponential, Point, point_of
from otelauto.export.protobuf import double, integer, sized, text, varint, zigzag
from otelauto.export.red import Collected
from otelauto.flows.vocabulary import Instrument, ResourceValue
from otelauto.hot.cells import Series
from otelauto.spans.service import identity_attributes
from otelauto.spans.span import Service

COUNTER, GAUGE, HISTOGRAM = 0, 1, 4  # MetricType
SCHEMA_MIN, SCHEMA_MAX = -4, 8
ZERO_THRESHOLD = 2.0**-128  # what client libraries have; no value of ours lies between it and 0
AT_ONCE = 500  # metrics of a message: a family of more is several messages
GAP_MAX = 2  # empty buckets within a span; more begin another
NS_PER_S = 1_000_000_000
WallNs = Callable[[int], int]


def family_message(family: Family) -> bytes:
    """One of otelauto's own metrics; nothing if it has no samples."""
    is_counter = family.kind is Kind.COUNTER
    name = f"{family.name}_total" if is_counter else family.name
    metrics = [
        _labels(attributes) + sized(3 if is_counter else 2, double(1, float(value)))
        for attributes, value in family.samples()
    ]
    if not metrics:
        return b""
    return _message(name, family.help, COUNTER if is_counter else GAUGE, family.unit, metrics)


def red_messages(collected: Sequence[Collected], wall_ns: WallNs) -> Iterator[bytes]:
    """``target_info``, then each histogram family. ``wall_ns`` makes wall time of boot time."""
    infos = [
        _labels({**one.service.attributes, **identity_attributes(one.service)})
        + sized(2, double(1, 1.0))
        for one in collected
    ]
    if infos:
        about = "The resource of each instrumented service."
        yield _message("target_info", about, GAUGE, "", infos)
    families: dict[str, list[tuple[Instrument, Service, Sequence[Series]]]] = {}
    for one in collected:
        for instrument, every in one.series:
            name, _ = metric_name(instrument.name, instrument.unit)
            families.setdefault(name, []).append((instrument, one.service, every))
    for name in sorted(families):
        instrument = families[name][0][0]
        _, unit = metric_name(instrument.name, instrument.unit)
        metrics = (
            _labels({**series.attributes, **identity_attributes(service)})
            + sized(7, _histogram(member, point_of(series), wall_ns))
            for member, service, every in families[name]
            for series in every
        )
        for batch in _batches(metrics):
            yield _message(name, instrument.description, HISTOGRAM, unit, batch)


def _batches(metrics: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for metric in metrics:
        batch.append(metric)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _message(name: str, about: str, kind: int, unit: str, metrics: Sequence[bytes]) -> bytes:
    """MetricFamily: name, help, type, metric, unit = 1 to 5, behind its length."""
    body = text(1, name) + text(2, about) + integer(3, kind)
    body += b"".join(sized(4, metric) for metric in metrics)
    if unit:
        body += text(5, unit)
    return varint(len(body)) + body


def _labels(attributes: Mapping[str, ResourceValue]) -> bytes:
    """Metric.label = 1; LabelPair: name = 1, value = 2."""
    pairs = label_pairs(attributes).items()
    return b"".join(sized(1, text(1, name) + text(2, value)) for name, value in sorted(pairs))


def _histogram(instrument: Instrument, point: Point, wall_ns: WallNs) -> bytes:
    """Histogram: sample_count, sample_sum, bucket = 1 to 3; then the native buckets."""
    exemplars = {exemplar[0]: exemplar for exemplar in point.exemplars}
    bounds = (*instrument.buckets, float("inf"))
    # Bucket: cumulative_count = 1, upper_bound = 2, exemplar = 3.
    buckets = b"".join(
        sized(
            3,
            integer(1, count)
            + double(2, float(bound))
            + (sized(3, _exemplar(exemplars[number], wall_ns)) if number in exemplars else b""),
        )
        for number, (bound, count) in enumerate(zip(bounds, accumulate(point.buckets), strict=True))
    )
    native = _native(point.exponential) if point.exponential is not None else b""
    return integer(1, point.count) + double(2, point.sum) + buckets + native


def _exemplar(exemplar: Exemplar, wall_ns: WallNs) -> bytes:
    """Exemplar: label = 1, value = 2, timestamp = 3 (seconds = 1, nanos = 2)."""
    _, value, time_ns, trace_id, span_id = exemplar
    seconds, ns = divmod(wall_ns(time_ns), NS_PER_S)
    return (
        sized(1, text(1, "trace_id") + text(2, trace_id.hex()))
        + sized(1, text(1, "span_id") + text(2, span_id.hex()))
        + double(2, value)
        + sized(3, integer(1, seconds) + integer(2, ns))
    )


def _native(exponential: Exponential) -> bytes:
    """schema = 5, zero_threshold = 6, zero_count = 7, positive_span = 12, positive_delta = 13.

    A bucket's index is one more than OpenTelemetry's, which names the lower bound.
    """
    scale, zeros, first, counts = exponential
    if scale < SCHEMA_MIN:
        return b""  # wider than a native histogram can be; the classic buckets stay
    schema = min(scale, SCHEMA_MAX)
    merged: dict[int, int] = {}
    for offset, count in enumerate(counts):
        if count:
            index = ((first + offset) >> (scale - schema)) + 1
            merged[index] = merged.get(index, 0) + count
    spans, deltas = _spans(merged)
    body = integer(5, zigzag(schema)) + double(6, ZERO_THRESHOLD) + integer(7, zeros)
    for gap, length in spans:  # BucketSpan: offset = 1 (sint32), length = 2
        body += sized(12, integer(1, zigzag(gap)) + integer(2, length))
    if deltas:
        body += sized(13, b"".join(varint(zigzag(delta)) for delta in deltas))
    return body


def _spans(counts: Mapping[int, int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Runs of buckets (gap to the run before, length), and each count less the one before it."""
    spans: list[tuple[int, int]] = []
    filled: list[int] = []
    end = 0
    for index in sorted(counts):
        gap = index - end
        if spans and gap <= GAP_MAX:
            filled += [0] * gap
            spans[-1] = spans[-1][0], spans[-1][1] + gap + 1
        else:
            spans.append((gap, 1))
        filled.append(counts[index])
        end = index + 1
    return spans, [new - old for old, new in pairwise([0, *filled])]
