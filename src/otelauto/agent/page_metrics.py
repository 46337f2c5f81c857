# SPDX-License-Identifier: Apache-2.0
"""What an agent counts: as metrics of its page, and as rates for people."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final, Protocol

from otelauto import __version__
from otelauto.agent.graph import Graph
from otelauto.agent.pipeline import Health
from otelauto.counters import Counters, Meaning
from otelauto.export.exposition import Family, Format, Kind, Sample, render_family
from otelauto.export.own_metrics import PREFIX, counter_families, process_families

WINDOW_S: Final = 10.0  # over which a rate is measured
EVERY_S: Final = 2.0

Totals = dict[tuple[str, str, str], int]  # by component, counter and label value


class State(Protocol):
    """The agent, as its page sees it."""

    path: str
    graph: Graph
    counters: Counters
    reload_error: str  # what is wrong with the configuration that is not used; or nothing

    def reload_soon(self) -> Future[str]:
        """Read the configuration again; gives what is wrong with it, or nothing."""


def exposition(state: State, fmt: Format) -> str:
    """The page ``/metrics``."""
    grouped: dict[Meaning, list[Sample]] = {}
    for name, counters in sorted(state.graph.counters().items()):
        for meaning, label, total in counters.items():
            attributes: dict[str, str | int | float | bool] = {"component_id": name}
            if meaning.label:
                attributes[meaning.label] = label
            grouped.setdefault(meaning, []).append((attributes, total))
    families = [
        _family(f"{PREFIX}{meaning.name}", Kind.COUNTER, meaning.help, samples)
        for meaning, samples in sorted(grouped.items(), key=lambda item: item[0].name)
    ]
    health: list[Sample] = [
        ({"component_id": name, "health": each}, int(cell.health()[0] is each))
        for name, cell in state.graph.cells().items()
        for each in Health
    ]
    families += [
        _family(f"{PREFIX}agent_component_health", Kind.GAUGE, "1 for how it is.", health),
        _family(
            f"{PREFIX}agent_config_last_load_successful", Kind.GAUGE,
            "0 if the configuration was read again and not used.",
            [({}, int(not state.reload_error))],
        ),
        *counter_families(state.counters),
        *process_families(__version__),
    ]  # fmt: skip
    text = "".join(render_family(family, fmt) for family in families)
    return text + ("# EOF\n" if fmt is Format.OPENMETRICS else "")


def _family(name: str, kind: Kind, help_: str, samples: list[Sample]) -> Family:
    return Family(name, kind, help_, lambda: samples)


class Rates:
    """Counts per second, over the last ``WINDOW_S``."""

    def __init__(
        self,
        counters: Callable[[], Mapping[str, Counters]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._now = now
        self._seen: deque[tuple[float, Totals]] = deque()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otelauto-agent-rates", daemon=True)

    def start(self) -> None:
        """Begin to look at the counters."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def look(self) -> None:
        """Remember the counters as they are now."""
        totals = {
            (name, meaning.name, label): total
            for name, counters in self._counters().items()
            for meaning, label, total in counters.items()
        }
        self._seen.append((self._now(), totals))
        while len(self._seen) > 2 and self._seen[1][0] <= self._now() - WINDOW_S:
            self._seen.popleft()

    def rates(self) -> dict[tuple[str, str, str], float]:
        """By component, counter and label value; what counted nothing is left out."""
        seen = list(self._seen)
        if len(seen) < 2 or seen[-1][0] <= seen[0][0]:
            return {}
        (then, before), (now, totals) = seen[0], seen[-1]
        grown = ((key, total - before.get(key, 0)) for key, total in totals.items())
        return {key: more / (now - then) for key, more in grown if more}

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.look()
