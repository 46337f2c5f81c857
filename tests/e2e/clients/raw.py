# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1 client on bare sockets: it decides what every packet holds, and keeps a record.

Usage: ``raw.py PLAN LOG PORT`` with PLAN and LOG in JSON lines (see ``harness/plan.py`` for the
former); with CLIENT_TLS in its environment it speaks TLS. Requests that share a ``group`` are
pipelined in one write. Any answer that is not whole and well-formed ends the client with an error.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

WORKERS = 4
TLS = ssl._create_unverified_context() if "CLIENT_TLS" in os.environ else None
Planned = dict[str, Any]
Record = dict[str, Any]


class Connection:
    """One connection and the bytes read ahead on it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.local_port: int = self._socket.getsockname()[1]
        if TLS is not None:
            self._socket = TLS.wrap_socket(self._socket)
        self._ahead = b""
        self.used = 0

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> bool:
        data = self._socket.recv(65536)
        self._ahead += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken

    def exactly(self, count: int) -> bytes:
        while len(self._ahead) < count:
            if not self._more():
                raise EOFError(f"closed after {len(self._ahead)} of {count} bytes")
        return self._take(count)

    def until(self, mark: bytes) -> bytes:
        while mark not in self._ahead:
            if not self._more():
                raise EOFError(f"closed before {mark!r}: {self._ahead[:80]!r}")
        return self._take(self._ahead.index(mark) + len(mark))

    def rest(self) -> bytes:
        while self._more():
            pass
        return self._take(len(self._ahead))


def body_of(planned: Planned) -> bytes:
    text = f"{planned['id']}.".encode()
    size: int = planned["body"]
    return (text * (size // len(text) + 1))[:size]


def pieces_of(planned: Planned) -> list[bytes]:
    """The head, then the body as it will be on the wire in one or more pieces."""
    headers = ["host: localhost", "user-agent: raw-client", f"x-request-id: {planned['id']}"]
    body = body_of(planned)
    pieces = [body] if body else []
    if planned["framing"] == "length":
        headers.append(f"content-length: {len(body)}")
    elif planned["framing"] == "chunked":
        headers.append("transfer-encoding: chunked")
        size = -(-len(body) // planned["chunks"])
        cuts = [body[at : at + size] for at in range(0, len(body), size)]
        pieces = [b"%x\r\n%s\r\n" % (len(cut), cut) for cut in cuts] + [b"0\r\n\r\n"]
    if planned["style"] == "expect":
        headers.append("expect: 100-continue")
    if planned["connection"] == "close":
        headers.append("connection: close")
    start = f"{planned['method']} {planned['path']} HTTP/{planned['version']}"
    return ["\r\n".join([start, *headers, "", ""]).encode(), *pieces]


def dribble(connection: Connection, data: bytes) -> None:
    """Sends in pieces that cut the head anywhere, each given time to arrive on its own."""
    cuts = [0, 1, 3, 17, 40, 41, len(data) - 1, len(data)]
    for start, end in itertools.pairwise(sorted({min(cut, len(data)) for cut in cuts})):
        connection.send(data[start:end])
        time.sleep(0.0005)


def send(connection: Connection, planned: Planned) -> int:
    """Returns the bytes of the interim answer (100 Continue) that it waited for."""
    head, *pieces = pieces_of(planned)
    if planned["style"] == "expect":
        connection.send(head)
        interim = connection.until(b"\r\n\r\n")
        if not interim.startswith(b"HTTP/1.1 100 "):
            raise ValueError(f"no 100 Continue but {interim!r}")
        connection.send(b"".join(pieces))
        return len(interim)
    if planned["style"] == "dribble":
        dribble(connection, b"".join([head, *pieces]))
    elif planned["style"] == "pieces":
        for piece in (head, *pieces):
            connection.send(piece)
    else:
        connection.send(b"".join([head, *pieces]))
    return 0


def read_chunked(connection: Connection) -> tuple[int, int]:
    """Returns the bytes of the body, and of the body on the wire."""
    body = wire = 0
    while True:
        line = connection.until(b"\r\n")
        size = int(line.split(b";")[0], 16)
        connection.exactly(size)
        if connection.exactly(2) != b"\r\n":
            raise ValueError("chunk without its end")
        body, wire = body + size, wire + len(line) + size + 2
        if not size:
            return body, wire


def receive(connection: Connection, planned: Planned, interim: int) -> Record:
    head = connection.until(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    status = int(status_line.split()[1])
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    if planned["method"] == "HEAD" or status in (204, 304):
        framing, body, wire = "none", 0, 0
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        framing, (body, wire) = "chunked", read_chunked(connection)
    elif "content-length" in headers:
        body = wire = len(connection.exactly(int(headers["content-length"])))
        framing = "length"
    else:
        body = wire = len(connection.rest())
        framing = "close"
    old = status_line.startswith("HTTP/1.0") or planned["version"] == "1.0"
    ending = headers.get("connection", "close" if old else "").lower() == "close"
    connection.used += 1
    return {
        "id": planned["id"],
        "method": planned["method"],
        "path": planned["path"],
        "style": planned["style"],
        "status": status,
        "request_bytes": planned["body"],
        "request_framing": planned["framing"],
        "response_bytes": body,
        "response_wire_bytes": wire,
        "interim_bytes": interim,
        "response_framing": framing,
        "reused": connection.used > 1,
        "local_port": connection.local_port,
        "ending": ending or framing == "close" or planned["connection"] == "close",
    }


class Worker:
    """Carries out its share of the plan, one unit after the other, on a kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._kept: Connection | None = None

    def run(self, units: list[list[Planned]]) -> list[Record]:
        records = [record for unit in units for record in self._unit(unit)]
        if self._kept:
            self._kept.close()
        return records

    def _unit(self, unit: list[Planned]) -> list[Record]:
        keep = unit[0]["connection"] == "keep"
        connection = (self._kept if keep else None) or Connection(self._port)
        interim = 0
        if len(unit) > 1:
            connection.send(b"".join(b"".join(pieces_of(planned)) for planned in unit))
        else:
            interim = send(connection, unit[0])
        records = [receive(connection, planned, interim) for planned in unit]
        ended = any(record["ending"] for record in records)
        if ended:
            connection.rest()
        if ended or not keep:
            connection.close()
        if keep:
            self._kept = None if ended else connection
        return records


def main(plan: str, log: str, port: str) -> None:
    planned = [json.loads(line) for line in Path(plan).read_text().splitlines()]
    units = [list(unit) for _, unit in itertools.groupby(planned, lambda p: p["group"] or p["id"])]
    with ThreadPoolExecutor(WORKERS) as pool:
        shares = [units[i::WORKERS] for i in range(WORKERS)]
        done = list(pool.map(lambda share: Worker(int(port)).run(share), shares))
    records = itertools.chain.from_iterable(done)
    Path(log).write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    main(*sys.argv[1:])
