# SPDX-License-Identifier: Apache-2.0
"""The manifests for Kubernetes: valid, with no more rights than needed, rightly configured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import otelauto
from otelauto.agent.check import check
from otelauto.agent.river.diagnostics import Source
from otelauto.capabilities import CAPABILITIES
from otelauto.config import Purpose, load

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "otelauto"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yml"))
RENDERED = [path for path in MANIFESTS if not path.name.endswith(".values.yml")]
VERSIONS = ("1.30.0", "1.37.0")


def documents(path: Path) -> list[Any]:
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def of_kind(path: Path, kind: str) -> Any:
    return next(item for item in documents(path) if item["kind"] == kind)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.name)
def test_manifests_are_valid(path: Path, version: str) -> None:
    found = documents(path)
    assert len(found) >= 5
    for item in found:
        kubernetes_validate.validate(item, version, strict=True)


def test_an_invalid_manifest_is_found() -> None:
    item = of_kind(RENDERED[0], "DaemonSet")
    item["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.name)
def test_the_instrumenter_has_what_it_needs_and_no_more(path: Path) -> None:
    pod = of_kind(path, "DaemonSet")["spec"]["template"]["spec"]
    assert pod["hostPID"] is True
    assert not pod.get("hostNetwork")
    assert not any("hostPath" in volume for volume in pod["volumes"])
    (container,) = pod["containers"]
    rights = container["securityContext"]
    assert {f"CAP_{name}" for name in rights["capabilities"]["add"]} == set(CAPABILITIES)
    assert rights["capabilities"]["drop"] == ["ALL"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is rights["privileged"] is False
    assert container["command"] == ["otelauto"]
    assert container["args"] == ["run", "--config", "/etc/otelauto/config.yml"]
    assert of_kind(path, "ClusterRole")["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    ]


def test_the_agent_has_no_rights() -> None:
    pod = of_kind(DEPLOY / "kubernetes" / "with-agent.yml", "Deployment")["spec"]["template"][
        "spec"
    ]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [each["name"] for each in container["env"] if "secretKeyRef" in each["valueFrom"]] == [
        "TEMPO_PASSWORD"
    ]


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.name)
def test_the_configuration_is_good(path: Path, tmp_path: Path) -> None:
    """What is warned about is said in docs/kubernetes.md: to the agent there is no TLS."""
    configs = [item["data"] for item in documents(path) if item["kind"] == "ConfigMap"]
    file = tmp_path / "config.yml"
    file.write_text(next(data["config.yml"] for data in configs if "config.yml" in data))
    loaded = load(file, {"NODE_NAME": "node-1"}, {}, Purpose.RUN)
    assert all("unencrypted to otelauto-agent" in warning for warning in loaded.warnings)
    assert loaded.config.attributes.kubernetes.node_name == "node-1"
    assert loaded.config.prometheus_export.port == 9464
    agent = path.name == "with-agent.yml"
    assert (loaded.config.otel_traces_export.endpoint is not None) is agent


def test_the_agents_pipeline_is_good() -> None:
    configs = [
        item["data"]
        for item in documents(DEPLOY / "kubernetes" / "with-agent.yml")
        if item["kind"] == "ConfigMap" and "config.river" in item["data"]
    ]
    found = check([Source("config.river", configs[0]["config.river"])], {"TEMPO_PASSWORD": "x"})
    assert "otelcol.receiver.otlp.default" in found.nodes
    assert not found.warnings


def leaves(values: Any, path: str = "") -> Iterator[str]:
    """Dotted names of values; a list, an empty mapping, or one of free form is a value itself."""
    free = ("config", "resources", "nodeSelector", "agent.resources")
    if isinstance(values, dict) and values and path not in free:
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path


def test_every_value_is_documented_and_in_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.validate(values, schema)
    table = PAGE[PAGE.index("## Values of the chart") :]
    rows = re.findall(r"^\| `([^`]+)` \| (?:`([^`]*)`)?", table, flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(leaves(values))
    for name, default in rows:
        found: Any = values
        for key in name.split("."):
            found = found[key]
        if default and not isinstance(found, dict) and name != "config":
            assert default == (json.dumps(found) if not isinstance(found, str) else found), name


def test_a_value_that_is_no_value_is_refused() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    for wrong in ({"imagee": {}}, {"metrics": {"port": 80}}, {"image": {"repository": ""}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == otelauto.__version__
