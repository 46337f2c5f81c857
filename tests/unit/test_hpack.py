# SPDX-License-Identifier: Apache-2.0
"""HPACK against the examples of RFC 7541 and against another implementation."""

from __future__ import annotations

import random

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from otelauto.flows.vocabulary import Desync
from otelauto.protocols import huffman
from otelauto.protocols.hpack import Decoder

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
    return {name.encode(): value.encode() for name, value in fields.items()}


def test_examples_of_the_rfc() -> None:
    decoder = Decoder()
    for block, fields in REQUESTS:
        assert decoder.decode(bytes.fromhex(block)).fields == encoded(fields)


def test_the_examples_joined_late() -> None:
    decoder = Decoder()
    decoder.lose()
    block = decoder.decode(bytes.fromhex(REQUESTS[1][0]))
    assert block.unknown == 1
    assert block.fields == encoded({k: v for k, v in REQUESTS[1][1].items() if k != ":authority"})
    block = decoder.decode(bytes.fromhex(REQUESTS[2][0]))  # what was inserted since is known
    assert block.unknown == 1
    assert block.fields[b"custom-key"] == b"custom-value"


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
        fields[choice.choice((":path", "user-agent"))] = f"/{choice.randrange(30)}"
        block = encoder.encode(list(fields.items()), huffman=huffman_coded)
        if lost and number == 40:
            decoder.lose()
            continue
        said = decoder.decode(block)
        assert said.fields.items() <= encoded(fields).items()
        assert len(said.fields) + said.unknown >= len(fields)
        if not lost:
            large = encoder.header_table_size > 64 * 1024
            assert said.fields == encoded(fields) or large or not decoder.complete
        complete += not said.unknown
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
def test_nonsense_is_a_desync(block: str) -> None:
    with pytest.raises(Desync):
        Decoder().decode(bytes.fromhex(block))


def test_a_cut_block_says_what_it_can() -> None:
    whole = bytes.fromhex(REQUESTS[0][0])
    decoder = Decoder()
    block = decoder.decode(whole[:-1], cut=True)
    assert (block.cut, block.fields) == (
        True,
        encoded({":method": "GET", ":scheme": "http", ":path": "/"}),
    )
    assert not decoder.complete


@given(st.binary(max_size=200))
def test_huffman_reads_what_another_implementation_writes(text: bytes) -> None:
    encoder = Encoder()
    assert huffman.decode(encoder.huffman_coder.encode(text)) == text


@pytest.mark.parametrize("data", ["00", "fffffffc", "ffffffff", "1f00"])
def test_padding_and_eos_are_checked(data: str) -> None:
    """Section 5.2: less than eight bits of padding, all ones; no EOS."""
    with pytest.raises(Desync):
        huffman.decode(bytes.fromhex(data))
