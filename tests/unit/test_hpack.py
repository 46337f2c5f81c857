# SPDX-License-Identifier: Apache-2.0
"""HPACK against the examples of RFC 7541 and against another implementation."""

from __future__ import annotations

import random

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from otelauto.hot.hpack import Decoder

ASKED_FOR = {":method", ":scheme", ":path", ":authority", ":status", "user-agent"}
# Appendix C.4: three requests, one table.
REQUESTS = (
    ("828684418cf1e3c2e5f23a6ba0ab90f4ff",
     {":method": "GET", ":scheme": "http", ":path": "/", ":authority": "www.example.com"}),
    ("828684be5886a8eb10649cbf",
     {":method": "GET", ":scheme": "http", ":path": "/", ":authority": "www.example.com",
      "cache-control": "no-cache"}),
    ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
     {":method": "GET", ":scheme": "https", ":path": "/index.html",
      ":authority": "www.example.com", "custom-key": "custom-value"}),
)  # fmt: skip


def encoded(fields: dict[str, str]) -> dict[bytes, bytes]:
    """The fields that somebody asks for."""
    return {name.encode(): value.encode() for name, value in fields.items() if name in ASKED_FOR}


def said(decoder: Decoder, block: bytes, cut: bool = False) -> tuple[dict[bytes, bytes], int]:
    found = decoder.decode(block, cut)
    assert found is not None
    return found


def test_examples_of_the_rfc() -> None:
    decoder = Decoder()
    for block, fields in REQUESTS:
        assert said(decoder, bytes.fromhex(block)) == (encoded(fields), 0)


def test_the_examples_joined_late() -> None:
    decoder = Decoder()
    decoder.lose()
    known = {k: v for k, v in REQUESTS[1][1].items() if k != ":authority"}
    assert said(decoder, bytes.fromhex(REQUESTS[1][0])) == (encoded(known), 1)
    # What was inserted since is known: user-agent.
    assert said(decoder, b"\x40\x0auser-agent\x01a") == ({b"user-agent": b"a"}, 0)
    fields, unknown = said(decoder, bytes.fromhex(REQUESTS[2][0]) + b"\xbf\xc1")
    assert (fields[b"user-agent"], unknown) == (b"a", 1)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("huffman_coded", [False, True])
def test_a_long_life_against_another_implementation(lost: bool, huffman_coded: bool) -> None:
    """Tables that grow, shrink and overflow; a decoder that joins late is never wrong."""
    choice = random.Random(1)
    encoder, decoder = Encoder(), Decoder()
    complete = 0
    for number in range(3000):
        if choice.random() < 0.01:
            encoder.header_table_size = choice.choice((0, 50, 100, 500, 4096, 8192, 100_000))
        names = choice.sample(range(40), choice.randint(1, 8))
        fields = {f"n{n}": "v" * n * choice.randint(0, 3) for n in names}
        for name in (":path", "user-agent", ":authority"):
            if choice.random() < 0.7:
                fields[name] = f"/{choice.randrange(30)}" * choice.randint(0, 4)
        block = encoder.encode(list(fields.items()), huffman=huffman_coded)
        if lost and number == 40:
            decoder.lose()
            continue
        found, unknown = said(decoder, block)
        assert found.items() <= encoded(fields).items()
        assert len(found) + unknown >= len(encoded(fields))
        if not lost:
            large = encoder.header_table_size > 64 * 1024
            assert found == encoded(fields) or large or not decoder.complete
        complete += not unknown
    assert complete > 2000


@pytest.mark.parametrize(
    "block",
    [
        "80",
        "be",
        "ff80808080808080",
        "41",
        "0003612d",
        "408cffffffffffffffffffffffff",
        "3fffffffff7f00be",
    ],
)
def test_nonsense_is_found(block: str) -> None:
    assert Decoder().decode(bytes.fromhex(block)) is None


def test_a_cut_block_says_what_it_can() -> None:
    whole = bytes.fromhex(REQUESTS[0][0])
    decoder = Decoder()
    known = encoded({":method": "GET", ":scheme": "http", ":path": "/"})
    assert said(decoder, whole[:-1], cut=True) == (known, 0)
    assert not decoder.complete
    assert decoder.decode(whole[:-1]) is None


def path_of(coded: bytes) -> bytes:
    """A path that is Huffman-coded, not to be put into the table."""
    size = len(coded)
    prefix = bytes([0x80 | size])
    if size >= 0x7F:
        size -= 0x7F
        prefix = b"\xff" + bytes([size & 0x7F | 0x80, size >> 7])
    return b"\x04" + prefix + coded


@given(st.binary(max_size=200))
def test_huffman_reads_what_another_implementation_writes(text: bytes) -> None:
    coded = Encoder().huffman_coder.encode(text)
    assert said(Decoder(), path_of(coded)) == ({b":path": text}, 0)


@pytest.mark.parametrize("data", ["00", "fffffffc", "ffffffff", "1f00"])
def test_padding_and_eos_are_checked(data: str) -> None:
    """Section 5.2: less than eight bits of padding, all ones; no EOS."""
    assert Decoder().decode(path_of(bytes.fromhex(data))) is None
