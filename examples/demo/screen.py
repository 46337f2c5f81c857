# SPDX-License-Identifier: Apache-2.0
"""Shows what otelauto sees: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from red import Line, Red
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from tally import Span

REFRESH_S = 0.5
PLAIN_EVERY_S = 5.0
SLOW_MS = 100.0

Show = Callable[[], None]


class Screen:
    """``services`` in the order of their rows; ``url`` is the Prometheus page."""

    def __init__(self, red: Red, services: list[str], url: str, until: str) -> None:
        self._red = red
        self._services = services
        self._hint = f"Prometheus: curl {url}    {until}"
        self._console = Console()
        self._plain_at = time.monotonic() + PLAIN_EVERY_S

    @contextmanager
    def showing(self) -> Iterator[Show]:
        """Gives the function that is to be called every REFRESH_S."""
        if not self._console.is_terminal:
            say(self._hint)
            yield self._plain
            return
        with Live(console=self._console, auto_refresh=False, screen=False) as live:
            yield lambda: live.update(self._picture(), refresh=True)

    def _plain(self) -> None:
        if time.monotonic() < self._plain_at:
            return
        self._plain_at = time.monotonic() + PLAIN_EVERY_S
        for row in self._red.lines(self._services):
            if row.kind == "server":
                say(
                    f"{row.service:<9} {row.name:<26} {row.per_second:6.1f}/s"
                    f" {row.errors:6.1%} errors  p50 {row.p50:.1f} ms  p95 {row.p95:.1f} ms"
                )
        say(f"{self._red.total} spans so far")

    def _picture(self) -> Group:
        rows = self._red.lines(self._services)
        spans = self._red.last()
        hint = Text(self._hint, style="bold")
        room = max(self._console.height - len(spans) - 9, 5)
        return Group(_table(rows[:room], len(rows) - room), _spans(spans), hint)


def _table(rows: list[Line], hidden: int) -> Table:
    table = Table(title="RED by service and route, last 15 seconds", title_justify="left")
    table.add_column("service")
    table.add_column("kind")
    table.add_column("span name", no_wrap=True)
    for name in ("rate /s", "errors", "p50 ms", "p95 ms", "total"):
        table.add_column(name, justify="right")
    shown = ""
    for row in rows:
        table.add_row(
            row.service if row.service != shown else "",
            row.kind,
            row.name,
            f"{row.per_second:.1f}",
            Text(f"{row.errors:.1%}", style="red" if row.errors else "dim"),
            f"{row.p50:.1f}",
            Text(f"{row.p95:.1f}", style="yellow" if row.p95 > SLOW_MS else ""),
            str(row.total),
        )
        shown = row.service
    if hidden > 0:
        table.caption = f"{hidden} more rows: make the window higher"
    return table


def _spans(spans: list[Span]) -> Table:
    table = Table(title="Last spans", title_justify="left", box=None, show_header=False)
    for span in spans:
        attributes = span["attributes"]
        at = time.strftime("%H:%M:%S", time.localtime(span["start_unix_nano"] // 1_000_000_000))
        status = span["incomplete"] or attributes.get("http.response.status_code", "")
        table.add_row(
            at,
            span["service"]["name"],
            span["kind"],
            str(attributes.get("http.request.method", "")),
            str(attributes.get("url.path", "")),
            Text(str(status), style="red" if span["error"] else "green"),
            f"{span['duration_ns'] / 1e6:.2f} ms",
        )
    return table


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
