# SPDX-License-Identifier: Apache-2.0
"""Completions in real shells: functions that are called, and the Tab key pressed in a terminal."""

from __future__ import annotations

import argparse
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scale import PATIENCE

from otelauto.cli import build_parser, main, parse
from otelauto.cli_tree import Command, command_tree
from otelauto.completion import SHELLS
from otelauto.errors import ConfigError

TREE = command_tree(build_parser())
# Called as bash calls it; the words of the line are the arguments, the last one is to be completed.
CALL = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_otelauto; printf '%s\\n' "${COMPREPLY[@]}"
"""
# What is typed before Tab, and the arguments that the program then gets.
TYPED = [
    ("otelauto doc", "doctor"),
    ("otelauto agent ch", "agent check"),
    ("otelauto completion zs", "completion zsh"),
    ("otelauto record --ou", "record --output"),
    ("otelauto --debug rep", "--debug replay"),
    ("otelauto --pid 7 stat", "--pid 7 status"),
    ("otelauto agent run --storage.path sub", "agent run --storage.path subway"),
    ("otelauto -config conf", "-config config.yml"),
]


@pytest.fixture(scope="module", name="scripts")
def fixture_scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell, as the command prints it."""
    directory = tmp_path_factory.mktemp("scripts")
    found = {}
    for shell in SHELLS:
        said = subprocess.run(
            [sys.executable, "-m", "otelauto.cli", "completion", shell],
            capture_output=True,
            check=True,
        )
        found[shell] = directory / shell
        found[shell].write_bytes(said.stdout)
    return found


def candidates(script: Path, *words: str, cwd: Path | None = None) -> list[str]:
    """What bash would offer for the last of ``words``."""
    command = ["bash", "--norc", "-c", CALL, "bash", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    assert not done.stderr
    return done.stdout.split()


def files(script: Path, directory: Path, *words: str) -> list[str]:
    """The same, where they are files, which come in no order."""
    return sorted(candidates(script, *words, cwd=directory))


def test_every_command_is_offered_and_takes_what_is_offered(scripts: dict[str, Path]) -> None:
    for command in TREE.all():
        flags = {name for flag in command.flags for name in flag.names}
        words = [below.words[-1] for below in command.commands]
        assert candidates(scripts["bash"], *command.words, "-") == [
            name for flag in command.flags for name in flag.names
        ]
        if words:
            assert candidates(scripts["bash"], *command.words, "") == words
        assert flags >= {"-h", "--help"}
    assert len(list(TREE.all())) > 10


def test_values_of_flags_are_not_commands(scripts: dict[str, Path], tmp_path: Path) -> None:
    script = scripts["bash"]
    (tmp_path / "run.yml").touch()
    (tmp_path / "runs").mkdir()
    assert candidates(script, "otelauto", "--executable-name", "agent", "f", cwd=tmp_path) == []
    assert candidates(script, "otelauto", "--pid", "", cwd=tmp_path) == []
    assert files(script, tmp_path, "otelauto", "-config", "run") == ["run.yml", "runs"]
    assert files(script, tmp_path, "otelauto", "--config", "=") == ["run.yml", "runs"]
    assert files(script, tmp_path, "otelauto", "--config", "=", "run.") == ["run.yml"]
    given = ("otelauto", "--config", "=", "agent", "rec")
    assert candidates(script, *given, cwd=tmp_path) == ["record"]
    assert files(script, tmp_path, "otelauto", "agent", "run", "--storage.path", "r") == ["runs"]


class Terminal:
    """A shell at the other end of a pseudo-terminal."""

    def __init__(self, shell: list[str], directory: Path) -> None:
        env = {
            "PATH": f"{directory}:/usr/bin:/bin",
            "HOME": str(directory),
            "TERM": "dumb",
            "ZDOTDIR": str(directory),
            "LC_ALL": "C.UTF-8",
        }
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.chdir(directory)
            os.execvpe(shell[0], shell, env)
        self.said = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, condition: Callable[[str], bool], what: str) -> None:
        """Read until the condition holds for all that was said."""
        end = time.monotonic() + 20 * PATIENCE
        while not condition(self.said):
            ready, _, _ = select.select([self.fd], [], [], max(end - time.monotonic(), 0))
            assert ready, f"{what}: {self.said!r}"
            self.said += os.read(self.fd, 65536).decode(errors="replace")

    def close(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


# The shell's words, and what makes it know the script and print a prompt of our own.
STARTS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "bind 'set enable-bracketed-paste off'; source '{script}'; PS1='rea''dy> '\n",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -Uz compinit; compinit -u -D; source '{script}'; PS1='rea''dy> '\n",
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        "source '{script}'; function fish_prompt; echo -n 'rea''dy> '; end\n",
    ),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_tab_key_completes(shell: str, scripts: dict[str, Path], tmp_path: Path) -> None:
    program = tmp_path / "otelauto"
    program.write_text('#!/bin/sh\necho "got <$*>"\n')
    program.chmod(0o755)
    (tmp_path / "subway").mkdir()
    (tmp_path / "config.yml").touch()
    words, prepare = STARTS[shell]
    assert shutil.which(words[0]), "run tests/install.sh"
    terminal = Terminal(words, tmp_path)
    try:
        terminal.type(prepare.format(script=scripts[shell]))
        terminal.wait_for(lambda said: "ready> " in said, "the shell is ready")
        for line, wanted in TYPED:
            before = len(terminal.said)
            terminal.type(f"{line}\t")
            end = wanted.rpartition(" ")[2]
            terminal.wait_for(lambda said, b=before, e=end: e in said[b:], f"{line} is completed")
            terminal.type("\r")
            terminal.wait_for(
                lambda said, b=before: "ready> " in said[b:].partition("got <")[2], f"{line} is run"
            )
            got = terminal.said[before:].partition("got <")[2].partition(">")[0]
            assert got.rstrip(" /") == wanted, terminal.said[before:]
    finally:
        terminal.close()


def test_fish_knows_what_a_flag_takes(scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.yml").touch()

    def offered(line: str) -> list[str]:
        words = f"source {scripts['fish']}; complete -C '{line}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", words],
            capture_output=True, text=True, check=True, cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )  # fmt: skip
        return sorted(row.partition("\t")[0] for row in done.stdout.splitlines())

    assert offered("otelauto agent ") == ["check", "fmt", "run"]
    assert offered("otelauto -config ") == ["a.yml"]
    assert offered("otelauto status --pi") == ["--pid"]
    assert offered("otelauto completion ") == ["bash", "fish", "zsh"]


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    said = capsys.readouterr().err
    assert said == 'otelauto: unknown shell "tcsh".\n  -> Shells are bash, zsh, fish.\n'
    with pytest.raises(ConfigError, match='unexpected argument "more"'):
        parse(["completion", "bash", "more"])


def test_the_tree_is_that_of_the_parser() -> None:
    parser = argparse.ArgumentParser(prog="p", description="about")
    parser.add_argument("-n", "--number", type=int, help="100 %% of it")
    parser.add_argument("file", metavar="FILE", help="what")
    parser.add_argument_group("more").add_argument("--quiet", action="store_true", help="say less")
    tree = command_tree(parser)
    assert isinstance(tree, Command)
    _, number, quiet = tree.flags
    assert (number.names, number.metavar, number.help) == (
        ("-n", "--number"),
        "NUMBER",
        "100 % of it",
    )
    assert (quiet.metavar, quiet.setting, number.setting) == ("", True, False)
    assert [word.metavar for word in tree.operands] == ["FILE"]
