# SPDX-License-Identifier: Apache-2.0
"""A process that does with sockets what it is told: JSON lines in on stdin, answers on stdout.

Every command names an ``op`` (a method below) and its arguments; bytes travel as latin-1 text. Each
send is one ``send`` call, each receive as many calls as it takes to get ``count`` bytes.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from typing import Any

TIMEOUT_S = 20.0
NO_LINGER = struct.pack("ii", 1, 0)


class Puppet:
    """Holds listeners and connections by number."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def _keep(self, sock: socket.socket) -> int:
        sock.settimeout(TIMEOUT_S)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets.append(sock)
        return len(self.sockets) - 1

    def listen(self, port: int = 0, path: str = "") -> list[int]:
        """A listener on a port of 127.0.0.1, or on a unix socket; its number and port."""
        sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        if not path:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(path or ("127.0.0.1", port))
        sock.listen(64)
        number = self._keep(sock)
        return [number, 0 if path else sock.getsockname()[1]]

    def accept(self, listener: int) -> int:
        return self._keep(self.sockets[listener].accept()[0])

    def connect(self, port: int = 0, path: str = "") -> int:
        sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        sock.connect(path or ("127.0.0.1", port))
        return self._keep(sock)

    def receive(self, conn: int, count: int) -> str:
        """``count`` bytes, fewer if the stream ends before."""
        data = b""
        while len(data) < count and (part := self.sockets[conn].recv(count - len(data))):
            data += part
        return data.decode("latin-1")

    def send(self, conn: int, pieces: list[str]) -> int:
        """Each piece by a call of its own."""
        for piece in pieces:
            data = piece.encode("latin-1")
            while data:
                data = data[self.sockets[conn].send(data) :]
        return sum(map(len, pieces))

    def close(self, conn: int) -> None:
        self.sockets[conn].close()

    def shut(self, conn: int) -> None:
        """No more will be sent."""
        self.sockets[conn].shutdown(socket.SHUT_WR)

    def reset(self, conn: int) -> None:
        """Close with RST."""
        self.sockets[conn].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.sockets[conn].close()


def main() -> None:
    puppet = Puppet()
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        answer = getattr(puppet, command.pop("op"))(**command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
