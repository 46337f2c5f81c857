# SPDX-License-Identifier: Apache-2.0
"""Where pages are followed: the checkout, or a fresh system; each with a network of its own.

All ports of 127.0.0.1 are free there, so what a page says is typed as it stands. Nothing that is
written is seen outside.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.docs.terminal import BASH
from tests.e2e.harness.process import Process, wait_until
from tests.roots.system import layer

ROOT = Path(__file__).resolve().parent.parent.parent
# Of the state of this machine's own otelauto, and of the services that tests run meanwhile.
PRIVATE = (
    "mount --make-rprivate / && mkdir -p /var/lib/otelauto && mount -t tmpfs own /run"
    " && mount -t tmpfs own /var/lib/otelauto"
)
HOLD = "echo $$ > {ready}.new && mv {ready}.new {ready} && exec sleep infinity"


@dataclass(frozen=True)
class Place:
    """``fresh``: nothing is installed. ``start``: where a reader is at first."""

    holder: int
    start: str
    root: str
    fresh: bool
    environment: Mapping[str, str]

    def words(self, *, setup: bool) -> list[str]:
        """The command of a terminal; with ``setup``, one that reaches package registries."""
        enter = ["nsenter", f"--target={self.holder}", "--mount", *([] if setup else ["--net"])]
        go = ["env", f"--chdir={self.start}", *BASH]
        return [*enter, *(["chroot", self.root] if self.root else []), *go]


@contextlib.contextmanager
def _held(words: str, directory: Path) -> Iterator[int]:
    """Namespaces of mounts and network, as ``words`` arrange them; gives a process in them."""
    ready = directory / "ready"
    script = f"ip link set lo up && {words} && {HOLD.format(ready=ready)}"
    with Process(["unshare", "--mount", "--net", "sh", "-c", script], directory / "err") as process:
        process.wait_for(ready.exists, "the namespaces", 120)
        try:
            yield process.pid
        finally:
            _end_those_in(process.pid)


def _end_those_in(holder: int) -> None:
    """End what was left running in the namespaces, but for the holder."""

    def left() -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                same = (entry / "ns/mnt").readlink() == own
                if same and int(entry.name) != holder:
                    found.append(int(entry.name))
        return found

    own = Path(f"/proc/{holder}/ns/mnt").readlink()
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for pid in left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not left(), "what was started has ended", 10)
            return


@contextlib.contextmanager
def checkout(directory: Path) -> Iterator[Place]:
    """This checkout, in which everything is installed. New files go elsewhere."""
    seen = directory / "checkout"
    seen.mkdir()
    for entry in ROOT.iterdir():
        (seen / entry.name).symlink_to(entry)
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    with _held(PRIVATE, directory) as holder:
        yield Place(holder, str(seen), "", False, environment)


@contextlib.contextmanager
def fresh(system: Path, directory: Path) -> Iterator[Place]:
    """``system`` (tests/roots/install.sh) with a clone of this checkout in it, and nothing else."""
    merged = directory / "merged"
    authorities = "usr/local/share/ca-certificates"
    words = " && ".join(
        (
            layer(system, directory),
            f"cp /etc/resolv.conf {merged}/etc/resolv.conf",
            # Whom this machine trusts: package registries may be behind a proxy.
            f"mkdir -p /{authorities} {merged}/{authorities}",
            f"cp -r /{authorities}/. {merged}/{authorities}",
            f"chroot {merged} update-ca-certificates > authorities.log 2>&1",
            f"git clone --quiet {ROOT} {merged}/root/otelauto",
        )
    )
    environment = {
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
        "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
    }
    with _held(words, directory) as holder:
        yield Place(holder, "/root/otelauto", str(merged), True, environment)
