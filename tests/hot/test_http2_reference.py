# SPDX-License-Identifier: Apache-2.0
"""Compiled code reads HTTP/2 as its reference in Python does, whatever the bytes are."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hpack import Encoder
from tests.hot.http2_traffic import Http2Traffic
from tests.hot.seeds import each
from tests.hot.test_lane import EXCHANGES_A_RUN, RUNS
from tests.hot.twin import Step
from tests.reference.both import ASKED_FOR, blocks_differ, by_reference
from tests.reference.hpack import Decoder as Reference
from tests.wire.http2 import TALKS, Talk
from tests.wire.test_http2 import play
from tests.wire.wire import Heads, Reader

from otelauto.flows.vocabulary import Exchange
from otelauto.hot.hpack import Decoder


def read(reader: Reader, steps: Iterable[Step]) -> tuple[list[Exchange], list[object]]:
    for step in steps:
        if isinstance(step, bytes):
            reader.feed([step])
        else:
            reader.tick(step)
    reader.flows.close()
    reader.flows.tick(1 << 62)
    return reader.exchanges, [*reader.counters.items(), *reader.flows.take_verdicts()]


def compare(steps: Iterable[Step]) -> list[Exchange]:
    exchanges, rest = read(Reader(), steps)
    expected = read(by_reference(), steps)
    for one, other in zip(exchanges, expected[0], strict=True):
        assert one == other
    assert rest == expected[1]
    return exchanges


def exchanges_read(seed: int) -> int:
    """How many exchanges both find in a seed's traffic."""
    return len(compare(Http2Traffic(f"reference {seed}").make(EXCHANGES_A_RUN)))


def test_random_traffic() -> None:
    assert sum(each(exchanges_read, range(max(RUNS // 2, 4)))) > EXCHANGES_A_RUN


@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.name)
@pytest.mark.parametrize("heads", [None, Heads(40, 40, b"-"), Heads(300, 300, b"-")])
def test_every_talk(talk: Talk, heads: Heads | None) -> None:
    for step in (1, 7, 40, 10_000):
        compare(
            play(
                talk, heads=heads, cut=lambda _, said, step=step: range(step, len(said), step)
            ).records
        )


def test_every_length_of_table_and_block() -> None:
    """Tables that grow, shrink and overflow, fields of all kinds, blocks cut or damaged."""
    choice = random.Random(1)
    encoder, decoder, reference = Encoder(), Decoder(), Reference()
    names = [name.decode() for name in ASKED_FOR] + [f"n{n}" for n in range(30)]
    for number in range(4000):
        if choice.random() < 0.01:
            encoder.header_table_size = choice.choice((0, 50, 100, 500, 4096, 8192, 100_000))
        fields = [(choice.choice(names), "v" * choice.choice((0, 1, 9, 60)) + str(number % 7))
                  for _ in range(choice.randint(1, 9))]  # fmt: skip
        block = encoder.encode(fields, huffman=choice.random() < 0.5)
        cut = choice.random() < 0.01
        if cut:
            block = block[: choice.randrange(len(block))]
        if choice.random() < 0.02:
            at = choice.randrange(len(block) + 1)
            block = block[:at] + choice.randbytes(1) + block[at + 1 :]
        assert not blocks_differ(decoder, reference, block, cut)


def test_a_difference_is_found() -> None:
    decoder, reference = Decoder(), Reference()
    reference.lose()
    assert blocks_differ(decoder, reference, b"\xbe", cut=False)
    assert not blocks_differ(Decoder(), Reference(), b"\x82", cut=False)
