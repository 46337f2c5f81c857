# SPDX-License-Identifier: Apache-2.0
"""How long the watcher waits between two drains: little under traffic, long at rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from tests.kernel.child import Child, running
from tests.kernel.recorder import DEADLINE

from otelauto.abi import CaptureMode, ProcessEvent, ProcessEventKind
from otelauto.config.load import Purpose, load
from otelauto.counters import Counters
from otelauto.flows.vocabulary import Verdict
from otelauto.instrument import (
    LEARNING_TURNS,
    LEARNING_WAIT_S,
    QUIET_TURNS,
    WAIT_S,
    Watcher,
)
from otelauto.kernel.capture import SLEEPING_AT

pytestmark = pytest.mark.kernel
SPARE_S = 9.0


@pytest.fixture
def child() -> Iterator[Child]:
    with running() as started:
        started.run("one, other = socket.socketpair()")
        yield started


@pytest.fixture
def watcher(child: Child) -> Iterator[Watcher]:
    """Watches the child alone, so that nothing else of the machine is news."""
    config = load(None, {}, {"--pid": str(child.pid)}, Purpose.WATCH).config
    with closing(Watcher(config, Counters())) as made:
        made.capture.watch(child.pid)  # discovery leaves its own process's children alone
        yield made


class Waits:
    """Takes the place of the waiting itself: notes how long each would be, at most."""

    def __init__(self, watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
        self._watcher = watcher
        self._noted: list[tuple[str, float]] = []
        for name in ("wait", "rest"):
            monkeypatch.setattr(watcher.capture, name, self._note(name))

    def _note(self, name: str) -> Callable[[float], None]:
        return lambda seconds: self._noted.append((name, seconds))

    def turns(self, count: int, spare_s: float = SPARE_S) -> list[tuple[str, float]]:
        """Take so many turns; how each of them waited."""
        self._noted.clear()
        for _ in range(count):
            self._watcher.wait(lambda: spare_s)
            self._watcher.turn(lambda record: None)
        return self._noted.copy()


SHORT, LONG, REST = ("wait", LEARNING_WAIT_S), ("wait", WAIT_S), ("rest", SPARE_S)


@pytest.fixture
def waits(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(watcher, monkeypatch)


def test_records_shorten_the_turns_and_silence_lengthens_them(waits: Waits, child: Child) -> None:
    assert waits.turns(QUIET_TURNS + 2) == [SHORT, *[LONG] * (QUIET_TURNS - 1), REST, REST]
    child.run("one.send(b'x'); other.recv(9)")
    assert waits.turns(1) == [REST]  # the one that is woken
    assert waits.turns(QUIET_TURNS + 1) == [SHORT, *[LONG] * (QUIET_TURNS - 1), REST]


def test_steady_traffic_is_drained_seldom_until_something_is_learnt(
    waits: Waits, watcher: Watcher, child: Child
) -> None:
    def busy_turn() -> list[tuple[str, float]]:
        child.run("one.send(b'x'); other.recv(9)")
        return waits.turns(1)

    waits.turns(QUIET_TURNS + 1)
    busy_turn()
    assert [busy_turn()[0] for _ in range(LEARNING_TURNS + 2)] == [
        *[SHORT] * LEARNING_TURNS, LONG, LONG,
    ]  # fmt: skip
    watcher.put_verdicts([Verdict(CaptureMode.MODE_HEADS, (1, 1), connection=1)])
    assert busy_turn() == [SHORT]


def test_a_program_that_starts_is_looked_at_a_little_later(waits: Waits, child: Child) -> None:
    waits.turns(QUIET_TURNS + 1)
    child.run("os.waitpid(os.fork() or os._exit(0), 0)")
    assert waits.turns(1) == [REST, LONG]
    assert waits.turns(1) == [REST]


def test_a_listener_is_looked_at_at_once(
    waits: Waits, watcher: Watcher, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits.turns(QUIET_TURNS + 1)
    came = [ProcessEvent(ProcessEventKind.PROCESS_LISTEN, 80, child.pid, 0, 0, 0)]
    seen: list[int] = []
    monkeypatch.setattr(watcher.capture, "drain_events", lambda: [came.pop()] if came else [])
    on_listen = watcher.discovery.on_listen
    monkeypatch.setattr(
        watcher.discovery, "on_listen", lambda *told: seen.append(told[0]) or on_listen(*told)
    )
    assert waits.turns(1) == [REST]
    assert seen == [child.pid]


def test_a_first_tls_call_is_acted_upon_at_once(
    waits: Waits, watcher: Watcher, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits.turns(QUIET_TURNS + 1)
    came = [ProcessEvent(ProcessEventKind.PROCESS_TLS, 0, child.pid, 0, 0, 0)]
    acted: list[bool] = []
    monkeypatch.setattr(watcher.capture, "drain_events", lambda: [came.pop()] if came else [])
    monkeypatch.setattr(watcher.plaintext, "called", lambda: acted.append(True))
    assert waits.turns(1) == [REST]
    assert acted == [True]


def test_records_do_not_wait_for_a_program_that_starts(waits: Waits, child: Child) -> None:
    waits.turns(QUIET_TURNS + 1)
    child.run("os.waitpid(os.fork() or os._exit(0), 0); one.send(b'x'); other.recv(9)")
    assert waits.turns(1) == [REST]


def test_what_silence_must_finish_is_not_slept_over(waits: Waits) -> None:
    assert waits.turns(QUIET_TURNS + 3, spare_s=0.0) == [SHORT, *[LONG] * (QUIET_TURNS + 2)]


def is_asleep(watcher: Watcher) -> bool:
    return bool(watcher.capture._shared.view[SLEEPING_AT // 4])


def test_a_rest_that_follows_another_is_ended_by_what_comes(watcher: Watcher, child: Child) -> None:
    """Nothing came in the first one: the second begins where it ended."""
    capture = watcher.capture
    capture.rest(0.0)
    assert is_asleep(watcher)
    resting = threading.Thread(target=capture.rest, args=(600.0,))
    resting.start()
    child.run("one.send(b'x'); other.recv(9)")
    resting.join(DEADLINE)
    assert not resting.is_alive()
    assert not is_asleep(watcher)


def test_after_a_rest_records_of_traffic_wake_nobody(watcher: Watcher, child: Child) -> None:
    watcher.capture.rest(0.0)
    watcher.capture.wait(0.0)
    assert not is_asleep(watcher)
    child.run("one.send(b'x'); other.recv(9)")
    assert not watcher.capture._poll.poll(0)
