# SPDX-License-Identifier: Apache-2.0
"""The manual pages are fresh, complete, and without a warning from groff."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.house.scan import ROOT

from otelauto.cli import build_parser
from otelauto.cli_tree import command_tree
from otelauto.config.setting import declarations
from otelauto.config.settings import Config
from otelauto.man_pages import main, pages

MANUAL = ROOT / "docs" / "man"
PAGES = pages()


def shown(name: str) -> str:
    """A page as text, hyphens as typed; groff's warnings are failures."""
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u", "-ww", "-rLL=200n", MANUAL / name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout


def test_the_pages_are_fresh() -> None:
    assert {path.name for path in MANUAL.iterdir()} == set(PAGES)
    for name, text in PAGES.items():
        assert text == (MANUAL / name).read_text(), "run `make abi`"


def test_every_command_and_flag_is_there() -> None:
    tree = command_tree(build_parser())
    for command in tree.all():
        if command.commands and command is not tree:
            continue
        page = shown("otelauto-agent.1" if "agent" in command.words else "otelauto.1")
        assert " ".join(command.words) in page
        for flag in command.flags:
            for name in flag.names:
                assert name in page, command.words


def test_every_setting_is_there() -> None:
    page = shown("otelauto.yml.5")
    every = declarations(Config)
    assert len(every) > 50
    for declaration in every:
        assert declaration.key in page
        assert all(variable.name in page for variable in declaration.env)


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["/no/such/directory"]])
def test_a_wrong_call_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


def test_pages_are_written(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == PAGES
