# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: functions of bytes from outside. Any exception is a finding.

Here: captured traffic; the rest is in :mod:`tests.fuzz.outside`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.fuzz import outside, prometheus, river, serving, telemetry
from tests.reference.both import blocks_differ, by_reference
from tests.reference.hpack import Decoder as Reference
from tests.wire.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    TALKS,
    End,
    asks,
    hello,
    message,
    says,
)
from tests.wire.http2 import calls as calls_of
from tests.wire.http2 import frame as http2_frame
from tests.wire.test_fastcgi import TALKS as FASTCGI_TALKS
from tests.wire.transcripts import TRANSCRIPTS, answer, bare, get, post
from tests.wire.websocket import PING, TEXT, close
from tests.wire.websocket import frame as websocket_frame
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Heads, Reader, Wire

from otelauto.abi import SegmentFlag
from otelauto.flows.vocabulary import Exchange, Likeness
from otelauto.hot.hpack import Decoder
from otelauto.protocols import grpc
from otelauto.protocols.http1_redact import redact
from otelauto.protocols.http_operations import KINDS, definitions
from otelauto.protocols.json_body import members
from otelauto.protocols.opaque import Tls
from otelauto.protocols.settings import ProtocolSettings

ENDINGS = (
    SegmentFlag.FLAG_RECEIVE_ENDED,
    SegmentFlag.FLAG_SEND_ENDED,
    SegmentFlag.FLAG_CLOSED,
    SegmentFlag.FLAG_RESET,
)
OPERATIONS_MAX = 64


class _Input:
    """Reads decisions from the front of the fuzzer's bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def bytes(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def left(self) -> bool:
        return self._at < len(self._data)


def check(exchange: Exchange) -> None:
    """What must hold of any exchange, whatever the bytes were."""
    attributes = exchange.attributes
    status = attributes.get("http.response.status_code")
    said_little = "otelauto.fields.unknown" in attributes or "otelauto.head.truncated" in attributes
    is_call = "rpc.system.name" in attributes
    assert exchange.incomplete is not None or status is not None or said_little or is_call
    assert status is None or (isinstance(status, int) and 100 <= status <= 999)
    assert exchange.start_ns <= exchange.end_ns
    for name, value in attributes.items():
        assert "size" not in name or (isinstance(value, int) and value >= 0), name


def conversation(data: bytes) -> None:
    """Segments cut from transcripts and from noise, some lost, some not wholly captured."""
    _converse(data, [transcript.turns for transcript in TRANSCRIPTS])


def http2(data: bytes) -> None:
    """The same of conversations in HTTP/2 and gRPC, read by compiled code and by its reference."""
    _converse(data, [talk.turns for talk in TALKS], other=by_reference())


def same(records: list[bytes], now_ns: int) -> None:
    """Compiled code and its reference find the same."""
    readers = [
        reader.feed(records).tick(now_ns + SECOND_NS) for reader in (Reader(), by_reference())
    ]
    for reader in readers:
        reader.flows.close()
    assert readers[0].exchanges == readers[1].exchanges


def header_blocks(data: bytes) -> None:
    """Header blocks, one after another into one table; the first byte of each gives its length."""
    source, decoder, reference = _Input(data), Decoder(), Reference()
    while source.left():
        size = source.byte()
        block = source.bytes(size & 0x7F)
        assert not blocks_differ(decoder, reference, block, cut=size >= 0x80)


def calls(data: bytes) -> None:
    """What gRPC carries in fields, and in bodies: as many bytes of a body are seen as are told."""
    source = _Input(data)
    head, client = hello()[2], End()
    wire = Wire().open().send(CLIENT, head + client.head(1, calls_of("/p.S/Up")))
    while source.left():
        size = source.byte()
        body = http2_frame(
            DATA, 0, 1, source.bytes(size >> 1) + bytes(size >> 1 if size & 1 else 0)
        )
        wire.send(CLIENT, body, captured=9 + (size >> 1))
    wire.send(CLIENT, http2_frame(DATA, END_STREAM, 1))
    wire.send(SERVER, End().head(1, says(200, ("grpc-status", "0")), END_STREAM))
    same(wire.records, wire.time)
    grpc.trailer_fields(data)
    timeout = grpc.timeout_seconds(data)
    assert timeout is None or timeout >= 0


def others(data: bytes) -> None:
    """The same of FastCGI, of what follows upgrades, and of bodies that are looked into."""
    _converse(data, OTHERS, ProtocolSettings(operations=KINDS))


def beginnings(data: bytes) -> None:
    """The first bytes of a TLS connection; of a body that is JSON, or a document of GraphQL."""
    recognizer = Tls()
    for said in (data, b"\x16\x03\x01\x02\x00" + data):
        assert recognizer.recognize(said, False) is Likeness.NO
        assert recognizer.recognize(said, True) is not Likeness.MAYBE or len(said) < 6
    text = data.decode("utf-8", "replace")
    assert all(kind and len(name) <= len(text) for kind, name in definitions(text))
    for each in (text, '{"a":' + text):
        assert members(each, ("a", "query")).keys() <= {"a", "query"}


def _converse(
    data: bytes,
    conversations: Sequence[tuple[tuple[str, bytes], ...]],
    settings: ProtocolSettings | None = None,
    other: Reader | None = None,
) -> None:
    """``other`` has to find the same, if it is there."""
    source = _Input(data)
    options = source.byte()
    heads = Heads(source.byte() * 8, source.byte() * 8) if options & 1 else None
    view = CLIENT if options & 2 else SERVER
    wire = Wire(view=view, heads=heads, midstream=bool(options & 4)).open()
    turns = conversations[source.byte() % len(conversations)]
    texts = {
        side: b"".join(text for sender, text in turns if sender == side)
        for side in (CLIENT, SERVER)
    }
    done = {CLIENT: 0, SERVER: 0}
    readers = [Reader(settings or ProtocolSettings()), *([other] if other is not None else [])]
    for _ in range(OPERATIONS_MAX):
        if not source.left():
            break
        _step(source, wire, readers, texts, done)
    for reader in readers:
        reader.feed(wire.records).tick(wire.time + SECOND_NS)
        reader.flows.close()
        reader.flows.take_verdicts()
    for exchange in readers[0].exchanges:
        check(exchange)
    assert readers[0].exchanges == readers[-1].exchanges
    assert list(readers[0].counters.items()) == list(readers[-1].counters.items())


def _upgrades() -> list[tuple[tuple[str, bytes], ...]]:
    c, s, begins, answers = hello()
    mask = b"mask"
    asks_websocket = get("/ws", b"Connection: Upgrade", b"Upgrade: websocket")
    asks_http2 = get("/a", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c")
    return [
        (
            (CLIENT, asks_websocket),
            (SERVER, bare(101, b"Upgrade: websocket") + websocket_frame(TEXT, b"x" * 200)),
            (CLIENT, websocket_frame(PING, b"p", mask) + websocket_frame(TEXT, b"y" * 9, mask)),
            (SERVER, close(1000)),
            (CLIENT, close(1000, mask)),
        ),
        (
            (CLIENT, asks_http2),
            (SERVER, bare(101, b"Upgrade: h2c") + answers + s.head(1, says(200))),
            (CLIENT, begins + c.head(3, asks("/b"), END_STREAM)),
            (SERVER, http2_frame(DATA, END_STREAM, 1, b"hi")),
            (SERVER, http2_frame(HEADERS, END_HEADERS | END_STREAM, 3, s.block(says(404)))),
        ),
    ]


def _bodies() -> list[tuple[tuple[str, bytes], ...]]:
    json, web = b"Content-Type: application/json", b"Content-Type: application/grpc-web+proto"
    text = b"Content-Type: application/grpc-web-text"
    stream = b"Content-Type: application/connect+json"
    version = b"Connect-Protocol-Version: 1"
    trailers = b"\x80\0\0\0\x10grpc-status: 5\r\n"
    error = b'{"error":{"code":"not_found"}}'
    turns = (
        (post("/a", b'{"jsonrpc":"2.0","method":"a"}', json), b'{"error":{"code":-32601}}'),
        (post("/b", b'{"query":"query A($x: Int) { a }"}', json), b"{}"),
        (post("/s/C", message(5), web), message(7) + trailers),
        (post("/s/D", b"AAAAAAA=", text), b"AAAAAAA="),
        (post("/s/E", message(5), stream), message(9) + b"\2\0\0\0\x1e" + error),
        (post("/s/F", b"{}", json, version), b'{"code":"unavailable"}'),
    )
    return [
        ((CLIENT, asked), (SERVER, answer(503 if asked.startswith(b"POST /s/F") else 200, said)))
        for asked, said in turns
    ]


OTHERS = [talk.turns for talk in FASTCGI_TALKS] + _upgrades() + _bodies()


def _step(
    source: _Input,
    wire: Wire,
    readers: list[Reader],
    texts: dict[str, bytes],
    done: dict[str, int],
) -> None:
    operation, size = source.byte(), source.byte()
    side = CLIENT if operation & 1 else SERVER
    match operation >> 1 & 7:
        case 0 | 1 | 2 | 3:  # the transcript goes on
            begin = done[side]
            done[side] = begin + 1 + size
            wire.send(side, texts[side][begin : begin + 1 + size] or b"-")
        case 4:  # the fuzzer's own bytes
            wire.send(side, source.bytes(1 + size % 64) or b"-")
        case 5:  # a record is lost, or bytes pass unseen
            if operation & 16:
                wire.offsets[wire.direction(side)] += size
            else:
                wire.sequence += 1
        case 6:  # time passes
            wire.time += size * SECOND_NS // 100
            for reader in readers:
                reader.feed(wire.records).tick(wire.time)
            wire.records.clear()
        case _:
            wire.end(ENDINGS[size % len(ENDINGS)])


def records(data: bytes) -> None:
    """Raw ring records, several in one input; the first two bytes of each give its length."""
    reader = Reader()
    source = _Input(data)
    for _ in range(OPERATIONS_MAX):
        if not source.left():
            break
        reader.feed([source.bytes(source.byte() << 8 | source.byte())])
    reader.tick(1 << 62)
    for exchange in reader.exchanges:
        check(exchange)


def redaction(data: bytes) -> None:
    """The payload of one segment."""
    once = redact(data)
    assert len(once) == len(data)
    assert redact(once) == once


TARGETS: dict[str, Callable[[bytes], None]] = {
    "conversation": conversation,
    "http2": http2,
    "header_blocks": header_blocks,
    "calls": calls,
    "others": others,
    "beginnings": beginnings,
    "records": records,
    "redaction": redaction,
    **outside.TARGETS,
    **river.TARGETS,
    **prometheus.TARGETS,
    **serving.TARGETS,
    **telemetry.TARGETS,
}


def seeds(target: str) -> list[bytes]:
    """Inputs to start from."""
    for room in (outside, prometheus, river, serving, telemetry):
        if target in room.TARGETS:
            return room.seeds(target)
    if target == "calls":
        bodies = (message(3), message(200)[:50], message(0) * 5, b"grpc-status: 5\r\n", b"100m")
        return [bytes([len(each) & 0xFE]) + each for each in (*bodies, b"\x80\0\0\0\2a:")]
    if target == "header_blocks":
        ends = (End(), End(), End())
        fields = (asks("/a"), asks("/b", "POST", ("x", "y")), says(200, ("etag", "1")))
        blocks = [end.block(each)[:127] for end in ends for each in fields]
        return [bytes([len(block)]) + block for block in blocks]
    if target == "beginnings":
        hellos = (b"\x16\x03\x01\0\5\1", b"\x16\x03\x03\0\5\2", b"\x16\x03", b"\x16\2\0\0\0\1")
        texts = (
            '"x","query":"query A {a}"}',
            "query A($x: [Int!] = [1]) @d(a: 1) { a }",
            "[[{",
            'subscription { a(x: """b""") } # c',
            '{"a":{"b":[1,2]},"query":"\\ud800"',
            "{a}",
        )
        return [*hellos, *(text.encode() for text in texts)]
    if target == "redaction":
        return [text for transcript in TRANSCRIPTS for _, text in transcript.turns]
    if target == "records":
        found = []
        for transcript in TRANSCRIPTS:
            wire = Wire().open()
            for sender, text in transcript.turns:
                wire.send(sender, text)
            found.append(b"".join(len(r).to_bytes(2, "big") + r for r in wire.records))
        return found
    steps = bytes([1, 120, 0, 120, 1, 40, 0, 200]) * 4
    count = len({"http2": TALKS, "others": OTHERS}.get(target, TRANSCRIPTS))
    return [
        bytes([options, 4, 4, number]) + steps
        for options in (0, 1, 2, 4)
        for number in range(count)
    ]
