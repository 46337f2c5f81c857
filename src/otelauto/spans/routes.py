# SPDX-License-Identifier: Apache-2.0
"""``http.route``: the user's patterns first, then what ``routes.unmatched`` says.

The number of routes per service is capped: past it a request gets the route ``other`` and is
counted. Patterns of the user are not part of the cap, they are finite.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from otelauto.counters import Counters, Meaning
from otelauto.errors import ConfigError
from otelauto.flows.vocabulary import Exchange, Side
from otelauto.hot.cells import Hits
from otelauto.spans.span import Service, Span
from otelauto.spans.templates import WILDCARD, Templates, looks_like_id

ROUTE = "http.route"
OTHER = "other"
DEFAULT_MAX_ROUTES = 100

ROUTES_OVERFLOWED = Meaning(
    "routes_overflowed",
    "Requests reported with the route `other`, because their service has its full number of routes"
    " (limits.routes_per_service); give patterns under routes.patterns.",
)

_PARAMETER = re.compile(r":\w*\Z|\{\w*\}\Z")


class Unmatched(enum.StrEnum):
    """What a path becomes that no pattern matches."""

    UNSET = "unset"
    PATH = "path"
    WILDCARD = "wildcard"
    LOW_CARDINALITY = "low-cardinality"


class _Place:
    """A node of the pattern tree. ``here`` and ``rest`` are patterns that end here, or in ``*``."""

    __slots__ = ("children", "here", "parameter", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Place] = {}
        self.parameter: _Place | None = None
        self.here: str | None = None
        self.rest: str | None = None

    def find(self, segments: list[str], index: int = 0) -> str | None:
        """The pattern of ``segments[index:]``: literal, then parameter, then trailing ``*``."""
        if index == len(segments):
            return self.here
        found = None
        child = self.children.get(segments[index])
        if child is not None:
            found = child.find(segments, index + 1)
        if found is None and self.parameter is not None and segments[index]:
            found = self.parameter.find(segments, index + 1)
        return self.rest if found is None else found


class Patterns:
    """``routes.patterns`` as a tree.

    ``:name`` and ``{name}`` stand for one segment, a trailing ``*`` for what follows (``/*`` is
    every path). Slashes at both ends are ignored, the whole path must match, a literal is preferred
    to a parameter and that to ``*``.

    Raises:
        ConfigError: a pattern is empty or has ``*`` before its end.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._root = _Place()
        self.name_ids = False  # a pattern has a literal segment that looks like an identifier
        for pattern in patterns:
            self._add(pattern)
        self.empty = not patterns

    def match(self, path: str) -> str | None:
        """The first-written pattern that ``path`` matches, as the user wrote it."""
        return self._root.find(path.strip("/").split("/"))

    def _add(self, pattern: str) -> None:
        if not pattern.strip():
            raise ConfigError("routes.patterns has an empty pattern", "write `/` for the root path")
        place = self._root
        segments = pattern.strip("/").split("/")
        for index, segment in enumerate(segments):
            if segment == WILDCARD:
                if index != len(segments) - 1:
                    raise ConfigError(
                        f"routes.patterns: `*` must be the last segment, not as in {pattern!r}",
                        "write `:name` or `{name}` for one segment",
                    )
                place.rest = place.rest or pattern
                return
            if _PARAMETER.match(segment):
                place.parameter = place.parameter or _Place()
                place = place.parameter
            else:
                self.name_ids |= looks_like_id(segment)
                place = place.children.setdefault(segment, _Place())
        place.here = place.here or pattern


@dataclass(frozen=True, slots=True)
class Found:
    """The route of a path, if it has one.

    ``raw``: it is the path itself. ``hits`` is where requests of the path are to be counted, if
    anywhere. ``overflowed``: the service has no room for the route that it would have.
    """

    route: str | None
    raw: bool = False
    hits: Hits | None = None
    overflowed: bool = False


class Routes:
    """The stage that sets ``http.route`` of server spans and makes it part of their name.

    A span name never holds a raw path: with ``unmatched: path`` it stays the method. ``on_change``
    is called when what :meth:`find` gave may not be true any more.
    """

    def __init__(
        self,
        counters: Counters,
        patterns: Sequence[str] = (),
        unmatched: Unmatched = Unmatched.LOW_CARDINALITY,
        max_routes: int = DEFAULT_MAX_ROUTES,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._counters = counters
        self._on_change = on_change
        self._patterns = Patterns(patterns)
        self._unmatched = unmatched
        self._max_routes = max_routes
        self._templates: dict[Service, Templates] = {}
        self._known: dict[Service, set[str]] = {}

    def __call__(self, exchange: Exchange, span: Span) -> None:
        """Set the route, where the exchange has a path and this is its server."""
        if exchange.path is None or span.side is not Side.SERVER:
            return
        found = self.find(span.service, exchange.path)
        if found.hits is not None:
            found.hits.count += 1
        if found.overflowed:
            self._counters.add(ROUTES_OVERFLOWED)
        if found.route is None:
            return
        span.attributes[ROUTE] = found.route
        if not found.raw:
            span.name = f"{span.name} {found.route}"

    def find(self, service: Service, path: str) -> Found:
        """The route of ``path``; the caller has to count the request."""
        route = None if self._patterns.empty else self._patterns.match(path)
        return self._of_unmatched(service, path) if route is None else Found(route)

    @property
    def by_shape(self) -> bool:
        """Whether paths that differ only in what looks like identifiers have one route."""
        return self._unmatched is not Unmatched.PATH and not self._patterns.name_ids

    def forget(self, service: Service) -> None:
        """The service is gone: what was learnt about it is, too."""
        self._templates.pop(service, None)
        self._known.pop(service, None)

    def _of_unmatched(self, service: Service, path: str) -> Found:
        match self._unmatched:
            case Unmatched.UNSET:
                return Found(None)
            case Unmatched.WILDCARD:
                return Found(WILDCARD)
            case Unmatched.PATH:
                return self._capped(service, path, True, None)
            case Unmatched.LOW_CARDINALITY:
                templates = self._templates.get(service)
                if templates is None:
                    templates = self._templates[service] = Templates(self._on_change)
                route, hits = templates.find(path) or (None, None)
                return self._capped(service, route, False, hits)

    def _capped(self, service: Service, route: str | None, raw: bool, hits: Hits | None) -> Found:
        known = self._known.get(service)
        if known is None:
            known = self._known[service] = set()
        if route not in known:
            if route is None or len(known) >= self._max_routes:
                return Found(OTHER, False, hits, True)
            known.add(route)
        return Found(route, raw, hits)
