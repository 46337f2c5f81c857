# SPDX-License-Identifier: Apache-2.0
"""Completions of the command line for bash, zsh and fish: ``otelauto completion SHELL``.

The scripts are made of the parser and ask nothing when they run. Each first walks over the words
before the cursor to find the command, leaving out the values of flags. They use what the manuals of
the shells describe: bash(1) "Programmable Completion", zshcompsys(1), complete(1) of fish.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from typing import Final

from otelauto.cli_tree import Command, Word

FILE, DIRECTORY = "FILE", "DIRECTORY"


def _value_flags(tree: Command, *metavars: str) -> list[str]:
    """The flags of all commands that take a value: one of these, or any without ``metavars``."""
    found = {
        name
        for command in tree.all()
        for flag in command.flags
        if flag.metavar and (flag.metavar in metavars or not metavars)
        for name in flag.names
    }
    return sorted(found)


def _other_value_flags(tree: Command) -> list[str]:
    return sorted({*_value_flags(tree)} - {*_value_flags(tree, FILE, DIRECTORY)})


def _value_patterns(tree: Command) -> dict[str, str]:
    """Flags with a value, by what is completed behind them, as patterns of a shell's ``case``."""
    return {
        "values": " | ".join(_value_flags(tree)),
        "file_flags": " | ".join(_value_flags(tree, FILE)),
        "directory_flags": " | ".join(_value_flags(tree, DIRECTORY)),
        "other_flags": " | ".join(_other_value_flags(tree)),
    }


def _steps(tree: Command) -> Iterable[tuple[str, str, str]]:
    """(command so far, next word, command then) of each way down."""
    for command in tree.all():
        for below in command.commands:
            yield " ".join(command.words), below.words[-1], " ".join(below.words)


def _next_words(command: Command) -> list[tuple[str, str]]:
    """Commands, or values of the operand, with their help."""
    found = [(below.words[-1], below.help) for below in command.commands]
    return found + [(value, word.help) for word in command.operands for value in word.choices]


def _takes_file(command: Command) -> bool:
    return any(word.metavar == FILE for word in command.operands)


# ---- bash ----

_BASH = """\
# Completion of otelauto for bash: source <(otelauto completion bash)
_otelauto() {{
    local at=otelauto current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local -i number
    local flags= words= files= value=
    # bash makes a word of the = in --flag=value.
    if [[ $current == '=' ]]; then
        current=
    elif [[ $previous == '=' ]]; then
        previous=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    for ((number = 1; number < COMP_CWORD; number++)); do
        if [[ -n $value && ${{COMP_WORDS[number]}} != '=' ]]; then
            value=
            continue
        fi
        case "$at ${{COMP_WORDS[number]}}" in
{steps}
        esac
        case "${{COMP_WORDS[number]}}" in
            {values}) value=yes ;;
        esac
    done
    COMPREPLY=()
    case $previous in
        {file_flags})
            compopt -o filenames 2> /dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
            ;;
        {directory_flags})
            compopt -o filenames 2> /dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            return
            ;;
        {other_flags}) return ;;
    esac
    case $at in
{commands}
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    if [[ -n $files ]]; then
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}}
complete -F _otelauto otelauto
"""


def bash(tree: Command) -> str:
    """The script for bash 4 or newer."""
    steps = [f'            "{at} {word}") at="{then}" ;;' for at, word, then in _steps(tree)]
    commands = []
    for command in tree.all():
        flags = " ".join(name for flag in command.flags for name in flag.names)
        words = " ".join(word for word, _ in _next_words(command))
        files = "yes" if _takes_file(command) else ""
        at = " ".join(command.words)
        commands.append(f'        "{at}") flags="{flags}" words="{words}" files={files} ;;')
    return _BASH.format(
        steps="\n".join(steps),
        commands="\n".join(commands),
        **_value_patterns(tree),
    )


# ---- zsh ----

_ZSH = """\
#compdef otelauto
# Completion of otelauto for zsh: source <(otelauto completion zsh), or a file _otelauto in $fpath
_otelauto() {{
    local at=otelauto word value= previous=${{words[CURRENT - 1]}} files=
    local -a flags commands
    for word in "${{(@)words[2,CURRENT - 1]}}"; do
        if [[ -n $value ]]; then
            value=
            continue
        fi
        case "$at $word" in
{steps}
        esac
        case "$word" in
            {values}) value=yes ;;
        esac
    done
    case $previous in
        {file_flags}) _files; return ;;
        {directory_flags}) _files -/; return ;;
        {other_flags}) _message value; return ;;
    esac
    case $at in
{commands}
    esac
    if [[ $PREFIX == -* ]]; then
        _describe -o flag flags
    elif [[ -n $files ]]; then
        _files
    elif (( $#commands )); then
        _describe command commands
    fi
}}
# Sourced it registers itself; found in $fpath it is called.
if [[ $funcstack[1] == _otelauto ]]; then
    _otelauto "$@"
else
    compdef _otelauto otelauto
fi
"""


def _described(words: Iterable[tuple[str, str]]) -> str:
    """Words for _describe, which ends a word at the first colon that is not escaped."""
    pairs = ((word.replace(":", "\\:"), text) for word, text in words)
    return " ".join(shlex.quote(f"{word}:{text}") for word, text in pairs)


def zsh(tree: Command) -> str:
    """The script for zsh 5."""
    steps = [f'            "{at} {word}") at="{then}" ;;' for at, word, then in _steps(tree)]
    commands = []
    for command in tree.all():
        flags = _described((name, flag.help) for flag in command.flags for name in flag.names)
        words = _described(_next_words(command))
        files = "yes" if _takes_file(command) else ""
        at = " ".join(command.words)
        commands.append(
            f'        "{at}")\n            flags=({flags})\n            commands=({words})\n'
            f"            files={files}\n            ;;"
        )
    return _ZSH.format(
        steps="\n".join(steps),
        commands="\n".join(commands),
        **_value_patterns(tree),
    )


# ---- fish ----

_FISH = """\
# Completion of otelauto for fish: otelauto completion fish | source
function __otelauto_at
    set -l at otelauto
    set -l value
    for word in (commandline -opc)[2..]
        if test -n "$value"
            set value
            continue
        end
        switch "$at $word"
{steps}
        end
        switch "$word"
            case {values}
                set value yes
        end
    end
    test "$at" = "$argv[1]"
end
complete -c otelauto -f
{completions}
"""


def _fish_names(names: Iterable[str]) -> str:
    """-o is for words after one hyphen, -s for letters, -l for words after two."""
    found = []
    for name in names:
        word = name.lstrip("-")
        kind = "-l" if name.startswith("--") else "-s" if len(word) == 1 else "-o"
        found.append(f"{kind} {word}")
    return " ".join(found)


def _fish_flag(at: str, flag: Word) -> str:
    value = {"": "", FILE: " -r -F", DIRECTORY: " -x -a '(__fish_complete_directories)'"}
    takes = value.get(flag.metavar, " -x")
    return f"complete -c otelauto -n {at} {_fish_names(flag.names)}{takes} -d {_fish(flag.help)}"


def _fish(text: str) -> str:
    """Within single quotes only the quote and the backslash mean something."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def fish(tree: Command) -> str:
    """The script for fish 3."""
    steps = [
        f"            case {_fish(f'{at} {word}')}\n                set at {_fish(then)}"
        for at, word, then in _steps(tree)
    ]
    completions = []
    for command in tree.all():
        at = _fish(f"__otelauto_at '{' '.join(command.words)}'")
        for word, text in _next_words(command):
            completions.append(f"complete -c otelauto -n {at} -a {word} -d {_fish(text)}")
        if _takes_file(command):
            completions.append(f"complete -c otelauto -n {at} -F")
        completions += [_fish_flag(at, flag) for flag in command.flags]
    return _FISH.format(
        steps="\n".join(steps),
        values=" ".join(_value_flags(tree)),
        completions="\n".join(completions),
    )


SHELLS: Final[dict[str, Callable[[Command], str]]] = {"bash": bash, "zsh": zsh, "fish": fish}
