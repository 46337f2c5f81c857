# SPDX-License-Identifier: Apache-2.0
"""The documents say what is there: counters, links, commands, settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.house.scan import (
    PACKAGE,
    ROOT,
    anchors,
    commands,
    files,
    links,
    meanings,
    name,
    phony,
    targets,
)

from otelauto import abi
from otelauto.cli import parse
from otelauto.config import Purpose, load
from otelauto.errors import ConfigError
from otelauto.export.exporter import Reason
from otelauto.export.exposition import Kind
from otelauto.export.own_metrics import process_families
from otelauto.gauges import OWN
from otelauto.protocols import grpc, http1_describe
from otelauto.spans.naming import INSTRUMENTS as NAMES_OF_2023
from otelauto.totals import KERNEL_COUNTERS

LOSSES = (ROOT / "docs" / "losses.md").read_text()
PREFIXES = ("printer", "otlp_traces")  # of counters whose names are made by export/exporter.py


def documented(page: str) -> set[str]:
    """What the first cells of the tables of a page name in code font."""
    rows = re.findall(r"^\| *(`[^|]*`) *\|", page, flags=re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def declared() -> set[str]:
    """The counters of the package by the names that they are exported with."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for meaning in meanings(path.read_text()):
            if meaning.startswith("{prefix}"):
                made = (meaning.replace("{prefix}", prefix) for prefix in PREFIXES)
                found |= {f"otelauto_{each}_total" for each in made}
            else:
                found.add(f"otelauto_{meaning}_total")
    return found


def test_every_kernel_counter_is_documented() -> None:
    counted = {each.name for each in abi.Counter if each is not abi.Counter.COUNTER_COUNT}
    assert len(counted) > 10
    assert not counted - documented(LOSSES)


def test_every_kernel_counter_is_exported() -> None:
    assert set(KERNEL_COUNTERS) == set(abi.Counter) - {abi.Counter.COUNTER_COUNT}
    assert len(set(KERNEL_COUNTERS.values())) == len(KERNEL_COUNTERS)


def test_every_kernel_reason_is_documented() -> None:
    for counter, (meaning, label) in KERNEL_COUNTERS.items():
        rows = [row for row in LOSSES.splitlines() if row.startswith(f"| `{counter.name}` |")]
        assert len(rows) == 1, counter
        assert f"`{meaning.name}`" in rows[0]
        assert not label or f"reason `{label}`" in rows[0]


def test_every_counter_is_documented() -> None:
    assert len(declared()) > 8
    assert not declared() - documented(LOSSES)


def test_every_reason_to_give_up_is_documented() -> None:
    assert not {reason.value for reason in Reason} - documented(LOSSES)


def test_nothing_is_documented_that_does_not_exist() -> None:
    known = declared()
    gone = {
        word
        for word in documented(LOSSES)
        if (word.isupper() and word not in abi.Counter.__members__)
        or (word.startswith("otelauto_") and word not in known)
    }
    assert not gone


def test_an_undocumented_counter_is_found() -> None:
    source = 'X = Meaning("beans_lost", "Beans.")\nY = Meaning(name=f"{prefix}_sent", help="")\n'
    assert meanings(source) == ["beans_lost", "{prefix}_sent"]
    page = "| counter | meaning |\n|---|---|\n| `otelauto_beans_found_total` | `no` |\n"
    assert documented(page) == {"otelauto_beans_found_total"}


def test_every_metric_of_its_own_is_documented() -> None:
    """By name, kind, unit and help."""
    page = (ROOT / "docs" / "prometheus.md").read_text().splitlines()
    own = [(f"otelauto_{name}", *about) for name, about in OWN.items()]
    own += [(each.name, each.kind, each.help, each.unit) for each in process_families("1")]
    for family, kind, help_text, unit in own:
        sample = f"{family}_total" if kind is Kind.COUNTER else family
        assert f"| `{sample}` | {kind} | {unit} | {help_text} |" in page
    rows = [line for line in page if line.startswith("| `otelauto_")]
    assert len(rows) == len(own)


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "metrics-and-spans.md").read_text()
    every = (*http1_describe.INSTRUMENTS.values(), *grpc.INSTRUMENTS.values())
    for instruments in every:
        for instrument in instruments:
            assert f"`{instrument.name}`" in page
            assert f"`{NAMES_OF_2023[instrument.name]}`" in page
            for attribute in instrument.attributes:
                assert f"`{attribute}`" in page, attribute


def broken(page: Path, text: str) -> list[str]:
    """Links of a page that lead nowhere within the checkout."""
    found = []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT):
            found.append(f"{name(page)}: {link}")
        elif anchor and anchor not in anchors(text if target == page else target.read_text()):
            found.append(f"{name(page)}: {link} (no such heading)")
    return found


@pytest.mark.parametrize("page", files(".md"), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken(page, page.read_text())


def test_a_broken_link_is_found() -> None:
    page = ROOT / "README.md"
    assert broken(page, "see [this](docs/nothing.md)")
    assert broken(page, "# Some heading\n[up](#another-heading)")
    assert not broken(page, "# Some heading\n[up](#some-heading) `[x](y)` [w](https://w.example)")


def test_every_page_of_docs_is_in_its_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(links(index))


def missing_targets(text: str, known: dict[str, str]) -> list[str]:
    """``make`` commands of a page, in its shell blocks and in code font, that nothing answers."""
    lines = [*commands(text), *re.findall(r"`(make [a-z]+)`", text)]
    called = {word for line in lines for word in re.findall(r"\bmake ([a-z]+)", line)}
    return sorted(called - set(known))


@pytest.mark.parametrize("page", files(".md"), ids=name)
def test_documented_make_commands_exist(page: Path) -> None:
    assert not missing_targets(page.read_text(), targets((ROOT / "Makefile").read_text()))


def test_a_missing_target_is_found() -> None:
    known = targets(".PHONY: demo\n\ndemo: x  ## shows\n\techo\n")
    assert known == {"demo": "shows"}
    assert missing_targets("```sh\n$ make demo\nmake fly\n```", known) == ["fly"]
    assert missing_targets("run `make demo`, then `make swim`; make haste", known) == ["swim"]


def command_lines(text: str) -> list[list[str]]:
    """The arguments of each call of otelauto in the shell blocks of a page."""
    calls = (re.search(r"(?:^|/)otelauto( .*)$", line) for line in commands(text))
    words = (shlex.split(call[1].removesuffix("&"), comments=True) for call in calls if call)
    return [found for found in words if found]


@pytest.mark.parametrize("page", files(".md"), ids=name)
def test_documented_command_lines_are_understood(page: Path) -> None:
    for arguments in command_lines(page.read_text()):
        parse(arguments)


def test_a_command_line_with_a_wrong_flag_is_found() -> None:
    (arguments,) = command_lines("```sh\n.venv/bin/otelauto --open-prot 80\n```")
    with pytest.raises(ConfigError, match="open-prot"):
        parse(arguments)
    assert len([a for p in files(".md") for a in command_lines(p.read_text())]) > 5


def settings_in(text: str) -> list[str]:
    """The YAML blocks of a page."""
    return re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)


def test_documented_settings_are_valid(tmp_path: Path) -> None:
    blocks = [block for page in files(".md") for block in settings_in(page.read_text())]
    assert len(blocks) >= 2
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.yml"
        file.write_text(block)
        whole = "ebpf:" in block  # else a part that goes with others
        load(file, {"OTLP_TOKEN": "secret"}, {}, Purpose.RUN if whole else Purpose.SHOW)


def test_an_invalid_setting_is_found(tmp_path: Path) -> None:
    file = tmp_path / "bad.yml"
    file.write_text(settings_in("```yaml\nebpf:\n  open_prot: 80\n```")[0])
    with pytest.raises(ConfigError):
        load(file, {}, {}, Purpose.RUN)


def test_every_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    known = targets(makefile)
    assert not set(phony(makefile)) - set(known), "declared, and no rule makes it"
    assert {"install", "demo", "test", "check", "bpf", "abi", "bench"} <= set(known)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert not [target for target in known if f"`make {target}`" not in text]
    assert not [target for target, help_ in known.items() if not help_ and target != "clean"]


def test_the_first_screen_has_the_two_commands() -> None:
    first = (ROOT / "README.md").read_text().splitlines()[:60]
    asked = commands("\n".join(first))
    assert "make test" in " ".join(asked)
    assert any("make demo" in line for line in asked)
