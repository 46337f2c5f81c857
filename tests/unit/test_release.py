# SPDX-License-Identifier: Apache-2.0
"""Locks, bills of materials, and when a version may be released."""

from __future__ import annotations

import json
import re
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tools import sbom
from tools.release import uncommitted, unready, version
from tools.sbom import BUNDLED, Locked, SbomError, document, licence_of, read_lock, text_of

from otelauto import __version__

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKS = {
    "run": ("",),
    "demo": ("", "demo", "build"),
    "dev": ("", "dev", "demo", "build"),
}


def locked(name: str) -> list[Locked]:
    return read_lock((ROOT / "requirements" / f"{name}.txt").read_text())


def unmet(wanted: list[str], packages: list[Locked]) -> list[str]:
    """The requirements that a lock does not meet."""
    versions: dict[str, list[Version]] = {}
    for package in packages:
        versions.setdefault(canonicalize_name(package.name), []).append(Version(package.version))
    found = []
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name != "otelauto":
            known = versions.get(canonicalize_name(requirement.name), [])
            if not known or not all(map(requirement.specifier.contains, known)):
                found.append(text)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_what_is_declared_is_locked(name: str) -> None:
    """Also each with a hash. After a change of pyproject.toml: `make lock`."""
    wanted = list(PROJECT["project"]["dependencies"])
    for extra in LOCKS[name]:
        wanted += EXTRAS[extra] if extra else []
    packages = locked(name)
    assert not unmet(wanted, packages), "run `make lock`"
    assert all(package.hashes for package in packages)
    by_whom = {who for package in packages for who in package.needed_by}
    direct = {canonicalize_name(p.name) for p in packages if "otelauto" in p.needed_by}
    assert by_whom - {"otelauto"} <= {package.name for package in packages}
    declared = {canonicalize_name(Requirement(text).name) for text in wanted} - {"otelauto"}
    assert direct == declared, "run `make lock`"


def test_locks_have_one_version_of_a_package() -> None:
    tested = {(package.name, package.version) for package in locked("dev")}
    for name in ("run", "demo"):
        assert {(package.name, package.version) for package in locked(name)} <= tested


def test_what_builds_is_declared_once_more() -> None:
    assert EXTRAS["build"] == PROJECT["build-system"]["requires"]


def test_what_is_not_locked_is_found() -> None:
    packages = read_lock("h11==0.16.0 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via otelauto\n")
    assert packages == [Locked("h11", "0.16.0", ["0" * 64], ["otelauto"])]
    assert not unmet(["h11>=0.14"], packages)
    assert unmet(["h11>=0.17", "h2"], packages) == ["h11>=0.17", "h2"]


# ---- bills of materials ----

METADATA = f"""\
Metadata-Version: 2.4
Name: otelauto
Version: {__version__}
License-Expression: Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)
"""


def wheel_at(directory: Path, *, bundled: bool) -> Path:
    path = directory / f"otelauto-{__version__}-cp311-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        where = f"otelauto-{__version__}.dist-info/METADATA"
        archive.writestr(zipfile.ZipInfo(where, (2026, 1, 2, 3, 4, 6)), METADATA)
        if bundled:
            archive.writestr(BUNDLED, b"\x7fELF")
    return path


def sources_at(directory: Path) -> Path:
    texts = {
        "libbpf/src/libbpf.map": "LIBBPF_1.6.0 {\n};\nLIBBPF_1.7.0 {\n} LIBBPF_1.6.0;\n",
        "elfutils/configure.ac": "AC_INIT([elfutils],[0.191],[https://example.org/])\n",
        "zlib/zlib.h": '#define ZLIB_VERSION "1.2.13"\n',
    }
    for name, text in texts.items():
        (directory / name).parent.mkdir(parents=True)
        (directory / name).write_text(text)
    return directory


def errors(text: str) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_a_bill_of_materials_is_valid(tmp_path: Path) -> None:
    wheel, sources = wheel_at(tmp_path, bundled=True), sources_at(tmp_path / "sources")
    text = text_of(wheel, sources)
    assert errors(text) is None
    assert text == text_of(wheel, sources), "the same each time"
    made = json.loads(text)
    assert made["metadata"]["timestamp"] == "2026-01-02T03:04:06+00:00"
    parts = {each["name"]: each["version"] for each in made["components"] if "version" in each}
    assert parts.items() >= {"libbpf": "1.7.0", "elfutils": "0.191", "zlib": "1.2.13"}.items()
    assert {package.name for package in locked("run")} <= set(parts)
    assert all(each["licenses"] for each in made["components"])
    needs = graph_of(made)
    (itself,) = (ref for ref in needs if ref.startswith("pkg:pypi/otelauto@"))
    direct = {ref.partition("@")[0] for ref in needs[itself]}
    declared = {canonicalize_name(Requirement(t).name) for t in PROJECT["project"]["dependencies"]}
    assert direct == {BUNDLED} | {f"pkg:pypi/{name}" for name in declared}
    assert len(needs[BUNDLED]) == 3
    reached = {itself}.union(*needs.values())
    assert set(needs) <= reached, "what is named is needed by something"
    made["components"][0]["hashes"][0]["alg"] = "CRC-32"
    assert errors(json.dumps(made)) is not None


def graph_of(made: dict[str, Any]) -> dict[str, list[str]]:
    """What needs what, by reference."""
    return {each["ref"]: each["dependsOn"] for each in made["dependencies"]}


def test_a_wheel_without_libbpf_says_nothing_of_it(tmp_path: Path) -> None:
    made = document(wheel_at(tmp_path, bundled=False))
    assert "libbpf" not in json.dumps(made)
    assert errors(json.dumps(made)) is None


def test_what_is_not_known_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = Message()
    metadata["License"] = "see LICENSE, and more"
    with pytest.raises(SbomError, match="p does not say its licence"):
        licence_of("p", metadata)
    metadata["Classifier"] = "License :: OSI Approved :: MIT License"
    assert licence_of("p", metadata) == "MIT"
    lock = tmp_path / "lock.txt"
    lock.write_text("h11==0.0.1 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via otelauto\n")
    monkeypatch.setattr(sbom, "LOCK", lock)
    with pytest.raises(SbomError, match=r"h11 .* is installed, not 0\.0\.1"):
        document(wheel_at(tmp_path, bundled=False))


# ---- releases ----

READY = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-02\n\n### Added\n\n- All.\n"


def test_a_version_that_is_ready() -> None:
    assert version() == __version__
    assert unready("1.2.3", READY, "", "c0ffee") == []
    assert unready("1.2.3", READY, "c0ffee", "c0ffee") == []
    assert uncommitted("") == []


@pytest.mark.parametrize(
    ("changelog", "tag", "why"),
    [
        (READY.replace(" - 2026-01-02", ""), "", 'no heading "## [1.2.3] - YEAR-MONTH-DAY"'),
        (READY.replace("ed]\n", "ed]\n\n- More.\n", 1), "", "with nothing below it"),
        (READY.replace("## [Unreleased]\n", ""), "", "with nothing below it"),
        (READY, "dead", "v1.2.3 is the tag of another commit"),
    ],
)
def test_a_version_that_is_not_ready(changelog: str, tag: str, why: str) -> None:
    (found,) = unready("1.2.3", changelog, tag, "c0ffee")
    assert why in found


def test_what_is_not_committed_is_named() -> None:
    (found,) = uncommitted(" M src/otelauto/cli.py\n?? x")
    assert found == "not committed: src/otelauto/cli.py, x"


def test_bandit_leaves_out_what_is_justified() -> None:
    """Every exclusion has its reason beside it."""
    text = (ROOT / "pyproject.toml").read_text()
    section = re.search(r"^\[tool\.bandit\]\n(.*?)(?=^\[)", text, flags=re.MULTILINE | re.DOTALL)
    assert section is not None
    skipped = PROJECT["tool"]["bandit"].get("skips", [])
    for code in skipped:
        assert re.search(rf'"{code}", +# .{{20,}}', section[1]), code
