# SPDX-License-Identifier: Apache-2.0
"""What the command line's parser takes, as plain data for completions and manual pages."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A flag by all its names, or an operand (no names). Without ``metavar`` it takes no value."""

    names: tuple[str, ...]
    metavar: str
    help: str
    choices: tuple[str, ...] = ()
    setting: bool = False


@dataclass(frozen=True)
class Command:
    """A command: its words from the program's name on, and what may follow them."""

    words: tuple[str, ...]
    help: str
    flags: tuple[Word, ...]
    operands: tuple[Word, ...]
    commands: tuple[Command, ...]

    def all(self) -> Iterator[Command]:
        """This command and all below it, each before those below it."""
        yield self
        for command in self.commands:
            yield from command.all()


def command_tree(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Command:
    """The commands of ``parser``; flags of groups that were added to it are settings."""
    words = words or (parser.prog,)
    groups = parser._action_groups  # positional arguments, options, then those that were added
    settings = {id(action) for group in groups[2:] for action in group._group_actions}
    flags: list[Word] = []
    operands: list[Word] = []
    commands: list[Command] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands += [
                command_tree(below, (*words, name)) for name, below in action.choices.items()
            ]
        else:
            word = _word(action, id(action) in settings)
            (flags if word.names else operands).append(word)
    return Command(words, parser.description or "", tuple(flags), tuple(operands), tuple(commands))


def _word(action: argparse.Action, setting: bool) -> Word:
    metavar = str(action.metavar or action.dest.upper())  # as argparse has it
    return Word(
        tuple(action.option_strings),
        "" if action.nargs == 0 else metavar,
        (action.help or "").replace("%%", "%"),
        tuple(action.choices or ()),
        setting,
    )
