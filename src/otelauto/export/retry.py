# SPDX-License-Identifier: Apache-2.0
"""When a message is sent again: exponential backoff with jitter, or when the endpoint says."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable

from otelauto.export.transport import Answer, Body, Verdict, shortened

FIRST_PAUSE_S = 0.5  # the longest first pause; doubled after each try
LONGEST_PAUSE_S = 5.0
LONGEST_ASKED_S = 300.0  # an endpoint that wants more is asked after this
LIMIT_S = 30.0
CLOSING_PAUSE_S = 0.1

JITTER = (0.5, 1.0)  # of a pause

Post = Callable[[Body, float | None], Answer]


def asked_pause_s(answer: Answer) -> float:
    """Seconds that the endpoint wants to be left alone, within reason; 0 if it said nothing."""
    return min(answer.retry_after_s or 0.0, LONGEST_ASKED_S)


class Retry:
    """Posts each message until there is an answer that counts, or time is up.

    ``limit_s`` is the longest time for one message, 0 is no limit. A wait that the endpoint asks
    for does not count: nothing else may be sent in it either. ``closing`` is set when the exporter
    is being closed; ``seconds_left`` then gives what remains, before that ``None``. Pauses begin
    with ``first_pause_s`` and are multiplied by ``growth`` up to ``longest_pause_s``; each is a
    random share of it, from ``jitter``'s first value to its second.
    """

    def __init__(
        self,
        post: Post,
        report: Callable[[str], None],
        closing: threading.Event,
        seconds_left: Callable[[], float | None],
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        growth: float = 2.0,
        jitter: tuple[float, float] = JITTER,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._post = post
        self._report = report
        self._closing = closing
        self._seconds_left = seconds_left
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._growth = growth
        self._jitter = jitter
        self._limit_s = limit_s or math.inf
        self._quiet_until = 0.0  # monotonic time before which the endpoint wants nothing
        self._last = Answer(Verdict.RETRY)

    def send(self, body: Body) -> Answer:
        """The last answer: ``RETRY`` if time was up before another one came."""
        quiet = self._quiet_until - time.monotonic()
        if quiet > 0 and not self._wait(quiet):
            return self._last
        give_up_at = time.monotonic() + self._limit_s
        longest = self._first_pause_s
        while True:
            answer = self._last = self._post(body, self._time(give_up_at))
            if answer.verdict is not Verdict.RETRY:
                return answer
            asked = asked_pause_s(answer)
            give_up_at += asked
            self._quiet_until = time.monotonic() + asked
            pause = max(asked, random.uniform(*self._jitter) * longest)  # noqa: S311
            longest = min(self._growth * longest, self._longest_pause_s)
            if time.monotonic() + pause >= give_up_at:
                return answer
            self._report(f"{answer.error}; trying again")
            if not self._wait(pause):
                return answer

    def _time(self, give_up_at: float) -> float | None:
        left = give_up_at - time.monotonic()
        return shortened(None if math.isinf(left) else left, self._seconds_left())

    def _wait(self, pause: float) -> bool:
        """Wait between tries; false when the exporter is closed and there is no time for one."""
        if self._seconds_left() is None and not self._closing.wait(pause):
            return True
        # Closing: a try soon is worth more than a pause, but not against what was asked for.
        soon = time.monotonic() + min(self._first_pause_s, CLOSING_PAUSE_S)
        until = max(self._quiet_until, soon)
        while (wait := until - time.monotonic()) > 0:
            left = self._seconds_left()
            if left is not None and left <= wait:
                return False
            time.sleep(min(wait, CLOSING_PAUSE_S))
        return True
