# SPDX-License-Identifier: Apache-2.0
"""The chart by helm: lint, what it renders, and what its schema refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.kubernetes.cluster import BUILT, ROOT, documents

from otelauto.agent.check import check
from otelauto.agent.river.diagnostics import Source

CHART = ROOT / "deploy" / "helm" / "otelauto"
RENDERED = ROOT / "deploy" / "kubernetes"
VALUES = {"otelauto.yml": [], "with-agent.yml": ["-f", RENDERED / "with-agent.values.yml"]}
pytestmark = pytest.mark.interop


def helm(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUILT / "helm", *words], capture_output=True, text=True, check=check)


def template(*words: str | Path, version: str = "1.36.0") -> str:
    """What a cluster of this version would get."""
    asked = ("--namespace", "otelauto", "--kube-version", version)
    return helm("template", "otelauto", CHART, *asked, *words).stdout


@pytest.mark.parametrize("name", VALUES)
def test_the_manifests_are_what_the_chart_renders(name: str) -> None:
    """``python -m tests.kubernetes.chart`` writes them anew."""
    assert (RENDERED / name).read_text() == template(*VALUES[name])


@pytest.mark.parametrize("name", VALUES)
def test_lint(name: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, *VALUES[name]).stdout


def test_every_option_renders(tmp_path: Path) -> None:
    values = {
        "image": {"digest": f"sha256:{'ab' * 32}", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "config": {"ebpf": {"open_port": 8080}, "prometheus_export": {"path": "/m"}},
        "otlpEndpoint": "http://collector:4318",
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "priorityClassName": "system-node-critical",
        "podAnnotations": {"a": "b"},
        "securityContext": {"appArmorProfile": "", "seLinuxType": "spc_t"},
        "serviceAccount": {"create": False, "name": "mine"},
        "rbac": {"create": False},
        "agent": {"enabled": True},
    }
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    rendered = tmp_path / "rendered.yml"
    rendered.write_text(template("-f", file))
    by_kind = {item["kind"]: item for item in documents(rendered)}
    assert set(by_kind) == {"ConfigMap", "DaemonSet", "Deployment", "Service"}
    spec = by_kind["DaemonSet"]["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["image"] == f"ghcr.io/example/otelauto@sha256:{'ab' * 32}"
    assert spec["serviceAccountName"] == "mine"
    assert "appArmorProfile" not in container["securityContext"]
    assert container["securityContext"]["seLinuxOptions"] == {"type": "spc_t"}
    configs = [d for d in documents(rendered) if d["kind"] == "ConfigMap"]
    config = next(d["data"]["config.yml"] for d in configs if "config.yml" in d["data"])
    assert "path: /m" in config
    assert "port: 9464" in config
    assert "http://collector:4318" in config


def test_the_pipeline_that_the_chart_makes_is_good() -> None:
    made = yaml.safe_load_all(template("--set", "agent.enabled=true"))
    configs = [item["data"] for item in made if item and item["kind"] == "ConfigMap"]
    river = next(data["config.river"] for data in configs if "config.river" in data)
    found = check([Source("config.river", river)], {})
    assert {"otelcol.receiver.otlp.default", "otelcol.exporter.otlp.default"} <= set(found.nodes)


def test_app_armor_before_it_was_a_field() -> None:
    old = template(version="1.29.0")
    assert "container.apparmor.security.beta.kubernetes.io/otelauto: unconfined" in old
    assert "appArmorProfile" not in old
    assert "apparmor.security" not in template()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("imagee.tag=1", "imagee"),
        ("metrics.port=80", "port"),
        ("otlpEndpoint=collector", "otlpEndpoint"),
        ("securityContext.seccompProfile=Localhost", "seccompProfile"),
        ("agent.replicas=-1", "replicas"),
        ("image.digest=latest", "digest"),
    ],
)
def test_the_schema_refuses(setting: str, words: str) -> None:
    asked = ("--kube-version", "1.36.0", "--set", setting)
    failed = helm("template", "otelauto", CHART, *asked, check=False)
    assert failed.returncode != 0
    assert words in failed.stderr


if __name__ == "__main__":
    for each, given in VALUES.items():
        (RENDERED / each).write_text(template(*given))
