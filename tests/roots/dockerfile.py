# SPDX-License-Identifier: Apache-2.0
"""A Dockerfile's own lines, and how they are carried out where no Docker runs.

Of the reference (https://docs.docker.com/reference/dockerfile/) what deploy/container/Dockerfile
uses; anything else is an error.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Within a mount namespace of its own. $0: the root, $1: below, $2: above, $3: scratch.
MERGE = """
mount --make-rprivate / && mkdir -p "$0" "$2" "$3" &&
mount -t overlay overlay "$0" -o "lowerdir=$1,upperdir=$2,workdir=$3" && shift 3 &&
for name in proc sys dev; do mount --rbind "/$name" "$0/$name" || exit; done &&
"""


@dataclass
class Stage:
    """``FROM base AS name`` and what follows."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def words(self, instruction: str) -> list[str]:
        """The last of this instruction, in its JSON form."""
        found = [text for kind, text in self.steps if kind == instruction]
        text = found[-1].partition("CMD ")[2] if instruction == "HEALTHCHECK" else found[-1]
        words: list[str] = json.loads(text)
        return words

    def text(self, instruction: str) -> str:
        """The last of this instruction."""
        return [text for kind, text in self.steps if kind == instruction][-1]

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        words = [word for k, text in self.steps if k == "ENV" for word in shlex.split(text)]
        return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile, in order."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        kind, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if kind == "ARG" and not found:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif kind == "FROM":
            base, _, name = rest.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base)
            found.append(Stage(base, name))
        elif kind in ("COPY", "RUN", "ENV", "USER", "LABEL", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
            found[-1].steps.append((kind, rest))
        else:
            assert not kind, f"not understood: {line}"
    return found


class Builder:
    """Makes each stage's layer above ``base``, a root file system that is never written to."""

    def __init__(self, base: Path, context: Path, directory: Path) -> None:
        self._base, self._context, self._directory = base, context, directory

    def layer(self, number: int) -> Path:
        """What a stage has changed."""
        return self._directory / f"layer{number}"

    def build(self, made: Sequence[Stage], environment: Mapping[str, str]) -> None:
        """Carry out COPY and RUN of all stages; ``environment`` is added to that of RUN."""
        names = [stage.name for stage in made]
        for number, stage in enumerate(made):
            for kind, text in stage.steps:
                if kind == "COPY":
                    self._copy(number, text.split(), names)
                elif kind == "RUN":
                    self._run(number, text, environment)

    def _within(self, number: int, script: str, *words: str) -> None:
        root, scratch = self._directory / "root", self._directory / f"scratch{number}"
        order = [str(each) for each in (root, self._base, self.layer(number), scratch)]
        command = ["unshare", "-m", "sh", "-c", MERGE + script, *order, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"

    def _run(self, number: int, text: str, environment: Mapping[str, str]) -> None:
        """In a shell of the stage; it sees this machine's resolver and certificates."""
        script = (
            'mkdir -p "$0/run/given" && mount -t tmpfs tmpfs "$0/run/given" && '
            'cp /etc/ssl/certs/ca-certificates.crt "$0/run/given/" && '
            'touch "$0/etc/resolv.conf" && mount --bind /etc/resolv.conf "$0/etc/resolv.conf" && '
            'exec chroot "$0" /usr/bin/env -i "$@"'
        )
        pairs = [f"{name}={value}" for name, value in environment.items()]
        self._within(number, script, *pairs, "/bin/sh", "-c", text)

    def _copy(self, number: int, words: list[str], names: list[str]) -> None:
        """COPY SOURCE TARGET, from the context or from an earlier stage."""
        source = self._context
        if words[0].startswith("--from="):
            # All that was made above the base: what is copied is in no base.
            source = self.layer(names.index(words.pop(0).removeprefix("--from=")))
        pattern, target = words
        found = [str(path) for path in sorted(source.glob(pattern.lstrip("/")))]
        assert found, pattern
        into = target if target.endswith("/") else str(Path(target).parent)
        script = 'into=$0$1 && shift && mkdir -p "$into" && exec cp -a "$@" "$into"'
        self._within(number, script, into, *found)
