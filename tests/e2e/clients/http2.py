# SPDX-License-Identifier: Apache-2.0
"""An HTTP/2 client (the h2 library). Usage: PORT COUNT STREAMS-AT-ONCE LOG [GO-FILE]

One connection, without TLS. One JSON line a request. With GO-FILE it sends half of the requests,
writes "half" to GO-FILE, and goes on when that file says "go".
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

KINDS = ("items", "items", "echo", "status", "chunked", "head", "delete", "upload", "slow", "big")
SIZES = (1, 100, 1000, 5000, 16384, 16385, 40000)
STATUSES = (201, 404, 500)


def plan(number: int) -> dict[str, Any]:
    rng = random.Random(number)
    kind = rng.choices(KINDS, (20, 20, 20, 10, 10, 6, 6, 6, 2, 1))[0]
    ident = f"r{number:05d}"
    method = {"head": "HEAD", "delete": "DELETE", "echo": "POST", "upload": "POST"}.get(kind, "GET")
    path = {"head": "/items/", "delete": "/items/"}.get(kind, f"/{kind}/")
    if kind == "status":
        path += f"{rng.choice(STATUSES)}/"
    body = rng.choice(SIZES) if method == "POST" else 0
    return {"id": ident, "method": method, "path": path + ident, "body": body}


class Client:
    def __init__(self, port: int, at_once: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(60)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(1 << 20)
        self._at_once = at_once
        self._open: dict[int, dict[str, Any]] = {}
        self._unsent: dict[int, int] = {}
        self._told = False  # how many streams the server takes
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def run(self, planned: list[dict[str, Any]]) -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = []
        waiting = planned[::-1]
        while waiting or self._open:
            while waiting and len(self._open) < self._room():
                self._begin(waiting.pop())
            self._send_bodies()
            self._flush()
            data = self._socket.recv(65536)
            assert data, "the server has closed"
            for event in self._h2.receive_data(data):
                self._take(event, done)
        return done

    def _room(self) -> int:
        """Streams at once, as many as the server takes (RFC 9113, section 6.5.2)."""
        most = self._h2.remote_settings.max_concurrent_streams
        return min(self._at_once, most) if self._told else 0

    def _begin(self, request: dict[str, Any]) -> None:
        number = self._h2.get_next_available_stream_id()
        head = [(":method", request["method"]), (":scheme", "http"), (":path", request["path"]),
                (":authority", "127.0.0.1"), ("user-agent", "h2-client")]  # fmt: skip
        self._h2.send_headers(number, head, end_stream=not request["body"])
        port = self._socket.getsockname()[1]
        self._open[number] = {**request, "status": 0, "response_bytes": 0, "local_port": port}
        if request["body"]:
            self._unsent[number] = request["body"]

    def _send_bodies(self) -> None:
        for number, left in list(self._unsent.items()):
            while left:
                room = self._h2.local_flow_control_window(number)
                size = min(left, room, self._h2.max_outbound_frame_size)
                if not size:
                    break
                left -= size
                self._h2.send_data(number, b"x" * size, end_stream=not left)
            if left:
                self._unsent[number] = left
            else:
                del self._unsent[number]

    def _take(self, event: h2.events.Event, done: list[dict[str, Any]]) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self._open[event.stream_id]["status"] = int(dict(event.headers)[":status"])
        elif isinstance(event, h2.events.DataReceived):
            self._open[event.stream_id]["response_bytes"] += len(event.data)
            if event.flow_controlled_length:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self._told = True
        elif isinstance(event, h2.events.StreamEnded):
            done.append(self._open.pop(event.stream_id))
        else:
            assert not isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated))


def main() -> None:
    port, count, at_once, log, *pause = sys.argv[1:]
    client = Client(int(port), int(at_once))
    planned = [plan(number) for number in range(int(count))]
    half = len(planned) // 2 if pause else 0
    done = client.run(planned[:half])
    if pause:
        Path(pause[0]).write_text("half")
        deadline = time.monotonic() + 120
        while Path(pause[0]).read_text() != "go":
            assert time.monotonic() < deadline
            time.sleep(0.01)
    done += client.run(planned[half:])
    Path(log).write_text("".join(json.dumps(line) + "\n" for line in done))


main()
