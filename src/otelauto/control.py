# SPDX-License-Identifier: Apache-2.0
"""A unix socket, for its owner only, through which `status` and `doctor` ask a running otelauto.

One connection, one answer: a JSON object, the report or ``{"error": "..."}``, then end of file. It
is made by the thread that owns the state, between two drains; the thread here only waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from otelauto.errors import OtelautoError

log = logging.getLogger("otelauto.control")

ANSWER_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 0.1  # what keeps accept() from working may last
Report = dict[str, Any]


class Control:
    """The answering side. Call :meth:`serve` often, from the thread that owns the state.

    ``wake`` is called when somebody has asked: that thread may sleep.
    """

    def __init__(self, path: Path, wake: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._wake = wake
        self._asked: queue.SimpleQueue[queue.SimpleQueue[bytes]] = queue.SimpleQueue()
        self._socket: socket.socket | None = None
        self._closed = threading.Event()
        self._complained = False

    def start(self) -> None:
        """Listen. A path that cannot be had costs `status`, nothing else: it is logged."""
        try:
            listener = self._socket = _listen(self._path)
        except OSError as error:
            log.warning("`otelauto status` will not work: %s: %s", self._path, error.strerror)
            return
        threading.Thread(
            target=self._run, args=(listener,), name="otelauto-control", daemon=True
        ).start()

    def serve(self, report: Callable[[], Report]) -> None:
        """Answer whoever has asked since the last call. A defect of ``report`` is an answer too."""
        while not self._asked.empty():
            reply = self._asked.get()
            try:  # a question must not end the instrumenter
                answer = json.dumps(report())
            except Exception as error:
                answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
                if not self._complained:
                    self._complained = True
                    log.exception("the report failed: a defect of otelauto, please report it")
            reply.put(answer.encode())

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._closed.set()
        if self._socket is not None:
            self._path.unlink(missing_ok=True)
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
            self._socket.close()

    def _run(self, listener: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                peer, _ = listener.accept()
            except OSError as error:
                # A peer that gave up (ECONNABORTED), no descriptor free now (EMFILE), or closed.
                log.debug("a question could not be accepted: %r", error)
                self._closed.wait(RETRY_SECONDS)
                continue
            with peer:
                peer.settimeout(ANSWER_SECONDS)
                reply: queue.SimpleQueue[bytes] = queue.SimpleQueue()
                self._asked.put(reply)
                self._wake()
                try:
                    peer.sendall(reply.get(timeout=ANSWER_SECONDS))
                except (OSError, queue.Empty) as error:
                    log.debug("a question was not answered: %r", error)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _answers(path):
            path.unlink()  # left by an otelauto that was killed
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(4)
    except OSError:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def ask(path: Path) -> Report:
    """The report of the otelauto that runs.

    Raises OtelautoError with a remedy if none answers, or if it answers that it cannot report.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(str(path))
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
        except PermissionError as error:
            raise OtelautoError(
                f"not allowed to open {path}", "run as the same user, root"
            ) from error
        except OSError as error:
            raise OtelautoError(
                f"no otelauto answers on {path}",
                "start one, or name its socket with the setting control_socket",
            ) from error
    return read_answer(b"".join(parts), path)


def read_answer(data: bytes, path: Path) -> Report:
    """The report that ``data`` is, from the socket ``path``. Raises as :func:`ask` does."""
    try:
        answer: Report = json.loads(data)
        if not isinstance(answer, dict):
            raise TypeError("not an object")
    except (TypeError, ValueError, RecursionError) as error:
        raise OtelautoError(f"the otelauto on {path} did not answer", "try again") from error
    if "error" in answer:
        raise OtelautoError(
            f"the otelauto on {path} could not report: {answer['error']}", "look at its log"
        )
    return answer
