# SPDX-License-Identifier: Apache-2.0
"""A ``prometheus.remote_write`` to try, and what its servers got."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.prometheus_parts import (
    Request,
    Web,
    content_of,
    context_of,
    decoded_request,
    labels,
    series_of,
)

from otelauto.agent.pipeline import STALE, Sample
from otelauto.agent.running.remote_write import RemoteWrite
from otelauto.counters import Counters

OK = (204, {}, b"")
QUICK = 'queue_config { batch_send_deadline = "10ms" min_backoff = "1ms" max_backoff = "5ms" }'
QUICK = QUICK.replace('" m', '"\n m').replace("{ ", "{\n ").replace(" }", "\n}")
V2 = 'protobuf_message = "io.prometheus.write.v2.Request"'


class Agent:
    """A component, and what it counted."""

    def __init__(self, path: Path, text: str) -> None:
        self.counters = Counters()
        content = content_of(f'prometheus.remote_write "x" {{\n{text}\n}}')
        self.component = RemoteWrite(context_of(path, self.counters), content)

    def counted(self, meaning, label="") -> int:
        return self.counters.get(meaning, label)


def endpoint(server: Web, more: str = "", quick: str = QUICK) -> str:
    return f'endpoint {{\nurl = "{server.url}/push"\n{more}\n{quick}\n}}\n'


@contextmanager
def agent(path: Path, text: str, stop_s: float = 5) -> Iterator[Agent]:
    found = Agent(path, text)
    found.component.start()
    try:
        yield found
    finally:
        found.component.stop(stop_s)


def writes(server: Web) -> list[Request]:
    """Requests with samples."""
    return [r for r in server.requests if len(decoded_request(r.body).timeseries)]


def received(server: Web) -> dict:
    """All samples that a server got, by labels."""
    found: dict = {}
    for request in server.requests:
        for own, values in series_of(decoded_request(request.body)).items():
            found.setdefault(own, []).extend(values)
    return found


def script(*answers, then=OK) -> Callable[[Request], object]:
    """Answers in this order; metadata is always accepted."""
    left = itertools.chain(answers, itertools.repeat(then))
    lock = threading.Lock()

    def answer(request: Request):
        with lock:
            return next(left)

    return answer


NO_METADATA = "metadata_config {\nsend = false\n}"
ONE = [Sample(labels("m", a="1"), 1.0, 1000), Sample(labels("m", a="2"), STALE, 1000)]
