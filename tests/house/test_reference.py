# SPDX-License-Identifier: Apache-2.0
"""The generated page of names is fresh, and names what parsers and stages set; nothing is left out.

Also: what `otelauto doctor` and the start may say is explained to who meets it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.house.scan import PACKAGE, ROOT
from tests.house.test_generated import generated

from otelauto import reference
from otelauto.capabilities import CAPABILITIES

# Who sets attributes of spans and resources.
SETTERS = [
    path for room in ("protocols", "spans", "kubernetes") for path in (PACKAGE / room).glob("*.py")
]
ROOTS = (
    "client|container|error|graphql|host|http|jsonrpc|k8s|network|os|otelauto|process|rpc|server"
    "|service|telemetry|url|user_agent"
)
# Names in the setters' code that are no attribute of a span or resource.
NO_ATTRIBUTES = {
    "network.protocol.name",  # one that metrics of 2023 are kept free of
}
SOURCES_OF_SENTENCES = (
    *(PACKAGE / "kernel").glob("*.py"),
    PACKAGE / "discover" / "environment.py",
    PACKAGE / "app.py",
    PACKAGE / "control.py",
    PACKAGE / "instrument.py",
    PACKAGE / "probe_cost.py",
)
ERRORS = ("KernelError", "NotAllowedError", "OtelautoError", "HookError", "RejectedError")


def _template(node: ast.expr) -> str:
    """A string as a pattern: what is computed in it stands for anything."""
    if isinstance(node, ast.JoinedStr):
        parts = (
            re.escape(each.value) if isinstance(each, ast.Constant) else ".+"
            for each in node.values
        )
        return "".join(map(str, parts))
    return re.escape(node.value) if isinstance(node, ast.Constant) else ""


def attribute_names(source: str) -> Iterator[str]:
    """Patterns of the strings in ``source`` that look like names of attributes."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in ast.walk(node) if part is not node}  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in inside or not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        if isinstance(node, ast.Constant) and not isinstance(node.value, str):
            continue
        pattern = _template(node)
        if re.fullmatch(rf"({ROOTS})\\\.[a-z_0-9\\.+]+", pattern):
            yield pattern


def known_names() -> tuple[set[str], set[str]]:
    """(attributes of the page, everything else that is named like one)"""
    attributes = {row.name for row in (*reference.SPAN, *reference.RESOURCE)}
    instruments = {instrument.name for _, instrument in reference.instruments()}
    old = set(reference.NAMES_OF_2023.values()) | NO_ATTRIBUTES
    for names in reference.ATTRIBUTES_OF_2023.values():
        old |= set(names.values())
    return attributes, instruments | old


def test_the_page_of_names_is_fresh() -> None:
    fresh = generated("otelauto.reference")
    assert "## Attributes of spans" in fresh
    assert fresh == (ROOT / "docs" / "names.md").read_text(), "run `make abi`"


def test_every_attribute_is_on_the_page() -> None:
    attributes, others = known_names()
    patterns = {p for path in SETTERS for p in attribute_names(path.read_text())}
    assert len(patterns) > 40
    unknown = [p for p in patterns if not any(re.fullmatch(p, n) for n in attributes | others)]
    assert not unknown
    unset = [n for n in attributes if not any(re.fullmatch(p, n) for p in patterns)]
    assert not unset, "nobody sets them"


def test_an_attribute_that_is_not_on_the_page_is_found() -> None:
    source = 'a["http.teapot"] = 1\nb[f"otelauto.rpc.{word}.size"] = 2\nc = f"not {x} http.x"\n'
    patterns = list(attribute_names(source))
    assert patterns == [r"http\.teapot", r"otelauto\.rpc\..+\.size"]
    attributes, others = known_names()
    assert not any(re.fullmatch(patterns[0], name) for name in attributes | others)
    assert any(re.fullmatch(patterns[1], name) for name in attributes)


def sentences(source: str) -> Iterator[str]:
    """Patterns of the first arguments of errors that a user reads."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        if node.func.id in ERRORS and (pattern := _template(node.args[0])):
            yield pattern


def explained(pattern: str, cells: list[str]) -> bool:
    """Whether a cell has the longest part of a sentence that is always the same, or its beginning.

    In a cell ``...`` stands for what differs.
    """
    parts = [part for part in re.split(r"\.\+", pattern) if part]
    longest = re.sub(r"\\(.)", r"\1", max(parts, key=len)).strip(" :(),.")
    pieces = [piece.strip(" :(),.") for cell in cells for piece in cell.split("...")]
    return any(longest in piece or (len(piece) > 9 and piece in longest) for piece in pieces)


def _page() -> list[str]:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"^\|([^|]+)\|", page, flags=re.MULTILINE)
    return [cell for row in rows for cell in re.findall(r"`([^`]+)`", row)]


def test_every_sentence_about_the_kernel_is_explained() -> None:
    cells = _page()
    found = {p: path.name for path in SOURCES_OF_SENTENCES for p in sentences(path.read_text())}
    assert len(found) > 15
    assert not {p: where for p, where in found.items() if not explained(p, cells)}


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ('raise KernelError("not allowed to load BPF programs", "run as root")', True),
        ('raise KernelError(f"{x} cannot be attached: {y}")', True),
        ('raise KernelError("the moon is in the wrong house", "wait")', False),
    ],
)
def test_a_sentence_without_explanation_is_found(line: str, there: bool) -> None:
    (pattern,) = sentences(line)
    assert explained(pattern, _page()) is there


def test_every_capability_is_explained() -> None:
    page = (ROOT / "docs" / "privileges.md").read_text()
    doctor = (ROOT / "docs" / "troubleshooting.md").read_text()
    for capability, (_, lost) in CAPABILITIES.items():
        assert re.search(rf"^\| `{capability}` \| .* \| {re.escape(lost)} \|$", page, re.MULTILINE)
        assert capability in doctor


def test_the_site_has_a_place_for_every_page() -> None:
    """The navigation is made of the index: a page that it does not name would be nowhere."""
    index = (ROOT / "docs" / "README.md").read_text()
    listed = set(re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", index, flags=re.MULTILINE))
    assert {path.name for path in Path(ROOT / "docs").glob("*.md")} - {"README.md"} <= listed
