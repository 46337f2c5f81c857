# SPDX-License-Identifier: Apache-2.0
"""The messages of remote write, read by a decoder made of their definitions."""

from __future__ import annotations

import pytest
from tests.unit.prometheus_parts import bits, labels, message_type, series_of, symbols_of

from otelauto.agent.pipeline import STALE, Metadata, NativeHistogram
from otelauto.agent.prometheus.native import encoded_histogram
from otelauto.agent.prometheus.remote import (
    Entry,
    Target,
    decoded_labels,
    metadata_request,
    write_request,
    write_request_v2,
)
from otelauto.agent.prometheus.wal import EXEMPLAR, HISTOGRAM, encoded_labels
from otelauto.export.protobuf import double, integer

A = labels("a_total", job="shop", path="/\u00fc" * 80)
B = labels("b_bucket", le="0.5")
EXAMPLE = encoded_labels((("trace_id", "ab" * 16),)) + double(2, 0.25) + integer(3, 5)
NATIVE = NativeHistogram(
    13, 1.5, -2, 1e-128, 2, ((-1, 4), (3, 1)), (1, -1, 2, 1, 0), ((3, 1),), (4,)
)
TIMES = (0, 1, 127, (1 << 35) - 1, 1 << 35, 1_795_400_000_000, (1 << 42) - 1, 1 << 42, -5)


def target(own) -> Target:
    return Target(encoded_labels(own), 1)


@pytest.mark.parametrize("time_ms", TIMES)
@pytest.mark.parametrize("version", [1, 2])
def test_a_sample_of_any_time(version: int, time_ms: int) -> None:
    entries = [Entry(target(A), time_ms, 1.5), Entry(target(B), time_ms, STALE)]
    if version == 1:
        found = series_of(message_type(1).FromString(write_request(entries)))
    else:
        request = message_type(2).FromString(write_request_v2(entries, {}))
        found = {
            symbols_of(request, s.labels_refs): [(p.timestamp, p.value) for p in s.samples]
            for s in request.timeseries
        }
        assert request.symbols[0] == ""
        assert len(set(request.symbols)) == len(request.symbols)
    assert found[A] == [(time_ms, 1.5)]
    assert found[B][0][0] == time_ms
    assert bits(found[B][0][1]) == bits(STALE)


@pytest.mark.parametrize("version", [1, 2])
def test_exemplars_and_histograms(version: int) -> None:
    native = encoded_histogram(NATIVE, 9)
    entries = [
        Entry(target(A), 8, 1.0, ((EXEMPLAR, EXAMPLE),)),
        Entry(target(B), 0, None, ((HISTOGRAM, native),)),
    ]
    data = write_request(entries) if version == 1 else write_request_v2(entries, {})
    request = message_type(version).FromString(data)
    (exemplar,) = (e for s in request.timeseries for e in s.exemplars)
    assert (exemplar.value, exemplar.timestamp) == (0.25, 5)
    named = (
        [(label.name, label.value) for label in exemplar.labels] if version == 1
        else list(symbols_of(request, exemplar.labels_refs))
    )  # fmt: skip
    assert named == [("trace_id", "ab" * 16)]
    (histogram,) = (h for s in request.timeseries for h in s.histograms)
    spans = [(span.offset, span.length) for span in histogram.positive_spans]
    below = [(span.offset, span.length) for span in histogram.negative_spans]
    assert NativeHistogram(
        histogram.count_int, histogram.sum, histogram.schema, histogram.zero_threshold,
        histogram.zero_count_int, tuple(spans), tuple(histogram.positive_deltas), tuple(below),
        tuple(histogram.negative_deltas),
    ) == NATIVE  # fmt: skip
    assert histogram.timestamp == 9


def test_a_stale_histogram() -> None:
    data = encoded_histogram(NativeHistogram(0, STALE, 0, 0.0, 0), 9)
    request = message_type(1).FromString(
        write_request([Entry(target(A), 0, None, ((HISTOGRAM, data),))])
    )
    assert bits(request.timeseries[0].histograms[0].sum) == bits(STALE)


FAMILIES = {
    "a_total": Metadata("a_total", "counter", "Help \u00fc.", "s"),
    "b": Metadata("b", "histogram", "", ""),
}


def test_metadata_of_1() -> None:
    request = message_type(1).FromString(metadata_request(FAMILIES.values()))
    assert [(m.metric_family_name, m.type, m.help, m.unit) for m in request.metadata] == [
        ("a_total", 1, "Help \u00fc.", "s"), ("b", 3, "", ""),
    ]  # fmt: skip


def test_metadata_of_2() -> None:
    entries = [
        Entry(target(A), 1, 1.0),
        Entry(target(B), 1, 1.0),
        Entry(target(labels("c")), 1, 1.0),
    ]
    request = message_type(2).FromString(write_request_v2(entries, FAMILIES))
    found = [
        (
            s.metadata.type,
            request.symbols[s.metadata.help_ref],
            request.symbols[s.metadata.unit_ref],
        )
        for s in request.timeseries
    ]
    assert found == [(1, "Help \u00fc.", "s"), (3, "", ""), (0, "", "")]


def test_labels_are_read_as_they_were_written() -> None:
    assert decoded_labels(encoded_labels(A)) == A
