# SPDX-License-Identifier: Apache-2.0
"""Prints spans. The only part of otelauto that writes to standard output."""

from __future__ import annotations

import enum
import errno
import os
import select
from collections.abc import Sequence

from otelauto.counters import Counters
from otelauto.export.exporter import PRINTER, Reason, Status, Trouble, dropped
from otelauto.export.lines import json_line, text_line
from otelauto.export.worker import Worker
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Span

STDOUT = 1
QUEUE_SIZE = 16_384
BATCH_SIZE = 512
POLL_MS = 100


class LineFormat(enum.StrEnum):
    """``trace_printer``."""

    TEXT = "text"
    JSON = "json"


class Printer:
    """The exporter behind ``print_traces``: each span a line, each batch written at once.

    A reader that goes away (``otelauto | head``) stops the printing, not otelauto.
    """

    name = "printer"

    def __init__(
        self,
        line_format: LineFormat,
        clock: WallClock,
        counters: Counters,
        *,
        fd: int = STDOUT,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        self._line = json_line if line_format is LineFormat.JSON else text_line
        self._clock = clock
        self._counters = counters
        self._fd = fd
        self._trouble = Trouble(self.name)
        self._broken = False
        self._worker = Worker(
            self.name,
            self._print,
            PRINTER,
            counters,
            self._trouble,
            queue_size=queue_size,
            batch_size=BATCH_SIZE,
            batch_timeout_s=0.0,
        )

    @property
    def broken(self) -> bool:
        """Whether nobody reads standard output any more."""
        return self._broken

    def start(self) -> None:
        """Start the thread."""
        self._worker.start()

    def offer(self, spans: Sequence[Span]) -> None:
        """Queue ``spans``; never blocks."""
        self._worker.offer(spans)

    def close(self, deadline_s: float) -> None:
        """Print what is queued, for at most ``deadline_s``."""
        self._worker.close(deadline_s)

    def status(self) -> Status:
        """Totals and the last error."""
        return {
            "sent": self._counters.get(PRINTER.sent),
            "dropped": dropped(self._counters, PRINTER),
            "queued": self._worker.queued(),
            "last_error": self._trouble.last_error,
        }

    def _print(self, batch: list[Span]) -> None:
        if self._broken:
            self._worker.drop(len(batch), Reason.PIPE_CLOSED)
            return
        lines = [f"{self._line(span, self._clock)}\n" for span in batch]
        data = "".join(lines).encode("utf-8", "backslashreplace")
        written, reason = self._write(data)
        whole = data.count(b"\n", 0, written)
        self._worker.sent(whole)
        if reason is not None:
            self._worker.drop(len(batch) - whole, reason)

    def _write(self, data: bytes) -> tuple[int, Reason | None]:
        """Write all of ``data``; returns the bytes written and why it was not all."""
        written = 0
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while written < len(data):
            left = self._worker.seconds_left()
            if left is not None and left <= 0:
                return written, Reason.SHUTDOWN
            if not poll.poll(POLL_MS):
                continue  # the reader is slow; look at the deadline again
            try:
                # A pipe that polls writable takes PIPE_BUF bytes without blocking (pipe(7)).
                written += os.write(self._fd, data[written : written + select.PIPE_BUF])
            except BlockingIOError:
                continue
            except OSError as error:
                self._broken = error.errno in {errno.EPIPE, errno.EBADF}
                self._trouble.report(f"standard output cannot be written: {error.strerror}")
                return written, Reason.PIPE_CLOSED if self._broken else Reason.UNWRITABLE
        return written, None
