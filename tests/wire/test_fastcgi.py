# SPDX-License-Identifier: Apache-2.0
"""FastCGI read in every way."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

import pytest
from tests.wire.battery import Cut, pieces
from tests.wire.http2 import Fact, facts
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Heads, Reader, Wire, read

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR = range(1, 8)


@dataclass(frozen=True)
class Talk:
    name: str
    turns: tuple[tuple[str, bytes], ...]
    truths: tuple[Fact, ...]


def record(kind: int, number: int, content: bytes = b"", padding: int = 0) -> bytes:
    header = struct.pack("!BBHHBB", 1, kind, number, len(content), padding, 0)
    return header + content + bytes(padding)


def length(size: int) -> bytes:
    return bytes([size]) if size < 128 else struct.pack("!I", size | 1 << 31)


def asks(path: str, method: str = "GET", body: bytes = b"", number: int = 1, **more: str) -> bytes:
    fields = {"REQUEST_METHOD": method, "REQUEST_URI": path, "HTTP_HOST": "svc.example:8080",
              "HTTP_X_LONG": "l" * 300, "SCRIPT_FILENAME": "/srv/a.php", **more}  # fmt: skip
    params = b"".join(
        length(len(k)) + length(len(v)) + k.encode() + v.encode() for k, v in fields.items()
    )
    begins = record(BEGIN, number, struct.pack("!HB5x", 1, 1))
    half = len(params) // 2
    said = record(PARAMS, number, params[:half], 3) + record(PARAMS, number, params[half:])
    said += record(PARAMS, number)
    if body:
        said += record(STDIN, number, body, 1)
    return begins + said + record(STDIN, number)


def says(head: str, body: bytes, number: int = 1, status: int = 0) -> bytes:
    out = head.encode() + b"\r\n\r\n" + body
    cut = len(out) // 3
    said = record(STDOUT, number, out[:cut], 5) + record(STDERR, number, b"warning")
    said += record(STDOUT, number, out[cut:]) + record(STDOUT, number)
    return said + record(END, number, struct.pack("!IB3x", 0, status))


TALKS = (
    Talk(
        "one after another",
        ((CLIENT, asks("/a?x=1")), (SERVER, says("Content-type: text/html", b"hello")),
         (CLIENT, asks("/b", "POST", b"body" * 20)), (SERVER, says("Status: 404 No\r\nX: y", b"n")),
         (CLIENT, asks("/c")), (SERVER, says("Location: /d", b""))),
        (Fact("/a", 200, None, 5), Fact("/b", 404, 80, 1), Fact("/c", 302)),
    ),
    Talk(
        "overlapping requests, one refused",
        ((CLIENT, asks("/a", number=1) + asks("/b", number=2) + asks("/c", number=3)),
         (SERVER, record(END, 3, struct.pack("!IB3x", 0, 2)) + says("A: b", b"2", 2)),
         (SERVER, says("Status: 500", b"1", 1))),
        (Fact("/c", None, None, None, "aborted"), Fact("/b", 200, None, 1),
         Fact("/a", 500, None, 1)),
    ),
)  # fmt: skip

every = pytest.mark.parametrize("talk", TALKS, ids=lambda t: t.name)


def play(
    talk: Talk, view: str = SERVER, cut: Cut | None = None, heads: Heads | None = None
) -> Wire:
    wire = Wire(view=view, heads=heads).open()
    for number, (sender, said) in enumerate(talk.turns):
        for piece in pieces(said, cut(number, said) if cut is not None else ()):
            wire.send(sender, piece)
    return wire


def wrong(found: list[Fact], talk: Talk) -> list[Fact]:
    true = {fact.what: fact for fact in talk.truths}
    return [
        each
        for each in found
        if each.what is not None
        and (
            each.what not in true
            or each.status not in (None, true[each.what].status)
            or each.request not in (None, true[each.what].request)
            or each.response not in (None, true[each.what].response)
        )
    ]


@every
@pytest.mark.parametrize("view", [SERVER, CLIENT])
def test_whole_and_byte_by_byte(talk: Talk, view: str) -> None:
    assert facts(read(play(talk, view))) == list(talk.truths)
    assert facts(read(play(talk, view, lambda _, said: range(1, len(said))))) == list(talk.truths)


@every
def test_split_at_every_boundary(talk: Talk) -> None:
    for turn, (_, said) in enumerate(talk.turns):
        for cut in range(1, len(said)):
            wire = play(talk, SERVER, lambda n, _, cut=cut, turn=turn: [cut] if n == turn else [])
            assert facts(read(wire)) == list(talk.truths), (turn, cut)


@every
@pytest.mark.parametrize("want", [16, 64, 200, 700])
def test_holes(talk: Talk, want: int) -> None:
    assert not wrong(facts(read(play(talk, heads=Heads(want, want, b"-")))), talk)


@every
def test_records_lost_and_joined_midstream(talk: Talk) -> None:
    choice = random.Random(talk.name)
    wire = play(talk, cut=lambda _, said: range(30, len(said), 30))
    for _ in range(100):
        kept = [r for r in wire.records if choice.random() > 0.1]
        assert not wrong(facts(Reader().feed(kept).tick(wire.time + SECOND_NS).exchanges), talk)
    late = Wire(midstream=True).open()
    for sender, said in talk.turns[1:]:
        late.send(sender, said)
    assert not wrong(facts(read(late)), talk)


def test_joined_between_two_requests() -> None:
    wire = Wire(midstream=True).open()
    for sender, said in TALKS[0].turns[1:]:
        wire.send(sender, said)
    assert facts(read(wire)) == list(TALKS[0].truths[1:])


def test_attributes() -> None:
    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    more = {"HTTP_TRACEPARENT": context, "HTTP_USER_AGENT": "test/1", "REQUEST_SCHEME": "https"}
    wire = Wire().open().send(CLIENT, asks("/a?q=1", **more)).send(SERVER, says("A: b", b"x"))
    (exchange,) = read(wire)
    assert exchange.protocol == "fastcgi"
    assert exchange.name == "GET"
    assert exchange.path == "/a"
    assert exchange.parent is not None
    expected = {
        "http.request.method": "GET", "url.path": "/a", "url.scheme": "https",
        "http.response.status_code": 200, "http.response.body.size": 1,
        "server.address": "svc.example", "server.port": 8080, "user_agent.original": "test/1",
    }  # fmt: skip
    assert expected.items() <= exchange.attributes.items()


@pytest.mark.parametrize(("length", "size"), [("40", 40), ("41", None), ("", None), ("x", None)])
def test_an_application_that_does_not_read_the_end_of_the_body(
    length: str, size: int | None
) -> None:
    """PHP stops at the length that it was told, and reads the empty record with what is next."""
    told = {"CONTENT_LENGTH": length} if length else {}
    asked = asks("/a", "POST", b"b" * 40, **told)
    ending = record(STDIN, 1)
    wire = Wire().open().send(CLIENT, asked[: -len(ending)]).send(SERVER, says("A: b", b"x"))
    wire.send(CLIENT, ending + asks("/b")).send(SERVER, says("A: b", b"x"))
    assert facts(read(wire)) == [Fact("/a", 200, size, 1), Fact("/b", 200, None, 1)]
