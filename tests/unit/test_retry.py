# SPDX-License-Identifier: Apache-2.0
"""When a message is sent again; what each form of trouble does to it."""

from __future__ import annotations

import datetime
import socket
import threading
from collections.abc import Callable
from email.utils import format_datetime

import pytest
from tests.unit.test_otlp_http import CLOCK, Receiver, spans, totals, transport, wait_for

from otelauto.counters import Counters
from otelauto.export import retry
from otelauto.export.exporter import METRIC_EXPORTS
from otelauto.export.otlp_export import OtlpMetrics, OtlpTraces
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.red import Red
from otelauto.export.retry import LONGEST_ASKED_S, LONGEST_PAUSE_S, Retry, asked_pause_s
from otelauto.export.transport import Answer, Verdict

YES = Answer(Verdict.ACCEPTED)
NO = Answer(Verdict.REFUSED, "no")


def again(after: float | None = None) -> Answer:
    return Answer(Verdict.RETRY, "later", retry_after_s=after)


class Clock(threading.Event):
    """Time that passes only in waits, and the waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.waits: list[float] = []
        self.close_at = float("inf")

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self.now = min(self.now + timeout, max(self.close_at, self.now))
        return self.now >= self.close_at

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


Make = Callable[..., tuple[Retry, list[float | None]]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


@pytest.fixture
def make(clock: Clock) -> Make:
    """A ``Retry`` over a list of answers (the last is repeated), and the times it gave each."""

    def make(
        answers: list[Answer], close_s: float = 5.0, **settings: float
    ) -> tuple[Retry, list[float | None]]:
        given: list[float | None] = []

        def post(body: bytes, seconds_left: float | None) -> Answer:
            given.append(seconds_left)
            clock.now += 0.01  # a try takes time
            return answers.pop(0) if len(answers) > 1 else answers[0]

        def seconds_left() -> float | None:
            return None if clock.now < clock.close_at else clock.close_at + close_s - clock.now

        return Retry(post, lambda _: None, clock, seconds_left, **settings), given

    return make


def test_what_is_settled_is_not_sent_again(make: Make, clock: Clock) -> None:
    for answer in (YES, NO):
        trial, given = make([answer, again()])
        assert trial.send(b"") is answer
        assert len(given) == 1
    assert clock.waits == []


def test_pauses_double_and_have_jitter(make: Make, clock: Clock) -> None:
    trial, _ = make([*[again() for _ in range(8)], YES], first_pause_s=0.5, limit_s=100.0)
    assert trial.send(b"") is YES
    longest = [0.5, 1, 2, 4, *[LONGEST_PAUSE_S] * 4]
    assert len(clock.waits) == len(longest)
    for pause, most in zip(clock.waits, longest, strict=True):
        assert most / 2 <= pause <= most
    assert len({pause / most for pause, most in zip(clock.waits, longest, strict=True)}) > 1


@pytest.mark.parametrize("limit_s", [3.0, 30.0])
def test_the_time_is_bounded(make: Make, clock: Clock, limit_s: float) -> None:
    trial, given = make([again()], limit_s=limit_s)
    assert trial.send(b"").verdict is Verdict.RETRY
    assert clock.now <= limit_s
    assert len(given) > 2
    assert given[0] == limit_s
    assert all(left is not None and left > 0 for left in given)


def test_zero_is_no_limit(make: Make) -> None:
    trial, given = make([*[again() for _ in range(500)], YES], limit_s=0.0)
    assert trial.send(b"") is YES
    assert set(given) == {None}


def test_what_the_endpoint_asks_for_is_kept(make: Make, clock: Clock) -> None:
    """Even beyond the limit: the next message may not be sent sooner either."""
    trial, _ = make([again(60.0), again(0.0), YES], limit_s=10.0)
    assert trial.send(b"") is YES
    assert clock.waits[0] == 60.0
    assert 0 < clock.waits[1] <= 1.0


def test_nobody_waits_for_ever(make: Make, clock: Clock) -> None:
    trial, _ = make([again(1e9), YES])
    assert trial.send(b"") is YES
    assert clock.waits == [LONGEST_ASKED_S]
    assert asked_pause_s(again(float("inf"))) == LONGEST_ASKED_S


def test_closing_gives_one_more_chance_soon(make: Make, clock: Clock) -> None:
    clock.close_at = 0.1
    trial, given = make([again(), YES])
    assert trial.send(b"") is YES
    assert clock.now < 0.5
    assert given[1] is not None


def test_closing_does_not_break_what_was_asked_for(make: Make, clock: Clock) -> None:
    clock.close_at = 1.0
    trial, given = make([again(60.0), YES], close_s=5.0)
    assert trial.send(b"").verdict is Verdict.RETRY
    assert len(given) == 1
    assert trial.send(b"").error == "later"  # nor does the next message
    assert len(given) == 1
    clock.close_at = clock.now + 1.0
    trial, given = make([again(3.0), YES], close_s=5.0)
    start = clock.now
    assert trial.send(b"") is YES
    assert clock.now - start >= 3.0


def test_closing_ends_at_its_deadline(make: Make, clock: Clock) -> None:
    clock.close_at = 1.0
    trial, _ = make([again()], close_s=5.0, limit_s=0.0)
    assert trial.send(b"").verdict is Verdict.RETRY
    assert clock.now <= 6.1


# ---- against a server ----


@pytest.mark.parametrize("status", [429, 502, 503, 504, 400])
@pytest.mark.parametrize("form", ["seconds", "date", "rubbish", "past"])
def test_both_forms_of_retry_after(receiver: Receiver, status: int, form: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    value = {
        "seconds": "120",
        "date": format_datetime(now + datetime.timedelta(seconds=120), usegmt=True),
        "rubbish": "soon",
        "past": format_datetime(now - datetime.timedelta(days=1), usegmt=True),
    }[form]
    receiver.replies = [(status, {"Retry-After": value}, b"")]
    to = transport(receiver.port)
    answer = to.post(b"")
    to.close()
    assert answer.verdict is (Verdict.REFUSED if status == 400 else Verdict.RETRY)
    if status == 400 or form == "rubbish":
        assert answer.retry_after_s is None
    elif form == "past":
        assert answer.retry_after_s == 0
    else:
        assert answer.retry_after_s is not None
        assert 60 < answer.retry_after_s <= 120


def test_metrics_wait_as_long_as_asked(receiver: Receiver) -> None:
    receiver.replies = [(503, {"Retry-After": "3600"}, b"")]
    red, counters = Red(Counters()), Counters()
    red.add(spans(3))
    to = transport(receiver.port)
    exporter = OtlpMetrics(to, red, CLOCK, counters, version="1", interval_s=0.01)
    exporter.start()
    wait_for(lambda: exporter.status()["failures"] == 1)
    exporter.close(20)  # the last totals are sent all the same
    assert len(receiver.requests) == 2
    assert counters.get(METRIC_EXPORTS) == 1


def test_what_waits_for_another_try_is_counted_as_queued(receiver: Receiver) -> None:
    receiver.default = (503, {"Retry-After": "3600"}, b"")
    counters = Counters()
    exporter = OtlpTraces(
        transport(receiver.port), CLOCK, counters, version="1", batch_timeout_s=0.0
    )
    exporter.start()
    exporter.offer(spans(7))
    wait_for(lambda: exporter.status()["last_error"] is not None)
    exporter.offer(spans(5))
    assert exporter.status()["queued"] == 12
    assert totals(counters) == (0, {})
    exporter.close(0.2)
    assert exporter.status()["queued"] == 0
    assert totals(counters) == (0, {"shutdown": 12})
    assert len(receiver.requests) == 1


class Faulty:
    """A server that answers each connection with ``answer`` and resets it."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.connections = 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while True:
            connection, _ = self.server.accept()
            with connection:
                data = connection.recv(65536)
                if data == b"end":
                    return
                self.connections += 1
                connection.sendall(self.answer)
                # Closing with a zero linger time sends a reset (socket(7)).
                linger = (1).to_bytes(4, "little") + bytes(4)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as end:
            end.sendall(b"end")
        self.thread.join(20)
        self.server.close()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"\0\xff"]
)
def test_an_answer_that_breaks_off_is_tried_again(answer: bytes) -> None:
    server = Faulty(answer)
    to = transport(server.port)
    try:
        assert to.post(b"x").verdict is Verdict.RETRY
        assert to.post(b"x").verdict is Verdict.RETRY
    finally:
        to.close()
        server.close()
    assert server.connections == 2


def test_a_name_that_is_not_known_is_tried_again() -> None:

    answer = OtlpHttp("http://no-such-host.invalid:4318/", version="1").post(b"")

    assert answer.verdict is Verdict.RETRY
    assert answer.error
