# SPDX-License-Identifier: Apache-2.0
"""Conversations in HTTP/2, encoded by another implementation of HPACK, with what is true of them.

Paths are unique within a transcript.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from hpack import Encoder
from tests.wire.wire import CLIENT, SERVER

from otelauto.flows.vocabulary import Exchange

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITIZED = 1, 4, 8, 32
Fields = list[tuple[str, str]]
Turn = tuple[str, bytes]


@dataclass(frozen=True)
class Fact:
    """One exchange: ``what`` is its path or its rpc method, sizes are of bodies or messages."""

    what: str | None
    status: int | str | None
    request: int | None = None
    response: int | None = None
    incomplete: str | None = None


@dataclass(frozen=True)
class Talk:
    """``turns`` are (sender, bytes) in causal order; ``closer`` ends the connection, if anyone."""

    name: str
    turns: tuple[Turn, ...]
    truths: tuple[Fact, ...]
    closer: str = ""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


@dataclass
class End:
    """One side: its HPACK table and the frames it makes."""

    encoder: Encoder = field(default_factory=Encoder)

    def block(self, fields: Fields, indexed: bool = True) -> bytes:
        if indexed:
            return bytes(self.encoder.encode(fields))
        never = [(name, value, True) for name, value in fields]
        return bytes(self.encoder.encode(never, huffman=False))

    def head(self, stream: int, fields: Fields, flags: int = 0, parts: int = 1) -> bytes:
        """HEADERS, and CONTINUATION frames if the block is cut in ``parts``."""
        block = self.block(fields)
        size = -(-len(block) // parts)
        pieces = [block[at : at + size] for at in range(0, len(block), size)]
        frames = [frame(HEADERS, flags, stream, pieces[0])]
        frames += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:]]
        last = bytearray(frames[-1])
        last[4] |= END_HEADERS
        return b"".join([*frames[:-1], bytes(last)])

    def padded(self, stream: int, fields: Fields, flags: int = 0) -> bytes:
        payload = bytes([7]) + bytes(5) + self.block(fields) + bytes(7)
        return frame(HEADERS, flags | PADDED | PRIORITIZED | END_HEADERS, stream, payload)


def asks(path: str, method: str = "GET", *more: tuple[str, str]) -> Fields:
    return [(":method", method), (":scheme", "http"), (":path", path),
            (":authority", "svc.example:8080"), ("user-agent", "test/1.0"), *more]  # fmt: skip


def calls(path: str, *more: tuple[str, str]) -> Fields:
    return asks(path, "POST", ("te", "trailers"), ("content-type", "application/grpc"), *more)


def says(status: int, *more: tuple[str, str]) -> Fields:
    return [(":status", str(status)), ("server", "test"), *more]


GRPC_HEAD = says(200, ("content-type", "application/grpc"))


def data(stream: int, body: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream, body)


def message(size: int, fill: bytes = b"m") -> bytes:
    return struct.pack("!BI", 0, size) + fill * size


def hello() -> tuple[End, End, bytes, bytes]:
    """Both ends, and how each begins."""
    settings = struct.pack("!HI", 3, 100) + struct.pack("!HI", 4, 65535)
    begins = PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW, 0, 0, b"\0\1\0\0")
    return End(), End(), begins, frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, 1, 0)


def grpc_trailers(code: int, text: str = "") -> Fields:
    return [("grpc-status", str(code)), *([("grpc-message", text)] if text else [])]


def facts(exchanges: Iterable[Exchange]) -> list[Fact]:
    found = []
    for exchange in exchanges:
        get = exchange.attributes.get
        rpc = "rpc.system.name" in exchange.attributes
        names = (
            ("rpc.method", "rpc.response.status_code", "otelauto.rpc.{}.messages")
            if rpc
            else ("url.path", "http.response.status_code", "http.{}.body.size")
        )
        sizes = (get(names[2].format(half)) for half in ("request", "response"))
        found.append(Fact(get(names[0]), get(names[1]), *sizes, exchange.incomplete))  # type: ignore[arg-type]
    return found


def one_request() -> Talk:
    c, s, begins, answers = hello()
    return Talk(
        "one request",
        ((CLIENT, begins + c.head(1, asks("/a"), END_STREAM)), (SERVER, answers),
         (CLIENT, frame(SETTINGS, 1, 0)),
         (SERVER, s.head(1, says(200)) + data(1, b"hello", END_STREAM))),
        (Fact("/a", 200, None, 5),),
    )  # fmt: skip


def server_first() -> Talk:
    c, s, begins, answers = hello()
    return Talk(
        "the server speaks first",
        ((SERVER, answers[:21]), (CLIENT, begins + c.head(1, asks("/a"), END_STREAM)),
         (SERVER, answers[21:] + s.head(1, says(404), END_STREAM))),
        (Fact("/a", 404),),
    )  # fmt: skip


def interleaved() -> Talk:
    c, s, begins, answers = hello()
    ask = begins + answers[:0]
    ask += c.head(1, asks("/a", "POST")) + c.head(3, asks("/b"), END_STREAM)
    ask += data(1, b"x" * 300) + c.head(5, asks("/c", "PUT"), 0, 3) + data(5, b"y" * 20)
    more = data(1, b"x" * 200, END_STREAM) + frame(PING, 0, 0, bytes(8)) + data(5, b"", END_STREAM)
    reply = answers + s.head(3, says(200)) + data(3, b"b" * 100) + s.head(5, says(201), 0, 2)
    last = data(5, b"c" * 50) + s.head(1, says(500)) + data(3, b"b" * 11, END_STREAM)
    last += data(1, b"a" * 400, END_STREAM) + data(5, b"c", END_STREAM)
    return Talk(
        "interleaved streams and CONTINUATION",
        ((CLIENT, ask), (SERVER, reply), (CLIENT, more), (SERVER, last)),
        (Fact("/b", 200, None, 111), Fact("/a", 500, 500, 400), Fact("/c", 201, 20, 51)),
    )


def padding_trailers_interim() -> Talk:
    c, s, begins, answers = hello()
    body = bytes([9]) + b"z" * 30 + bytes(9)
    ask = begins + c.padded(1, asks("/a", "POST")) + frame(DATA, PADDED, 1, body)
    ask += c.head(1, [("x-sum", "1")], END_STREAM)
    reply = answers + s.head(1, says(103, ("link", "</x>"))) + s.padded(1, says(200))
    reply += frame(DATA, PADDED, 1, body) + frame(0x50, 3, 0, b"")[:0]
    reply += s.head(1, [("x-sum", "2")], END_STREAM)
    return Talk(
        "padding, priorities, interim response, trailers",
        ((CLIENT, ask), (SERVER, reply)),
        (Fact("/a", 200, 30, 30),),
    )


def resets_and_goaway() -> Talk:
    c, s, begins, answers = hello()
    ask = begins + b"".join(c.head(n, asks(f"/{n}"), END_STREAM) for n in (1, 3, 5, 7, 9))
    reply = answers + s.head(1, says(200)) + data(1, b"begins")
    reset = frame(RST, 0, 1, struct.pack("!I", 8))
    rest = frame(RST, 0, 3, struct.pack("!I", 7)) + frame(GOAWAY, 0, 0, struct.pack("!II", 5, 0))
    rest += s.head(5, says(204), END_STREAM)
    return Talk(
        "RST_STREAM from both ends, GOAWAY",
        ((CLIENT, ask), (SERVER, reply), (CLIENT, reset), (SERVER, rest)),
        (Fact("/1", 200, None, None, "aborted"), Fact("/3", None, None, None, "aborted"),
         Fact("/7", None, None, None, "aborted"), Fact("/9", None, None, None, "aborted"),
         Fact("/5", 204)),
        SERVER,
    )  # fmt: skip


def ended_before_their_end() -> Talk:
    """Who has all that was promised does not wait for END_STREAM."""
    c, s, begins, answers = hello()
    promises = ("content-length", "5")
    ask = begins + c.head(1, asks("/1"), END_STREAM) + c.head(3, asks("/3", "HEAD"), END_STREAM)
    ask += b"".join(c.head(n, asks(f"/{n}"), END_STREAM) for n in (5, 7, 9, 11))
    reply = answers + s.head(1, says(200, promises)) + data(1, b"whole")
    reply += s.head(3, says(200, promises)) + s.head(5, says(204))
    reply += s.head(7, says(200, promises)) + data(7, b"part")
    reply += s.head(9, says(200, promises)) + data(9, b"who") + data(9, b"le")
    reply += s.head(11, says(200, promises)) + data(11, b"whole")
    failure = frame(RST, 0, 11, struct.pack("!I", 2))
    resets = b"".join(frame(RST, 0, n, struct.pack("!I", 8)) for n in (1, 3, 5, 7))
    return Talk(
        "streams that end before their end",
        ((CLIENT, ask), (SERVER, reply + failure), (CLIENT, resets)),
        (Fact("/11", 200, None, None, "aborted"), Fact("/1", 200, None, 5), Fact("/3", 200),
         Fact("/5", 204), Fact("/7", 200, None, None, "aborted"), Fact("/9", 200, None, 5)),
        CLIENT,
    )  # fmt: skip


def many_with_tables() -> Talk:
    """The same fields again and again, the table resized and overflowing."""
    c, s, begins, answers = hello()
    turns: list[Turn] = [(CLIENT, begins), (SERVER, answers)]
    truths = []
    for n in range(30):
        stream = 2 * n + 1
        if n in (10, 20):
            c.encoder.header_table_size = s.encoder.header_table_size = 100 if n == 10 else 4096
        path = f"/items/{n:04d}/" + "long" * (n % 7)
        custom = ("x-request", f"{n % 3}" * 200)
        turns.append((CLIENT, c.head(stream, asks(path, "GET", custom), END_STREAM)))
        head = s.head(stream, says(200 + n % 3, ("etag", f"{n // 4}")))
        turns.append((SERVER, head + data(stream, b"x" * n, END_STREAM)))
        truths.append(Fact(path, 200 + n % 3, None, n or None))
    return Talk("dynamic tables", tuple(turns), tuple(truths))


def pushed() -> Talk:
    c, s, begins, answers = hello()
    promise = struct.pack("!I", 2) + s.block(asks("/pushed", "GET", ("x-a", "1")))
    reply = answers + frame(PUSH, END_HEADERS, 1, promise) + s.head(1, says(200, ("x-a", "1")))
    reply += s.head(2, says(200)) + data(1, b"own", END_STREAM) + data(2, b"pushed", END_STREAM)
    return Talk(
        "server push",
        ((CLIENT, begins + c.head(1, asks("/a"), END_STREAM)), (SERVER, reply),
         (CLIENT, c.head(3, asks("/b", "HEAD"), END_STREAM)),
         (SERVER, s.head(3, says(200, ("x-a", "1")), END_STREAM))),
        (Fact("/a", 200, None, 3), Fact("/b", 200)),
    )  # fmt: skip


def grpc_kinds() -> Talk:
    c, s, begins, answers = hello()
    ask = begins + c.head(1, calls("/p.S/Unary", ("grpc-timeout", "500m")))
    ask += data(1, message(10), END_STREAM)
    ask += c.head(3, calls("/p.S/Up")) + data(3, message(5) + message(300)[:100])
    reply = answers + s.head(1, GRPC_HEAD) + data(1, message(70))
    reply += s.head(1, grpc_trailers(0), END_STREAM)
    more = data(3, message(300)[100:]) + data(3, message(0), END_STREAM)
    fails = s.head(3, GRPC_HEAD) + s.head(3, grpc_trailers(5, "no%20such"), END_STREAM)
    down = c.head(5, calls("/p.S/Down")) + data(5, message(1), END_STREAM)
    downs = s.head(5, GRPC_HEAD) + b"".join(data(5, message(n)) for n in range(7))
    downs += s.head(5, grpc_trailers(13), END_STREAM)
    both = c.head(7, calls("/p.S/Both")) + data(7, message(2) + message(3))
    only = s.head(7, [*GRPC_HEAD, *grpc_trailers(16)], END_STREAM)
    stop = c.head(9, calls("/p.S/Cancelled")) + data(9, message(2), END_STREAM)
    return Talk(
        "gRPC: four kinds of call, trailers alone, cancelled",
        ((CLIENT, ask), (SERVER, reply), (CLIENT, more), (SERVER, fails), (CLIENT, down),
         (SERVER, downs), (CLIENT, both), (SERVER, only), (CLIENT, stop),
         (CLIENT, frame(RST, 0, 9, struct.pack("!I", 8)))),
        (Fact("p.S/Unary", "OK", 1, 1), Fact("p.S/Up", "NOT_FOUND", 3, 0),
         Fact("p.S/Down", "INTERNAL", 1, 7), Fact("p.S/Both", "UNAUTHENTICATED", None, 0),
         Fact("p.S/Cancelled", None, 1, None, "aborted")),
    )  # fmt: skip


def web_and_connect() -> Talk:
    c, s, begins, answers = hello()
    trailer = b"grpc-status: 7\r\ngrpc-message: no\r\n"
    web = asks("/p.S/Web", "POST", ("content-type", "application/grpc-web+proto"))
    unary = asks("/p.S/Unary", "POST", ("content-type", "application/proto"),
                 ("connect-protocol-version", "1"))  # fmt: skip
    ask = begins + c.head(1, web) + data(1, message(4), END_STREAM)
    ask += c.head(3, unary) + data(3, b"raw", END_STREAM)
    reply = answers + s.head(1, says(200, ("content-type", "application/grpc-web+proto")))
    reply += data(1, message(9) + struct.pack("!BI", 0x80, len(trailer)) + trailer, END_STREAM)
    reply += s.head(3, says(200)) + data(3, b"raw", END_STREAM)
    return Talk(
        "gRPC-Web and Connect",
        ((CLIENT, ask), (SERVER, reply)),
        (Fact("p.S/Web", "PERMISSION_DENIED", 1, 1), Fact("p.S/Unary", "OK")),
    )


def unanswered() -> Talk:
    c, s, begins, answers = hello()
    ask = begins + c.head(1, asks("/a"), END_STREAM) + c.head(3, asks("/b", "POST")) + data(3, b"x")
    return Talk(
        "closed while streams are open",
        ((CLIENT, ask), (SERVER, answers + s.head(1, says(200)) + data(1, b"part"))),
        (Fact("/a", 200, None, None, "aborted"), Fact("/b", None, None, None, "aborted")),
        CLIENT,
    )


TALKS = tuple(
    make()
    for make in (
        one_request, server_first, interleaved, padding_trailers_interim, resets_and_goaway,
        ended_before_their_end, many_with_tables, pushed, grpc_kinds, web_and_connect, unanswered,
    )
)  # fmt: skip
