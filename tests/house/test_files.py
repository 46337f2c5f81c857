# SPDX-License-Identifier: Apache-2.0
"""Size, licence lines and words of every file; the version is one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.house.scan import CODE, ROOT, c_functions, files, functions, name

import otelauto

MAX_LINES = 500
MAX_FUNCTION = 60
LOCKS = ("package-lock.json", "go.sum", "Cargo.lock")
GENERATED = "Generated from"
# Where this was built is nobody's business, and says nothing to a reader elsewhere.
FORBIDDEN = re.compile(
    r"/work/|/tmp/issue|/tmp/helper|\bshared/(DESIGN|reference|plan)|DESIGN\.md"
    r"|\bissue #?\d|\b(Claude|Anthropic|ChatGPT|OpenAI|Copilot)\b",
    re.IGNORECASE,
)
# Kernels are asked by trying: a version number says little about a vendor's kernel.
VERSION_CHECK = re.compile(r"LINUX_VERSION_CODE|KERNEL_VERSION\(|\.release\(\)[^\n]*(<|>|split)")


def too_long(text: str) -> bool:
    return text.count("\n") > MAX_LINES


def has_licence_line(text: str) -> bool:
    """In the first three lines: a ``#!`` line may come first."""
    head = "\n".join(text.splitlines()[:3])
    return "SPDX-License-Identifier:" in head or GENERATED in head


def forbidden_words(text: str) -> list[str]:
    return [match[0] for match in FORBIDDEN.finditer(text)]


def long_functions(path: Path) -> list[str]:
    read = functions if path.suffix == ".py" else c_functions
    found = []
    for function, line, length in read(path.read_text()):
        if length > MAX_FUNCTION:
            found.append(f"{path.name}:{line} {function} has {length} lines")
    return found


def test_no_file_is_too_long() -> None:
    long = [name(p) for p in files(*CODE, ".md") if too_long(p.read_text())]
    assert not long


def test_a_long_file_is_found() -> None:
    assert too_long("x\n" * 501)
    assert not too_long("x\n" * 500)


def test_no_function_is_too_long() -> None:
    found = [long for path in files(".py", ".c", ".h") for long in long_functions(path)]
    assert not found


def test_a_long_function_is_found(tmp_path: Path) -> None:
    python = tmp_path / "long.py"
    python.write_text("def f():\n    '''says'''\n" + "    x = 1\n" * 61)
    c = tmp_path / "long.c"
    c.write_text("static int f(void)\n{\n" + "\tx();\n" * 61 + "}\n")
    for path in (python, c):
        assert long_functions(path)
        path.write_text(path.read_text().replace("    x = 1\n", "", 1).replace("\tx();\n", "", 1))
        assert not long_functions(path)


def test_every_source_names_its_licence() -> None:
    sources = files(*CODE)
    assert len(sources) > 50
    assert not [name(path) for path in sources if not has_licence_line(path.read_text())]


def test_a_missing_licence_line_is_found() -> None:
    assert not has_licence_line('"""A module."""\n\nimport os\n')
    assert has_licence_line("#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n")


def test_the_kernel_half_has_its_own_licence() -> None:
    for path in files(".c", ".h"):
        if path.is_relative_to(ROOT / "bpf"):
            assert "GPL-2.0 OR BSD-2-Clause" in path.read_text().splitlines()[0], name(path)


def test_no_file_speaks_of_where_it_was_made() -> None:
    found = {}
    for path in files(*CODE, ".md", ".toml", ".yml", ".json", ".html", ""):
        if path != Path(__file__) and path.name not in LOCKS:
            words = forbidden_words(path.read_text(errors="replace"))
            if words:
                found[name(path)] = words
    assert not found


def test_forbidden_words_are_found() -> None:
    for text in ("see /work/main", "as issue 2 wants", "DESIGN.md, section 4", "by Claude"):
        assert forbidden_words(text), text
    assert not forbidden_words("an issue tracker; the network/ room; tissue 2")


def test_no_kernel_version_is_asked() -> None:
    sources = [p for p in files(".py", ".c", ".h") if p != Path(__file__)]
    assert not [name(p) for p in sources if VERSION_CHECK.search(p.read_text())]


def test_a_version_check_is_found() -> None:
    assert VERSION_CHECK.search("if platform.release() < '6.3':")
    assert VERSION_CHECK.search("#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)")
    assert not VERSION_CHECK.search('f"Linux {platform.release()} has no {hook}"')


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "otelauto.__version__"}
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d[^\]]*)\]", changelog, flags=re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", otelauto.__version__)
    assert "## [Unreleased]" in changelog
    assert not released or released[0] == otelauto.__version__
