# SPDX-License-Identifier: Apache-2.0
"""The control socket: answers, defects of the report, and what accept() may meet."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from otelauto import control
from otelauto.app import Stop
from otelauto.control import Control, ask
from otelauto.errors import OtelautoError


@contextmanager
def answering(path: Path, report: Callable[[], dict[str, Any]]) -> Iterator[Control]:
    """A control socket whose owner serves until the end; what serve() raised is raised here."""
    made = Control(path)
    made.start()
    stop = threading.Event()
    raised: list[Exception] = []

    def serve() -> None:
        while not stop.wait(0.01):
            try:
                made.serve(report)
            except Exception as error:
                raised.append(error)

    owner = threading.Thread(target=serve)
    owner.start()
    try:
        yield made
    finally:
        stop.set()
        owner.join()
        made.close()
    assert raised == []


def test_a_question_is_answered(tmp_path: Path) -> None:
    with answering(tmp_path / "s", lambda: {"spans": 3}):
        assert ask(tmp_path / "s") == {"spans": 3}
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "s").exists()


def test_a_question_wakes_whoever_has_the_answer(tmp_path: Path) -> None:
    asked = threading.Event()
    made = Control(tmp_path / "s", asked.set)
    made.start()
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(tmp_path / "s")))
    asking.start()
    assert asked.wait(20)  # serve() has not been called yet
    made.serve(lambda: {"spans": 4})
    asking.join(20)
    made.close()
    assert answers == [{"spans": 4}]


@pytest.mark.parametrize("report", [lambda: {"x": 1 // 0}, lambda: {"x": object()}])
def test_a_report_that_fails_is_an_answer_and_logged_once(
    report: Callable[[], dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with answering(tmp_path / "s", report):
        for _ in range(2):
            with pytest.raises(OtelautoError, match=r"could not report: (Zero|Type)") as caught:
                ask(tmp_path / "s")
            assert caught.value.remedy
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_what_is_not_a_report_is_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"[1]")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OtelautoError, match="did not answer"):
            ask(tmp_path / "s")
        thread.join()


class Troubled(socket.socket):
    """A listener whose accept() fails at first."""

    def accept(self) -> tuple[socket.socket, Any]:
        if errors:
            raise OSError(errors.pop(), "as the kernel says")
        return super().accept()


errors: list[int] = []


def test_trouble_of_accept_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listen(path: Path) -> socket.socket:
        listener = Troubled(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        return listener

    monkeypatch.setattr(control, "_listen", listen)
    errors[:] = [errno.EMFILE, errno.ECONNABORTED]
    with answering(tmp_path / "s", lambda: {"spans": 3}):
        assert ask(tmp_path / "s") == {"spans": 3}
    assert errors == []


def test_the_thread_ends_with_the_socket(tmp_path: Path) -> None:
    def alive() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "otelauto-control"]

    made = Control(tmp_path / "s")
    made.start()
    assert alive()
    made.close()
    give_up_at = time.monotonic() + 10
    while alive() and time.monotonic() < give_up_at:
        time.sleep(0.01)
    assert not alive()


def test_a_signal_wakes_what_sleeps() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    woken = threading.Event()
    try:
        stop = Stop()
        stop.wake = woken.set
        assert not stop
        signal.raise_signal(signal.SIGTERM)
        assert woken.wait(20)
        assert stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
