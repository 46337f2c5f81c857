# SPDX-License-Identifier: Apache-2.0
"""Which way of putting probes into programs is taken, and what is said where there is none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import pytest
from tests.kernel.recorder import Recorder
from tests.unsupported import Unsupported

from otelauto.doctor import tls_lines
from otelauto.errors import KernelError
from otelauto.kernel.capture import Wanted
from otelauto.kernel.uprobe_links import BY_PERF, WAYS, Place, Way
from otelauto.kernel.uprobes import LibraryProbes, Spot, TlsCall

pytestmark = pytest.mark.kernel
NOBODY = 2**22 + 1  # above the largest process id there can be


@dataclass
class Lacking:
    """As on a kernel that does not know it."""

    name: str = "a way that is lacking"
    attach_type: int = 0
    descriptors: int = 1

    def is_there(self, program: int) -> bool:
        return False

    def create(
        self, program: int, tgid: int, path: str, places: Sequence[Place], returns: bool
    ) -> list[int]:
        raise AssertionError("it is not there")


def probes_of(recorder: Recorder) -> LibraryProbes:
    if recorder.capture.libraries is None:
        raise Unsupported(recorder.capture.libraries_refused)
    return recorder.capture.libraries


def test_what_is_lacking_is_passed_over() -> None:
    wanted = Wanted(libraries=True, ways=[Lacking(), BY_PERF])
    with closing(Recorder(wanted, watch_self=False)) as recorder:
        probes = probes_of(recorder)
        assert probes.way is BY_PERF
        assert recorder.capture.go is not None
        assert recorder.capture.go.way is BY_PERF
        assert "by perf events" in next(tls_lines(probes, ""))


def test_where_there_is_none_the_reason_says_so() -> None:
    wanted = Wanted(libraries=True, ways=[Lacking(), Lacking("another")])
    with closing(Recorder(wanted, watch_self=False)) as recorder:
        assert recorder.capture.libraries is None
        if "takes tier" in recorder.capture.libraries_refused:
            raise Unsupported(recorder.capture.libraries_refused)
        assert "neither a way that is lacking nor another" in recorder.capture.libraries_refused
        assert recorder.capture.go is None


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_refusal_is_told(way: Way) -> None:
    with closing(Recorder(Wanted(libraries=True, ways=[way]), watch_self=False)) as recorder:
        probes = probes_of(recorder)
        spot = Spot(0, TlsCall.TLS_READ)
        with pytest.raises(KernelError, match="refuses the probes"):
            probes.link(os.getpid(), "/nonexistent", [spot])
        with pytest.raises(KernelError) as refused:
            probes.link(NOBODY, "/proc/self/exe", [spot])
        assert isinstance(refused.value.__cause__, ProcessLookupError)
