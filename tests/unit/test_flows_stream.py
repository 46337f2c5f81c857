# SPDX-License-Identifier: Apache-2.0
"""One direction's bytes, against the obvious model: a dict of known bytes by offset."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelauto.flows.stream import HELD_MAX, ByteStream
from otelauto.flows.vocabulary import Desync

# (bytes unseen before, bytes moved, of which captured)
Move = tuple[int, bytes, int]
MOVES = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([0, 0, 0, 3]), st.binary(min_size=1, max_size=20), st.integers(0, 25)
        ),
        st.integers(1, 30),
    ),
    max_size=30,
)


@settings(max_examples=400, deadline=None)
@given(MOVES)
def test_against_the_model(moves: list[Move | int]) -> None:
    stream = ByteStream()
    known: dict[int, int] = {}
    times: dict[int, int] = {}
    position = end = 0
    for number, move in enumerate(moves, 1):
        if isinstance(move, int):
            stream.skip(move)
            position += move
        else:
            unseen, data, captured = move
            times.update(dict.fromkeys(range(end, end + unseen + len(data)), number))
            end += unseen
            stream.append(end, len(data), data[:captured], data[-8:], number, end + 1)
            known.update(zip(range(end, end + len(data)), data[:captured], strict=False))
            end += len(data)
        window = bytearray()
        while position + len(window) in known:
            window.append(known[position + len(window)])
        assert stream.window() == bytes(window)
        assert stream.hole() == (position + len(window) < end)
        assert (stream.position, stream.end) == (position, end)
        for offset in (position - 1, position):
            if 0 <= offset < end:
                assert stream.time_at(offset) == times[offset]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.booleans()), min_size=1))
def test_the_last_bytes_are_known_through_payload_or_tail(moves: list[tuple[bytes, bool]]) -> None:
    stream = ByteStream()
    whole = b""
    for data, captured in moves:
        tail = data[-8:] if len(data) >= 8 else b""
        stream.append(len(whole), len(data), data if captured else b"", tail, 1, 0)
        whole += data
        found = stream.last_bytes()
        assert whole.endswith(found)
        if captured or len(data) >= 8:
            assert len(found) >= min(8, len(data))


def test_a_rewind_takes_back_only_what_has_not_passed() -> None:
    stream = ByteStream()
    stream.append(0, 4, b"abcd", b"", 1, 0)
    stream.skip(10)
    stream.rewind()
    assert (stream.position, stream.window()) == (4, b"")
    stream.append(4, 2, b"ef", b"", 2, 0)
    assert stream.window() == b"ef"
    stream.rewind()
    assert stream.window() == b"ef"


def _overlap(stream: ByteStream) -> None:
    stream.append(0, 4, b"abcd", b"", 1, 0)
    stream.append(3, 4, b"defg", b"", 2, 0)


def _hoard(stream: ByteStream) -> None:
    for number in range(HELD_MAX // 1000 + 2):
        stream.append(number * 1000, 1000, bytes(1000), b"", 1, 0)


def _hoard_behind_a_hole(stream: ByteStream) -> None:
    for number in range(HELD_MAX // 1000 + 2):
        stream.append(5 + number * 1000, 1000, bytes(1000), b"", 1, 0)


@pytest.mark.parametrize("misuse", [_overlap, _hoard, _hoard_behind_a_hole])
def test_what_cannot_be_is_a_desync(misuse: Callable[[ByteStream], None]) -> None:
    with pytest.raises(Desync):
        misuse(ByteStream())


def test_tcp_sequence_numbers_wrap() -> None:
    stream = ByteStream()
    stream.append(0, 100, b"", b"", 1, 0xFFFFFFF0)
    stream.append(100, 100, b"", b"", 1, 0)
    assert stream.sequence_at(20) == 4
    assert stream.sequence_at(150) == 0
    assert stream.sequence_at(250) == 0


def test_restart_and_discard_forget() -> None:
    stream = ByteStream()
    stream.append(0, 4, b"abcd", b"", 1, 7)
    stream.skip(100)
    stream.discard()
    assert (stream.position, stream.window()) == (4, b"")
    stream.restart(2)
    stream.append(2, 2, b"cd", b"", 9, 7)
    assert (stream.window(), stream.time_at(2)) == (b"cd", 9)
