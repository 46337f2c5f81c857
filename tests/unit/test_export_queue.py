# SPDX-License-Identifier: Apache-2.0
"""The bounded queue and the worker: nothing blocks, and every span is accounted for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from otelauto.counters import Counters, Meaning
from otelauto.export.exporter import Ledger, Reason, Trouble, dropped
from otelauto.export.queue import BoundedQueue
from otelauto.export.worker import Worker
from otelauto.flows.vocabulary import Side
from otelauto.spans.span import Service, Span

LEDGER = Ledger(Meaning("t_sent", "Sent."), Meaning("t_dropped", "Dropped.", "reason"))
SPAN = Span(
    Service("shop", "", ""), "GET", Side.SERVER, b"t" * 16, b"s" * 8, b"", 1, 1, 2, {}, False,
    None, (),
)  # fmt: skip


def wait_for(condition: Callable[[], bool], deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


def worker_of(
    handle: Callable[[list[Span]], None], counters: Counters, **settings: object
) -> Worker:
    given: dict[str, object] = {"queue_size": 10, "batch_size": 4, "batch_timeout_s": 0.0}
    return Worker("test", handle, LEDGER, counters, Trouble("test"), **{**given, **settings})  # type: ignore[arg-type]


def test_put_takes_what_fits() -> None:
    queue: BoundedQueue[int] = BoundedQueue(5)
    assert queue.put([1, 2, 3]) == 3
    assert queue.put([4, 5, 6]) == 2
    assert queue.put([7]) == 0
    assert queue.put([]) == 0
    assert queue.take(2, 0) == [1, 2]
    assert queue.put([8]) == 1
    assert queue.take(99, 0) == [3, 4, 5, 8]


def test_a_full_batch_is_taken_at_once_and_a_closed_queue_is_emptied() -> None:
    queue: BoundedQueue[int] = BoundedQueue(100)
    queue.put(list(range(7)))
    assert queue.take(5, 3600) == [0, 1, 2, 3, 4]
    queue.close()
    assert queue.put([9]) == 0
    assert queue.take(5, 3600) == [5, 6]
    assert queue.take(5, 3600) is None


def test_a_batch_larger_than_the_queue_does_not_wait_for_ever() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3)
    queue.put([1, 2, 3])
    assert queue.take(10, 3600) == [1, 2, 3]


def test_take_waits_for_a_batch_and_for_the_oldest() -> None:
    queue: BoundedQueue[int] = BoundedQueue(100)
    taken: list[list[int] | None] = []
    consumer = threading.Thread(target=lambda: taken.append(queue.take(3, 3600)))
    consumer.start()
    for n in range(3):
        queue.put([n])
    consumer.join(20)
    assert taken == [[0, 1, 2]]
    queue.put([3])
    assert queue.take(3, 0.01) == [3]


def test_a_slow_consumer_never_blocks_and_the_overflow_is_exact() -> None:
    counters = Counters()
    entered, go_on = threading.Event(), threading.Event()
    seen: list[Span] = []

    def handle(batch: list[Span]) -> None:
        entered.set()
        go_on.wait(30)
        seen.extend(batch)
        worker.sent(len(batch))

    worker = worker_of(handle, counters)
    worker.start()
    worker.offer([SPAN])
    assert entered.wait(20)
    worker.offer([SPAN] * 7)
    worker.offer([SPAN] * 7)
    assert counters.get(LEDGER.dropped, Reason.QUEUE_FULL) == 4
    assert worker.queued() == 11  # ten wait, one is in hand
    go_on.set()
    worker.close(20)
    assert len(seen) == counters.get(LEDGER.sent) == 11
    assert dropped(counters, LEDGER) == 4


def test_a_defect_costs_one_batch(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    calls: list[int] = []

    def handle(batch: list[Span]) -> None:
        calls.append(len(batch))
        if len(calls) == 1:
            worker.sent(1)
            raise ZeroDivisionError("oops")
        worker.sent(len(batch))

    worker = worker_of(handle, counters)
    worker.offer([SPAN] * 4)
    worker.offer([SPAN] * 3)
    worker.start()
    worker.close(20)
    assert calls == [4, 3]
    assert counters.get(LEDGER.dropped, Reason.INTERNAL) == 3
    assert counters.get(LEDGER.sent) == 4
    assert "oops" in caplog.text


def test_close_keeps_its_deadline_and_counts_the_rest() -> None:
    counters = Counters()
    aborted, entered = threading.Event(), threading.Event()

    def handle(batch: list[Span]) -> None:
        entered.set()
        assert aborted.wait(30)
        worker.drop(len(batch), Reason.SHUTDOWN)

    worker = worker_of(handle, counters, abort=aborted.set)
    worker.start()
    worker.offer([SPAN] * 10)
    assert entered.wait(20)
    worker.close(0.05)
    wait_for(lambda: dropped(counters, LEDGER) == 10)
    assert counters.get(LEDGER.dropped, Reason.SHUTDOWN) == 10
    worker.offer([SPAN])
    assert dropped(counters, LEDGER) == 11


def test_a_handle_that_cannot_be_aborted_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "GRACE_S", 0.01)
    counters = Counters()
    entered, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def handle(batch: list[Span]) -> None:
        worker.sent(1)
        entered.set()
        go_on.wait(30)
        worker.sent(len(batch) - 1)
        done.set()

    worker = worker_of(handle, counters)
    worker.offer([SPAN] * 9)
    worker.start()
    assert entered.wait(20)
    worker.close(0.01)
    go_on.set()
    assert done.wait(20)
    assert counters.get(LEDGER.sent) == 1
    assert counters.get(LEDGER.dropped, Reason.SHUTDOWN) == 8


def test_a_worker_that_was_never_started_can_be_closed() -> None:
    counters = Counters()
    worker = worker_of(lambda batch: worker.sent(len(batch)), counters)
    worker.offer([SPAN] * 3)
    worker.close(1)
    assert counters.get(LEDGER.dropped, Reason.SHUTDOWN) == 3


def test_trouble_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    trouble = Trouble("x", lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for n in range(5):
            trouble.report(f"error {n}")
        now[0] = 61
        trouble.report("error 5")
    assert [record.getMessage() for record in caplog.records] == [
        "x: error 0",
        "x: error 5 (4 more since the last message)",
    ]
    assert trouble.last_error == "error 5"


def test_what_a_full_batch_leaves_keeps_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    queue: BoundedQueue[int] = BoundedQueue(100)
    queue.put([1, 2, 3, 4, 5])
    now[0] = 100.3
    queue.put([6, 7])
    assert queue.take(4, 0.5) == [1, 2, 3, 4]
    now[0] = 100.5
    assert queue.take(4, 0.5) == [5, 6, 7]  # at once: 5 is half a second old
    queue.put([8])
    assert queue.clear() == 1
    now[0] = 101.0
    queue.put([9])
    now[0] = 101.5
    assert queue.take(4, 0.5) == [9]
