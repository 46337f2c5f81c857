# SPDX-License-Identifier: Apache-2.0
"""Random conversations in HTTP/2 on several connections at once, mostly plain, some damaged."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field
from functools import partial

from tests.hot.traffic import HOSTS, PARENTS, PATHS, STATUSES, damage
from tests.hot.twin import Step
from tests.wire.http2 import (
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    GRPC_HEAD,
    PADDED,
    PING,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    End,
    Fields,
    data,
    frame,
    grpc_trailers,
    hello,
    message,
)
from tests.wire.wire import BEGIN_NS, CLIENT, SECOND_NS, SERVER, Heads, Wire

from otelauto.abi import SegmentFlag
from otelauto.flows.vocabulary import Family

METHODS = ("GET", "GET", "POST", "PUT", "HEAD", "DELETE", "CONNECT", "X")
CALLS = ("/p.S/Unary", "/p.S/Down", "/p.S/Up", "/grpc.health.v1.Health/Check")
KINDS = ("application/grpc", "application/grpc+proto", "application/grpc-web", "application/json",
         "application/grpc-web-text", "application/connect+proto", "application/proto",
         "application/grpcx")  # fmt: skip
TIMEOUTS = ("500m", "10S", "99999999u", "1H", "2M", "7n", "x", "123456789S", "")
SAID = ("", "no such thing", "no%20such", "long " * 80, "é")
# Messages that tell how a call ended.
LAST = (b"\2\0\0\0\2{}", b'\2\0\0\0\x1c{"error":{"code":"aborted"}}',
        b"\x80\0\0\0\x0fgrpc-status: 5\r", b"\2\0\0\4\0{" + b" " * 1022 + b"}",
        b"\2\0\0\4\1{" + b" " * 1023 + b"}")  # fmt: skip
ODD_FIELDS = (("connect-protocol-version", "1"), ("host", "other.example"), ("user-agent", "b\tc"),
              ("x-unheard-of", "v" * 300), ("traceparent", "x"), ("content-length", "0"),
              ("cookie", "a=b; c=d"), ("grpc-status", "3"), (":path", "/twice"))  # fmt: skip


@dataclass
class _Open:
    """A stream, with what is still to be sent of it in each direction."""

    number: int
    call: bool
    plain: bool  # a call of gRPC itself
    encoded: bool  # in base64
    asks: list[bytes]
    answers: list[bytes]


@dataclass
class _Talk:
    wire: Wire
    plain: float  # share of what is done without any oddity
    client: End = field(default_factory=End)
    server: End = field(default_factory=End)
    next: int = 1
    streams: list[_Open] = field(default_factory=list)
    said: dict[str, bytes] = field(default_factory=lambda: {CLIENT: b"", SERVER: b""})


class Http2Traffic:
    """``steps`` of one seed."""

    def __init__(self, seed: object) -> None:
        self.choice = random.Random(f"http2 {seed}")
        self.now = BEGIN_NS
        self.steps: list[Step] = []
        self.cookies = 0
        self.paths = [p.decode() for p in self.choice.sample(PATHS[:5], 2)]
        self.host = self.choice.choice(HOSTS[:3]).decode()
        self.statuses = self.choice.sample(STATUSES[2:12], 2)
        self.talks = [self._talk() for _ in range(self.choice.randint(1, 3))]

    def make(self, exchanges: int) -> list[Step]:
        choice = self.choice
        for _ in range(exchanges):
            talk = choice.choice(self.talks)
            self._ask(talk)
            for _ in range(choice.choice((0, 1, 2, 6))):
                self._go_on(talk)
            self._flush(talk)
            if choice.random() < 0.03:
                self.now += choice.choice((10**6, SECOND_NS // 2, 6 * SECOND_NS))
                self.steps.append(self.now)
            if choice.random() < 0.01:
                self._end(talk)
        for talk in self.talks:
            for _ in range(40):
                self._go_on(talk)
            self._flush(talk)
        self.steps.append(self.now + SECOND_NS)
        return self.steps

    def _usual(self, talk: _Talk) -> bool:
        return self.choice.random() < talk.plain

    def _talk(self) -> _Talk:
        choice = self.choice
        self.cookies += 1
        unix = choice.random() < 0.2
        wire = Wire(
            view=choice.choice((CLIENT, SERVER)),
            cookie=self.cookies,
            heads=Heads(choice.choice((30, 300, 3000)), 200, b"-")
            if choice.random() < 0.15
            else None,
            midstream=choice.random() < 0.1,
            family=Family.UNIX if unix else Family.INET,
            path=b"/run/app.sock\0" if unix else b"",
            remote=("10.0.0.1", 40000 + choice.randint(0, 2)),
            tgid=choice.choice((77, 77, 78, 79)),
            sequence=choice.choice((0, 0, 0xFFFFFFF8)),
        )
        wire.time = self.now
        talk = _Talk(wire, choice.choice((1.0, 0.995, 0.97, 0.8)))
        talk.client, talk.server, begins, answers = hello()
        wire.open()
        if choice.random() < 0.1:
            talk.next = 2 * choice.randint(1, 50) + 1  # joined in the middle
            begins = b""
            talk.client.block([("x-from", "before")] * 3)
            talk.server.block([("x-from", "before")] * 3)
        talk.said = {CLIENT: begins, SERVER: answers}
        return talk

    # ---- what is said ----

    def _ask(self, talk: _Talk) -> None:
        choice, number, usual = self.choice, talk.next, self._usual(talk)
        talk.next += 2 if usual else choice.choice((2, 4))
        call = choice.random() < 0.5
        fields = self._request(call, usual)
        kinds = [value for name, value in fields if name == "content-type"]
        encoded = "application/grpc-web-text" in kinds
        bodies = [message(choice.choice((0, 3, 40, 700))) for _ in range(choice.choice((1, 1, 3)))]
        if encoded:
            bodies = [base64.b64encode(each) for each in bodies]
        body = b"".join(bodies) if call else choice.randbytes(choice.choice((0, 0, 9, 900)))
        asks = self._content(number, body, call, usual)
        if not usual and choice.random() < 0.3:
            head = talk.client.padded(number, fields, END_STREAM if not asks else 0)
        else:
            parts = 1 if usual else choice.choice((1, 2, 5))
            head = talk.client.head(number, fields, END_STREAM if not asks else 0, parts)
        talk.said[CLIENT] += head
        talk.streams.append(_Open(number, call, KINDS[0] in kinds, encoded, asks, []))

    def _request(self, call: bool, usual: bool) -> Fields:
        choice = self.choice
        method = "POST" if call else choice.choice(METHODS[:3] if usual else METHODS)
        path = choice.choice(CALLS if call else self.paths)
        if not usual:
            path = choice.choice(PATHS).decode("latin-1")
        fields = [(":method", method), (":scheme", choice.choice(("http", "https", "http"))),
                  (":path", path), (":authority", self.host)]  # fmt: skip
        if choice.random() < 0.6:
            fields.append(("user-agent", choice.choice(("curl/8.1", "grpc-go/1.6", "é"))))
        if choice.random() < 0.3:
            parent = choice.choice(PARENTS[:2] if usual else PARENTS)
            fields.append(("traceparent", parent.decode()))
        if call:
            usual_kind = usual and choice.random() < 0.95
            fields.append(("content-type", KINDS[0] if usual_kind else choice.choice(KINDS)))
            if choice.random() < 0.4:
                fields.append(("grpc-timeout", choice.choice(TIMEOUTS[:4] if usual else TIMEOUTS)))
        if not usual:
            fields += choice.sample(ODD_FIELDS, choice.randint(0, 3))
            if choice.random() < 0.2:
                del fields[choice.randrange(len(fields))]
        return fields

    def _content(self, number: int, body: bytes, call: bool, usual: bool) -> list[bytes]:
        """DATA frames, the last of which ends the stream."""
        choice, frames = self.choice, []
        while body:
            size = len(body) if choice.random() < 0.7 else choice.randint(1, len(body))
            piece, body = body[:size], body[size:]
            flags = 0 if body else END_STREAM
            if not usual and choice.random() < 0.3:
                frames.append(frame(0, flags | PADDED, number, b"\5" + piece + bytes(5)))
            else:
                frames.append(data(number, piece, flags))
        if call and not frames:
            frames.append(data(number, b"", END_STREAM))
        return frames

    def _answer(self, talk: _Talk, stream: _Open) -> list[bytes]:
        choice, usual, number = self.choice, self._usual(talk), stream.number
        head = talk.server.head
        if stream.call:
            code = choice.choice((0, 0, 0, 5, 13) if usual else (0, 12, 16, 17, 99))
            trailers = grpc_trailers(
                code, choice.choice(SAID[:2] if usual else SAID) if code else ""
            )
            if choice.random() < 0.1:
                return [head(number, [*GRPC_HEAD, *trailers], END_STREAM)]
            body = b"".join(
                message(choice.choice((0, 9, 300))) for _ in range(choice.choice((1, 4)))
            )
            if not stream.plain and choice.random() < 0.5:
                body += choice.choice(LAST)
            if stream.encoded and choice.random() < 0.9:
                body = base64.b64encode(body)
            frames = [head(number, GRPC_HEAD), data(number, body)]
            if usual or choice.random() < 0.8:
                return [*frames, head(number, trailers, END_STREAM)]
            return [*frames, data(number, b"", END_STREAM)]
        status = choice.choice(self.statuses if usual else STATUSES)
        fields = [(":status", str(status)), ("server", "x"), ("etag", str(choice.randrange(4)))]
        if not usual:
            fields += choice.sample(ODD_FIELDS[3:8], choice.randint(0, 2))
        body = choice.randbytes(choice.choice((0, 5, 3000)))
        if choice.random() < 0.5:
            length = len(body) if usual else choice.choice((len(body), 1, 10**17, 10**18, 10**19))
            fields.append(("content-length", str(length)))
        frames = self._content(number, body, False, usual)
        if frames and choice.random() < 0.05:  # all of it, but no end of the stream
            frames[-1] = data(number, frames[-1][9:])
            frames.append(frame(RST, 0, number, choice.choice((0, 5, 8, 2)).to_bytes(4, "big")))
            frames = frames[: choice.choice((-1, None))]
        interim = [head(number, [(":status", "103")])] if choice.random() < 0.03 else []
        return [*interim, head(number, fields, 0 if frames else END_STREAM), *frames]

    def _go_on(self, talk: _Talk) -> None:
        """Something more is said on one of the streams, or about the connection."""
        choice = self.choice
        if not self._usual(talk):
            self._aside(talk)
        if not talk.streams:
            return
        stream = choice.choice(talk.streams)
        if stream.asks:
            talk.said[CLIENT] += stream.asks.pop(0)
            return
        frames = stream.answers or self._answer(talk, stream)
        count = len(frames) if choice.random() < 0.7 else 1
        if any(each[3] == 1 for each in frames[:count]) and not stream.answers:
            count = len(frames)  # header blocks go out in the order in which they were encoded
        talk.said[SERVER] += b"".join(frames[:count])
        stream.answers = frames[count:]
        if not stream.answers:
            talk.streams.remove(stream)
        if choice.random() < 0.3:
            self._flush(talk)

    def _aside(self, talk: _Talk) -> None:
        choice = self.choice
        side = choice.choice((CLIENT, SERVER))
        number = choice.choice(talk.streams).number if talk.streams else talk.next
        match choice.randrange(9):
            case 0:
                talk.said[side] += frame(
                    RST, 0, number, choice.choice((0, 5, 8, 2, 99)).to_bytes(4, "big")
                )
            case 1:
                talk.said[side] += frame(PING, choice.choice((0, 1)), 0, bytes(8))
            case 2:
                talk.said[side] += frame(SETTINGS, 0, 0, b"\0\1\0\0\x10\0")
            case 3:
                talk.said[side] += frame(WINDOW, 0, number, b"\0\0\1\0")
            case 4:
                said = number.to_bytes(4, "big") + bytes(4)
                talk.said[SERVER] += frame(GOAWAY, 0, 0, said)
            case 5:
                promise = (2).to_bytes(4, "big") + talk.server.block([(":path", "/pushed")])
                talk.said[SERVER] += frame(PUSH, END_HEADERS, number, promise)
            case 6:
                end = choice.choice((talk.client, talk.server))
                end.encoder.header_table_size = choice.choice((0, 100, 4096, 100_000))
            case 7:
                talk.said[CLIENT] += talk.client.head(number, [("x-sum", "1")], END_STREAM)
            case _:
                talk.said[side] += choice.randbytes(choice.randint(1, 30))

    # ---- what becomes of it ----

    def _flush(self, talk: _Talk) -> None:
        choice, wire = self.choice, talk.wire
        for side in (CLIENT, SERVER) if choice.random() < 0.8 else (SERVER, CLIENT):
            text, talk.said[side] = talk.said[side], b""
            count = choice.choice((0, 0, 0, 1, 2)) if self._usual(talk) else 6
            cuts = sorted({choice.randint(0, len(text)) for _ in range(count)} - {0, len(text)})
            for begin, end in zip((0, *cuts), (*cuts, len(text)), strict=True):
                if begin == end:
                    continue
                wire.time = self.now
                captured = None
                if not self._usual(talk) and choice.random() < 0.2:
                    captured = choice.randint(0, end - begin)
                wire.send(side, text[begin:end], captured)
                self.now = wire.time
                if choice.random() < 0.1 * (1 - talk.plain):
                    damage(choice, wire, partial(self._hand_over, wire))
                self.steps += wire.records
                wire.records.clear()

    def _hand_over(self, wire: Wire) -> None:
        wire.tgid = self.choice.choice((77, 78))

    def _end(self, talk: _Talk) -> None:
        choice, wire = self.choice, talk.wire
        wire.time = self.now
        if choice.random() < 0.4:
            wire.finish(choice.choice((CLIENT, SERVER)))
        if choice.random() < 0.9:
            wire.end(choice.choice((SegmentFlag.FLAG_CLOSED, SegmentFlag.FLAG_RESET)))
            self.talks.remove(talk)
            self.talks.append(self._talk())
        self.steps += wire.records
        wire.records.clear()
        self.now = max(self.now, wire.time)
        for other in self.talks:
            self.steps += other.wire.records
            other.wire.records.clear()
