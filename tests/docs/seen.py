# SPDX-License-Identifier: Apache-2.0
"""Whether a terminal shows what a page says, but for what is never the same twice.

On the page, a line ``...`` stands for any lines, and ``...`` in a line for any text.
"""

from __future__ import annotations

import re

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")
# What varies, and what is put in its place. Anything else must be as the page says.
VARIES = (
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "<clock>"),
    (re.compile(r"\b\d+(\.\d+)?(ns|us|µs|ms|s)\b"), "<duration>"),
    (re.compile(r"\b[0-9a-f]{16}(?:[0-9a-f]{16})?\b"), "<id>"),
    (re.compile(r"\bpid \d+"), "pid <number>"),
    (re.compile(r"[━─]+"), "━"),
    (re.compile(r"[ \t]+"), " "),
)
NUMBER = re.compile(r"\d+(\.\d+)?")


def plain(text: str) -> str:
    """Terminal output as text: no escape sequences, lines as they stand at last."""
    lines = ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rpartition("\r")[2] for line in lines)


def normal(text: str, *, numbers: bool) -> str:
    """``text`` with everything that varies replaced by a name for it."""
    for pattern, name in VARIES:
        text = pattern.sub(name, text)
    if numbers:
        text = NUMBER.sub("<number>", text)
    return "\n".join(line.strip() for line in text.split("\n"))


def shows(terminal: str, page: str, *, numbers: bool = False) -> bool:
    """Whether ``page`` is a run of lines of ``terminal``."""
    wanted = []
    for line in normal(page.strip("\n"), numbers=numbers).split("\n"):
        if line == "...":
            wanted.append(r"(?:.*\n)*?")
        else:
            wanted.append(".*?".join(map(re.escape, line.split("..."))) + r"\n")
    shown = normal(plain(terminal), numbers=numbers) + "\n"
    return re.search("^" + "".join(wanted), shown, re.MULTILINE) is not None
