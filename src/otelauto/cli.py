# SPDX-License-Identifier: Apache-2.0
"""The command line: flags, sub-commands, how errors are printed, exit codes.

Exit codes: 0 stopped as asked, 2 configuration, 3 the kernel or permissions, 1 the rest. Whatever
needs the kernel is imported when a sub-command needs it, not before.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from otelauto import __version__, logs
from otelauto.cli_tree import command_tree
from otelauto.completion import SHELLS
from otelauto.config import Loaded, Purpose, load
from otelauto.config.problems import InvalidConfig, nearest
from otelauto.config.setting import Declaration, declarations
from otelauto.config.settings import Config
from otelauto.config.show import as_yaml, secrets
from otelauto.errors import ConfigError, OtelautoError
from otelauto.export.lines import printable

log = logging.getLogger("otelauto")

_HELP_REMEDY = '"otelauto --help" lists commands and flags.'
_FLAG_HELP = {
    "--otlp-endpoint": "Send metrics and traces to this base URL, such as http://localhost:4318.",
    "--print": "Print each span as a line of text.",
}
_SWITCHES = {"--system-wide": "true", "--print": "text"}  # flags without a value


_COMMON_FLAGS = (
    "-config", "--config", "--debug", "--help", "-h", "--version", "--print-json",
)  # fmt: skip
_RUN_FLAGS = ("--server.http.listen-addr", "--storage.path")  # of the agent
_COMMAND_FLAGS = ("--check", "--output", "--raw", "--seconds", "--write", *_RUN_FLAGS)
_AGENT_FLAGS = {"--debug", "--help", "-h", "--version", "--write", *_RUN_FLAGS}


class _Parser(argparse.ArgumentParser):
    """Errors are raised as :class:`ConfigError`, one sentence with a remedy."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong is None:
            raise ConfigError(message.rstrip(".") + ".", _HELP_REMEDY)
        word, known = wrong[1], re.findall(r"[\w-]+", wrong[2])
        what = "shell" if "argument SHELL" in message else "command"
        if Path(word).is_file():
            remedy = f"Write: otelauto -config {word}"
        elif meant := nearest(word, known):
            remedy = f'Did you mean "{meant}"?'
        else:
            remedy = f"{what.capitalize()}s are {', '.join(known)}."
        raise ConfigError(f'unknown {what} "{word}".', remedy)


def _setting_flags() -> dict[str, Declaration]:
    """Flags that set settings, with the first declaration of each (it has the help text)."""
    found: dict[str, Declaration] = {}
    for declaration in declarations(Config):
        for flag in declaration.setting.flags:
            found.setdefault(flag, declaration)
    return found


def _add_common(parser: argparse.ArgumentParser, *, printer: bool = True) -> None:
    """Flags that work before and after the sub-command. Absent ones leave no trace."""
    quiet: Any = argparse.SUPPRESS
    parser.add_argument(
        "-config", "--config", metavar="FILE", default=quiet, help="YAML file with settings"
    )
    parser.add_argument(
        "--debug", action="store_true", default=quiet, help="log everything, show tracebacks"
    )
    parser.add_argument("--version", action="version", version=f"otelauto {__version__}")
    group = parser.add_argument_group("settings (stronger than environment and file)")
    for flag, declaration in _setting_flags().items():
        text = _FLAG_HELP.get(flag, declaration.setting.help).replace("`", "").replace("%", "%%")
        if flag == "--print" and not printer:
            continue
        if flag in _SWITCHES:
            group.add_argument(
                flag,
                dest=flag,
                action="store_const",
                const=_SWITCHES[flag],
                default=quiet,
                help=text,
            )
        else:
            group.add_argument(
                flag, dest=flag, metavar=flag.rpartition("-")[2].upper(), default=quiet, help=text
            )
    if printer:
        group.add_argument(
            "--print-json", dest="--print", action="store_const", const="json", default=quiet,
            help="Print each span as a line of JSON.",
        )  # fmt: skip


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="otelauto",
        description="RED metrics and traces of running Linux services, by eBPF, without touching "
        "them.",
        epilog="Exit codes: 0 stopped as asked, 2 configuration, 3 kernel or permissions, 1 other.",
        allow_abbrev=False,
    )
    _add_common(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(name: str, text: str, *, printer: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        _add_common(made, printer=printer)
        return made

    command("run", "watch and publish (the default)")
    command("doctor", "say what works on this machine, what does not, and why")
    command("status", "ask the running otelauto what it sees, sends and loses")
    config = command("config", "check or show the configuration", printer=False)
    what = config.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="say everything that is wrong")
    what.add_argument(
        "--print", dest="show", action="store_true", help="show all settings and their origins"
    )
    record = command("record", "write what the kernel delivers to a file")
    record.add_argument("-o", "--output", metavar="FILE", required=True, help="file to create")
    record.add_argument("--raw", action="store_true", help="keep header values, queries and bodies")
    record.add_argument("--seconds", type=_seconds, help="stop after so long")
    replay = command("replay", "publish what a recording holds")
    replay.add_argument("file", metavar="FILE", help="a file that record wrote")
    _add_agent(commands)
    text = "print a script with completions of the command line for a shell"
    completion = commands.add_parser("completion", help=text, description=text, allow_abbrev=False)
    completion.add_argument("shell", metavar="SHELL", choices=tuple(SHELLS), help="which shell")
    return parser


def _add_agent(commands: Any) -> None:
    """The commands of the agent, whose configuration is not that of the rest."""
    text = "run, check or format an agent's pipeline (River, Alloy)"
    agent = commands.add_parser("agent", help=text, description=text, allow_abbrev=False)
    actions = agent.add_subparsers(dest="action", metavar="COMMAND", required=True)
    many = "the file, or a directory of .river and .alloy files; - is standard input"
    for name, what, operand in (
        ("run", "receive, process and send as a configuration says", many),
        ("fmt", "print a configuration in its standard form", "the file; - is standard input"),
        ("check", "say everything that is wrong with a configuration", many),
    ):
        action = actions.add_parser(name, help=what, description=what, allow_abbrev=False)
        quiet: Any = argparse.SUPPRESS
        debug = "show tracebacks"
        action.add_argument("--debug", action="store_true", default=quiet, help=debug)
        action.add_argument("file", metavar="FILE", help=operand)
        if name == "fmt":
            action.add_argument("--write", action="store_true", help="write it back to the file")
        elif name == "run":
            address, storage = _RUN_FLAGS
            action.add_argument(
                address, dest="listen", metavar="HOST:PORT", default="127.0.0.1:12345",
                help="where its page is; empty: nowhere (default: 127.0.0.1:12345)",
            )  # fmt: skip
            action.add_argument(
                storage, dest="storage", metavar="DIRECTORY", default="data-agent",
                help="what components keep over restarts (default: data-agent)",
            )  # fmt: skip


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse ``arguments``; raises :class:`ConfigError` with the nearest known flag."""
    flags = [word.partition("=")[0] for word in arguments if re.match(r"-[^\d-]|--.", word)]
    known = [*_COMMON_FLAGS, *_COMMAND_FLAGS, *_setting_flags()]
    for flag in flags:
        if flag not in known and not flag.startswith("-o"):
            meant = nearest(flag, known)
            remedy = f'Did you mean "{meant}"?' if meant else _HELP_REMEDY
            raise ConfigError(f'unknown flag "{flag}".', remedy)
    parsed, rest = build_parser().parse_known_args(arguments)
    if rest:
        word = rest[0].partition("=")[0]
        remedy = f'"otelauto {parsed.command or ""}'.rstrip() + ' --help" says what it takes.'
        raise ConfigError(f'unexpected argument "{word}".', remedy)
    useless = [flag for flag in flags if flag not in _AGENT_FLAGS]
    if parsed.command == "agent" and useless:
        remedy = "What the agent does stands in its own file."
        raise ConfigError(f'"{useless[0]}" does not apply to the agent.', remedy)
    # "config --print" is another flag: show the configuration.
    if {"--print", "--print-json"} <= set(flags) and parsed.command != "config":
        raise ConfigError('"--print" and "--print-json" exclude each other.', "Give one of them.")
    return parsed


def _load(parsed: argparse.Namespace, purpose: Purpose) -> Loaded:
    """Load the configuration, begin to log, and log its warnings."""
    values = vars(parsed)
    flags = {name: value for name, value in values.items() if name.startswith("--")}
    path = Path(values["config"]) if "config" in values else None
    loaded = load(path, os.environ, flags, purpose)
    logs.hide(secrets(loaded.config))
    logs.setup("DEBUG" if "debug" in values else loaded.config.log_level)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    return loaded


def _app() -> Any:
    return importlib.import_module("otelauto.app")


def _is_disabled(loaded: Loaded) -> bool:
    """Whether nothing is to be done; says so."""
    if loaded.config.disabled:
        where = loaded.origins["disabled"].where
        log.warning('nothing is watched or published: "disabled" is true (%s)', where)
    return loaded.config.disabled


def _run(parsed: argparse.Namespace) -> int:
    loaded = _load(parsed, Purpose.RUN)
    return 0 if _is_disabled(loaded) else int(_app().run(loaded.config))


def _doctor(parsed: argparse.Namespace) -> int:
    config = _load(parsed, Purpose.SHOW).config
    return int(_app().doctor(config))


def _status(parsed: argparse.Namespace) -> int:
    config = _load(parsed, Purpose.SHOW).config
    return int(_app().status(config))


def _config(parsed: argparse.Namespace) -> int:
    if parsed.check:
        _load(parsed, Purpose.RUN)
        sys.stdout.write("The configuration is valid.\n")
    else:
        sys.stdout.write(as_yaml(_load(parsed, Purpose.SHOW)))
    sys.stdout.flush()
    return 0


def _record(parsed: argparse.Namespace) -> int:
    config = _load(parsed, Purpose.WATCH).config
    if parsed.raw:
        log.warning(
            "the recording will hold header values, queries and bodies as they are: passwords, "
            "cookies and personal data of strangers"
        )
    return int(_app().record(config, Path(parsed.output), parsed.raw, parsed.seconds))


def _replay(parsed: argparse.Namespace) -> int:
    loaded = _load(parsed, Purpose.PUBLISH)
    return 0 if _is_disabled(loaded) else int(_app().replay(loaded.config, Path(parsed.file)))


def _completion(parsed: argparse.Namespace) -> int:
    sys.stdout.write(SHELLS[parsed.shell](command_tree(build_parser())))
    sys.stdout.flush()
    return 0


def _agent(parsed: argparse.Namespace) -> int:
    if parsed.action == "run":
        run = importlib.import_module("otelauto.agent.run").run
        return int(
            run(parsed.file, parsed.listen, Path(parsed.storage), debug="debug" in vars(parsed))
        )
    commands = importlib.import_module("otelauto.agent.commands")
    if parsed.action == "fmt":
        return int(commands.format_file(parsed.file, write=parsed.write))
    return int(commands.check_path(parsed.file))


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "doctor": _doctor,
    "status": _status,
    "config": _config,
    "record": _record,
    "replay": _replay,
    "agent": _agent,
    "completion": _completion,
}


def _complain(error: OtelautoError) -> None:
    """Print each problem as one sentence, with its remedy on the line below."""
    parts = error.problems if isinstance(error, InvalidConfig) else [error]
    for part in parts:
        sentence = str(part) if not isinstance(part, OtelautoError) else part.message
        sys.stderr.write(f"otelauto: {printable(logs.masked(sentence))}\n")
        if part.remedy:  # it may have an example on lines of its own
            lines = logs.masked(part.remedy).split("\n")
            sys.stderr.write("  -> " + "\n".join(map(printable, lines)) + "\n")


def _surprise(error: Exception) -> OtelautoError:
    sentence = f"internal error, {type(error).__name__}: {error}"
    return OtelautoError(sentence, "Run it again with --debug and report what it says.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    problem: OtelautoError
    try:
        parsed = parse(arguments)
        return _COMMANDS[parsed.command or "run"](parsed)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever read standard output is gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OtelautoError as error:
        problem = error
    except Exception as error:
        problem = _surprise(error)
        problem.__cause__ = error
    if "--debug" in arguments:
        sys.stderr.write(logs.masked("".join(traceback.format_exception(problem))))
    _complain(problem)
    return problem.exit_code


if __name__ == "__main__":
    sys.exit(main())
