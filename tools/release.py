# SPDX-License-Identifier: Apache-2.0
"""Make what is published of a version: python -m tools.release [--rehearse] DIRECTORY

In DIRECTORY are then, for x86-64 and arm64, a wheel and its bill of materials (tools/sbom.py), and
SHA256SUMS. Each wheel is built a second time, from a clone in another place, and must be the same
byte for byte. Exits with 1, and says why, if the version is not ready: uncommitted files, no dated
section in CHANGELOG.md, or another commit than its tag. --rehearse asks for the first only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.sbom import text_of

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("x86_64", "aarch64")


class ReleaseError(Exception):
    """Nothing is to be published."""


def git(*words: str) -> str:
    """What git says."""
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.rstrip()


def version() -> str:
    """The version that the package has."""
    return str(runpy.run_path(str(ROOT / "src" / "otelauto" / "__init__.py"))["__version__"])


def uncommitted(status: str) -> list[str]:
    """A sentence if ``git status --porcelain`` says something: the clone would not have it."""
    names = ", ".join(line[3:] for line in status.splitlines())
    return [f"not committed: {names}"] if names else []


def unready(of_version: str, changelog: str, tag_commit: str, head: str) -> list[str]:
    """Why the version may not be released, a sentence each.

    ``tag_commit`` is empty where there is no tag.
    """
    found = []
    heading = rf"^## \[{re.escape(of_version)}\] - \d{{4}}-\d\d-\d\d$"
    if not re.search(heading, changelog, re.MULTILINE):
        found.append(f'CHANGELOG.md has no heading "## [{of_version}] - YEAR-MONTH-DAY"')
    below = r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)"
    unreleased = re.search(below, changelog, re.MULTILINE | re.DOTALL)
    if unreleased is None or unreleased[1].strip():
        found.append('CHANGELOG.md must have "## [Unreleased]" with nothing below it')
    if tag_commit and tag_commit != head:
        found.append(f"v{of_version} is the tag of another commit")
    return found


def hindrances(*, rehearsal: bool) -> list[str]:
    """Why the checkout may not be released as it is."""
    found = uncommitted(git("status", "--porcelain"))
    if not rehearsal:
        tag = f"refs/tags/v{version()}"
        commit = git("for-each-ref", "--format=%(*objectname)%(objectname)", tag)[:40]
        changelog = (ROOT / "CHANGELOG.md").read_text()
        found += unready(version(), changelog, commit, git("rev-parse", "HEAD"))
    return found


def build(checkout: Path, machine: str, output: Path) -> Path:
    """A wheel of the checkout."""
    command = [checkout / "tools" / "wheel.sh", machine, output]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Path(said.splitlines()[-1])


def clone(directory: Path) -> Path:
    """The last commit in another place, with this environment and the fetched sources."""
    other = directory / "a clone"
    subprocess.run(["git", "clone", "--quiet", "--no-local", ROOT, other], check=True)
    (other / ".venv").symlink_to(ROOT / ".venv")
    (other / ".build" / "wheel").mkdir(parents=True)
    (other / ".build" / "wheel" / "sources").symlink_to(ROOT / ".build" / "wheel" / "sources")
    return other


def make(output: Path) -> None:
    """Everything that is published.

    Raises ReleaseError if a wheel is not reproducible, or if the directory has files of another
    version.
    """
    output.mkdir(parents=True, exist_ok=True)
    ours = f"otelauto-{version()}-"
    others = [p.name for p in output.iterdir() if not p.name.startswith((ours, "SHA256SUMS"))]
    if others:
        raise ReleaseError(f"{output} has other files: {', '.join(others)}")
    with tempfile.TemporaryDirectory() as directory:
        os.environ.pop("SOURCE_DATE_EPOCH", None)  # the sources have a time of their own
        wheels = [build(ROOT, machine, output) for machine in MACHINES]
        other = clone(Path(directory))
        for machine, wheel in zip(MACHINES, wheels, strict=True):
            again = build(other, machine, Path(directory) / "again")
            if again.name != wheel.name or again.read_bytes() != wheel.read_bytes():
                raise ReleaseError(f"{wheel.name}: a second build has other bytes")
    files = list(wheels)
    for wheel in wheels:
        files.append(wheel.with_suffix(".cdx.json"))
        files[-1].write_text(text_of(wheel))
    sums = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (output / "SHA256SUMS").write_text("".join(sums))


def main() -> int:
    parser = argparse.ArgumentParser(description="Make what is published of a version.")
    parser.add_argument(
        "--rehearse", action="store_true", help="whether or not the version is ready"
    )
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    given = parser.parse_args()
    if reasons := hindrances(rehearsal=given.rehearse):
        sys.stderr.write("".join(f"{reason}\n" for reason in reasons))
        return 1
    try:
        make(given.directory.resolve())
    except ReleaseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for path in sorted(given.directory.iterdir()):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
