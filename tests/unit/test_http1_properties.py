# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.x conversations of any make, cut anywhere, are read as they were written."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.battery import pieces, truths
from tests.wire.transcripts import Truth
from tests.wire.wire import CLIENT, SERVER, Heads, Wire, read

from otelauto.flows.vocabulary import Likeness
from otelauto.protocols.http1_head import Fields, find_end, likeness

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda t: "x" + t)
VALUES = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40
)
FIELDS = st.lists(st.tuples(TOKENS, VALUES), max_size=6)
BODIES = st.binary(max_size=300)
CHUNKS = st.lists(st.binary(min_size=1, max_size=80), max_size=5)
LINE_ENDS = st.sampled_from([b"\r\n", b"\n"])
STATUSES = st.sampled_from([200, 201, 204, 302, 304, 404, 418, 500, 503])
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])


@dataclass(frozen=True)
class Body:
    """A body and the framing it is sent with."""

    chunks: tuple[bytes, ...]
    chunked: bool

    def fields(self) -> list[bytes]:
        if self.chunked:
            return [b"transfer-ENCODING: Chunked"]
        return [b"Content-length:%d" % self.size()]

    def size(self) -> int:
        return sum(map(len, self.chunks))

    def wire(self) -> bytes:
        if not self.chunked:
            return b"".join(self.chunks)
        return b"".join(b"%X\r\n%b\r\n" % (len(c), c) for c in self.chunks) + b"0\r\n\r\n"


MESSAGE_BODIES = st.builds(Body, CHUNKS.map(tuple), st.booleans())


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[bytes, bytes, Truth]:
    method, status = draw(METHODS), draw(STATUSES)
    path = "/" + draw(st.text("abc/%.~_-0123456789", max_size=30))
    sent = draw(st.none() | MESSAGE_BODIES)
    reply = draw(MESSAGE_BODIES)
    line_end = draw(LINE_ENDS)
    request = _head(f"{method} {path}?{draw(TOKENS)} HTTP/1.1", draw(FIELDS), sent, line_end)
    response = _head(f"HTTP/1.1 {status} {draw(TOKENS)}", draw(FIELDS), reply, draw(LINE_ENDS))
    without = method == "HEAD" or status in (204, 304)
    truth = Truth(
        method, path, status, sent.size() if sent else None, None if without else reply.size()
    )
    return (
        request + (sent.wire() if sent else b""),
        response + (b"" if without else reply.wire()),
        truth,
    )


def _head(line: str, fields: list[tuple[str, str]], body: Body | None, line_end: bytes) -> bytes:
    lines = [line.encode()]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in fields]
    lines += body.fields() if body is not None else []
    return line_end.join([*lines, b"", b""])


CONVERSATIONS = st.lists(exchanges(), min_size=1, max_size=5)
CUTS = st.lists(st.integers(1, 3000), max_size=12)


@settings(max_examples=400, deadline=None)
@given(CONVERSATIONS, CUTS, CUTS, st.booleans(), st.sampled_from([SERVER, CLIENT]))
def test_any_conversation_cut_anywhere(
    conversation: list[tuple[bytes, bytes, Truth]],
    request_cuts: list[int],
    response_cuts: list[int],
    pipelined: bool,
    view: str,
) -> None:
    wire = Wire(view=view).open()
    turns = [(sent, reply) for sent, reply, _ in conversation]
    if pipelined:
        turns = [(b"".join(sent for sent, _ in turns), b"".join(reply for _, reply in turns))]
    for sent, reply in turns:
        for piece in pieces(sent, request_cuts):
            wire.send(CLIENT, piece)
        for piece in pieces(reply, response_cuts):
            wire.send(SERVER, piece)
    assert truths(read(wire)) == [truth for _, _, truth in conversation]


@settings(max_examples=300, deadline=None)
@given(CONVERSATIONS, CUTS, st.integers(0, 600), st.integers(0, 600))
def test_copying_less_hides_sizes_and_nothing_else(
    conversation: list[tuple[bytes, bytes, Truth]], cuts: list[int], sent_want: int, want: int
) -> None:
    """Heads are always wholly copied here: the first segment of each turn is the head."""
    wire = Wire(heads=Heads(sent_want, want)).open()
    for sent, reply, _ in conversation:
        for sender, data in ((CLIENT, sent), (SERVER, reply)):
            end = find_end(data)
            assert end is not None
            wire.send(sender, data[: end[1]], captured=end[1])
            for piece in pieces(data[end[1] :], cuts):
                wire.send(sender, piece)
    found = truths(read(wire))
    true = [truth for _, _, truth in conversation]
    assert [(t.method, t.path, t.status, t.incomplete) for t in found] == [
        (t.method, t.path, t.status, t.incomplete) for t in true
    ]
    for each, known in zip(found, true, strict=True):
        assert each.request_size in (known.request_size, None)
        assert each.response_size in (known.response_size, None)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_likeness_never_changes_its_mind(data: bytes, cut: int) -> None:
    """What is recognised, or ruled out, in a prefix stays so with more bytes."""
    for text in (data, b"GET /" + data + b" HTTP/1.1\r\n", b"HTTP/1.1 2" + data):
        early, late = likeness(text[:cut]), likeness(text)
        if early is not Likeness.MAYBE:
            assert late is early


@given(FIELDS, TOKENS, st.lists(VALUES, min_size=1, max_size=3))
def test_fields_are_found_in_any_case_and_order(
    fields: list[tuple[str, str]], name: str, values: list[str]
) -> None:
    name += "-wanted"
    lines = [f"{key}: {value}" for key, value in fields]
    for number, value in enumerate(values):
        spelt = name.upper() if number % 2 else name
        lines.insert(number * 2, f"{spelt}:{value}\t")
    head = Fields("\r\n".join(["", *lines]).encode("latin-1"))
    key = f"\n{name}:".encode()
    wanted = tuple(value.strip(" \t").encode("latin-1") for value in values)
    assert head.values(key) == wanted
    assert head.value(key) == wanted[0]
    assert head.value(b"\nabsent:") is None
