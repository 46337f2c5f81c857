# SPDX-License-Identifier: Apache-2.0
"""``otelauto agent fmt`` and ``otelauto agent check``: files, output, exit codes."""

from __future__ import annotations

import io
import os
import sys

import pytest

from otelauto import cli

LISTEN = "--server.http.listen-addr"
GOOD = 'local.file "f" {\nfilename="x"\n}\n'
TIDY = 'local.file "f" {\n\tfilename = "x"\n}\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.river"
    path.write_text(GOOD)
    return path


def test_fmt_prints_and_leaves_the_file(file, capsys):
    assert cli.main(["agent", "fmt", str(file)]) == 0
    assert capsys.readouterr() == (TIDY, "")
    assert file.read_text() == GOOD


def test_fmt_writes_in_place(file, capsys):
    file.chmod(0o640)
    link = file.with_name("link.river")
    link.symlink_to(file)
    assert cli.main(["agent", "fmt", "--write", str(link)]) == 0
    assert capsys.readouterr() == ("", "")
    assert file.read_text() == TIDY
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    before = file.stat().st_mtime_ns
    os.utime(file, ns=(before - 10**9, before - 10**9))
    assert cli.main(["agent", "fmt", "--write", str(file)]) == 0
    assert file.stat().st_mtime_ns == before - 10**9  # tidy already: not touched


def test_fmt_of_a_broken_file_changes_nothing(file, capsys):
    file.write_text("a = [\n")
    assert cli.main(["agent", "fmt", "--write", str(file)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", f"{file}:2:1: expected ], got EOF")
    assert file.read_text() == "a = [\n"


def test_standard_input(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert cli.main(["agent", "fmt", "-"]) == 0
    assert capsys.readouterr().out == TIDY
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x = 1")))
    assert cli.main(["agent", "check", "-"]) == 2
    assert "standard input:1:1: unrecognized attribute" in capsys.readouterr().err
    assert cli.main(["agent", "fmt", "--write", "-"]) == 2
    assert "--write needs a file" in capsys.readouterr().err


def test_check(file, capsys):
    assert cli.main(["agent", "check", str(file)]) == 0
    assert capsys.readouterr() == ("The configuration is valid: 1 component.\n", "")


def test_check_of_a_directory(file, capsys):
    (file.parent / "b.alloy").write_text('local.file "g" { filename = local.file.f.content }\n')
    (file.parent / "c.txt").write_text("no configuration")
    assert cli.main(["agent", "check", str(file.parent)]) == 0
    assert capsys.readouterr().out == "The configuration is valid: 2 components.\n"
    (file.parent / "d.river").write_text('local.file "g" { filename = "y" }\n')
    assert cli.main(["agent", "check", str(file.parent)]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.endswith(f"block local.file.g already declared at {file.parent}/b.alloy:1:1")


def test_check_tells_everything(file, capsys):
    file.write_text('local.file "f" {\n\tfilenam = "x"\n\tis_secret = 1\n}\n')
    assert cli.main(["agent", "check", str(file)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f'{file}:1:1: missing required attribute "filename"',
        '    local.file "f" {',
        "    ^",
        f'{file}:2:2: unrecognized attribute name "filenam"',
        '     filenam = "x"',
        "     ^",
        '  -> Did you mean "filename"?',
        f"{file}:3:14: 1 should be bool, got number",
        "     is_secret = 1",
        "                 ^",
    ]


def test_check_warns_of_a_secret(file, capsys):
    file.write_text('otelcol.auth.bearer "a" { token = "hunter2" }\n')
    assert cli.main(["agent", "check", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("The configuration is valid")
    assert err.startswith(f'warning: {file}:1:27: "token" is a secret that stands in the file')
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["agent"], "required: COMMAND"),
        (["agent", "start", "x"], 'unknown command "start"'),
        (["agent", "run", "/nonexistent/x.river", LISTEN, ""], "No such file"),
        (["agent", "run", "x", LISTEN, "nonsense"], "is no address"),
        (["agent", "check", "x", LISTEN, ""], f'unexpected argument "{LISTEN}"'),
        (["run", LISTEN, ""], f'unexpected argument "{LISTEN}"'),
        (["agent", "fnt", "x"], 'Did you mean "fmt"?'),
        (["agent", "check"], "required: FILE"),
        (["agent", "check", "/nonexistent/x.river"], "No such file"),
        (["agent", "check", "--write", "x"], 'unexpected argument "--write"'),
        (["--print", "agent", "check", "x"], '"--print" does not apply'),
        (["agent", "check", "x\0y"], "x"),
    ],
)
def test_wrong_use(words, said, capsys):
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err


def test_a_directory_without_configuration(tmp_path, capsys):
    assert cli.main(["agent", "check", str(tmp_path)]) == 2
    assert "has no configuration file" in capsys.readouterr().err
    assert cli.main(["agent", "fmt", str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err
