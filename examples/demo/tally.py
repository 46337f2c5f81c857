# SPDX-License-Identifier: Apache-2.0
"""What otelauto saw against what each service counted itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

Span = dict[str, Any]


class Event(NamedTuple):
    """A request that a service answered (``server``) or made (``client``)."""

    kind: str
    method: str
    port: int
    path: str
    status: int | None


@dataclass(frozen=True)
class Row:
    """One service's requests of one kind. ``missed`` were counted by it and not seen."""

    service: str
    kind: str
    counted: int
    seen: int
    missed: Counter[Event]
    invented: Counter[Event]

    @property
    def equal(self) -> bool:
        """Whether each request of the one is a request of the other."""
        return not self.missed and not self.invented


def logged(path: Path) -> Counter[Event]:
    """What a service wrote into its own log. Raises ValueError on a line that is not whole."""
    events: Counter[Event] = Counter()
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        events[Event(*(entry[name] for name in Event._fields))] += 1
    return events


def event_of(span: Span) -> Event:
    """The request that a span of otelauto is about; an incomplete one has no status."""
    attributes = span["attributes"]
    status = attributes.get("http.response.status_code")
    return Event(
        span["kind"],
        attributes.get("http.request.method", ""),
        attributes.get("server.port", 0),
        attributes.get("url.path", ""),
        None if span["incomplete"] else status,
    )


def compare(logs: dict[str, Path], spans: Iterable[Span]) -> list[Row]:
    """A row for each service and kind; spans of unknown services have rows of their own."""
    seen: dict[str, Counter[Event]] = {name: Counter() for name in logs}
    for span in spans:
        seen.setdefault(span["service"]["name"], Counter())[event_of(span)] += 1
    rows = []
    for name, events in seen.items():
        counted = logged(logs[name]) if name in logs else Counter()
        for kind in ("server", "client"):
            ours, theirs = _of_kind(events, kind), _of_kind(counted, kind)
            if ours or theirs or kind == "server":
                missed, invented = theirs - ours, ours - theirs
                rows.append(Row(name, kind, theirs.total(), ours.total(), missed, invented))
    return rows


def _of_kind(events: Counter[Event], kind: str) -> Counter[Event]:
    return Counter({event: count for event, count in events.items() if event.kind == kind})


def table(rows: list[Row]) -> list[str]:
    """The comparison as lines of text, with the first differences spelled out."""
    lines = [f"{'service':<12}{'kind':<8}{'counted':>9}{'seen':>9}"]
    for row in rows:
        mark = "" if row.equal else "  DIFFERENT"
        lines.append(f"{row.service:<12}{row.kind:<8}{row.counted:>9}{row.seen:>9}{mark}")
    for row in rows:
        for word, events in (("missed", row.missed), ("invented", row.invented)):
            for event, count in events.most_common(5):
                lines.append(
                    f"  {word} {count} x {row.service} {event.kind}:"
                    f" {event.method} :{event.port}{event.path} {event.status}"
                )
    return lines
