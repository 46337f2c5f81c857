# SPDX-License-Identifier: Apache-2.0
"""Compressed requests, received and sent."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import cramjam
import grpc
import pytest
from tests.unit.agent_asks import BODY, LIMIT, RECEIVER, ask, call, text
from tests.unit.agent_parts import Agent, agent, message, spans
from tests.unit.raw_grpc import compressed_call

from otelauto.agent.running.unpacking import (
    ENCODINGS,
    TooLargeError,
    UnusableError,
    decompressed,
    encoding_of,
)
from otelauto.export.packing import packed
from otelauto.export.transport import Compression

Pack = Callable[[bytes], bytes]
# Written by what does not read them, where there is something else.
PACKERS: dict[str, Pack] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zlib": zlib.compress,
    "deflate": zlib.compress,
    "zstd": lambda data: bytes(cramjam.zstd.compress(data)),
    "snappy": lambda data: bytes(cramjam.snappy.compress_raw(data)),
    "x-snappy-framed": lambda data: bytes(cramjam.snappy.compress(data)),
    "lz4": lambda data: bytes(cramjam.lz4.compress(data)),
}


@pytest.fixture(scope="module", name="made")
def fixture_made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with agent(text(), tmp_path_factory.mktemp("agent")) as found:
        yield found


@pytest.fixture(autouse=True)
def forget(made: Agent) -> None:
    made.sink.payloads.clear()


def test_all_are_tried() -> None:
    assert set(PACKERS) == set(ENCODINGS)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_in_each(made: Agent, encoding: str) -> None:
    assert ask(made, PACKERS[encoding](BODY), content_encoding=encoding)[0] == 200
    assert made.sink.payloads[0].message == message(spans(3))


def test_a_stream_that_is_called_snappy(made: Agent) -> None:
    """As OpenTelemetry Collectors sent it for years."""
    stream = PACKERS["x-snappy-framed"](BODY)
    assert ask(made, stream, content_encoding="snappy")[0] == 200
    assert made.sink.items == 3


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_in_each(made: Agent, encoding: str) -> None:
    bomb = PACKERS[encoding](bytes(16 * LIMIT))
    assert len(bomb) < LIMIT
    status, _, said = ask(made, bomb, content_encoding=encoding)
    assert (status, b"decompressed" in said) == (413, True)
    assert made.sink.payloads == []


def test_a_snappy_block_that_says_to_be_4_gib(made: Agent) -> None:
    assert ask(made, b"\xff\xff\xff\xff\x0f\0", content_encoding="snappy")[0] == 413


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("damage", [slice(0, -3), slice(1, None), slice(0, 3)])
def test_damage_in_each(made: Agent, encoding: str, damage: slice) -> None:
    body = PACKERS[encoding](BODY)[damage]
    assert ask(made, body, content_encoding=encoding)[0] == 400
    assert made.sink.payloads == []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_limit_is_exact(encoding: str) -> None:
    body = PACKERS[encoding](BODY)
    assert decompressed(body, encoding, len(BODY)) == BODY
    assert decompressed(b"", encoding, 10) == b""
    with pytest.raises(TooLargeError):
        decompressed(body, encoding, len(BODY) - 1)
    with pytest.raises(UnusableError):
        decompressed(b"\0" * 40, encoding, 0)


@pytest.mark.parametrize("name", ["zstd", "snappy", "unknown"])
def test_what_the_library_of_grpc_does_not_know_it_refuses(made: Agent, name: str) -> None:
    port = made[RECEIVER].ports["grpc"]
    assert compressed_call(port, PACKERS["gzip"](BODY), "gzip") == "0"
    assert made.sink.items == 3
    body = PACKERS.get(name, gzip.compress)(BODY)
    assert compressed_call(port, body, name) == str(grpc.StatusCode.INTERNAL.value[0])
    assert made.sink.items == 3


def test_what_is_not_compressed_is_not_taken_for_it() -> None:
    assert encoding_of(BODY) == ""
    assert encoding_of(b"") == ""


def test_only_those_that_are_wanted(tmp_path) -> None:
    with agent(text(http_more='compression_algorithms = ["zstd"]'), tmp_path) as found:
        assert ask(found, PACKERS["zstd"](BODY), content_encoding="zstd")[0] == 200
        status, fields, _ = ask(found, PACKERS["gzip"](BODY), content_encoding="gzip")
        assert (status, fields["accept-encoding"]) == (415, "zstd")


@pytest.mark.parametrize("compression", list(Compression))
def test_it_is_smaller(compression: Compression) -> None:
    """In whatever pieces it was."""
    given = [bytes(5000), memoryview(b"x" * 5000)]
    found = b"".join(packed(given, compression))
    assert (len(found) < 1000) is (compression is not Compression.NONE)
    if compression is not Compression.NONE:
        assert decompressed(found, compression, 10_000) == b"".join(given)


def test_a_call_that_grpcio_compresses(made: Agent) -> None:
    for packing in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert call(made, compression=packing)[0] is grpc.StatusCode.OK
    assert made.sink.items == 6
