# SPDX-License-Identifier: Apache-2.0
"""Random conversations on several connections at once, mostly plain, sometimes anything but."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.hot.twin import Step
from tests.wire.wire import BEGIN_NS, CLIENT, SECOND_NS, SERVER, Heads, Wire

from otelauto.abi import SegmentFlag
from otelauto.flows.vocabulary import Family

METHODS = (b"GET", b"GET", b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"X")
PATHS = (
    b"/", b"/users/42", b"/users/7/orders", b"/a?b=c", b"/a#f?x", b"/caf%C3%A9", b"//x/", b"/index",
    b"/v1/items/3f2504e0-4f89-11d3-9a0c-0305e82c3301", b"/long/" + b"x" * 300, b"/p" + b"/q" * 15,
    b"*", b"http://other.example:99/abs", b"/sp ace", b"/\xc3\xa9", b"/tab\tx",
)  # fmt: skip
HOSTS = (b"shop.example", b"shop.example:8080", b"[::1]:81", b"10.1.2.3:x", b"", b"h\xff")
AGENTS = (b"curl/8.1", b"", b"Mozilla/5.0 (X11; Linux x86_64)" * 4, b"a\xe9b", b"tab\there")
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
PARENTS = (
    PARENT + b"1", PARENT + b"0", PARENT.replace(b"00-", b"cc-", 1) + b"1", PARENT.upper() + b"1",
    PARENT + b"1-x", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", b"",
)  # fmt: skip
STATUSES = (200, 200, 200, 201, 204, 301, 304, 400, 404, 404, 500, 503, 599, 100, 103, 999, 600)
ODD_REQUEST_FIELDS = (
    b"Expect: 100-continue", b"Upgrade: h2c", b"Host: second", b"Content-Length: 3",
    b"Transfer-Encoding: identity", b"X-Fold: a\r\n b", b"no colon", b"Content-Length : 4",
    b"traceparent: " + PARENT + b"1", b"hOsT:other", b"Content-Type: application/grpc-web+proto",
    b"content-TYPE:application/connect+json", b"Connect-Protocol-Version: 1",
    b"Content-Type: application/grpc",
)  # fmt: skip
ODD_RESPONSE_FIELDS = (
    b"Transfer-Encoding: gzip, chunked", b"Content-Length: 1,1", b"Content-Length: +3",
    b"Content-Length: 99999999999999999999", b"X: \xff\xfe", b"cONTENT-lENGTH: 3", b" folded",
    b"Content-Type: text/event-stream",
)  # fmt: skip


@dataclass
class _Talk:
    """One connection, with what it still has to say: (sender, bytes) of whole messages."""

    wire: Wire
    plain: float  # share of exchanges without any oddity


def damage(choice: random.Random, wire: Wire, otherwise: Callable[[], None]) -> None:
    """A record that lacks, one with a bit turned, a place or a number lost; or ``otherwise``."""
    match choice.randrange(5):
        case 0:
            wire.records.pop()
        case 1:
            record = bytearray(wire.records.pop())
            record[choice.randrange(len(record))] ^= 1 << choice.randrange(8)
            wire.records.append(bytes(record))
        case 2:
            wire.offsets[choice.randrange(2)] += choice.randint(1, 50)
        case 3:
            otherwise()
        case _:
            wire.sequence += choice.randint(1, 3)


class Traffic:
    """``steps`` of one seed."""

    def __init__(self, seed: object) -> None:
        self.choice = random.Random(str(seed))
        self.now = BEGIN_NS
        self.steps: list[Step] = []
        self.cookies = 0
        # Few kinds of exchanges a seed, so that there is something to remember.
        self.methods = self.choice.sample(METHODS[2:9], 2)
        self.paths = self.choice.sample(PATHS[:11], 3)
        self.hosts = self.choice.sample(HOSTS[:3], 1)
        self.statuses = self.choice.sample(STATUSES[2:12], 2)
        self.talks = [self._talk() for _ in range(self.choice.randint(1, 3))]

    def make(self, exchanges: int) -> list[Step]:
        choice = self.choice
        for _ in range(exchanges):
            talk = choice.choice(self.talks)
            request = self.request(talk.plain)
            response = self.response(talk.plain, request.startswith(b"HEAD "))
            turns = [(CLIENT, request), (SERVER, response)]
            if not self.usual(talk.plain):
                turns = self._disturbed(turns)
            self._play(talk, turns)
            if choice.random() < 0.1:
                self.now += choice.choice((10**6, SECOND_NS // 2, 6 * SECOND_NS, 70 * SECOND_NS))
                self.steps.append(self.now)
            if choice.random() < 0.01:
                self._end(talk)
        self.steps.append(self.now + SECOND_NS)
        return self.steps

    def usual(self, plain: float) -> bool:
        """Whether this time everything is usual."""
        return self.choice.random() < plain

    def _talk(self) -> _Talk:
        choice = self.choice
        self.cookies += 1
        heads = Heads(choice.choice((100, 8192, 8192, 8192)), choice.choice((64, 1024, 1024)))
        unix = choice.random() < 0.2
        wire = Wire(
            view=choice.choice((CLIENT, SERVER)),
            cookie=self.cookies,
            heads=heads if choice.random() < 0.5 else None,
            family=Family.UNIX if unix else choice.choice((Family.INET, Family.INET6)),
            path=b"/run/app.sock\0" if unix else b"",
            remote=("10.0.0.1", 40000 + choice.randint(0, 2)),
            tgid=choice.choice((77, 77, 78, 79)),
            sequence=choice.choice((0, 0, 0xFFFFFFF8)),
        )
        wire.time = self.now
        talk = _Talk(wire, choice.choice((1.0, 0.99, 0.97, 0.8)))
        wire.open()
        self._flush(talk)
        return talk

    # ---- messages ----

    def request(self, plain: float) -> bytes:
        choice, usual = self.choice, self.usual(plain)
        method = choice.choice(self.methods if usual else METHODS)
        path = choice.choice(self.paths if usual else PATHS)
        host = choice.choice(self.hosts if usual else HOSTS)
        body = choice.randbytes(choice.choice((0, 3, 500))) if method in METHODS[3:5] else b""
        fields = [b"Host: " + host, b"Accept: */*", b"X-Padding: " + b"p" * choice.randint(0, 90)]
        if choice.random() < 0.5:
            fields.append(b"User-Agent:" + choice.choice(AGENTS[:3] if usual else AGENTS) + b" ")
        if choice.random() < 0.4:
            fields.append(b"Traceparent: " + choice.choice(PARENTS[:2] if usual else PARENTS))
        if body or choice.random() < 0.02:
            fields.append(b"Content-Length: %d" % len(body))
        if not usual and choice.random() < 0.5:
            fields.append(choice.choice(ODD_REQUEST_FIELDS))
        if not usual and choice.random() < 0.2:
            del fields[choice.randrange(len(fields))]
        choice.shuffle(fields)
        version = choice.choice((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2"))
        if usual:
            version = b"HTTP/1.1" if choice.random() < 0.97 else b"HTTP/1.0"
        return self._text(b"%b %b %b" % (method, path, version), fields, usual) + body

    def response(self, plain: float, to_head: bool = False) -> bytes:
        choice, usual = self.choice, self.usual(plain)
        status = choice.choice(self.statuses if usual else STATUSES)
        body = choice.randbytes(choice.choice((0, 5, 200, 3000)))
        bodiless = usual and (to_head or status in (204, 304))
        fields = [b"Server: x", b"Date: Sun, 22 Nov 2026 20:00:00 GMT"]
        kind = choice.random()
        if kind < 0.3:
            fields.append(b"Transfer-Encoding: chunked")
            body = self._chunked(body, usual)
        elif kind < 0.95 or usual:
            fields.append(b"Content-Length: %d" % len(body))
        if not usual and choice.random() < 0.6:
            fields.append(choice.choice(ODD_RESPONSE_FIELDS))
        choice.shuffle(fields)
        reason = choice.choice((b" OK", b" Not Found", b" ", b""))
        line = b"HTTP/1.%d %d%b" % (choice.randint(0, 1), status, reason)
        return self._text(line, fields, usual) + (b"" if bodiless else body)

    def _chunked(self, body: bytes, usual: bool) -> bytes:
        choice = self.choice
        text = b""
        while body:
            size = choice.randint(1, len(body))
            extension = b"" if usual else choice.choice((b"", b";x=y", b" "))
            digits = choice.choice((b"%x", b"%X", b"00%x")) % size
            text += digits + extension + b"\r\n" + body[:size] + b"\r\n"
            body = body[size:]
        return text + (
            b"0\r\n\r\n" if usual else choice.choice((b"0\r\n\r\n", b"0\r\nT: 1\r\n\r\n"))
        )

    def _text(self, line: bytes, fields: list[bytes], usual: bool) -> bytes:
        text = b"\r\n".join([line, *fields, b"", b""])
        if usual or self.choice.random() < 0.5:
            return text
        at = self.choice.randrange(len(text))
        return self.choice.choice(
            (
                text.replace(b"\r\n", b"\n", 1),
                text.replace(b"\r\n", b"\r\r\n", 1),
                text[:at] + self.choice.randbytes(1) + text[at + 1 :],
                text[:at] + text[at + 1 :],
                b"\r\n" + text,
            )
        )

    # ---- what becomes of them ----

    def _disturbed(self, turns: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        choice = self.choice
        match choice.randrange(6):
            case 0:  # pipelined
                first, answer = turns
                return [(CLIENT, first[1] + self.request(1)), answer, (SERVER, self.response(1))]
            case 1:  # the next request before the response
                return [turns[0], (CLIENT, self.request(1)), turns[1], (SERVER, self.response(1))]
            case 2:
                return turns[1:]
            case 3:
                return turns[:1]
            case 4:
                return turns[::-1]
            case _:  # two responses at once
                return [turns[0], (SERVER, turns[1][1] + self.response(1))]

    def _play(self, talk: _Talk, turns: list[tuple[str, bytes]]) -> None:
        choice, wire = self.choice, talk.wire
        for sender, text in turns:
            for begin, end in self._cut(text, talk.plain):
                wire.time = self.now
                wire.send(sender, text[begin:end])
                self.now = wire.time
                if choice.random() < 0.02 * (1 - talk.plain):
                    wire.tgid = choice.choice((77, 78))
                if choice.random() < 0.1 * (1 - talk.plain):
                    damage(choice, talk.wire, partial(self._shorten, talk.wire))
                self._flush(talk)
                if choice.random() < 0.02:
                    self.now += choice.choice((1000, 6 * SECOND_NS))
                    self.steps.append(self.now)

    def _cut(self, text: bytes, plain: float) -> list[tuple[int, int]]:
        """The system calls that move ``text``: whole heads, if all is usual."""
        choice = self.choice
        first = text.find(b"\r\n\r\n") + 4 if self.usual(plain) else 0
        count = choice.choice((0, 0, 0, 1, 2))
        cuts = sorted({choice.randint(first, len(text)) for _ in range(count)} - {0, len(text)})
        return list(zip((0, *cuts), (*cuts, len(text)), strict=True))

    def _shorten(self, wire: Wire) -> None:
        wire.records.append(wire.records[-1][: self.choice.randrange(200)])

    def _end(self, talk: _Talk) -> None:
        choice = self.choice
        talk.wire.time = self.now
        if choice.random() < 0.4:
            talk.wire.finish(choice.choice((CLIENT, SERVER)))
        if choice.random() < 0.9:
            talk.wire.end(choice.choice((SegmentFlag.FLAG_CLOSED, SegmentFlag.FLAG_RESET)))
            self.talks.remove(talk)
        self._flush(talk)
        if talk not in self.talks:
            self.talks.append(self._talk())

    def _flush(self, talk: _Talk) -> None:
        self.now = max(self.now, talk.wire.time)
        self.steps += talk.wire.records
        talk.wire.records.clear()
