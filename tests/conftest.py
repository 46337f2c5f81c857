# SPDX-License-Identifier: Apache-2.0
"""Skips: only a typed ``Unsupported`` may cause one, and TEST_NO_SKIPS=1 forbids them all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from typing import Any

import pytest
from tests.unsupported import Unsupported

# What is started by tests keeps nothing on this machine.
STATE = tempfile.TemporaryDirectory(prefix="otelauto-tests-")
os.environ.setdefault("OTELAUTO_STATE_DIRECTORY", STATE.name)
NO_SKIPS = os.environ.get("TEST_NO_SKIPS") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    unsupported = call.excinfo is not None and isinstance(call.excinfo.value, Unsupported)
    if unsupported and call.excinfo is not None:
        path, line, _ = item.location
        report.outcome = "skipped"
        report.longrepr = (path, (line or 0) + 1, f"Unsupported: {call.excinfo.value}")
    if report.skipped and not hasattr(report, "wasxfail"):
        _forbid(report, unsupported)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.outcome == "skipped":
        _forbid(report, False)
    return report


def _forbid(report: Any, unsupported: bool) -> None:
    """Make the skip a failure, unless it may be one."""
    if unsupported and not NO_SKIPS:
        return
    rule = "TEST_NO_SKIPS=1" if unsupported else "raise tests.unsupported.Unsupported"
    report.outcome = "failed"
    report.longrepr = f"a skip is a failure here ({rule}): {_reason(report)}"


def _reason(report: Any) -> str:
    longrepr = report.longrepr
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)
