# SPDX-License-Identifier: Apache-2.0
"""The strings of a puppet (``servers/python/puppet.py``), and the plain client that talks to it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.harness.servers import PYTHON

TIMEOUT_S = 20.0


class Puppet:
    """A process of its own, to be watched. Its methods return when it has done what they say."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, PYTHON / "puppet.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def do(self, op: str, **arguments: Any) -> Any:
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self.popen.stdin.flush()
        line = self.popen.stdout.readline()
        assert line, f"the puppet ended at {op}"
        return json.loads(line)

    def receive(self, conn: int, count: int) -> bytes:
        text: str = self.do("receive", conn=conn, count=count)
        return text.encode("latin-1")

    def send(self, conn: int, *pieces: bytes) -> None:
        self.do("send", conn=conn, pieces=[piece.decode("latin-1") for piece in pieces])

    def __enter__(self) -> Puppet:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            pipe.close()


@dataclass
class Link:
    """A connection between this process (``near``) and the puppet (number ``far``)."""

    puppet: Puppet
    near: socket.socket
    far: int

    def ask(self, *pieces: bytes) -> None:
        """This process sends, each piece in a call of its own that is received before the next."""
        for piece in pieces:
            self.near.sendall(piece)
            assert self.puppet.receive(self.far, len(piece)) == piece

    def answer(self, *pieces: bytes) -> None:
        """The puppet sends, each piece in a call of its own."""
        self.puppet.send(self.far, *pieces)
        self.near_receives(b"".join(pieces))

    def near_receives(self, expected: bytes) -> None:
        received = b""
        while len(received) < len(expected):
            part = self.near.recv(len(expected) - len(received))
            assert part, f"closed after {received!r}"
            received += part
        assert received == expected

    def close(self) -> None:
        self.near.close()


class Server:
    """A puppet that listens; ``link`` makes a new connection to it."""

    def __init__(self, puppet: Puppet, path: Path | None = None) -> None:
        self.puppet, self.path = puppet, path
        self.listener, self.port = puppet.do("listen", path=str(path or ""))
        self._links: list[Link] = []

    def link(self) -> Link:
        near = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)
        near.settimeout(TIMEOUT_S)
        near.connect(str(self.path) if self.path else ("127.0.0.1", self.port))
        if not self.path:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(self.puppet, near, self.puppet.do("accept", listener=self.listener))
        self._links.append(link)
        return link

    def close(self) -> None:
        for link in self._links:
            link.close()


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request without a body."""
    lines = [f"{method} {path} HTTP/{version}", "Host: puppet", *headers, "", ""]
    return "\r\n".join(lines).encode()


def ok(body: bytes = b"ok\n", *headers: str, status: int = 200) -> bytes:
    """A response with a length."""
    lines = [f"HTTP/1.1 {status} Text", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def cuts(data: bytes, size: int = 1) -> Iterable[bytes]:
    """``data`` in pieces of ``size`` bytes."""
    return (data[at : at + size] for at in range(0, len(data), size))
