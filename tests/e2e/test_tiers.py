# SPDX-License-Identifier: Apache-2.0
"""Every tier of capture that this kernel has, beside each other, sees the same exchanges alike."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.e2e.harness import servers, traffic
from tests.e2e.harness.compare import compare
from tests.e2e.harness.otelauto import Otelauto, Span
from tests.e2e.harness.rig import path_of, settings
from tests.e2e.test_servers import exchange_all, expected_of

from otelauto.errors import KernelError
from otelauto.kernel import capture
from otelauto.kernel.capture import Capture, Wanted
from otelauto.kernel.tiers import TIERS

pytestmark = pytest.mark.e2e
SERVERS = [
    server for server in servers.ALL if server.name in ("c-epoll", "go-net/http", "nginx-static")
]
# What two observers of one exchange do not share: ids of their own, clocks read at other moments.
OWN = ("trace_id", "span_id", "start_unix_nano", "end_unix_nano", "duration_ns")


def tiers_here() -> list[str]:
    """The names of the tiers that load, best first; of a tier's forms the best."""
    found: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        for tier in TIERS:
            if tier.name[0] not in found:
                patch.setattr(capture, "TIERS", (tier,))
                with contextlib.suppress(KernelError), closing(Capture(Wanted())):
                    found[tier.name[0]] = tier.name
    return list(found.values())


@pytest.fixture(scope="module")
def tiers() -> list[str]:
    """At least two; those named by the letters of TEST_TIERS, if that is set."""
    found = tiers_here()
    letters = "".join(name[0] for name in found)
    assert "C" in letters, "tier C works on every kernel"
    assert len(letters) > 1
    assert letters == os.environ.get("TEST_TIERS", letters)
    return found


@contextlib.contextmanager
def otelauto_of(tier: str, directory: Path, *ports: int) -> Iterator[Otelauto]:
    """An otelauto that is held to the tier whose name begins with ``tier``; it says so."""
    directory.mkdir()
    root = Path(__file__).parents[2]
    with Otelauto(
        directory,
        settings(directory, ebpf={"open_port": list(ports)}),
        {"PYTHONPATH": str(root)},
        [sys.executable, "-m", "tests.one_tier", tier],
    ) as running:
        assert f"tier={tier}" in running.process.stderr()
        yield running


def alike(spans: list[Span]) -> dict[str, Span]:
    """By path, what every observer must say."""
    kept = [{key: value for key, value in span.items() if key not in OWN} for span in spans]
    return {path_of(span): span for span in kept}


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_the_same_exchanges_are_the_same_spans(
    server: servers.Server, tiers: list[str], tmp_path: Path
) -> None:
    with servers.running(server, tmp_path) as running, contextlib.ExitStack() as stack:
        watching = {
            tier: stack.enter_context(otelauto_of(tier, tmp_path / str(number), running.port))
            for number, tier in enumerate(tiers)
        }
        clients = exchange_all(server, running, tmp_path)
        for otelauto in watching.values():
            otelauto.wait_for_spans(traffic.TOTAL)
        expected = expected_of(server, running, clients)
    for tier, otelauto in watching.items():
        report = compare(expected, otelauto.spans)
        assert report.ok, f"{tier}: {report}"
    best, *others = (alike(otelauto.spans) for otelauto in watching.values())
    assert len(best) == traffic.TOTAL
    for other in others:
        assert other == best
