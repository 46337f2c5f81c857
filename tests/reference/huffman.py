# SPDX-License-Identifier: Apache-2.0
"""The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B), read four bits at a time."""

from __future__ import annotations

from functools import cache

from otelauto.flows.vocabulary import Desync

# Code lengths of the symbols 0 to 255 and of EOS. The code is canonical: within a length it counts
# up in the order of the symbols, so the lengths are all there is to know (appendix B).
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c"
    "1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707"
    "070707070707070707070707070707070807080d130d0e06"
    "0f0506050605060606050707060606050607060505060707"
    "0707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715"
    "171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b18"
    "15151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
_EOS = 256
_PADDING_MAX = 7  # bits; they are the most significant ones of EOS: all ones


@cache
def _machine() -> tuple[tuple[tuple[int, int], ...], frozenset[int]]:
    """(next state and symbol, by state * 16 + nibble; states in which a string may end).

    A symbol of -1 is: none yet. A state is an inner node of the code's tree; the shortest code has
    five bits, so four bits end one symbol at most.
    """
    nodes: list[list[int]] = [[0, 0]]  # children; a leaf is ~symbol; 0 is: not there
    code = length = 0
    for symbol in sorted(range(_EOS + 1), key=lambda s: (_LENGTHS[s], s)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        node = 0
        for bit in range(length - 1, 0, -1):
            branch = code >> bit & 1
            if not nodes[node][branch]:
                nodes.append([0, 0])
                nodes[node][branch] = len(nodes) - 1
            node = nodes[node][branch]
        nodes[node][code & 1] = ~symbol
        code += 1
    steps = tuple(
        _step(nodes, state, nibble) for state in range(len(nodes)) for nibble in range(16)
    )
    final, node = {0}, 0
    for _ in range(_PADDING_MAX):
        node = nodes[node][1]
        final.add(node)
    return steps, frozenset(final)


def _step(nodes: list[list[int]], state: int, nibble: int) -> tuple[int, int]:
    symbol = -1
    for bit in (8, 4, 2, 1):
        state = nodes[state][1 if nibble & bit else 0]
        if state < 0:
            symbol, state = ~state, 0
    return state, symbol


def decode(data: bytes) -> bytes:
    """The string that ``data`` encodes. Raises Desync if it encodes none (section 5.2)."""
    steps, final = _machine()
    symbols = []
    state = 0
    for byte in data:
        state, symbol = steps[state << 4 | byte >> 4]
        if symbol >= 0:
            symbols.append(symbol)
        state, symbol = steps[state << 4 | byte & 15]
        if symbol >= 0:
            symbols.append(symbol)
    if state not in final or _EOS in symbols:
        raise Desync("Huffman code")
    return bytes(symbols)
