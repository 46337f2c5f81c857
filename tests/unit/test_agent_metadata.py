# SPDX-License-Identifier: Apache-2.0
"""What comes with a request: kept by a receiver, read by attributes, told apart by batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.e2e.harness.process import wait_until
from tests.unit.agent_asks import ask, call, text
from tests.unit.agent_parts import OUTPUT, agent, named, one, part, spans, traces

from otelauto.agent.pipeline import NO_FIELDS, Payload, Refused
from otelauto.agent.running import batch
from otelauto.errors import ConfigError

KEEPS = "include_metadata = true"
TO = "traces = [otelcol.processor.{}.p.input]"


def insert(source: str, key: str = "tenant") -> str:
    block = f'action = "upsert"\n key = "{key}"\n from_context = "{source}"'
    return one("attributes", f"action {{\n {block}\n }}")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("source", ["metadata.X-Scope-OrgID", "x-scope-orgid"])
def test_an_attribute_of_what_came_with_the_request(
    tmp_path: Path, kept: bool, source: str
) -> None:
    keeps = KEEPS if kept else ""
    config = text(keeps, keeps, TO.format("attributes")) + insert(source)
    with agent(config, tmp_path) as made:
        assert ask(made, X_Scope_OrgID="eu")[0] == 200
        code, _, _ = call(made, metadata=(("x-scope-orgid", "us"), ("x-scope-orgid", "mx")))
        assert code is grpc.StatusCode.OK
        assert ask(made)[0] == 200
        found = [named(each).get("tenant") for each in made.sink.spans()]
    assert found == (["eu"] * 3 + ["us, mx"] * 3 + [None] * 3 if kept else [None] * 9)


@pytest.mark.parametrize("source", ["client.address", "auth.subject"])
def test_what_is_not_kept_is_an_error(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match="from_context"), agent(insert(source), tmp_path):
        pass


def carrying(numbers: range, **fields: str) -> Payload[Any]:
    found = traces(spans(len(numbers), numbers[0]))
    found.fields = fields
    return found


def tenants(made: Any) -> dict[str, list[int]]:
    """Numbers of spans by what their batches carry."""
    found: dict[str, list[int]] = {}
    for each in list(made.sink.payloads):
        assert set(each.fields) <= {"tenant"}
        all_spans = [s for r in each.message.resource_spans for c in r.scope_spans for s in c.spans]
        numbers = [int.from_bytes(each.span_id, "big") for each in all_spans]
        found.setdefault(each.fields.get("tenant", "-"), []).extend(numbers)
    return found


BATCH = """timeout = "1h"
  send_batch_size     = 4
  send_batch_max_size = 4
  metadata_keys       = ["Tenant"]"""


def test_batches_do_not_mix_those_who_sent(tmp_path: Path) -> None:
    with agent(one("batch", BATCH), tmp_path) as made:
        take = made[part("batch")].traces
        take(carrying(range(1, 3), tenant="a", other="x"))
        take(carrying(range(11, 13), tenant="b"))
        take(carrying(range(21, 22)))
        assert made[part("batch")].status()["combinations of metadata"] == 3
        take(carrying(range(3, 5), tenant="a"))
        wait_until(lambda: made.sink.items == 4, "those of one are enough")
        assert tenants(made) == {"a": [1, 2, 3, 4]}
        made[part("batch")].stop(5)
        assert tenants(made) == {"a": [1, 2, 3, 4], "b": [11, 12], "-": [21]}


def test_there_are_so_many_combinations(tmp_path: Path) -> None:
    limited = f"{BATCH}\n  metadata_cardinality_limit = 2"
    with agent(one("batch", limited), tmp_path) as made:
        take = made[part("batch")].traces
        for tenant in ("a", "b", "a"):
            take(carrying(range(1, 2), tenant=tenant))
        with pytest.raises(Refused, match="metadata_cardinality_limit") as caught:
            take(carrying(range(1, 2), tenant="c"))
        assert caught.value.permanent
        take(carrying(range(1, 2), tenant="b"))


def test_what_is_held_is_for_all_of_them_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(carrying(range(1, 4)).encoded)
    monkeypatch.setattr(batch, "MAX_HELD", 3 * size)
    with agent(one("batch", BATCH), tmp_path) as made:
        take = made[part("batch")].traces
        for number in range(3):
            take(carrying(range(1, 4), tenant=str(number)))
        with pytest.raises(Refused, match="full"):
            take(carrying(range(1, 4), tenant="3"))
        made[part("batch")].stop(5)
        assert made.sink.items == 9


def test_without_keys_nothing_is_carried_on(tmp_path: Path) -> None:
    with agent(one("batch", 'timeout = "0s"'), tmp_path) as made:
        made[part("batch")].traces(carrying(range(1, 3), tenant="a"))
        wait_until(lambda: made.sink.items == 2, "sent")
        assert made.sink.payloads[0].fields == NO_FIELDS
        assert "combinations of metadata" not in made[part("batch")].status()


def test_a_filter_keeps_them(tmp_path: Path) -> None:
    condition = 'traces {\n span = ["name == \\"POST\\""]\n }'
    with agent(one("filter", condition), tmp_path) as made:
        made[part("filter")].traces(carrying(range(1, 3), tenant="a"))
        assert made.sink.payloads[0].fields == {"tenant": "a"}


def test_from_the_receiver_to_the_attribute_through_batches(tmp_path: Path) -> None:
    """The whole way, as it is configured."""
    config = text(KEEPS, KEEPS, TO.format("batch")) + insert("metadata.tenant")
    to_attributes = OUTPUT.replace("otelcol.exporter.debug.sink", "otelcol.processor.attributes.p")
    keys = 'timeout = "1ms"\n  metadata_keys = ["tenant"]'
    config += f'\notelcol.processor.batch "p" {{\n  {keys}\n  {to_attributes}\n}}'
    with agent(config, tmp_path) as made:
        for tenant in ("a", "b"):
            assert ask(made, tenant=tenant)[0] == 200
        wait_until(lambda: made.sink.items == 6, "both")
        found = sorted(named(each)["tenant"] for each in made.sink.spans())
    assert found == ["a"] * 3 + ["b"] * 3
