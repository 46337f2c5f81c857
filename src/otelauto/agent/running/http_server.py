# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 in an event loop: a connection at rest costs a few hundred bytes and no thread.

What is legal is h11's to say. Here are the limits: of heads, of bodies in memory over all
connections, of the time that a request may take to come, of connections.
"""

from __future__ import annotations

import asyncio
import http
import logging
import math
import resource
import socket
import ssl
import time
from concurrent.futures import Executor
from typing import cast

import h11

from otelauto.agent.running.otlp_http_door import Answer, Head, HttpDoor, joined
from otelauto.agent.running.otlp_intake import Room

MAX_HEAD = 16 * 1024  # bytes
MAX_CONNECTIONS = 16_384
REQUEST_S = 30.0  # from its first byte to its last
IDLE_S = 300.0
LINGER_S = 2.0  # what is sent meanwhile is thrown away, so that the answer is not (RFC 9112 9.6)
SWEEP_S = 1.0
BACKLOG = 1024
_SERVER = [("Server", "otelauto")]
_NONE = Head("", "", {})


class HttpServer:
    """Serves ``door`` at one address. Everything but the requests themselves runs in the loop."""

    def __init__(self, door: HttpDoor, room: Room, workers: Executor, log: logging.Logger) -> None:
        self.door = door
        self.room = room
        self.workers = workers
        self.log = log
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serve on a socket that is bound; it becomes the server's."""
        loop = asyncio.get_running_loop()
        timeout = None if tls is None else REQUEST_S
        self._server = await loop.create_server(
            lambda: _Connection(self), sock=listening, ssl=tls, backlog=BACKLOG,
            ssl_handshake_timeout=timeout,
        )  # fmt: skip
        self._sweeper = loop.create_task(self._sweep())

    async def close(self, deadline_s: float) -> None:
        """Take no request any more; those that are there are answered, within the deadline."""
        if self._server is None or self._sweeper is None:
            return
        self._server.close()
        until = time.monotonic() + deadline_s
        for each in list(self.connections):
            each.close_when_idle()
        while self.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for each in list(self.connections):
            each.abort()
        self._sweeper.cancel()

    def make_room(self) -> None:
        """For one more connection, at the cost of that which is nearest to its deadline."""
        if len(self.connections) >= most_connections():
            self.door.intake.rejected("connections")
            victim = min(self.connections, key=lambda each: each.deadline)
            self.connections.discard(victim)
            victim.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for each in [each for each in self.connections if each.deadline <= now]:
                each.expire()


def most_connections() -> int:
    """Some of the descriptors that this process may have are for others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, max(1, soft * 3 // 4))


class _Connection(asyncio.Protocol):
    """One connection: requests come in, one after another, and are answered in that order."""

    __slots__ = (
        "_body", "_closing", "_head", "_held", "_http", "_lingering", "_server", "_stuck",
        "_transport", "_working", "deadline",
    )  # fmt: skip

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._http: h11.Connection | None = None  # of the first byte on
        self._transport: asyncio.Transport | None = None
        self._head = _NONE  # of the request that is being read
        self._body: list[bytes] = []
        self._held = 0  # bytes of _body, which have a place in the room
        self._working = False  # a request is with a worker
        self._lingering = False
        self._closing = False
        self._stuck = False  # the peer does not read its answers
        self.deadline = time.monotonic() + IDLE_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.make_room()
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if not self._working:
            self._give_back()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._http is None:
            self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        if self._http.their_state is h11.IDLE and not self._begun():
            self.deadline = time.monotonic() + REQUEST_S
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        if self._lingering or self._http is None:
            return False
        self._http.receive_data(b"")
        self._advance()
        half_open = self._transport is not None and self._transport.can_write_eof()
        return self._working and half_open  # a request that is whole gets its answer

    def pause_writing(self) -> None:
        self._stuck = True

    def resume_writing(self) -> None:
        self._stuck = False
        self._advance()

    def close_when_idle(self) -> None:
        """After the answer that is due, if one is."""
        self._closing = True
        if self._transport is not None and not self._working:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def expire(self) -> None:
        """The deadline has passed."""
        slow = self._http is not None and self._http.their_state in (h11.IDLE, h11.SEND_BODY)
        if slow and not self._lingering and (self._head is not _NONE or self._begun()):
            self._server.door.intake.rejected("slow")
            self._refuse(
                Answer(408, b"the request took too long\n", [("Content-Type", "text/plain")])
            )
        else:
            self.abort()

    def _begun(self) -> bool:
        return self._http is not None and bool(self._http.trailing_data[0])

    def _advance(self) -> None:
        """Read what has come, as far as it may be."""
        while self._http is not None and self._transport is not None:
            if self._working or self._lingering or self._stuck:
                break
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._server.door.intake.rejected("http")
                status = error.error_status_hint
                self._refuse(
                    Answer(status, f"{error}\n".encode(), [("Content-Type", "text/plain")])
                )
                return
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    self._transport.write(self._http.send(go_on) or b"")
                self._transport.resume_reading()
                return
            self._handle(event)
        if self._transport is not None and self._working:
            self._transport.pause_reading()

    def _handle(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> None:
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.Data):
            self._more(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._serve()
        elif self._transport is not None:  # the peer has closed, or wants to
            self._transport.close()
            self._http = None

    def _begin(self, request: h11.Request) -> None:
        lines = request.headers
        fields = joined((name.decode("latin-1"), value.decode("latin-1")) for name, value in lines)
        target = request.target.decode("latin-1")
        self._head = Head(request.method.decode(), target.partition("?")[0], fields)
        answer = self._server.door.early(self._head)
        if answer is not None:
            self._refuse(answer)

    def _more(self, data: bytes) -> None:
        head = self._head
        if self._held + len(data) > self._server.door.limit:
            self._server.door.intake.rejected("too_large")
            self._refuse(self._server.door.too_large(head))
        elif not self._server.room.take(len(data)):
            self._refuse(self._server.door.overloaded(head))
        else:
            self._held += len(data)
            self._body.append(data)

    def _serve(self) -> None:
        """The request is there: let a worker see to it."""
        head, body = self._head, b"".join(self._body)
        self._body = []
        self._working = True
        self.deadline = math.inf
        loop = asyncio.get_running_loop()
        task = loop.run_in_executor(self._server.workers, self._server.door.serve, head, body)
        task.add_done_callback(lambda done: self._served(head, done))

    def _served(self, head: Head, done: asyncio.Future[Answer]) -> None:
        self._working = False
        self._give_back()
        fault = None if done.cancelled() else done.exception()
        if fault is not None:
            self._server.log.error("a request failed", exc_info=fault)
        answer = self._server.door.failed(head) if fault or done.cancelled() else done.result()
        if self._transport is None or self._http is None:
            return
        self._write(answer, close=self._closing)
        if self._closing or self._http.our_state is not h11.DONE:
            self._transport.close()
            return
        self._head = _NONE
        self.deadline = time.monotonic() + IDLE_S
        try:
            self._http.start_next_cycle()
        except h11.ProtocolError:
            self._transport.close()
            return
        if self._begun():
            self.deadline = time.monotonic() + REQUEST_S
        self._advance()

    def _refuse(self, answer: Answer) -> None:
        """Answer before the request was read, and read nothing but the end from then on."""
        self._give_back()
        self._write(answer, close=True)
        self._lingering = True
        self.deadline = time.monotonic() + LINGER_S
        if self._transport is None:
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _write(self, answer: Answer, close: bool) -> None:
        if self._http is None or self._transport is None:
            return
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        fields = [*_SERVER, *answer.fields]
        if answer.status != http.HTTPStatus.NO_CONTENT:
            fields.append(("Content-Length", str(len(answer.body))))
        if close:
            fields.append(("Connection", "close"))
        head = h11.Response(
            status_code=answer.status,
            headers=fields,
            reason=http.HTTPStatus(answer.status).phrase.encode(),
        )
        send = self._http.send
        parts = (send(head), send(h11.Data(data=answer.body)), send(h11.EndOfMessage()))
        self._transport.write(b"".join(part or b"" for part in parts))

    def _give_back(self) -> None:
        self._server.room.give(self._held)
        self._held = 0
        self._body = []
