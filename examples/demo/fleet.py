# SPDX-License-Identifier: Apache-2.0
"""The sample services: which there are, how they are built and started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from processes import Child, DemoError, free_ports, listens, wait_until

HERE = Path(__file__).resolve().parent
SERVICES = HERE / "services"
BUILT = HERE.parent.parent / ".build" / "demo"
START_S = 30.0  # Java compiles its source first
# Nothing of the user's own configuration of otelauto or OpenTelemetry may rename a service.
KEPT_VARIABLES = ("HOME", "LANG", "PATH", "TMPDIR")
# The others are called after their program; this one's is in a file called Pricing.java.
SAYS_ITS_NAME = ("pricing",)

Words = list[str | Path]


@dataclass(frozen=True)
class Sample:
    """``runtime`` is the program it needs (``""``: this Python). ``command`` may build it first."""

    name: str
    language: str
    runtime: str
    command: Callable[[], Words]


def base_environment() -> dict[str, str]:
    """The environment that every child gets."""
    return {key: os.environ[key] for key in KEPT_VARIABLES if key in os.environ}


def _python(script: str) -> Callable[[], Words]:
    return lambda: [sys.executable, SERVICES / script]


def _go() -> Words:
    BUILT.mkdir(parents=True, exist_ok=True)
    program = BUILT / "stock"
    made = subprocess.run(
        ["go", "build", "-o", program, "."],
        cwd=SERVICES / "stock",
        env={**base_environment(), "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise DemoError(made.stderr.strip())
    return [program]


def _java() -> Words:
    return ["java", "-Xmx128m", "-Dsun.net.httpserver.nodelay=true", SERVICES / "Pricing.java"]


SAMPLES = (
    Sample("shop", "Python", "", _python("shop.py")),
    Sample("catalog", "Python", "", _python("catalog.py")),
    Sample("cart", "Python", "", _python("cart.py")),
    Sample("stock", "Go", "go", _go),
    Sample("reviews", "Node.js", "node", lambda: ["node", SERVICES / "reviews.js"]),
    Sample("pricing", "Java", "java", _java),
)


class Fleet:
    """The services that this machine can run. ``left_out`` says which it cannot, and why."""

    def __init__(self, directory: Path, samples: Sequence[Sample] = SAMPLES) -> None:
        self._directory = directory
        self._children: dict[str, Child] = {}
        self.left_out: list[str] = []
        self._commands: dict[str, Words] = {}
        for sample in samples:
            self._prepare(sample)
        self.ports = dict(zip(self._commands, free_ports(len(self._commands)), strict=True))

    def _prepare(self, sample: Sample) -> None:
        why = f"there is no {sample.runtime}"
        if not sample.runtime or shutil.which(sample.runtime):
            try:
                self._commands[sample.name] = sample.command()
            except (DemoError, OSError) as error:
                why = str(error)
            else:
                return
        self.left_out.append(f"{sample.name} ({sample.language}): {why}")

    @property
    def names(self) -> list[str]:
        """The services that run."""
        return list(self._commands)

    def log(self, name: str) -> Path:
        """Where a service writes what it did."""
        return self._directory / f"{name}.log"

    def start(self, stopping: threading.Event) -> None:
        """Start them all; returns when each listens."""
        ports = {f"DEMO_{name.upper()}": str(port) for name, port in self.ports.items()}
        for name, command in self._commands.items():
            self.log(name).touch()
            env = {**base_environment(), **ports, "DEMO_LOG": str(self.log(name))}
            if name in SAYS_ITS_NAME:
                env["OTEL_SERVICE_NAME"] = name
            self._children[name] = Child(command, self._directory / f"{name}.err", env)
        for name in self.names:
            wait_until(partial(self._up, name), f"{name} listens", START_S, stopping)

    def _up(self, name: str) -> bool:
        self.check(name)
        return listens(self.ports[name])

    def check(self, *names: str) -> None:
        """Raises DemoError if one of these services (of all, if none is named) has ended."""
        for name in names or self.names:
            child = self._children[name]
            if child.ended:
                said = child.stderr().strip() or "it said nothing"
                raise DemoError(f"{name} ended with {child.popen.returncode}: {said}")

    def stop(self) -> None:
        """End them all."""
        for child in self._children.values():
            if not child.ended:
                child.popen.terminate()  # all at once, then wait for each
        for child in self._children.values():
            child.stop()
