# SPDX-License-Identifier: Apache-2.0
"""The processors: batch, memory_limiter, attributes, filter."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.e2e.harness.process import wait_until
from tests.unit.agent_parts import agent, attributes, named, one, part, span, spans, sums, traces

from otelauto.agent.pipeline import Health, Payload, Refused
from otelauto.agent.running import batch, memory_limiter
from otelauto.agent.running.batch import BATCHES_SENT, ITEMS_GIVEN_UP
from otelauto.agent.running.memory_limiter import ITEMS_LIMITED
from otelauto.agent.running.split import split
from otelauto.errors import ConfigError


def numbers(given: list[Span]) -> list[int]:
    return [int.from_bytes(each.span_id, "big") for each in given]


# ---- batch ----


def test_a_batch_is_sent_when_it_is_large_enough(tmp_path: Path) -> None:
    text = one("batch", 'timeout = "1h"\n  send_batch_size = 100')
    with agent(text, tmp_path) as made:
        processor = made[part("batch")]
        for first in range(1, 100, 3):
            processor.traces(traces(spans(3, first)))
        assert made.sink.payloads == []
        processor.metrics(sums(100))
        wait_until(lambda: len(made.sink.payloads) == 1, "the points, which are enough alone")
        processor.traces(traces(spans(3, 100)))
        wait_until(lambda: len(made.sink.payloads) == 2, "the spans")
        spans_sent = made.sink.payloads[1]
        assert spans_sent.items == 102
        assert len(spans_sent.message.resource_spans) == 34
        assert made.count(part("batch"), BATCHES_SENT, "traces") == 1
        wait_until(lambda: processor.status()["traces held"] == 0, "nothing is held")


def test_a_batch_is_sent_when_it_is_old_enough(tmp_path: Path) -> None:
    with agent(one("batch", 'timeout = "50ms"'), tmp_path) as made:
        for first in (1, 4):
            made[part("batch")].traces(traces(spans(3, first)))
            wait_until(lambda first=first: made.sink.items == first + 2, "three more")


def test_without_a_timeout_nothing_waits(tmp_path: Path) -> None:
    with agent(one("batch", 'timeout = "0s"'), tmp_path) as made:
        made[part("batch")].traces(traces(spans(3)))
        wait_until(lambda: made.sink.items == 3, "three spans")


def test_no_batch_is_larger_than_allowed(tmp_path: Path) -> None:
    text = one("batch", "send_batch_size = 10\n  send_batch_max_size = 10")
    with agent(text, tmp_path) as made:
        processor = made[part("batch")]
        processor.traces(traces(spans(37)))
        wait_until(lambda: made.sink.items == 37, "all")
        assert [each.items for each in made.sink.payloads] == [10, 10, 10, 7]
        assert numbers(made.sink.spans()) == list(range(1, 38))


def test_what_is_held_is_sent_at_the_end(tmp_path: Path) -> None:
    with agent(one("batch", 'timeout = "1h"'), tmp_path) as made:
        made[part("batch")].traces(traces(spans(3)))
        sink, processor = made.sink, made[part("batch")]
    assert sink.items == 3
    with pytest.raises(Refused):
        processor.traces(traces(spans(3)))


def test_what_is_refused_is_sent_again(tmp_path: Path) -> None:
    with agent(one("batch", 'timeout = "1ms"'), tmp_path) as made:
        made.sink.refusals = [Refused("full"), Refused("full", retry_after_s=0.01)]
        made[part("batch")].traces(traces(spans(3)))
        wait_until(lambda: made.sink.items == 3, "three spans")
        assert made[part("batch")].health()[0] is Health.HEALTHY
        made.sink.refusals = [Refused("never", permanent=True)]
        made[part("batch")].traces(traces(spans(3)))
        name = part("batch")
        wait_until(lambda: made.count(name, ITEMS_GIVEN_UP, "refused") == 3, "three given up")
        assert "never" in made[name].health()[1]


def test_a_full_batch_processor_gives_back_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_HELD", 10_000)
    with agent(one("batch", 'timeout = "1ms"'), tmp_path) as made:
        made.sink.free.clear()
        taken, refused = 0, None
        while refused is None and taken < 10_000:
            try:
                made[part("batch")].traces(traces(spans(5)))
                taken += 5
            except Refused as error:
                refused = error
        assert refused is not None
        assert refused.retry_after_s
        assert taken < 1000
        made.sink.free.set()
        wait_until(lambda: made.sink.items == taken, "all that was taken")
        made[part("batch")].traces(traces(spans(5)))


def test_what_piled_up_goes_in_batches_of_the_usual_size(tmp_path: Path) -> None:
    with agent(one("batch", 'timeout = "1ms"\n  send_batch_size = 10'), tmp_path) as made:
        made.sink.free.clear()
        for number in range(40):
            made[part("batch")].traces(traces(spans(5, 1 + 5 * number)))
        made.sink.free.set()
        wait_until(lambda: made.sink.items == 200, "all")
        assert max(each.items for each in made.sink.payloads) <= 10
        assert numbers(made.sink.spans()) == list(range(1, 201))


def test_a_consumer_that_holds_on_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "LAST_S", 0.0)
    with agent(one("batch", 'timeout = "1ms"'), tmp_path) as made:
        made.sink.free.clear()
        made[part("batch")].traces(traces(spans(3)))
        made[part("batch")].stop(0.1)
        assert made.count(part("batch"), ITEMS_GIVEN_UP, "shutdown") == 3
        made.sink.free.set()


def test_what_nobody_takes_is_counted_at_the_end(tmp_path: Path) -> None:
    with agent(one("batch", 'timeout = "1ms"'), tmp_path) as made:
        made.sink.always = Refused("away")
        made[part("batch")].traces(traces(spans(3)))
        made[part("batch")].stop(0.2)
        assert made.count(part("batch"), ITEMS_GIVEN_UP, "shutdown") == 3


def test_batches_of_many_threads_are_whole(tmp_path: Path) -> None:
    with agent(one("batch", 'timeout = "1ms"\n  send_batch_size = 64'), tmp_path) as made:
        processor = made[part("batch")]

        def send(which: int) -> None:
            for number in range(50):
                processor.traces(traces(spans(7, 1 + 7 * (which * 50 + number))))

        threads = [threading.Thread(target=send, args=(which,)) for which in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        wait_until(lambda: made.sink.items == 1400, "all")
        assert sorted(numbers(made.sink.spans())) == list(range(1, 1401))


def test_metrics_are_split_within_a_metric() -> None:
    message = MetricsData()
    for payload in (sums(5), sums(4, "others")):
        message.MergeFrom(payload.message)
    kinds = message.resource_metrics[0].scope_metrics[0]
    kinds.scope.name = "scope"
    gauge = kinds.metrics.add(name="gauge").gauge
    gauge.data_points.add(as_double=1.5)
    kinds.metrics.add(name="summary").summary.data_points.add(count=2)
    kinds.metrics.add(name="histogram").histogram.data_points.add(count=3)
    kinds.metrics[-1].histogram.aggregation_temporality = 1
    parts = list(split(Payload(MetricsData, 12, message), 3))
    assert [each.items for each in parts] == [3, 3, 3, 3]
    whole = MetricsData()
    for each in parts:
        whole.MergeFrom(each.message)

    def rows(found: MetricsData) -> list[tuple[object, ...]]:
        return [
            (r.resource.SerializeToString(), s.scope.name, m.name, m.unit, m.WhichOneof("data"),
             getattr(getattr(m, m.WhichOneof("data")), "aggregation_temporality", 0),
             getattr(getattr(m, m.WhichOneof("data")), "is_monotonic", 0), p.SerializeToString())
            for r in found.resource_metrics for s in r.scope_metrics for m in s.metrics
            for p in getattr(m, m.WhichOneof("data")).data_points
        ]  # fmt: skip

    assert rows(whole) == rows(message)


# ---- memory_limiter ----


def test_nothing_is_taken_while_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = [100]
    monkeypatch.setattr(memory_limiter, "resident_bytes", lambda: used[0] << 20)
    text = one(
        "memory_limiter", 'check_interval = "1ns"\n  limit = "200MiB"\n  spike_limit = "50MiB"'
    )
    with agent(text, tmp_path) as made:
        name = part("memory_limiter")
        made[name].traces(traces(spans(3)))
        for amount in (151, 201):
            used[0] = amount
            with pytest.raises(Refused) as caught:
                made[name].traces(traces(spans(3)))
            assert caught.value.retry_after_s
            assert not caught.value.permanent
            with pytest.raises(Refused):
                made[name].metrics(sums(2))
        assert made[name].health()[0] is Health.UNHEALTHY
        used[0] = 150
        made[name].metrics(sums(2))
        assert made[name].health()[0] is Health.HEALTHY
        assert made.sink.items == 5
        assert made.count(name, ITEMS_LIMITED, "traces") == 6
        assert made.count(name, ITEMS_LIMITED, "metrics") == 4


def test_memory_is_read_once_an_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(memory_limiter, "resident_bytes", lambda: asked.append(1) or 1)
    text = one("memory_limiter", 'check_interval = "1h"\n  limit_percentage = 80')
    with agent(text, tmp_path) as made:
        for _ in range(5):
            made[part("memory_limiter")].traces(traces(spans(1)))
        assert len(asked) == 1
        processor = made[part("memory_limiter")]
        assert 0 < processor.soft < processor.hard < memory_limiter.available_bytes()


@pytest.mark.parametrize("limit", ['limit = "0"', "limit_percentage = 0"])
def test_limits_that_leave_nothing_are_an_error(tmp_path: Path, limit: str) -> None:
    text = one("memory_limiter", f'check_interval = "1s"\n  {limit}')
    with pytest.raises(ConfigError), agent(text, tmp_path):
        pass


def test_the_resident_set_is_that_of_the_kernel() -> None:
    status = Path("/proc/self/status").read_text()
    kib = int(status.partition("VmRSS:")[2].split()[0])
    assert memory_limiter.resident_bytes() == pytest.approx(kib * 1024, rel=0.2)


# ---- attributes ----


def changed(tmp_path: Path, actions: str, given: Span, **resource: str) -> dict[str, object]:
    with agent(one("attributes", actions), tmp_path) as made:
        payload = traces([given], **resource)
        before = payload.encoded
        made[part("attributes")].traces(payload)
        assert payload.encoded == before
        return named(made.sink.spans()[0])


def action(kind: str, **more: object) -> str:
    lines = [f'action = "{kind}"']
    lines += [f"{key} = {str(v).lower() if isinstance(v, bool) else repr(v)}".replace("'", '"')
              for key, v in more.items()]  # fmt: skip
    return "action {\n" + "\n".join(lines) + "\n}\n"


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (action("insert", key="a", value="new"), {}),
        (action("insert", key="b", value=7), {"b": 7}),
        (action("insert", key="b", value=1.5), {"b": 1.5}),
        (action("insert", key="b", value=True), {"b": True}),
        (action("insert", key="b", from_attribute="n"), {"b": 41}),
        (action("insert", key="b", from_attribute="absent"), {}),
        (action("update", key="a", value="new"), {"a": "new"}),
        (action("update", key="b", value="new"), {}),
        (action("upsert", key="a", value="new"), {"a": "new"}),
        (action("upsert", key="b", value="new"), {"b": "new"}),
        (action("delete", key="a"), {"a": None}),
        (action("delete", pattern="^[an]$"), {"a": None, "n": None}),
        (action("hash", key="a"), {"a": hashlib.sha256(b"x-12").hexdigest()}),
        (action("extract", key="a", pattern="^(?P<l>[a-z])-(?P<d>.*)"), {"l": "x", "d": "12"}),
        (action("extract", key="a", pattern="(?P<l>nothing)"), {}),
        (action("convert", key="n", converted_type="string"), {"n": "41"}),
        (action("convert", key="t", converted_type="int"), {"t": 17}),
        (action("convert", key="t", converted_type="double"), {"t": 17.0}),
        (action("convert", key="a", converted_type="int"), {}),
        (action("convert", key="big", converted_type="int"), {}),
        (action("insert", key="b", value=1) + action("delete", key="b"), {}),
    ],
)
def test_actions(tmp_path: Path, actions: str, expected: dict[str, object]) -> None:
    first = {"a": "x-12", "n": 41, "t": "17", "big": "9" * 30}
    result = changed(tmp_path, actions, span(attributes=attributes(**first)))
    wanted = {k: v for k, v in {**first, **expected}.items() if v is not None}
    assert result == wanted
    assert {k: type(v) for k, v in result.items()} == {k: type(v) for k, v in wanted.items()}


@pytest.mark.parametrize(
    ("which", "concerned"),
    [
        ('match_type = "strict"\n services = ["shop"]', True),
        ('match_type = "strict"\n services = ["sho"]', False),
        ('match_type = "regexp"\n services = ["^sh"]', True),
        ('match_type = "strict"\n span_names = ["POST", "GET"]', True),
        ('match_type = "strict"\n span_kinds = ["SPAN_KIND_CLIENT"]', False),
        ('match_type = "strict"\n span_kinds = ["SPAN_KIND_SERVER"]', True),
        ('match_type = "strict"\n attribute {\n key = "n"\n value = 41\n }', True),
        ('match_type = "strict"\n attribute {\n key = "n"\n value = 42\n }', False),
        ('match_type = "strict"\n attribute {\n key = "n"\n }', True),
        ('match_type = "regexp"\n attribute {\n key = "n"\n value = "4."\n }', True),
        ('match_type = "strict"\n resource {\n key = "zone"\n value = "eu"\n }', True),
        ('match_type = "strict"\n library {\n name = "other"\n }', False),
        ('match_type = "strict"\n services = ["shop"]\n span_names = ["POST"]', False),
    ],
)
def test_who_is_concerned(tmp_path: Path, which: str, concerned: bool) -> None:
    given = span(attributes=attributes(n=41))
    for block, expected in (("include", concerned), ("exclude", not concerned)):
        text = action("insert", key="hit", value=1) + f"{block} {{\n{which}\n}}"
        assert ("hit" in changed(tmp_path, text, given, zone="eu")) is expected


def test_data_points_have_attributes_too(tmp_path: Path) -> None:
    text = action("upsert", key="zone", value="eu") + (
        'include {\n match_type = "regexp"\n metric_names = ["^req"]\n}'
    )
    with agent(one("attributes", text), tmp_path) as made:
        for name in ("requests", "others"):
            made[part("attributes")].metrics(sums(2, name))
        first, second = made.sink.payloads
        for payload, there in ((first, True), (second, False)):
            (metric,) = payload.message.resource_metrics[0].scope_metrics[0].metrics
            assert all(("zone" in named(each)) is there for each in metric.sum.data_points)


@pytest.mark.parametrize(
    "actions",
    [
        "",
        action("insert", key="a"),
        action("insert", value=1),
        action("extract", key="a", pattern="(x)"),
        action("extract", key="a", pattern="(?P<a>"),
        action("convert", key="a"),
        action("insert", key="a", value=1 << 63),
        action("delete", key="a") + 'include {\n match_type = "strict"\n }',
        action("delete", key="a") + 'exclude {\n match_type = "strict"\n log_bodies = ["a"]\n }',
    ],
)
def test_actions_that_lack_something_are_errors(tmp_path: Path, actions: str) -> None:
    with pytest.raises(ConfigError), agent(one("attributes", actions), tmp_path):
        pass


# ---- outputs ----


def test_everybody_gets_everything_and_a_refusal_goes_back(tmp_path: Path) -> None:
    text = """
otelcol.processor.batch "other" {
  timeout = "1ms"
  output { traces = [otelcol.exporter.debug.sink.input] }
}
otelcol.processor.filter "p" {
  output { traces = [otelcol.exporter.debug.sink.input, otelcol.processor.batch.other.input] }
}
"""
    with agent(text, tmp_path) as made:
        made[part("filter")].traces(traces(spans(2)))
        wait_until(lambda: made.sink.items == 4, "both ways")
        made["otelcol.processor.batch.other"].stop(5)
        with pytest.raises(Refused):
            made[part("filter")].traces(traces(spans(2)))
        assert made.sink.items == 6
