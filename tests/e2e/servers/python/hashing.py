# SPDX-License-Identifier: Apache-2.0
"""Hashes every byte that it receives and sends. Usage: ``hashing.py PORT``.

A request has a length and says in ``X-Size`` how long the answer's body shall be. ``GET /digests``
is not hashed: it answers with both digests, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys

HEAD_END = b"\r\n\r\n"


def field(head: bytes, name: bytes) -> int:
    return int(head.split(b"\r\n" + name + b": ", 1)[1].split(b"\r\n", 1)[0])


def serve(connection: socket.socket, received: hashlib._Hash, sent: hashlib._Hash) -> None:
    data = b""
    while True:
        while HEAD_END not in data:
            part = connection.recv(65536)
            if not part:
                return
            data += part
        head, _, body = data.partition(HEAD_END)
        if head.startswith(b"GET /digests "):
            text = json.dumps([received.hexdigest(), sent.hexdigest()]).encode()
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)
            connection.sendall(answer)
            return
        length = field(head, b"Content-Length")
        while len(body) < length:
            body += connection.recv(65536)
        received.update(head + HEAD_END + body[:length])
        data = body[length:]
        size = field(head, b"X-Size")
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size
        sent.update(answer)
        connection.sendall(answer)


def main() -> None:
    received, sent = hashlib.sha256(), hashlib.sha256()
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                serve(connection, received, sent)


if __name__ == "__main__":
    main()
