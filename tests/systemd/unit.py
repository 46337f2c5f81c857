# SPDX-License-Identifier: Apache-2.0
"""What a unit file of deploy/systemd says: its words, and what they ask of the kernel.

Sources: systemd.unit(5), systemd.exec(5), systemd.service(5).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.house.scan import ROOT

UNITS = ROOT / "deploy" / "systemd"
INSTRUMENTER, AGENT = UNITS / "otelauto.service", UNITS / "otelauto-agent.service"
UNITS_OF_SIZE = {"K": 2**10, "M": 2**20, "G": 2**30}


class Unit:
    """A unit file, perhaps without some capabilities."""

    def __init__(self, path: Path, without: Iterable[str] = ()) -> None:
        self.path = path
        self.without = frozenset(without)
        self._values: dict[str, list[str]] = {}
        for line in path.read_text().replace("\\\n", " ").splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith(("#", ";")):
                found = self._values.setdefault(name.strip(), [])
                if not value.strip():
                    found.clear()  # an empty value forgets those before it
                found.append(value.strip())

    def values(self, name: str) -> list[str]:
        """All values of a setting, in order."""
        return [value for value in self._values.get(name, []) if value]

    def value(self, name: str) -> str:
        """The last value of a setting; KeyError if it does not stand in the file."""
        return self._values[name][-1]

    def says_yes(self, name: str) -> bool:
        """Whether a setting that is a boolean is on."""
        return self._values.get(name, ["no"])[-1] in ("yes", "true", "on", "1")

    def capabilities(self, name: str) -> list[str]:
        """The capabilities of a set, as setpriv(1) calls them; without those that are left out."""
        words = " ".join(self.values(name)).split()
        assert all(re.fullmatch(r"CAP_[A-Z_]+", word) for word in words), words
        kept = [word for word in words if word not in self.without]
        return [word.removeprefix("CAP_").lower() for word in kept]

    def size(self, name: str) -> int:
        """Bytes."""
        number, suffix = self.value(name)[:-1], self.value(name)[-1]
        return int(number) * UNITS_OF_SIZE[suffix]

    def limits(self) -> dict[str, int]:
        """Resource limits by the name that Python has for them; -1 is none."""
        found = {name: self.value(name) for name in self._values if name.startswith("Limit")}
        return {
            f"RLIMIT_{name.removeprefix('Limit')}": -1 if value == "infinity" else int(value)
            for name, value in found.items()
        }

    def system_calls(self) -> set[str]:
        """The system calls that may be made: groups resolved, in the order of the file."""
        groups = system_call_groups()
        # A list of what may be called always has these.
        allowed = resolved("@default", groups)
        for value in self.values("SystemCallFilter"):
            minus = value.startswith("~")
            for word in value.removeprefix("~").split():
                calls = resolved(word, groups)
                allowed = allowed - calls if minus else allowed | calls
        return allowed


def system_call_groups() -> dict[str, list[str]]:
    """The groups of system calls that systemd knows, and what stands in each."""
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True
    ).stdout
    groups: dict[str, list[str]] = {}
    for line in said.splitlines():
        word = line.strip()
        if word.startswith("#") or not word:
            if line.startswith("#"):
                break  # what is in no group follows
            continue
        if not line.startswith(" "):
            members = groups.setdefault(word, [])
        else:
            members.append(word)
    return groups


def resolved(word: str, groups: dict[str, list[str]]) -> set[str]:
    """The system calls that a word of a filter stands for."""
    if not word.startswith("@"):
        return {word}
    return {call for member in groups[word] for call in resolved(member, groups)}
