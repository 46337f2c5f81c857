# SPDX-License-Identifier: Apache-2.0
"""``otelauto agent fmt`` and ``otelauto agent check``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from otelauto.agent.check import check
from otelauto.agent.river.covering import shown
from otelauto.agent.river.diagnostics import RiverError, Source
from otelauto.agent.river.printer import formatted
from otelauto.errors import ConfigError

STANDARD_INPUT = "-"
SUFFIXES = (".river", ".alloy")


def format_file(path: str, *, write: bool) -> int:
    """Print the file in its standard form, or with ``write`` replace it. Gives the exit code."""
    return _telling(lambda: _format(path, write))


def _format(path: str, write: bool) -> None:
    if write and path == STANDARD_INPUT:
        raise ConfigError("--write needs a file.", "Leave it out to print what was read.")
    (source,) = read([path])
    text = formatted(source)
    if not write:
        sys.stdout.write(text)
        sys.stdout.flush()
    elif text != source.text:
        try:  # in place: owner, mode and links stay
            Path(path).write_bytes(text.encode())
        except OSError as error:
            raise _unusable(path, error) from error


def check_path(path: str) -> int:
    """Say everything that is wrong with the file, or with all files of the directory together."""
    return _telling(lambda: _check(path))


def _check(path: str) -> None:
    configuration = check(read(files(path)))
    for warning in configuration.warnings:
        sys.stderr.write(shown([warning], "warning: ") + "\n")
    count = len(configuration.nodes)
    sys.stdout.write(f"The configuration is valid: {count} component{'' if count == 1 else 's'}.\n")
    sys.stdout.flush()


def _telling(act: Callable[[], None]) -> int:
    try:
        act()
    except RiverError as error:
        sys.stderr.write(shown(error.diagnostics) + "\n")
        return error.exit_code
    return 0


def files(path: str) -> list[str]:
    """``path``, or the configuration files in it, by name. Raises :class:`ConfigError`."""
    try:
        if path == STANDARD_INPUT or not Path(path).is_dir():
            return [path]
        found = sorted(str(p) for p in Path(path).iterdir() if p.suffix in SUFFIXES and p.is_file())
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error
    if not found:
        remedy = "Its files are those that end in .river or .alloy."
        raise ConfigError(f'"{path}" has no configuration file.', remedy)
    return found


def read(paths: list[str]) -> list[Source]:
    """The files; raises :class:`ConfigError` if one cannot be read."""
    found = []
    for path in paths:
        try:
            standard = path == STANDARD_INPUT
            data = sys.stdin.buffer.read() if standard else Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise _unusable(path, error) from error
        found.append(Source.decode("standard input" if standard else path, data))
    return found


def _unusable(path: str, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ConfigError(f'"{path}": {reason}.', "Give a file in the River language.")
