# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PTH115, PTH123, PTH208  (plain strings: a scan reads thousands of paths)
"""Reading /proc (proc(5)), where processes vanish between two looks and some may not be read.

No method raises for a process that is gone or may not be looked at: it answers with ``None`` or
with nothing, and the failure is counted by reason.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from otelauto.counters import Counters, Meaning

UNREADABLE: Final = Meaning(
    "discovery_unreadable",
    "Files of /proc that could not be used: the process was gone, access denied, or nonsense read",
    "reason",
)

_DELETED = " (deleted)"
_PF_KTHREAD = 0x00200000  # include/linux/sched.h
_TCP_LISTEN = b"0A"
_SO_ACCEPTCON = 0x10000  # the Flags column of /proc/net/unix: the socket listens
_UNIX_STREAM = b"0001"
_FILE_LIMIT = 1 << 20  # bytes read of any one file
_FD_LIMIT = 16_384  # descriptors looked at; listening sockets are opened early
_CHUNK = 1 << 16


class Image(NamedTuple):
    """Where the kernel laid out a program, drawn anew at each exec: equal after a plain fork.

    Zeros when it may not be known.
    """

    start_code: int
    start_stack: int


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/<pid>/stat that discovery needs. ``starttime`` is in clock ticks."""

    ppid: int
    starttime: int
    image: Image
    kernel_thread: bool

    @property
    def identity(self) -> tuple[int, Image]:
        """Tells the process, running this program, from all others that have its id."""
        return self.starttime, self.image


@dataclass(frozen=True, slots=True)
class Executable:
    """Where the running program was started from, as its mount namespace names it."""

    path: str
    deleted: bool


class ProcFs:
    """The process file system at ``root``. Process ids are those of the namespace it belongs to."""

    def __init__(self, root: str = "/proc", counters: Counters | None = None) -> None:
        self.root = root
        self._counters = counters or Counters()

    def tgids(self) -> list[int]:
        """The processes that exist now, ascending."""
        try:
            names = os.listdir(self.root)
        except OSError as problem:
            self._failed(problem)
            return []
        return sorted(int(name) for name in names if name.isdecimal())

    def exists(self, tgid: int) -> bool:
        """Whether there is such a process, dead or alive."""
        return os.access(f"{self.root}/{tgid}", os.F_OK)

    def own_tgid(self) -> int | None:
        """The reader's own process id as this /proc numbers it."""
        link = self._link("self")
        return int(link) if link and link.isdecimal() else None

    def last_started(self) -> bytes | None:
        """The id given out last (proc(5), ``loadavg``): while it stands still nothing was forked.

        ``None`` if not known: that file tells of the reader's PID namespace, whatever this /proc's.
        """
        if self._link("self") != str(os.getpid()):
            return None
        fields = (self._read("loadavg", 4096, optional=True) or b"").split()
        return fields[4] if len(fields) == 5 else None

    def stat(self, tgid: int) -> Stat | None:
        """Parent, start time and program layout; ``None`` for a process that is gone or dead."""
        data = self._read(f"{tgid}/stat", 4096)
        if data is None:
            return None
        # The command is in parentheses and may itself hold any byte, parentheses too.
        fields = data[data.rfind(b")") + 2 :].split()
        try:
            if fields[0] in b"ZX" and int(fields[17]) <= 1:
                return None
            return Stat(
                ppid=int(fields[1]),
                starttime=int(fields[19]),
                image=Image(int(fields[23]), int(fields[25])),
                kernel_thread=bool(int(fields[6]) & _PF_KTHREAD),
            )
        except (IndexError, ValueError):
            self._counters.add(UNREADABLE, label="malformed")
            return None

    def executable(self, tgid: int) -> Executable | None:
        """The program's path; ``None`` for a kernel thread."""
        path = self._link(f"{tgid}/exe")
        if path is None:
            return None
        deleted = path.endswith(_DELETED)
        return Executable(path.removesuffix(_DELETED), deleted)

    def executable_file(self, tgid: int) -> str:
        """A path that opens the program even if deleted or of another mount namespace."""
        return f"{self.root}/{tgid}/exe"

    def cmdline(self, tgid: int) -> tuple[str, ...]:
        """The arguments of the program, or the title it wrote over them."""
        data = self._read(f"{tgid}/cmdline", _CHUNK)
        stripped = (data or b"").rstrip(b"\0")
        return tuple(_text(part) for part in stripped.split(b"\0")) if stripped else ()

    def working_directory(self, tgid: int) -> str:
        """Where the process is; empty if it may not be known."""
        return self._link(f"{tgid}/cwd") or ""

    def otel_environ(self, tgid: int) -> dict[str, str]:
        """The ``OTEL_*`` variables the program was started with; no other is kept."""
        return self.chosen_environ(tgid)

    def chosen_environ(self, tgid: int, names: Sequence[str] = ()) -> dict[str, str]:
        """The ``OTEL_*`` variables, and those of ``names``, the program was started with."""
        data = self._read(f"{tgid}/environ", _FILE_LIMIT) or b""
        wanted = (b"OTEL_", *(name.encode() + b"=" for name in names))
        pairs = (part.partition(b"=") for part in data.split(b"\0") if part.startswith(wanted))
        return {_text(key): _text(value) for key, _, value in pairs}

    def mapped_files(self, tgid: int) -> list[str]:
        """The files that the process has mapped, each once, as far as the first MiB tells."""
        data = self._read(f"{tgid}/maps", _FILE_LIMIT, optional=True) or b""
        paths = (line[line.find(b"/") :] for line in data.splitlines() if b"/" in line)
        return list(dict.fromkeys(_text(path).removesuffix(_DELETED) for path in paths))

    def open_files(self, tgid: int, suffix: str) -> list[str]:
        """The files that the process holds open and whose names end in ``suffix``."""
        found = []
        try:
            with os.scandir(f"{self.root}/{tgid}/fd") as descriptors:
                for descriptor in islice(descriptors, _FD_LIMIT):
                    with suppress(OSError):  # closed meanwhile
                        found.append(os.readlink(descriptor.path))
        except OSError as problem:
            self._failed(problem)
        return [path for path in found if path.endswith(suffix)]

    def netns(self, tgid: int) -> int:
        """The inode of the network namespace; 0 if it may not be read."""
        inode = (self._link(f"{tgid}/ns/net") or "")[5:-1]  # "net:[4026531833]"
        return int(inode) if inode.isdecimal() else 0

    def namespace_pids(self, tgid: int) -> tuple[int, ...]:
        """The process id in each nested PID namespace, outermost first (``NSpid``)."""
        for line in (self._read(f"{tgid}/status", _CHUNK) or b"").splitlines():
            if line.startswith(b"NSpid:"):
                return tuple(int(pid) for pid in line.split()[1:] if pid.isdigit())
        return ()

    def cgroup(self, tgid: int) -> str:
        """The text of /proc/<pid>/cgroup (cgroups(7))."""
        return _text(self._read(f"{tgid}/cgroup", _CHUNK, optional=True) or b"")

    def mountinfo(self, tgid: int) -> str:
        """The text of /proc/<pid>/mountinfo, its first MiB."""
        return _text(self._read(f"{tgid}/mountinfo", _FILE_LIMIT, optional=True) or b"")

    def host_file(self, path: str) -> bytes:
        """The first MiB of a file of the host, as process 1 sees it; empty if there is none."""
        return self._read(f"1/root/{path}", _FILE_LIMIT, optional=True) or b""

    def malformed(self) -> None:
        """Count a file that made no sense."""
        self._counters.add(UNREADABLE, label="malformed")

    def children(self, tgid: int) -> list[int]:
        """Living children of all threads; empty on kernels built without PROC_CHILDREN."""
        try:
            threads = os.listdir(f"{self.root}/{tgid}/task")
        except OSError as problem:
            self._failed(problem)
            return []
        found: list[int] = []
        for thread in threads:
            data = self._read(f"{tgid}/task/{thread}/children", _FILE_LIMIT, optional=True) or b""
            found.extend(int(pid) for pid in data.split() if pid.isdigit())
        return sorted(found)

    def sockets(self, tgid: int, wanted: AbstractSet[int]) -> frozenset[int]:
        """Which of the socket inodes ``wanted`` the process holds open."""
        found = set()
        try:
            with os.scandir(f"{self.root}/{tgid}/fd") as descriptors:
                for number, descriptor in enumerate(descriptors):
                    if number == _FD_LIMIT:
                        self._counters.add(UNREADABLE, label="too many descriptors")
                        break
                    found.add(_socket_inode(descriptor.path))
        except OSError as problem:
            self._failed(problem)
        return frozenset(found & wanted)

    def tcp_listeners(self, tgid: int) -> dict[int, int]:
        """Listening TCP sockets of the process's network namespace: inode -> port."""
        found: dict[int, int] = {}
        for name in ("tcp", "tcp6"):
            for line in self._lines(f"{tgid}/net/{name}"):
                fields = line.split()
                try:
                    if fields[3] != _TCP_LISTEN:
                        break  # the kernel prints listeners first, connections after them
                    found[int(fields[9])] = int(fields[1].rpartition(b":")[2], 16)
                except (IndexError, ValueError):
                    self._counters.add(UNREADABLE, label="malformed")
        return found

    def unix_listeners(self, tgid: int) -> dict[int, str]:
        """Listening unix stream sockets of the process's network namespace: inode -> path."""
        found: dict[int, str] = {}
        for line in self._lines(f"{tgid}/net/unix"):
            fields = line.removesuffix(b"\n").split(None, 7)
            try:
                if fields[4] == _UNIX_STREAM and int(fields[3], 16) & _SO_ACCEPTCON:
                    found[int(fields[6])] = _text(fields[7]) if len(fields) > 7 else ""
            except (IndexError, ValueError):
                self._counters.add(UNREADABLE, label="malformed")
        return found

    def _link(self, name: str) -> str | None:
        try:
            return _text(os.fsencode(os.readlink(f"{self.root}/{name}")))
        except OSError as problem:
            self._failed(problem)
            return None

    def _read(self, name: str, limit: int, *, optional: bool = False) -> bytes | None:
        """Up to ``limit`` bytes of a file. One that is ``optional`` may be absent uncounted."""
        parts = []
        try:
            descriptor = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                while limit > 0 and (part := os.read(descriptor, min(limit, _CHUNK))):
                    parts.append(part)
                    limit -= len(part)
            finally:
                os.close(descriptor)
        except OSError as problem:
            if not (optional and problem.errno == errno.ENOENT):
                self._failed(problem)
            return None
        return b"".join(parts)

    def _lines(self, name: str) -> Iterator[bytes]:
        """The lines after the title of a table that may be long: read only as far as wanted."""
        try:
            with open(f"{self.root}/{name}", "rb", buffering=_CHUNK) as file:
                next(file, None)
                yield from file
        except OSError as problem:
            if problem.errno != errno.ENOENT:  # no tcp6 where IPv6 is off
                self._failed(problem)

    def _failed(self, problem: OSError) -> None:
        gone = problem.errno in (errno.ENOENT, errno.ESRCH)
        denied = problem.errno in (errno.EACCES, errno.EPERM)
        reason = "vanished" if gone else "denied" if denied else "failed"
        self._counters.add(UNREADABLE, label=reason)


def _socket_inode(path: str) -> int:
    """The inode behind a descriptor's link, 0 if it is no socket or closed meanwhile."""
    try:
        link = os.readlink(path)
    except OSError:
        return 0
    if not link.startswith("socket:["):
        return 0
    inode = link[8:-1]
    return int(inode) if inode.isdecimal() else 0


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
