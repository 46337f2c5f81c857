# SPDX-License-Identifier: Apache-2.0
"""River's expressions: what the evaluator of River 0.3 made of each, and what ours does.

``river_golden.txt``: 60 columns of expression, then ``TYPE VALUE`` (the value as JSON), or
``PARSE-ERR`` or ``EVAL-ERR`` with the position and the message.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from otelauto.agent.river.diagnostics import RiverError, Source
from otelauto.agent.river.evaluate import Evaluator
from otelauto.agent.river.parser import parse_expression
from otelauto.agent.river.stdlib import library
from otelauto.agent.river.values import INT_MAX, Function, OptionalSecret, Secret

LINES = (Path(__file__).parent / "river_golden.txt").read_text().splitlines()
SCOPE = {
    **library({}),
    "constants": {**library({})["constants"], "arch": "amd64"},  # as where they were evaluated
    "sec": Secret("shh"),
    "osec": OptionalSecret("pub", False),
    "obj": {"a": 1, "b": [1, 2]},
}


def go_type(value: object) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int" if value <= INT_MAX else "uint64"
        case float():
            return "float64"
        case str():
            return "string"
        case list():
            return "[]interface {}"
        case dict():
            return "map[string]interface {}"
        case Function():
            return "func(string) string"
    raise AssertionError(value)


def test_there_are_as_many_as_were_measured() -> None:
    assert len(LINES) == 65
    assert len({line[:60] for line in LINES}) == 65


@pytest.mark.parametrize("line", LINES, ids=[line[:60].rstrip() for line in LINES])
def test_the_result_is_that_of_the_real_evaluator(line: str) -> None:
    source, expected = Source("f", line[:60].rstrip()), line[60:].strip()
    stage = "PARSE"
    try:
        expr = parse_expression(source)
        stage = "EVAL"
        value = Evaluator(source, SCOPE)(expr)
    except RiverError as error:
        first, *more = error.diagnostics
        found = f"{stage}-ERR {str(first).removeprefix('f:')}"
        if more:
            found += f" (and {len(more)} more diagnostics)"
        assert found == expected
        return
    kind = go_type(value)
    assert expected.startswith(kind + " ")
    shown = expected.removeprefix(kind + " ")
    if isinstance(value, Function):
        assert value.name == line[:60].strip()
    else:
        assert value == json.loads(shown)
