# SPDX-License-Identifier: Apache-2.0
"""Conversations in HTTP/1.x with what is true of them. Paths are unique within a transcript."""

from __future__ import annotations

from dataclasses import dataclass

from tests.wire.websocket import PING, PONG, TEXT, close, frame
from tests.wire.wire import CLIENT, SERVER


@dataclass(frozen=True)
class Truth:
    """One exchange. Sizes are exact body sizes, ``None`` where none may be claimed."""

    method: str
    path: str | None
    status: int | None
    request_size: int | None = None
    response_size: int | None = None
    incomplete: str | None = None


@dataclass(frozen=True)
class Transcript:
    """``turns`` are (sender, bytes) in causal order; ``closer`` ends the connection, if anyone."""

    name: str
    turns: tuple[tuple[str, bytes], ...]
    truths: tuple[Truth, ...]
    closer: str = ""


def c(data: bytes) -> tuple[str, bytes]:
    return CLIENT, data


def s(data: bytes) -> tuple[str, bytes]:
    return SERVER, data


def get(path: str, *fields: bytes) -> bytes:
    return request("GET", path, *fields)


def request(method: str, path: str, *fields: bytes, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: svc.example:8080", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(path: str, body: bytes, *fields: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return request("POST", path, length, *fields, body=body)


def answer(status: int = 200, body: bytes = b"", *fields: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return bare(status, length, *fields) + body


def bare(status: int, *fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d Reason" % status, *fields]) + b"\r\n\r\n"


CHUNKED = b"Transfer-Encoding: chunked"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 9, 10, 0, 0, 2]) + b"\x30\x39\x1f\x90"
)
SIXTEEN = [*range(400, 416)]
LONG = b"data " * 60
OPEN = bytes(4)  # a mask that hides nothing

TRANSCRIPTS = (
    Transcript(
        "one request, connection stays open",
        (c(get("/a")), s(answer(200, b"hello"))),
        (Truth("GET", "/a", 200, None, 5),),
    ),
    Transcript(
        "keep-alive",
        (c(get("/a")), s(answer(200, b"1")), c(post("/b", b"xy")), s(answer(404, b"no")),
         c(get("/c?q=1")), s(answer(500, b""))),
        (Truth("GET", "/a", 200, None, 1), Truth("POST", "/b", 404, 2, 2),
         Truth("GET", "/c", 500, None, 0)),
    ),
    Transcript(
        "pipelining, answered one by one",
        (c(get("/a") + post("/b", b"x\r\n\r\ny") + get("/c")), s(answer(200, b"1")),
         s(answer(201)), s(answer(202, b"333"))),
        (Truth("GET", "/a", 200, None, 1), Truth("POST", "/b", 201, 6, 0),
         Truth("GET", "/c", 202, None, 3)),
    ),
    Transcript(
        "chunked both ways, extensions and trailers",
        (c(request("PUT", "/a", CHUNKED, body=b"4;x=y\r\nWiki\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n")),
         s(bare(200, CHUNKED)
           + b"5\r\nhello\r\n00A ; e=\"q\"\r\n0123456789\r\n000\r\nT: v\r\n\r\n"),
         c(get("/b")), s(answer(200, b"!"))),
        (Truth("PUT", "/a", 200, 4, 15), Truth("GET", "/b", 200, None, 1)),
    ),
    Transcript(
        "chunked bodies that look like heads",
        (c(request("POST", "/a", CHUNKED, body=b"18\r\nGET /evil HTTP/1.1\r\n\r\n..\r\n0\r\n\r\n")),
         s(bare(200, CHUNKED) + b"13\r\nHTTP/1.1 500 X\r\n\r\n.\r\n0\r\n\r\n"),
         c(get("/b")), s(answer(204))),
        (Truth("POST", "/a", 200, 24, 19), Truth("GET", "/b", 204)),
    ),
    Transcript(
        "large chunks",
        (c(get("/a")), s(bare(200, CHUNKED) + b"1F40\r\n" + b"z" * 8000 + b"\r\n"),
         s(b"800\r\n" + b"y" * 2048 + b"\r\n"), s(b"0\r\n\r\n"),
         c(get("/b")), s(answer(200, b"b"))),
        (Truth("GET", "/a", 200, None, 10048), Truth("GET", "/b", 200, None, 1)),
    ),
    Transcript(
        "expect 100-continue",
        (c(request("POST", "/a", b"Content-Length: 5", b"Expect: 100-continue")), s(bare(100)),
         c(b"12345"), s(answer(201, b"ok")), c(get("/b")), s(answer(200))),
        (Truth("POST", "/a", 201, 5, 2), Truth("GET", "/b", 200, None, 0)),
    ),
    Transcript(
        "expect 100-continue refused, body never sent",
        (c(request("POST", "/a", b"Content-Length: 5", b"Expect: 100-continue")),
         s(answer(417, b"no")), c(get("/b")), s(answer(200, b"b"))),
        (Truth("POST", "/a", 417, None, 2), Truth("GET", "/b", 200, None, 1)),
    ),
    Transcript(
        "early hints and processing",
        (c(get("/a")), s(bare(102)), s(bare(103, b"Link: </x>") + bare(103) + answer(200, b"x"))),
        (Truth("GET", "/a", 200, None, 1),),
    ),
    Transcript(
        "no body: HEAD, 204, 304",
        (c(request("HEAD", "/a")), s(bare(200, b"Content-Length: 500")), c(get("/b")),
         s(bare(204)), c(get("/c")), s(bare(304, b"Content-Length: 9")), c(get("/d")),
         s(answer(200, b"d"))),
        (Truth("HEAD", "/a", 200), Truth("GET", "/b", 204), Truth("GET", "/c", 304),
         Truth("GET", "/d", 200, None, 1)),
    ),
    Transcript(
        "HTTP/1.0 ends at close",
        (c(b"GET /a HTTP/1.0\r\n\r\n"), s(b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n" + LONG), s(LONG)),
        (Truth("GET", "/a", 200, None, 600),),
        SERVER,
    ),
    Transcript(
        "HTTP/1.0 keep-alive",
        (c(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
         s(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
         c(b"GET /b HTTP/1.0\r\n\r\n"), s(b"HTTP/1.0 404 No\r\n\r\n")),
        (Truth("GET", "/a", 200, None, 2), Truth("GET", "/b", 404, None, 0)),
        SERVER,
    ),
    Transcript(
        "long streaming response",
        (c(get("/a")), s(bare(200, CHUNKED)), *(s(b"3\r\nab\n\r\n") for _ in range(20)),
         s(b"0\r\n\r\n")),
        (Truth("GET", "/a", 200, None, 60),),
    ),
    Transcript(
        "WebSocket",
        (c(get("/ws", b"Connection: Upgrade", b"Upgrade: websocket")),
         s(bare(101, b"Upgrade: websocket") + frame(TEXT, b"HTTP/1.1 200 OK\r\n\r\n")),
         c(frame(TEXT, b"GET /no HTTP/1.1\r\n\r\n", OPEN) + frame(PING, b"", b"abcd")),
         s(frame(PONG) + frame(TEXT, answer(200) * 5)), c(frame(TEXT, get("/inside"), OPEN)),
         c(close(1000, b"mask")), s(close(1000))),
        (Truth("GET", "/ws", 101),),
        SERVER,
    ),
    Transcript(
        "WebSocket broken off",
        (c(get("/ws", b"Connection: Upgrade", b"Upgrade: websocket")),
         s(bare(101, b"Upgrade: websocket")), c(frame(TEXT, get("/inside"), OPEN)),
         s(frame(TEXT, answer(200)))),
        (Truth("GET", "/ws", 101, incomplete="aborted"),),
        SERVER,
    ),
    Transcript(
        "another protocol after an upgrade",
        (c(get("/ws", b"Connection: Upgrade", b"Upgrade: another-protocol/1")),
         s(bare(101, b"Upgrade: another-protocol/1")), c(get("/inside")), s(answer(200))),
        (Truth("GET", "/ws", 101),),
    ),
    Transcript(
        "CONNECT tunnel",
        (c(request("CONNECT", "db.example:5432")), s(bare(200)), c(get("/inside")),
         s(answer(200, b"x"))),
        (Truth("CONNECT", None, 200),),
    ),
    Transcript(
        "CONNECT refused",
        (c(request("CONNECT", "db.example:5432")), s(answer(403, b"no")), c(get("/b")),
         s(answer(200))),
        (Truth("CONNECT", None, 403, None, 2), Truth("GET", "/b", 200, None, 0)),
    ),
    Transcript(
        "absolute form and asterisk form",
        (c(request("GET", "http://user:pw@other.example:81/a?q=1")), s(answer(200)),
         c(request("OPTIONS", "*")), s(answer(200)), c(request("GET", "http://other.example")),
         s(answer(302))),
        (Truth("GET", "/a", 200, None, 0), Truth("OPTIONS", "*", 200, None, 0),
         Truth("GET", "/", 302, None, 0)),
    ),
    Transcript(
        "PROXY protocol version 1",
        (c(b"PROXY TCP4 192.0.2.9 10.0.0.2 12345 8080\r\n" + get("/a")), s(answer(200)),
         c(get("/b")), s(answer(200))),
        (Truth("GET", "/a", 200, None, 0), Truth("GET", "/b", 200, None, 0)),
    ),
    Transcript(
        "PROXY protocol version 2",
        (c(V2 + get("/a")), s(answer(200)), c(get("/b")), s(answer(200))),
        (Truth("GET", "/a", 200, None, 0), Truth("GET", "/b", 200, None, 0)),
    ),
    Transcript(
        "equal duplicate lengths",
        (c(request("POST", "/a", b"Content-Length: 3", b"content-length: 3", body=b"abc")),
         s(bare(200, b"Content-Length: 2, 2") + b"ok"), c(get("/b")), s(answer(200))),
        (Truth("POST", "/a", 200, 3, 2), Truth("GET", "/b", 200, None, 0)),
    ),
    Transcript(
        "conflicting lengths of a request",
        (c(request("POST", "/a", b"Content-Length: 3", b"Content-Length: 5", body=b"abcde")),
         s(answer(400, b"bad"))),
        (Truth("POST", "/a", 400, None, 3),),
        SERVER,
    ),
    Transcript(
        "conflicting lengths of a response",
        (c(get("/a")), s(bare(200, b"Content-Length: 3", b"Content-Length: 5") + b"abcde"),
         c(get("/b")), s(answer(200, b"b"))),
        (Truth("GET", "/a", 200), Truth("GET", "/b", 200, None, 1)),
    ),
    Transcript(
        "Transfer-Encoding beats Content-Length",
        (c(request("POST", "/a", b"Content-Length: 99", CHUNKED, body=b"1\r\nx\r\n0\r\n\r\n")),
         s(bare(200, CHUNKED, b"Content-Length: 1") + b"2\r\nok\r\n0\r\n\r\n"), c(get("/b")),
         s(answer(200))),
        (Truth("POST", "/a", 200, 1, 2), Truth("GET", "/b", 200, None, 0)),
    ),
    Transcript(
        "line folding",
        (c(request("POST", "/a", b"X: a\r\n Content-Length: 7", b"Content-Length:\r\n\t3",
                   body=b"abc")),
         s(bare(200, b"Y: 1\r\n\t2", b"Content-Length: 1") + b"x")),
        (Truth("POST", "/a", 200, 3, 1),),
    ),
    Transcript(
        "bare line feeds",
        (c(b"POST /a HTTP/1.1\nHost: x\nContent-Length: 2\n\n\n\n"),
         s(b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc"), c(b"GET /b HTTP/1.1\nHost: x\r\n\n"),
         s(answer(200))),
        (Truth("POST", "/a", 200, 2, 3), Truth("GET", "/b", 200, None, 0)),
    ),
    Transcript(
        "empty lines before the request line",
        (c(b"\r\n\r\n" + get("/a")), s(answer(200)), c(b"\r\n" + get("/b")), s(answer(200))),
        (Truth("GET", "/a", 200, None, 0), Truth("GET", "/b", 200, None, 0)),
    ),
    Transcript(
        "unknown method, header names in any case",
        (c(b"BREW /a HTTP/1.1\r\nHOST:x\r\ncOnTeNt-LeNgTh:   3  \r\n\r\nabc"),
         s(b"HTTP/1.1 418\r\nCONTENT-LENGTH:0\r\n\r\n")),
        (Truth("_OTHER", "/a", 418, 3, 0),),
    ),
    Transcript(
        "aborted while waiting",
        (c(get("/a")), s(answer(200)), c(get("/b"))),
        (Truth("GET", "/a", 200, None, 0), Truth("GET", "/b", None, incomplete="aborted")),
        CLIENT,
    ),
    Transcript(
        "aborted in the response body",
        (c(get("/a")), s(bare(200, b"Content-Length: 1000") + b"only this")),
        (Truth("GET", "/a", 200, incomplete="aborted"),),
        CLIENT,
    ),
    Transcript(
        "aborted in the request body",
        (c(request("POST", "/a", b"Content-Length: 1000", body=b"only this")),),
        (Truth("POST", "/a", None, incomplete="aborted"),),
        CLIENT,
    ),
    Transcript(
        "early response to an unfinished body",
        (c(request("POST", "/a", b"Content-Length: 1000", body=b"begins")), s(answer(413, b"no"))),
        (Truth("POST", "/a", 413, None, 2),),
        SERVER,
    ),
    Transcript(
        "answer to an unfinished head",
        (c(b"GET /a HTTP/1.1\r\nHost: x\r\nX: "), s(answer(408, b""))),
        (Truth("GET", "/a", 408, None, 0),),
        SERVER,
    ),
    Transcript(
        "16 pipelined requests in one segment, answers in one",
        (c(b"".join(get(f"/{n}") for n in range(16))),
         s(b"".join(answer(SIXTEEN[n], b"x" * n) for n in range(16)))),
        tuple(Truth("GET", f"/{n}", SIXTEEN[n], None, n) for n in range(16)),
    ),
)  # fmt: skip
