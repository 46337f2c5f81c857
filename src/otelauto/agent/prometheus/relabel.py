# SPDX-License-Identifier: Apache-2.0
"""Rules that change labels or drop series (Prometheus, "relabel_config").

Regular expressions are those of Go (RE2), anchored at both ends; ``.`` matches a newline too. What
RE2 does not have (references back, looking around) is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from otelauto.agent.pipeline import Labels
from otelauto.agent.prometheus.names import sorted_labels
from otelauto.agent.schema import Decoded
from otelauto.errors import ConfigError

LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
TARGET: Final = re.compile(r"(?:(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*)+", re.ASCII)
_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))", re.ASCII)
_NEED_TARGET = ("replace", "hashmod", "lowercase", "uppercase", "keepequal", "dropequal")
_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7f", "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f", "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~",
    "punct": r"!-/:-@\[-`{-~", "space": r"\t\n\v\f\r ", "upper": "A-Z", "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}  # fmt: skip
# What Python's expressions have and Go's do not, and the escapes that mean something else.
_FOREIGN = re.compile(r"\(\?(?:[=!>#(]|<[=!]|P[=>])|[*+?}]\+")
_ESCAPES = {"z": r"\Z", "C": None, "Z": None, "p": None, "P": None, "Q": None, "E": None}
_FLAGS = re.compile(r"\(\?([a-zA-Z-]*)[:)]")
_FLAGS_MAX = frozenset("ims-")
_REPEAT = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}", re.ASCII)

LONGEST_REGEX: Final = 10_000
REPEAT_MAX: Final = 1000  # RE2's, too


def anchored(regex: str) -> re.Pattern[str]:
    """The expression, to match whole values only. Raises :class:`ConfigError`."""
    try:
        if len(regex) > LONGEST_REGEX:
            raise re.error("it is too long")
        return re.compile(f"(?s:{_translated(regex)})", re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"the regular expression {regex[:80]!r} cannot be used: {error}",
            "write it in the syntax of RE2 (github.com/google/re2/wiki/Syntax)",
        ) from error


def _translated(regex: str) -> str:
    """A Go expression as Python writes it. Raises ``re.error`` for what is no Go expression."""
    out: list[str] = []
    flagged = [0]  # of each group that is open: groups of our own that end with it
    at = 0
    while at < len(regex):
        char = regex[at]
        if char == "\\":
            escaped = regex[at + 1 : at + 2]
            if escaped.isdigit() and escaped != "0":
                raise re.error("RE2 has no references to groups", regex, at)
            meant = _ESCAPES.get(escaped, char + escaped)
            if meant is None:
                raise re.error(f"\\{escaped} is not supported", regex, at)
            out.append(meant)
            at += 2
        elif char == "[":
            at = _class(regex, at, out)
        else:
            foreign = _FOREIGN.match(regex, at)
            if foreign is not None:
                raise re.error(f"RE2 has no {foreign[0]}", regex, at)
            at = _plain(regex, at, out, flagged)
    return "".join(out) + ")" * flagged[0]


def _plain(regex: str, at: int, out: list[str], flagged: list[int]) -> int:
    """Append what is no escape and no class; returns where it ends."""
    char = regex[at]
    flags = _FLAGS.match(regex, at)
    if flags is not None:
        if not set(flags[1]) <= _FLAGS_MAX:
            raise re.error(f"the flags {flags[1]} are not supported", regex, at)
        if flags[0][-1] == ")":  # until the end of the group that they are in
            if at and not (out[-1].startswith("(") and len(flagged) > 1):
                raise re.error("flags are supported at the beginning of a group", regex, at)
            out.append(flags[0][:-1] + ":")
            flagged[-1] += 1
            return flags.end()
    if char == "(":
        flagged.append(0)
        if regex.startswith("(?<", at):
            out.append("(?P<")
            return at + 3
    elif char == ")":
        if len(flagged) == 1:
            raise re.error("unexpected )", regex, at)
        char = ")" * (1 + flagged.pop())
    elif (found := _REPEAT.match(regex, at)) and any(
        int(count or 0) > REPEAT_MAX for count in found.groups()
    ):
        raise re.error(f"{found[0]} repeats more often than {REPEAT_MAX} times", regex, at)
    elif regex.startswith("{,", at):  # no repetition in Go
        char = r"\{"
    out.append(char)
    return at + 1


def _class(regex: str, at: int, out: list[str]) -> int:
    """Append the class of characters that begins at ``at``; returns where it ends."""
    end = at + 1
    text = "["
    if regex.startswith("^", end):
        text += "^"
        end += 1
    if regex.startswith("]", end):
        text += r"\]"
        end += 1
    ranged = True  # whether a "-" here cannot be the middle of a range
    while end < len(regex) and regex[end] != "]":
        named = re.compile(r"\[:(\^?)(\w+):\]").match(regex, end)
        if named is not None:
            if named[1] or named[2] not in _CLASSES:
                raise re.error(f"{named[0]} is not supported", regex, end)
            text += _CLASSES[named[2]]
            end, ranged = named.end(), True
        elif regex[end] == "\\":
            if regex[end + 1 : end + 2] in _ESCAPES:
                raise re.error(f"{regex[end : end + 2]} is not supported", regex, end)
            text += regex[end : end + 2]
            end, ranged = end + 2, False
        else:
            # These may get another meaning in Python's classes one day; not in Go's.
            escaped = regex[end] in "[&~|" or (regex[end] == "-" and ranged)
            text += f"\\{regex[end]}" if escaped else regex[end]
            ranged = regex[end] == "-" and not escaped
            end += 1
    if end >= len(regex):
        raise re.error("missing closing ]", regex, at)
    out.append(text + "]")
    return end + 1


def expanded(match: re.Match[str], template: str) -> str:
    """``template`` with ``$1``, ``${1}``, ``$name``; what there is no group of is empty, and the
    longest name counts (Go, ``Regexp.Expand``).
    """

    def group(reference: re.Match[str]) -> str:
        dollar, braced, bare = reference.groups()
        if dollar:
            return "$"
        name = braced or bare
        try:
            return match[int(name)] or "" if name.isdigit() else match[name] or ""
        except (IndexError, ValueError):
            return ""

    return _REFERENCE.sub(group, template)


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``write_relabel_config`` block."""

    action: str
    source_labels: tuple[str, ...]
    separator: str
    regex: re.Pattern[str]
    modulus: int
    target_label: str
    replacement: str


def relabelled(labels: Labels, rules: Sequence[Rule]) -> Labels | None:
    """The labels after all ``rules``, in their order; ``None``: the series is dropped."""
    found = dict(labels)
    for rule in rules:
        value = rule.separator.join(found.get(name, "") for name in rule.source_labels)
        if not _ACTIONS[rule.action](rule, found, value):
            return None
    return sorted_labels(found) or None


Action = Callable[[Rule, dict[str, str], str], bool]


def _replace(rule: Rule, labels: dict[str, str], value: str) -> bool:
    match = rule.regex.fullmatch(value)
    if match is not None:
        target = expanded(match, rule.target_label)
        if LABEL_NAME.fullmatch(target):
            labels[target] = expanded(match, rule.replacement)
    return True


def _hashmod(rule: Rule, labels: dict[str, str], value: str) -> bool:
    digest = hashlib.md5(value.encode("utf-8", "replace"), usedforsecurity=False).digest()
    labels[rule.target_label] = str(int.from_bytes(digest[8:]) % rule.modulus)
    return True


def _labelmap(rule: Rule, labels: dict[str, str], _: str) -> bool:
    for name, text in list(labels.items()):
        match = rule.regex.fullmatch(name)
        if match is not None:
            target = expanded(match, rule.replacement)
            if LABEL_NAME.fullmatch(target):
                labels[target] = text
    return True


def _select(rule: Rule, labels: dict[str, str], *, keep: bool) -> bool:
    for name in list(labels):
        if (rule.regex.fullmatch(name) is not None) != keep:
            del labels[name]
    return True


def _set(rule: Rule, labels: dict[str, str], text: str) -> bool:
    labels[rule.target_label] = text
    return True


_ACTIONS: dict[str, Action] = {
    "replace": _replace,
    "keep": lambda rule, _, value: rule.regex.fullmatch(value) is not None,
    "drop": lambda rule, _, value: rule.regex.fullmatch(value) is None,
    "keepequal": lambda rule, labels, value: labels.get(rule.target_label, "") == value,
    "dropequal": lambda rule, labels, value: labels.get(rule.target_label, "") != value,
    "hashmod": _hashmod,
    "labelmap": _labelmap,
    "labeldrop": lambda rule, labels, _: _select(rule, labels, keep=False),
    "labelkeep": lambda rule, labels, _: _select(rule, labels, keep=True),
    "lowercase": lambda rule, labels, value: _set(rule, labels, value.lower()),
    "uppercase": lambda rule, labels, value: _set(rule, labels, value.upper()),
}


def rule_of(block: Decoded) -> Rule:
    """The rule of a block. Raises :class:`ConfigError` with what it lacks."""
    action = block["action"]
    rule = Rule(
        action,
        tuple(block["source_labels"] or ()),
        block["separator"],
        anchored(block["regex"]),
        block["modulus"] or 0,
        block["target_label"] or "",
        block["replacement"],
    )
    problem = _problem(rule, block)
    if problem:
        raise ConfigError(f"{block.schema.name}: {problem}", "see Prometheus's relabel_config")
    return rule


def _problem(rule: Rule, block: Decoded) -> str:
    action, target = rule.action, rule.target_label
    if action in _NEED_TARGET and not target:
        return f'the action {action} needs a "target_label"'
    if action == "replace" and not TARGET.fullmatch(target):
        return f"{target!r} is no label name"
    if action in _NEED_TARGET[1:] and not LABEL_NAME.fullmatch(target):
        return f"{target!r} is no label name"
    if action == "hashmod" and not (isinstance(rule.modulus, int) and rule.modulus > 0):
        return 'the action hashmod needs a "modulus" above 0'
    if action == "labelmap" and not TARGET.fullmatch(rule.replacement):
        return f"{rule.replacement!r} is no label name"
    unused = {
        "labeldrop": ("source_labels", "target_label", "modulus", "separator", "replacement"),
        "labelkeep": ("source_labels", "target_label", "modulus", "separator", "replacement"),
        "keepequal": ("regex", "modulus", "separator", "replacement"),
        "dropequal": ("regex", "modulus", "separator", "replacement"),
    }.get(action, ())
    given = block.given(unused)
    return f"the action {action} does not use {', '.join(given)}" if given else ""
