# SPDX-License-Identifier: Apache-2.0
"""What several of the unit tests get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.exporters import Make, exporters
from tests.unit.test_otlp_http import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An OTLP/HTTP receiver; tests of gRPC have one of their own by this name."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with exporters(tmp_path) as make:
        yield make
