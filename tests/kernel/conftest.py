# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the kernel tests: a capture that watches the test's own process, and socket pairs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import tests.one_tier  # noqa: F401 - holds this process to TEST_TIER
from tests.kernel.recorder import Recorder, connected, listener

from otelauto.kernel.capture import Capture, Wanted

Pair = tuple[socket.socket, socket.socket]
Connect = Callable[[str], Pair]


def pytest_report_header() -> str:
    from tests.kernel.tier import TIER  # noqa: PLC0415 - it loads programs

    return f"capture: tier {TIER.name}"


@pytest.fixture(scope="session")
def running() -> Iterator[Capture]:
    """The real programs, loaded once for all tests that need no state of their own."""
    with closing(Capture(Wanted())) as capture:
        yield capture


@pytest.fixture
def recorder(running: Capture) -> Iterator[Recorder]:
    """The real programs; this process is watched.

    An MPTCP socket ends later than its last close(): the next test must not hear of it.
    """
    with closing(Recorder(running=running)) as recording:
        yield recording
        recording.wait_for(recording.are_mptcp_closed, "every MPTCP connection has ended")


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """``connect(kind)`` -> (client, accepted); closed at the end."""
    with ExitStack() as stack:
        servers: dict[str, socket.socket] = {}

        def pair(kind: str) -> Pair:
            if kind not in servers:
                servers[kind] = stack.enter_context(listener(kind, str(tmp_path / "listening")))
            client, accepted = connected(kind, servers[kind])
            stack.enter_context(client)
            stack.enter_context(accepted)
            return client, accepted

        yield pair


@pytest.fixture
def tcp(connect: Connect) -> Pair:
    """(client, accepted) over TCP and IPv4."""
    return connect("tcp4")
