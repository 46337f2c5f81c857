# SPDX-License-Identifier: Apache-2.0
"""The ways to read a transcript, and how what was read compares with what is true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from tests.wire.transcripts import Transcript, Truth
from tests.wire.wire import CLIENT, SERVER, Heads, Wire

from otelauto.flows.vocabulary import Exchange

Cut = Callable[[int, bytes], Iterable[int]]  # (number of the turn, its bytes) -> cut offsets


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    begin = 0
    for cut in (*sorted(set(cuts)), len(data)):
        if begin < cut <= len(data):
            yield data[begin:cut]
            begin = cut


def play(
    transcript: Transcript, view: str = SERVER, cut: Cut | None = None, heads: Heads | None = None
) -> Wire:
    """The records of a transcript, with its turns cut into several system calls."""
    wire = Wire(view=view, heads=heads).open()
    for number, (sender, data) in enumerate(transcript.turns):
        for piece in pieces(data, cut(number, data) if cut is not None else ()):
            wire.send(sender, piece)
    return close(wire, transcript)


def close(wire: Wire, transcript: Transcript) -> Wire:
    if transcript.closer:
        wire.finish(transcript.closer)
        wire.close()
    return wire


def truth(exchange: Exchange) -> Truth:
    attributes = exchange.attributes
    path = attributes.get("url.path")
    status = attributes.get("http.response.status_code")
    sizes = [attributes.get(f"http.{half}.body.size") for half in ("request", "response")]
    assert path is None or isinstance(path, str)
    assert exchange.path == (path if path and path.startswith("/") else None)
    assert status is None or isinstance(status, int)
    assert all(size is None or isinstance(size, int) for size in sizes)
    return Truth(
        str(attributes["http.request.method"]), path, status, sizes[0], sizes[1],
        exchange.incomplete,
    )  # type: ignore[arg-type]  # fmt: skip


def truths(exchanges: Iterable[Exchange]) -> list[Truth]:
    return [truth(exchange) for exchange in exchanges]


def contradiction(found: list[Truth], true: Iterable[Truth]) -> str | None:
    """What is wrong in ``found``: it may lack exchanges, statuses and sizes, but invent nothing."""
    by_path = {(t.method, t.path): t for t in true}
    seen = set()
    for each in found:
        key = each.method, each.path
        known = by_path.get(key)
        if known is None:
            return f"invented: {each}"
        if key in seen:
            return f"doubled: {each}"
        seen.add(key)
        if each.status not in (known.status, None):
            return f"wrong status: {each}, not {known}"
        if each.incomplete is None and each.status is None:
            return f"whole without a status: {each}"
        if each.request_size not in (known.request_size, None):
            return f"wrong request size: {each}, not {known}"
        if each.response_size not in (known.response_size, None):
            return f"wrong response size: {each}, not {known}"
    return None


def totals(transcript: Transcript) -> list[int]:
    """Cut positions are counted through all turns: where each turn begins."""
    return [0, *accumulate(len(data) for _, data in transcript.turns)]


__all__ = ["CLIENT", "SERVER", "close", "contradiction", "pieces", "play", "totals", "truths"]
