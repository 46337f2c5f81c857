# SPDX-License-Identifier: Apache-2.0
"""A /proc made of files, for cases that real processes seldom or never show."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HOST_NETNS = 4026531833
TITLE = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout\n"
)
UNIX_TITLE = "Num       RefCount Protocol Flags    Type St Inode Path\n"


@dataclass
class Tree:
    """Writes processes under ``root`` as proc(5) describes them."""

    root: Path
    tcp: dict[int, dict[int, int]] = field(default_factory=dict)  # netns -> inode -> port
    unix: dict[int, dict[int, str]] = field(default_factory=dict)
    homes: dict[int, int] = field(default_factory=dict)  # tgid -> netns

    def process(
        self,
        tgid: int,
        executable: str,
        argv: Sequence[str] = (),
        *,
        ppid: int = 1,
        start: int | None = None,
        image: int | None = None,
        netns: int = HOST_NETNS,
        sockets: Iterable[int] = (),
        environ: Mapping[str, str] | None = None,
        flags: int = 0x400000,
        state: str = "S",
        pids: Sequence[int] = (),
    ) -> None:
        """Start a process; one of that id is gone then."""
        self.end(tgid)
        directory = self.root / str(tgid)
        (directory / "ns").mkdir(parents=True)
        (directory / "net").mkdir()
        (directory / "task" / str(tgid)).mkdir(parents=True)
        start = 1000 + tgid if start is None else start
        layout = 0x400000 + tgid if image is None else image
        comm = Path(executable).name[:15]
        fields = [state, ppid, *[0] * 4, flags, *[0] * 10, 1, 0, start, 0, 0, 0]
        fields += [layout, layout + 1, 0x7FFF0000, *[0] * 24]
        (directory / "stat").write_text(f"{tgid} ({comm}) {' '.join(map(str, fields))}\n")
        if executable:
            (directory / "exe").symlink_to(executable)
        (directory / "cmdline").write_text("".join(f"{part}\0" for part in argv or [executable]))
        pairs = {"HOME": "/secret", **(environ or {})}
        (directory / "environ").write_text("".join(f"{k}={v}\0" for k, v in pairs.items()))
        (directory / "cwd").symlink_to("/srv/shop")
        for kind, inode in (("net", netns), ("mnt", 4026531832), ("pid", 4026531836)):
            (directory / "ns" / kind).symlink_to(f"{kind}:[{inode}]")
        (directory / "status").write_text(
            f"Name:\t{comm}\nNSpid:\t" + "\t".join(map(str, pids or (tgid,))) + "\n"
        )
        self.homes[tgid] = netns
        self.hold(tgid, sockets)
        self._write_tables()

    def hold(self, tgid: int, sockets: Iterable[int]) -> None:
        """Give a process these sockets, after its standard streams."""
        directory = self.root / str(tgid) / "fd"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        links = ["/dev/null", "pipe:[77]", "anon_inode:[eventpoll]"]
        links += [f"socket:[{inode}]" for inode in sockets]
        for number, link in enumerate(links):
            (directory / str(number)).symlink_to(link)

    def listen(self, inode: int, port: int, netns: int = HOST_NETNS) -> None:
        """Let a socket listen on a port."""
        self.tcp.setdefault(netns, {})[inode] = port
        self._write_tables()

    def listen_unix(self, inode: int, path: str, netns: int = HOST_NETNS) -> None:
        """Let a unix stream socket listen at a path."""
        self.unix.setdefault(netns, {})[inode] = path
        self._write_tables()

    def family(self, parent: int, children: Sequence[int]) -> None:
        """Say which processes a process has forked."""
        path = self.root / str(parent) / "task" / str(parent) / "children"
        path.write_text(" ".join(map(str, children)) + " ")

    def last_started(self, tgid: int) -> None:
        """Say which process id was given out last; this /proc is the reader's own then."""
        (self.root / "loadavg").write_text(f"0.02 0.01 0.00 1/80 {tgid}\n")
        own = self.root / "self"
        own.unlink(missing_ok=True)
        own.symlink_to(str(os.getpid()))

    def end(self, tgid: int) -> None:
        """Let a process be gone."""
        shutil.rmtree(self.root / str(tgid), ignore_errors=True)
        self.homes.pop(tgid, None)

    def _write_tables(self) -> None:
        for tgid, netns in self.homes.items():
            net = self.root / str(tgid) / "net"
            rows = [row(inode, port) for inode, port in self.tcp.get(netns, {}).items()]
            # A connection follows the listeners, on a port and inode that are nobody's listener.
            (net / "tcp").write_text(TITLE + "".join(rows) + row(99, 8080, state="01"))
            unix = [
                f"0000000000000000: 00000002 00000000 00010000 0001 01 {inode} {path}\n"
                for inode, path in self.unix.get(netns, {}).items()
            ]
            stream = "0000000000000000: 00000003 00000000 00000000 0001 03 98 /run/connected\n"
            (net / "unix").write_text(UNIX_TITLE + stream + "".join(unix))


def row(inode: int, port: int, state: str = "0A", address: str = "0100007F") -> str:
    """A line of /proc/net/tcp."""
    return (
        f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000"
        f"     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
