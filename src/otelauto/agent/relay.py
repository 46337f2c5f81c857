# SPDX-License-Identifier: Apache-2.0
"""What a component exports, as others hold it: it stays the same when the component is made anew.

So a changed exporter does not make its receiver close its port, and a changed password does not
make an exporter give up what it holds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from otelauto.agent.pipeline import Metadata, Metrics, Refused, Sample, Traces
from otelauto.agent.schema import APPENDABLE, CONSUMER, HANDLER
from otelauto.counters import Counters, Meaning
from otelauto.errors import OtelautoError

CHANGE_S: Final = 10.0  # longest that a caller waits while a component is made anew
AGAIN_S: Final = 1.0  # when a sender may try a component again that does not run

TAKEN = Meaning(
    "agent_items_taken", "Spans, data points and samples that a component took.", "kind"
)
REFUSED = Meaning(
    "agent_items_refused",
    "Spans, data points and samples that a component did not take; whoever sent them has them.",
    "kind",
)


class Relay:
    """Passes calls to the component ``id`` as it is now; counts what it takes and refuses."""

    def __init__(self, id: str, counters: Counters) -> None:  # noqa: A002 - as in the language
        self.id = id
        self._counters = counters
        self._target: Any = None
        self._why = ""
        self._calls = 0
        self._changing = True
        self._changed = threading.Condition()

    def connect(self, target: object) -> None:
        """From now on ``target`` takes the calls."""
        with self._changed:
            self._target, self._changing = target, False
            self._changed.notify_all()

    def hold(self, seconds: float) -> None:
        """Let callers wait, until :meth:`connect`; wait for calls in progress, so long at most."""
        with self._changed:
            self._target, self._changing = None, True
            self._changed.wait_for(lambda: not self._calls, seconds)

    def cut(self, why: str) -> None:
        """There is nothing to pass calls to: refuse them."""
        with self._changed:
            self._target, self._changing, self._why = None, False, why
            self._changed.notify_all()

    @contextmanager
    def _call(self) -> Iterator[Any]:
        until = time.monotonic() + CHANGE_S
        with self._changed:
            self._changed.wait_for(lambda: not self._changing, until - time.monotonic())
            target = self._target
            if target is None:
                why = self._why or "it is being made anew"
                raise Refused(f"{self.id} does not run: {why}", retry_after_s=AGAIN_S)
            self._calls += 1
        try:
            yield target
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()


class _Counting(Relay):
    @contextmanager
    def _counted(self, kind: str, items: int) -> Iterator[Any]:
        meaning = REFUSED
        try:
            with self._call() as target:
                yield target
            meaning = TAKEN
        finally:
            if items:
                self._counters.add(meaning, items, kind)


class ConsumerRelay(_Counting):
    """A :class:`otelauto.agent.pipeline.Consumer`."""

    def traces(self, payload: Traces) -> None:
        """Pass spans on."""
        with self._counted("spans", payload.items) as target:
            target.traces(payload)

    def metrics(self, payload: Metrics) -> None:
        """Pass data points on."""
        with self._counted("points", payload.items) as target:
            target.metrics(payload)


class AppenderRelay(_Counting):
    """An :class:`otelauto.agent.pipeline.Appender`."""

    def append(self, samples: Sequence[Sample], metadata: Iterable[Metadata] = ()) -> None:
        """Pass samples on."""
        with self._counted("samples", len(samples)) as target:
            target.append(samples, metadata)


class HandlerRelay(Relay):
    """An :class:`otelauto.agent.pipeline.Handler`."""

    def announce(self, target: object) -> None:
        """``target`` is made and not yet started: good enough for those that are made with it."""
        with self._changed:
            if self._target is None:
                self._target, self._changing = target, False

    def headers(self, known: bool = False) -> Mapping[str, str]:
        """Raises :class:`OtelautoError` if there is no handler now, or it has none to give."""
        try:
            with self._call() as target:
                found: Mapping[str, str] = target.headers(known)
        except Refused as error:
            raise OtelautoError(str(error)) from error
        return found

    def checks(self) -> bool:
        """Whether it is a handler for servers, too."""
        try:
            with self._call() as target:
                return bool(target.checks())
        except Refused:
            return True  # it will be seen when there is one

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Nobody, if there is no handler now."""
        try:
            with self._call() as target:
                return bool(target.admits(headers))
        except Refused:
            return False


RELAYS: Final[dict[str, type[Relay]]] = {
    CONSUMER: ConsumerRelay,
    APPENDABLE: AppenderRelay,
    HANDLER: HandlerRelay,
}
