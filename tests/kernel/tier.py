# SPDX-License-Identifier: Apache-2.0
"""What this kernel allows, found once by loading it: the tier, its programs and their hooks."""

from __future__ import annotations

from contextlib import closing

from otelauto.abi import AbiLimit
from otelauto.kernel import capture
from otelauto.kernel.capture import Capture, Wanted

with closing(Capture(Wanted())) as _capture:
    TIER = next(tier for tier in capture.TIERS if tier.name == _capture.tier)
    HOOKS = {probe.name: probe.hook for probe in _capture.probes if probe.state == "attached"}
    ABSENT = {probe.name for probe in _capture.probes if probe.state == "absent"}
PROGRAMS = tuple(sorted(HOOKS))
# Socket state is in tables of ours: sockets have no storage for tracing programs here.
VECTORS_MAX = int(
    AbiLimit.VECTORS_MAX if TIER.object == "sockets" else AbiLimit.VECTORS_MAX_FUNCTIONS
)
# Records that one segment may become, where all is copied.
PARTS_MAX = {"sockets": 32, "functions": 8}.get(TIER.object, 1)
HAS_TABLES = TIER.object not in ("sockets", "functions")
SEES_CALLS = TIER.object.startswith("system_calls")  # tier C
