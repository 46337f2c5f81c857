# SPDX-License-Identifier: Apache-2.0
"""Learns the low-cardinality shape of the paths of one service: ``/users/42`` is ``/users/*``.

Two rules, both deterministic (the same paths in the same order give the same templates):

1. A segment that looks like an identifier (digits, UUID, hexadecimal, long token, e-mail address)
   is ``*`` from the first time it is seen.
2. Other segments are remembered in a tree. Where one place of the tree holds many different
   segments and most of them are rare, they are names of things, not of endpoints: the rare ones
   become one ``*``; frequent ones stay. A place whose segments are mostly frequent may hold more.

Memory is bounded: segments beyond the depth or the size of the tree are not remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from otelauto.hot.cells import Hits

WILDCARD = "*"
MAX_DEPTH = 12  # segments; what follows is one wildcard
MAX_NODES = 2000
FIRST_LIMIT = 20  # different literal segments in one place before it is judged
LAST_LIMIT = 80  # no place holds more, however frequent each is
FREQUENT = 10  # requests that make a segment an endpoint rather than a name of a thing
CACHED_PATHS = 1024
CACHED_LENGTH = 128  # characters; longer paths are worked out each time

LONG_SEGMENT = 40
_HEX = re.compile(r"[0-9a-fA-F-]+\Z")
_SEPARATOR = re.compile(r"[-_.:~,;=]")
_HEX_WITH_DIGIT = 8  # characters: "deadbee1" is an id, "decade" and "feedback" are words
_HEX_WITHOUT_DIGIT = 16
_TOKEN = 20  # letters and digits mixed
_RANDOM_LETTERS = 25  # letters only, without a separator


def looks_like_id(segment: str) -> bool:
    """Whether a path segment names one thing among many, judged by its characters alone."""
    if segment.isdigit():
        return True
    if segment.isalpha():
        size = len(segment)
        is_hex = size >= _HEX_WITHOUT_DIGIT and _HEX.match(segment) is not None
        return is_hex or size >= _RANDOM_LETTERS
    if len(segment) > LONG_SEGMENT or "@" in segment or "%" in segment:
        return True
    digits = sum(map(str.isdigit, segment))
    letters = sum(map(str.isalpha, segment))
    if not digits:
        return letters >= _HEX_WITHOUT_DIGIT and _HEX.match(segment) is not None
    if not letters or (_HEX.match(segment) and len(segment) >= _HEX_WITH_DIGIT):
        return True
    if digits >= 3 and digits * 3 >= len(segment):
        return True
    tokens = _SEPARATOR.split(segment)
    return any(_token_is_id(token) for token in tokens)


def _token_is_id(token: str) -> bool:
    """A part of a segment between separators: ``42`` of ``item-42``, the hash of ``a.3f9c01d2.js``.

    One digit alone is a version or an ordinal (``section-1``).
    """
    if token.isdigit():
        return len(token) >= 2
    has_digit = any(map(str.isdigit, token))
    if has_digit and _HEX.match(token) and len(token) >= _HEX_WITH_DIGIT:
        return True
    return has_digit and len(token) >= _TOKEN


class _Node:
    """One place in the tree. ``hits`` counts the requests whose path ends here."""

    __slots__ = ("children", "hits", "limit", "settled", "wild")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.wild: _Node | None = None
        self.hits = Hits()
        self.limit = FIRST_LIMIT
        self.settled = False  # no new literal is learnt here

    def weight(self) -> int:
        """Requests that ended here or below."""
        below = sum(child.weight() for child in self.children.values())
        return self.hits.count + below + (self.wild.weight() if self.wild is not None else 0)

    def size(self) -> int:
        """Nodes here and below."""
        below = sum(child.size() for child in self.children.values())
        return 1 + below + (self.wild.size() if self.wild is not None else 0)


class Templates:
    """The learned templates of one service. Used by one thread.

    ``on_change`` is called when templates that were given may not be those of their paths any more.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._root = _Node()
        self._nodes = 1
        self._cache: dict[str, tuple[str, Hits]] = {}
        self._on_change = on_change

    def template(self, path: str) -> str | None:
        """The template of ``path``, or ``None`` when there is no room to learn another."""
        found = self.find(path)
        if found is None:
            return None
        template, hits = found
        hits.count += 1
        return template

    def find(self, path: str) -> tuple[str, Hits] | None:
        """The template of ``path`` and where its requests are to be counted."""
        cached = self._cache.get(path)
        if cached is not None:
            return cached
        walked = self._walk(path.strip("/").split("/"))
        if walked is None:
            return None
        found = walked[0], walked[1].hits
        if len(path) <= CACHED_LENGTH:
            if len(self._cache) >= CACHED_PATHS:
                self._cache.clear()
            self._cache[path] = found
        return found

    def _walk(self, segments: list[str]) -> tuple[str, _Node] | None:
        if len(segments) > MAX_DEPTH:
            segments = [*segments[: MAX_DEPTH - 1], WILDCARD]
        node = self._root
        parts = [""]
        for segment in segments:
            child = node.children.get(segment)
            if child is None:
                literal = segment != WILDCARD and not looks_like_id(segment)
                child = self._literal(node, segment) if literal else None
            if child is None:
                child, segment = self._wild(node), WILDCARD  # noqa: PLW2901
            if child is None:
                return None
            parts.append(segment)
            node = child
        return "/".join(parts), node

    def _literal(self, node: _Node, segment: str) -> _Node | None:
        """A new child for ``segment``, or ``None`` if this place takes no more."""
        if len(node.children) >= node.limit:
            self._judge(node)
        if node.settled or self._nodes >= MAX_NODES:
            return None
        child = node.children[segment] = _Node()
        self._nodes += 1
        return child

    def _wild(self, node: _Node) -> _Node | None:
        if node.wild is None:
            if self._nodes >= MAX_NODES:
                return None
            node.wild = _Node()
            self._nodes += 1
        return node.wild

    def _judge(self, node: _Node) -> None:
        """``node`` is full: give it more room, or fold its rare children into the wildcard."""
        if node.settled:
            return
        rare = [name for name, child in node.children.items() if child.weight() < FREQUENT]
        if len(rare) * 2 < len(node.children) and node.limit < LAST_LIMIT:
            node.limit *= 2
            return
        node.settled = True
        wild = node.wild = node.wild or _Node()
        for name in rare:
            self._merge(node.children.pop(name), wild)
        self._nodes = self._root.size()
        self._cache.clear()
        self._on_change()

    def _merge(self, source: _Node, target: _Node) -> None:
        target.hits.count += source.hits.count
        for name, child in source.children.items():
            known = target.children.get(name)
            if known is not None:
                self._merge(child, known)
            elif target.settled:
                target.wild = target.wild or _Node()
                self._merge(child, target.wild)
            else:
                target.children[name] = child
                if len(target.children) > target.limit:
                    self._judge(target)
        if source.wild is not None:
            target.wild = target.wild or _Node()
            self._merge(source.wild, target.wild)
