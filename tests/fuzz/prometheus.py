# SPDX-License-Identifier: Apache-2.0
"""What the prometheus.* components read: pages of strangers, their own rules, any metrics."""

from __future__ import annotations

from contextlib import suppress

from google.protobuf.message import DecodeError
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp

from otelauto.agent.components import COMPONENTS
from otelauto.agent.prometheus.convert import Converter, Options
from otelauto.agent.prometheus.exposition import Exposition, ExpositionError
from otelauto.agent.prometheus.relabel import LABEL_NAME, relabelled, rule_of
from otelauto.agent.prometheus.wal import encoded_labels
from otelauto.agent.schema import Decoded
from otelauto.counters import Counters
from otelauto.errors import ConfigError

ENDPOINT = COMPONENTS["prometheus.remote_write"].block("endpoint")
ACTIONS = (
    "replace", "keep", "drop", "hashmod", "labelmap", "labeldrop", "labelkeep", "lowercase",
    "uppercase", "keepequal", "dropequal",
)  # fmt: skip
# Expressions of Python's are tried one way after another: short ones end soon, whatever they are.
LONGEST_REGEX, LONGEST_VALUE = 24, 10
PAGES = (
    b'# HELP a Some\\nhelp.\n# TYPE a counter\na{b="c\\"d",e="f",} 1.5e3 12345\na 2\n',
    b'# TYPE h histogram\nh_bucket{le="+Inf"} 3\nh_sum NaN\nh_count 3\n',
    b'# TYPE s summary\n# UNIT s_seconds seconds\ns{quantile="0.5"} +Inf 1.5\n# EOF\n',
    b'# TYPE a counter\na_total 1 # {trace_id="x"} 0.5 1.5\n# EOF\n',
    b"metric_1 -1e-5\n\n# a comment\n",
    b'a{b="\xc3\xa9",c=""} 0\n',
)
RULES = (
    b"\x00(.*);(\\d+)\n$1-${2}\nb\nfoo\n7",
    b"\x01[a-z]+|x{2,3}\n\n\nfoo\nbar",
    b"\x03.*\n\nd\n\xc3\xa9\nx",
    b"\x04(?i)([[:alpha:]_]+)\nx_$1\n\na\nb",
    b"\x05b|(?P<n>c)\n${n}\n\na\nb",
    b"\x08\n\nup\nabc\nd",
)


def exposition(data: bytes) -> None:
    """A page in both formats: read, or refused with a line's number."""
    for openmetrics in (False, True):
        page = Exposition(data, openmetrics=openmetrics)
        try:
            for sample in page:
                assert all(isinstance(text, str) for text in sample.labels.values())
                assert isinstance(sample.value, float)
                assert sample.timestamp_ms is None or abs(sample.timestamp_ms) < 1 << 63
                encoded_labels(tuple(sorted(sample.labels.items())))
        except ExpositionError as error:
            refused = str(error)
            assert refused
        for about in page.metadata:
            assert about.family
            assert about.kind


def relabelling(data: bytes) -> None:
    """A rule, and the labels of a series: action, then lines with what it takes."""
    text = data[1:].decode("utf-8", "replace")
    lines = [*text.split("\n"), "", "", "", "", ""]
    regex, replacement, target = lines[0][:LONGEST_REGEX], lines[1][:40], lines[2][:20]
    action = ACTIONS[data[0] % len(ACTIONS)] if data else "replace"
    given = {"regex": regex, "replacement": replacement, "action": action, "modulus": 10}
    if action not in ("labelmap", "labeldrop", "labelkeep", "keep", "drop"):
        given |= {"target_label": target, "source_labels": ["a", "b"]}
    unused = {"labeldrop": ("replacement", "modulus"), "labelkeep": ("replacement", "modulus"),
              "keepequal": ("regex", "replacement", "modulus"),
              "dropequal": ("regex", "replacement", "modulus")}  # fmt: skip
    for name in unused.get(action, ()):
        del given[name]
    schema = ENDPOINT.block("write_relabel_config") if ENDPOINT is not None else None
    assert schema is not None
    try:
        rule = rule_of(Decoded(schema, given))
    except ConfigError as error:
        remedy = error.remedy
        assert remedy
        return
    values = [line[:LONGEST_VALUE] for line in lines[3:5]]
    series = (("__name__", "m"), ("a", values[0]), ("b", values[1]))
    found = relabelled(series, [rule])
    if found is not None:
        assert list(found) == sorted(found)
        assert all(LABEL_NAME.fullmatch(name) and value for name, value in found)


def otlp_metrics(data: bytes) -> None:
    """Any message of metrics: its samples have sound names, sorted labels and float values."""
    try:
        message = otlp.MetricsData.FromString(data)
    except DecodeError:
        return
    options = Options(scope_info=True, resource_labels=bool(len(data) % 2))
    samples, metadata = Converter(options, Counters()).convert(message, 1)
    for sample in samples:
        assert list(sample.labels) == sorted(sample.labels)
        assert all(LABEL_NAME.fullmatch(name) and value for name, value in sample.labels)
        assert isinstance(sample.value, float)
        with suppress(UnicodeEncodeError):
            encoded_labels(sample.labels)
    assert all(each.family for each in metadata)


def _messages() -> list[bytes]:
    data = otlp.MetricsData()
    resource = data.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "s"
    metrics = resource.scope_metrics.add().metrics
    total = metrics.add(name="calls", unit="1").sum
    total.aggregation_temporality, total.is_monotonic = 2, True
    total.data_points.add(as_int=3, time_unix_nano=5).exemplars.add(as_double=1, trace_id=b"ab")
    metrics.add(name="g", unit="By/s").gauge.data_points.add(as_double=1, flags=1)
    histogram = metrics.add(name="h").histogram
    histogram.aggregation_temporality = 2
    histogram.data_points.add(count=3, sum=2, explicit_bounds=[1, 2], bucket_counts=[1, 1, 1])
    native = metrics.add(name="e").exponential_histogram
    native.aggregation_temporality = 2
    native.data_points.add(count=2, scale=20).positive.MergeFrom(
        otlp.ExponentialHistogramDataPoint.Buckets(offset=-9, bucket_counts=[1, 0, 0, 0, 1])
    )
    quantile = metrics.add(name="q").summary.data_points.add(count=1, sum=1).quantile_values.add()
    quantile.quantile = 0.5
    whole = data.SerializeToString()
    parts = []
    for metric in metrics:
        one = otlp.MetricsData()
        one.resource_metrics.add().scope_metrics.add().metrics.append(metric)
        parts.append(one.SerializeToString())
    return [whole, b"", *parts]


TARGETS = {
    "exposition": exposition,
    "relabelling": relabelling,
    "otlp_metrics": otlp_metrics,
}


def seeds(target: str) -> list[bytes]:
    """Inputs to start from."""
    if target == "otlp_metrics":
        return _messages()
    return list(PAGES if target == "exposition" else RULES)
