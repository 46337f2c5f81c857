# SPDX-License-Identifier: Apache-2.0
"""Children that a process forked before it was watched, and after it was looked at."""

from __future__ import annotations

import os
import signal
from contextlib import closing, suppress

import pytest
from tests.kernel.child import running

from otelauto.config import Purpose, load
from otelauto.counters import Counters
from otelauto.instrument import Watcher

pytestmark = pytest.mark.kernel
KTHREADD = 2
FORK = """
child = os.fork()
if child == 0:
    import signal
    signal.pause()
    os._exit(0)
print(child, flush=True)
"""


def test_they_are_watched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # It leaves its own process's descendants alone.
    monkeypatch.setattr("otelauto.instrument.ProcFs.own_tgid", lambda procfs: KTHREADD)
    children: list[int] = []
    with running() as parent:
        config = load(None, {}, {"--pid": str(parent.pid)}, Purpose.WATCH).config
        with closing(Watcher(config, Counters())) as watcher:
            watch = watcher.capture.watch

            def late(tgid: int) -> None:
                if tgid == parent.pid:
                    children.append(int(parent.run(f"exec({FORK!r}, globals())")))
                watch(tgid)

            monkeypatch.setattr(watcher.capture, "watch", late)
            try:
                watcher.start()
                assert len(children) == 1
                watched = {target.tgid for target in watcher.targets()}
            finally:
                for child in children:
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
    assert watched == {parent.pid, *children}
