# SPDX-License-Identifier: Apache-2.0
"""The examples and the documents' pieces of River are right, and can be run."""

from __future__ import annotations

import re

import pytest
import yaml
from tests.house.scan import ROOT

from otelauto.agent.check import check
from otelauto.agent.graph import ordered
from otelauto.agent.river.diagnostics import Source
from otelauto.agent.running import runner

VARIABLES = {
    "MIMIR_USER": "1",
    "MIMIR_ENDPOINT": "mimir.example",
    "GRAFANA_API_KEY": "key=",
    "TEMPO_ENDPOINT": "tempo.example:443",
    "TEMPO_USER": "2",
}
BATCH = 'otelcol.processor.batch "default" { output { } }'
PAGE = (ROOT / "docs" / "agent-mode.md").read_text()


@pytest.mark.parametrize("name", ["agent-config.river", "agent-config.alloy"])
def test_the_documents_pipeline(name):
    text = (ROOT / "examples" / name).read_text()
    found = check([Source(name, text)], VARIABLES)
    assert not found.warnings
    assert [each.partition(".")[2] for each in ordered(found.nodes)] == [
        "remote_write.mimir",
        "exporter.prometheus.default",
        "auth.basic.creds",
        "exporter.otlp.tempo",
        "processor.batch.default",
        "receiver.otlp.default",
    ]
    for node in found.nodes.values():
        runner(node.schema.name)


def test_the_collectors_pipeline():
    """What it names is there, of the document's variables; tests/interop runs it."""
    text = (ROOT / "examples" / "collector-config.yaml").read_text()
    assert set(re.findall(r"\$\{env:(\w+)\}", text)) == set(VARIABLES)
    found = yaml.safe_load(text)
    assert set(found["service"]["extensions"]) == set(found["extensions"])
    for exporter in found["exporters"].values():
        assert exporter["auth"]["authenticator"] in found["extensions"]
    for pipeline in found["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(found[kind])


@pytest.mark.parametrize("text", re.findall(r"```river\n(.*?)```", PAGE, re.DOTALL))
def test_a_piece_of_the_page(text):
    check([Source("page", text + BATCH)], {})
