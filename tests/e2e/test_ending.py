# SPDX-License-Identifier: Apache-2.0
"""How otelauto ends: killed under load it leaves nothing, asked to it delivers what it has."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from pathlib import Path

import pytest
from tests.e2e.harness import bpf_ids, servers
from tests.e2e.harness.load import KeptConnections, Wrk, served
from tests.e2e.harness.process import wait_until
from tests.e2e.harness.rig import Rig, ident_of, repeated
from tests.e2e.test_attach import BY_NAME

pytestmark = pytest.mark.e2e
PAUSE_S = 0.001  # so that the printer can follow: what it gives up for want of time is lost


def test_killed_under_load_it_harms_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(servers.running(BY_NAME["c-epoll"], tmp_path))
        wrk = stack.enter_context(Wrk(tmp_path, running.port, "load"))
        rig = Rig(tmp_path, {"open_port": running.port})
        try:
            rig.wait_ready()
            rig.wait_for_spans(1)
            owned = bpf_ids.owned_by(rig.process.pid)
            assert {kind for kind, _ in owned} == set(bpf_ids.KINDS)
            assert bpf_ids.alive(owned) == owned
        finally:
            rig.process.popen.kill()
            rig.process.popen.wait()
        wait_until(lambda: not bpf_ids.alive(owned), "the kernel has freed everything")
        wrk.stop()
        assert wrk.failures() == []
        assert (tmp_path / "control.sock").is_socket(), "a stale one is in the way of the next"
        with Rig(tmp_path, {"open_port": running.port}) as another:
            with KeptConnections(running.port, 1, 1):
                another.wait_for_spans(1)
            assert another.report()["targets"]


def test_stopped_under_load_it_delivers_everything_it_has(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(servers.running(BY_NAME["c-epoll"], tmp_path))
        rig = stack.enter_context(Rig(tmp_path, {"open_port": running.port}))
        load = stack.enter_context(KeptConnections(running.port, 4, 1, PAUSE_S))
        rig.wait_for_spans(100)
        stopped_ns = time.monotonic_ns()
        assert rig.stop() == 0
        load.stop()
        assert load.failures() == []
    # An answer that was followed by another one had wholly left the server when the next began.
    wanted = {
        ident
        for kept in load.all
        for (ident, _, _), (_, _, next_ended) in zip(kept.done, kept.done[1:], strict=False)
        if next_ended < stopped_ns
    }
    seen = [ident_of(span) for span in rig.spans if span["incomplete"] is None]
    assert repeated(seen) == []
    assert len(wanted) > 100
    missing = wanted - set(seen)
    assert not missing, f"{len(missing)} of {len(wanted)} were not published: {sorted(missing)[:5]}"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_rest_without_a_word_too_many(tmp_path: Path, sent: signal.Signals) -> None:
    with servers.running(BY_NAME["c-epoll"], tmp_path) as running:
        rig = Rig(tmp_path, {"open_port": running.port})
        with rig:
            owned = bpf_ids.owned_by(rig.process.pid)
            assert rig.stop(sent) == 0
        wait_until(lambda: not bpf_ids.alive(owned), "the kernel has freed everything")
        assert not (tmp_path / "control.sock").exists()
        assert "WARN" not in rig.process.stderr()


def test_what_the_end_leaves_no_room_for_is_said(tmp_path: Path) -> None:
    """More waits in the ring than the printer's queue takes at once: the last line counts it."""
    with servers.running(BY_NAME["c-epoll"], tmp_path) as running:
        with Rig(tmp_path, {"open_port": running.port}, limits={"queue_length": 10}) as rig:
            rig.process.popen.send_signal(signal.SIGSTOP)
            with KeptConnections(running.port, 2, 200) as load:
                pass
            assert load.failures() == []
            rig.process.popen.send_signal(signal.SIGTERM)
            rig.process.popen.send_signal(signal.SIGCONT)
            assert rig.stop() == 0
        done = len(served(running.log))
    last = rig.process.stderr().splitlines()[-1]
    said = {key: int(count) for key, count in re.findall(r"(spans|dropped)=(\d+)", last)}
    assert said["spans"] == done
    assert said["dropped"] > 0
    assert len(rig.spans) == done - said["dropped"]
