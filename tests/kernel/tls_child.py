# SPDX-License-Identifier: Apache-2.0
"""A process that serves TLS by Python's ssl module, line by line; the test is its client."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.certificates import self_signed
from tests.kernel.child import Child, running

from otelauto import abi

SERVER = """
import ssl
cert, key = {cert!r}, {key!r}
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
listener = socket.create_server(("127.0.0.1", 0))

class Bio:
    "A session that is handed ciphertext and gives it back."
    def __init__(self, sock):
        self.sock, self.ins, self.outs = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.ins, self.outs, server_side=True)
    def flush(self):
        if data := self.outs.read():
            self.sock.sendall(data)
    def receive(self):
        self.ins.write(self.sock.recv(65536))
    def call(self, function, *arguments):
        while True:
            try:
                result = function(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                self.receive()
            else:
                self.flush()
                return result
"""


class TlsServer:
    """A child with a listener; sessions in it are variables of its own."""

    def __init__(self, child: Child, directory: Path) -> None:
        self.child, self.pid = child, child.pid
        cert, key = self_signed(directory, f"child{child.pid}")
        self.run(SERVER.format(cert=cert, key=key))
        self.port = int(self.run("print(listener.getsockname()[1], flush=True)"))

    def run(self, code: str) -> str:
        return self.child.run(f"exec({code!r}, globals())")

    def connect(self, code: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLSocket:
        """A client of the session that ``code`` makes of ``accepted``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.child.tell(f"exec({'accepted = listener.accept()[0]' + chr(10) + code!r}, globals())")
        client = context.wrap_socket(plain)
        assert self.child.process.stdout
        answer = self.child.process.stdout.readline().strip()
        assert answer == "done", answer
        return client


@contextmanager
def tls_server(directory: Path) -> Iterator[TlsServer]:
    with running() as child:
        yield TlsServer(child, directory)


def text_of(pid: int, file: str) -> bytes:
    """The bytes of the executable mappings of ``file`` as process ``pid`` has them."""
    text = b""
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split(None, 5)
            if len(fields) == 6 and "x" in fields[1] and file in fields[5]:
                start, end = (int(part, 16) for part in fields[0].split("-"))
                memory.seek(start)
                text += memory.read(end - start)
    assert text, f"process {pid} has no code of {file}"
    return text


def path_of(pid: int, file: str) -> str:
    """The path of the first mapping of ``file`` in process ``pid``."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next(line.split(None, 5)[5] for line in lines if file in line)


def is_plaintext(cookie: int) -> bool:
    return cookie >> 63 == 1


def segments_in_order(pieces: list[abi.Segment]) -> int:
    """Bytes of all segments, after each is seen to follow the one before it."""
    at = 0
    for piece in pieces:
        assert piece.offset == at
        at += piece.length
    return at
