# SPDX-License-Identifier: Apache-2.0
"""Probes in the TLS libraries of watched processes: made when one is mapped, gone with the process.

The kernel takes tens of ms to change a process's text and waits for others meanwhile. So a thread
of its own does it, told by the one that knows the targets.

The programs that prove which socket carries a session are run at every socket call, of plaintext,
too: they are attached from the first TLS call on; Go's from the first link on, for a write of Go's
is seen only when it is sent.
"""

from __future__ import annotations

import heapq
import logging
import os
import resource
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from otelauto.counters import Counters, Meaning
from otelauto.discover.elf import ElfError
from otelauto.discover.mappings import Mapped, opening_paths, read_mapped
from otelauto.discover.tls_libraries import GO, TlsLibrary, find_library, is_candidate, unseen
from otelauto.discover.untouched import why_untouched
from otelauto.errors import KernelError
from otelauto.kernel.go_probes import GoProbes
from otelauto.kernel.uprobes import LibraryProbes, Link, Spot

log = logging.getLogger("otelauto")

LINKS_REFUSED: Final = Meaning(
    "tls_links_refused", "TLS libraries of watched processes into which no probe could be put."
)
# A program maps its libraries a moment after it was started. Later, who scans says when to look.
LOOKS_AFTER_S: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
UNKNOWN: Final = "a TLS library"
ENOUGH_DESCRIPTORS: Final = 256  # left for everything else
LINKS_MAX: Final = 2048
CLOSED_AT_ONCE: Final = 16
FILES_MAX: Final = 256  # of which it is remembered what is in them


@dataclass(slots=True)
class Found:
    """A TLS library in a process. ``state`` is attached, or refused or excluded for a ``why``.

    ``stepped`` of ``probes`` are at instructions that the kernel does not emulate.
    """

    library: str
    path: str
    state: str
    why: str = ""
    link: Link | None = None
    probes: int = 0
    stepped: int = 0

    def row(self) -> dict[str, object]:
        """What is reported of it."""
        return {
            "library": self.library, "path": self.path, "state": self.state, "why": self.why,
            "probes": self.probes, "stepped": self.stepped,
        }  # fmt: skip


@dataclass(slots=True)
class Looked:
    """What is known of one process. ``size`` is of its memory, when it was looked at last."""

    language: str
    found: dict[tuple[str, int], Found | None] = field(default_factory=dict)  # None: no library
    size: bytes = b""
    looks: int = 0
    due: float = 0.0  # when it is looked at again


class Plaintext:
    """The links of all targets. ``probes`` is ``None`` where there can be none, for ``why``.

    All methods but the thread's own are for one thread, that of the targets.
    """

    def __init__(
        self,
        probes: LibraryProbes | None,
        why: str,
        counters: Counters,
        root: str = "/proc",
        go: tuple[GoProbes | None, str] = (None, ""),
    ) -> None:
        self._probes = probes
        self._go, self._why_no_go = go
        self._counters = counters
        self._root = root
        self.why = why
        self._processes: dict[int, Looked] = {}
        self._due: list[tuple[float, int]] = []
        self._gone: list[Looked] = []
        self._known: dict[tuple[int, ...], tuple[TlsLibrary, list[Spot]] | None] = {}
        self._paused = self._stopping = self._called = False
        self._unproven_why = ""
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        each = probes.way.descriptors if probes is not None else 1
        self._links_max = min(LINKS_MAX, max(descriptors - ENOUGH_DESCRIPTORS, 2 * each) // each)
        self._linked = {False: 0, True: 0}  # links, by whether they are Go's

    # ---- told by the thread of the targets ----

    def look(self, tgid: int, language: str) -> None:
        """A process is watched, or runs another program: see what it has mapped."""
        if self._probes is None:
            return
        with self._news:
            known = self._processes.setdefault(tgid, Looked(language))
            known.language, known.looks, known.size = language, 0, b""
            self._plan(tgid, known, time.monotonic())
            self._news.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tls", daemon=True)
                self._thread.start()

    def scan(self) -> None:
        """See whether any process has mapped something since."""
        with self._news:
            now = time.monotonic()
            for tgid, known in self._processes.items():
                if known.looks >= len(LOOKS_AFTER_S):
                    self._plan(tgid, known, now)
            # Its event may have been dropped.
            self._called = self._called or (self._probes is not None and self._probes.was_called())
            self._news.notify()

    def called(self) -> None:
        """A library was called: see the sockets, too."""
        with self._news:
            self._called = True
            self._news.notify()

    def forget(self, tgid: int) -> None:
        """A process is not watched any more."""
        with self._news:
            if (known := self._processes.pop(tgid, None)) is not None:
                self._gone.append(known)
                self._news.notify()

    def settle(self, seconds: float) -> None:
        """Wait until every process was looked at once, for so long at most."""
        with self._news:
            self._news.wait_for(
                lambda: all(known.looks for known in self._processes.values()), seconds
            )

    def pause(self, paused: bool) -> None:
        """Leave all processes' text, or go back into it."""
        with self._news:
            if paused is self._paused:
                return
            self._paused = paused
            for tgid, known in self._processes.items():
                self._plan(tgid, known, time.monotonic())
            self._news.notify()

    def close(self) -> None:
        """Take all probes out. May be called again."""
        with self._news:
            self._stopping = True
            self._gone.extend(self._processes.values())
            self._processes.clear()
            self._news.notify()
        if self._thread is not None:
            self._thread.join()
        self._release()

    def report(self, tgid: int) -> Mapping[str, object]:
        """What is seen of one process's TLS: its libraries, and why not."""
        with self._news:
            known = self._processes.get(tgid)
            # The thread may be adding to them: a list is made at once.
            found = [] if known is None else [one for one in list(known.found.values()) if one]
            rows = [one.row() for one in found]
            why = self.why
            if not rows and known is not None:
                why = unseen(known.language)
        return {"libraries": rows, "why": why}

    # ---- the thread ----

    def _run(self) -> None:
        while not self._stopping:
            self._release()
            self._see_sockets()
            with self._news:
                tgid = self._next()
            if tgid is not None:
                try:
                    self._look(tgid)
                except Exception:  # one process's, not everybody's
                    log.exception("the TLS of pid=%d is not read: please report this", tgid)
            with self._news:
                self._news.notify_all()
        self._release()

    def _next(self) -> int | None:
        """The process to look at now; waits for one, or for news. With the lock held."""
        if self._stopping or self._gone or self._called:
            return None
        now = time.monotonic()
        if not self._due or self._due[0][0] > now:
            self._news.wait(self._due[0][0] - now if self._due else None)
            return None
        due, tgid = heapq.heappop(self._due)
        known = self._processes.get(tgid)
        return tgid if known is not None and known.due == due else None

    def _plan(self, tgid: int, known: Looked, due: float) -> None:
        """Look at a process then, and not when it was planned before. With the lock held."""
        known.due = due
        heapq.heappush(self._due, (due, tgid))

    def _release(self) -> None:
        """Close the links of processes that are not watched any more.

        Several at once: for each the kernel waits, and it waits for all in the same time.
        """
        links = []
        while self._gone:
            for found in self._gone.pop().found.values():
                if found is not None and found.link is not None:
                    links.append(found.link)
                    self._linked[found.library == GO.name] -= 1
        if len(links) > 1:
            with ThreadPoolExecutor(CLOSED_AT_ONCE) as closers:
                list(closers.map(lambda link: link.close(), links))
        elif links:
            links[0].close()
        for is_go, probes in ((False, self._probes), (True, self._go)):
            if probes is not None and not self._linked[is_go]:
                probes.leave_sockets()

    def _see_sockets(self) -> None:
        """After a first TLS call: have proven which sockets carry sessions."""
        with self._news:
            called, self._called = self._called, False
        if not called or self._probes is None or not self._linked[False]:
            return
        why = attach_to_sockets(self._probes)
        if why and why != self._unproven_why:
            log.warning("the spans of TLS sessions have no peer: %s", why)
        self._unproven_why = why

    def _look(self, tgid: int) -> None:
        """Bring one process's links up to date, and say when to look again."""
        known = self._processes.get(tgid)
        if known is None:
            return
        if self._paused:
            self._gone.append(Looked("", known.found))
            known.found, known.size = {}, b""
        elif self._has_changed(tgid, known):
            mapped = read_mapped(self._root, tgid)
            if mapped is not None:
                self._compare(tgid, known, mapped)
        with self._news:
            known.looks += 1
            if known.looks < len(LOOKS_AFTER_S) and self._processes.get(tgid) is known:
                pause = LOOKS_AFTER_S[known.looks] - LOOKS_AFTER_S[known.looks - 1]
                self._plan(tgid, known, time.monotonic() + pause)

    def _has_changed(self, tgid: int, known: Looked) -> bool:
        """Whether something was mapped or unmapped; the list of mappings costs far more to read."""
        try:
            with open(f"{self._root}/{tgid}/statm", "rb") as file:  # noqa: PTH123
                size = file.read().split()[0]
        except (OSError, IndexError):
            return False
        changed, known.size = size != known.size, size
        return changed

    def _compare(self, tgid: int, known: Looked, mapped: list[Mapped]) -> None:
        files = {(one.device, one.inode): one for one in mapped}
        for key in known.found.keys() - files.keys():
            gone = known.found.pop(key)
            if gone is not None:
                self._gone.append(Looked("", {key: gone}))
        program = file_of(f"{self._root}/{tgid}/exe")
        for key in files.keys() - known.found.keys():
            if self._stopping or self._processes.get(tgid) is not known:
                return
            is_program = bool(program) and program[1] == files[key].inode
            known.found[key] = self._put(tgid, files[key], is_program=is_program)

    def _put(self, tgid: int, mapped: Mapped, *, is_program: bool) -> Found | None:
        """Put probes into a file's functions, if it has any that are known."""
        if not is_candidate(mapped, is_program):
            return None
        found = Found(UNKNOWN, mapped.path, "refused", "its file cannot be opened")
        for path in opening_paths(self._root, tgid, mapped):
            try:
                contents = self._contents(path)
            except ElfError as error:
                found.library, found.why = GO.name, f"the program {error}"
                break
            if contents is None:
                return None
            found.library = contents[0].name
            if why := why_untouched(link_of(f"{self._root}/{tgid}/exe")):
                found.state, found.why = "excluded", why
                return found
            try:
                found.link = self._link(tgid, path, *contents)
            except KernelError as error:
                found.why = error.message
                if isinstance(error.__cause__, FileNotFoundError):
                    continue  # replaced meanwhile: the next path still leads there
            else:
                found.state, found.why = "attached", ""
                found.probes = len(contents[1])
                found.stepped = sum(spot.stepped for spot in contents[1])
                log.info(
                    "reading plaintext library=%s pid=%d file=%s", found.library, tgid, mapped.path
                )
                return found
            break
        gone = not file_of(f"{self._root}/{tgid}/statm")
        if gone or (is_program and found.library == UNKNOWN):  # it could not be looked into
            return None
        self._counters.add(LINKS_REFUSED)
        log.warning("no plaintext of %s in %s: %s", found.library, found.path, found.why)
        return found

    def _contents(self, path: str) -> tuple[TlsLibrary, list[Spot]] | None:
        """What is in a file, looked up once: workers have the same."""
        key = file_of(path)
        if not key:
            return None
        if key not in self._known:
            if len(self._known) >= FILES_MAX:
                self._known.clear()
            self._known[key] = find_library(path)
        return self._known[key]

    def _link(self, tgid: int, path: str, library: TlsLibrary, spots: list[Spot]) -> Link:
        probes, why = (self._go, self._why_no_go) if library is GO else (self._probes, self.why)
        if probes is None:
            raise KernelError(why)
        if sum(self._linked.values()) >= self._links_max:
            raise KernelError(f"{self._links_max} libraries have probes: that is the limit")
        if library is GO and (why := attach_to_sockets(probes)):
            raise KernelError(why)
        link = probes.link(tgid, path, spots)
        self._linked[library is GO] += 1
        return link


def attach_to_sockets(probes: LibraryProbes) -> str:
    """Attach what looks at sockets, unless it is attached; why not if that is refused."""
    now = probes.watch_sockets()
    for probe in now:
        if probe.state != "attached":
            return f"{probe.name} on {probe.hook} is {probe.state}: {probe.why}"
    if now:
        log.info("seeing which connections carry TLS sessions object=%s", probes.OBJECT)
    return ""


def link_of(path: str) -> str:
    """What a symbolic link holds; empty if it cannot be read."""
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


def file_of(path: str) -> tuple[int, ...]:
    """What tells a file, with these contents, from all others; empty if it is gone."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
