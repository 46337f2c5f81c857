# SPDX-License-Identifier: Apache-2.0
"""``otelcol.processor.filter``: its conditions, and what is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.agent_parts import agent, attributes, one, part, span, sums, traces

from otelauto.agent.pipeline import Refused
from otelauto.agent.running.conditions import ConditionError, condition
from otelauto.agent.running.filtering import CONDITIONS_FAILED, ITEMS_FILTERED, SPAN_PATHS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name == "GET"', True),
        ('name != "GET"', False),
        ('attributes["n"] == 41', True),
        ('attributes["n"] == 41.0', True),
        ('attributes["n"] == "41"', False),
        ('attributes["n"] > 40 and attributes["n"] <= 41', True),
        ('attributes["n"] < 40 or not (name == "POST")', True),
        ('attributes["absent"] == nil', True),
        ('attributes["absent"] != nil', False),
        ('attributes["absent"] > 1', False),
        ("kind == SPAN_KIND_SERVER", True),
        ('kind.string == "Server"', True),
        ("status.code == STATUS_CODE_ERROR", False),
        ('resource.attributes["service.name"] == "shop"', True),
        ('IsMatch(name, "^G.T$")', True),
        ('IsMatch(attributes["n"], "4[0-9]")', True),
        ('IsMatch(attributes["absent"], ".*")', False),
        ('IsString(attributes["n"])', False),
        ('IsInt(attributes["n"])', True),
        ("IsRootSpan()", True),
        ('ToLowerCase(name) == "get"', True),
        ("Len(name) == 3", True),
        ('trace_id.string == "74747474747474747474747474747474"', True),
        ("trace_id == 0x74747474747474747474747474747474", True),
        ("end_time_unix_nano >= 2000000000", True),
        ("true and false", False),
        ('name == "a\\"b"', False),
    ],
)
def test_conditions(tmp_path: Path, text: str, expected: bool) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    configuration = one("filter", f'traces {{\n span = ["{quoted}"]\n }}')
    with agent(configuration, tmp_path) as made:
        made[part("filter")].traces(traces([span(attributes=attributes(n=41))]))
        assert made.sink.items == (0 if expected else 1)
        assert made.count(part("filter"), ITEMS_FILTERED, "span") == int(expected)


@pytest.mark.parametrize(
    "text",
    [
        "", "name ==", 'name == "GET', "nme == 1", "(name == 1", "name == 1)", "1 + 1 == 2",
        "Foo(name)", "IsMatch(name)", 'IsMatch(name, "(")', "IsMatch(name, name)", "name # 1",
        "(" * 100 + "true" + ")" * 100, 'attributes["a"', "attributes[name] == 1",
    ],
)  # fmt: skip
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(ConditionError):
        condition(text, SPAN_PATHS, {})


def test_what_is_left_is_whole(tmp_path: Path) -> None:
    text = one("filter", 'traces {\n span = ["attributes[\\"n\\"] == 2", "name == \\"x\\""]\n }')
    with agent(text, tmp_path) as made:
        given = [span(n, attributes=attributes(n=n)) for n in (1, 2, 3)]
        payload = traces([*given, span(4, name="x")])
        before = payload.encoded
        made[part("filter")].traces(payload)
        assert made.sink.payloads[0].message == traces([given[0], given[2]]).message
        assert made.sink.items == 2
        assert payload.encoded == before
        made[part("filter")].traces(traces([given[1]]))
        made[part("filter")].metrics(sums(3))
        assert made.sink.items == 5


def test_events_points_and_metrics(tmp_path: Path) -> None:
    text = one(
        "filter",
        'traces {\n spanevent = ["name == \\"retry\\" and span.name == \\"GET\\""]\n }\n'
        'metrics {\n metric = ["name == \\"gone\\"", "HasAttrKeyOnDatapoint(\\"secret\\")"]\n'
        ' datapoint = ["metric.name == \\"requests\\" and value_int > 2"]\n }',
    )
    with agent(text, tmp_path) as made:
        name = part("filter")
        given = span()
        for event in ("retry", "sent"):
            given.events.add(name=event)
        made[name].traces(traces([given]))
        assert [each.name for each in made.sink.spans()[0].events] == ["sent"]
        made[name].metrics(sums(3, "gone"))
        made[name].metrics(sums(3, "others", secret="x"))
        made[name].metrics(sums(9, "requests"))
        assert [each.items for each in made.sink.payloads] == [1, 3]
        assert [point.as_int for point in made.sink.points()["requests"]] == [0, 1, 2]
        counted = {
            k: made.count(name, ITEMS_FILTERED, k) for k in ("spanevent", "metric", "datapoint")
        }
        assert counted == {"spanevent": 1, "metric": 6, "datapoint": 6}


@pytest.mark.parametrize("mode", ["propagate", "ignore", "silent"])
def test_a_condition_that_does_not_fit(tmp_path: Path, mode: str) -> None:
    text = one("filter", f'error_mode = "{mode}"\n traces {{\n span = ["Len(kind) == 1"]\n }}')
    with agent(text, tmp_path) as made:
        name = part("filter")
        if mode == "propagate":
            with pytest.raises(Refused) as caught:
                made[name].traces(traces([span()]))
            assert caught.value.permanent
            return
        made[name].traces(traces([span()]))
        assert made.sink.items == 1
        assert made.count(name, CONDITIONS_FAILED) == 1
        assert bool(made[name].last_error) is (mode == "ignore")
