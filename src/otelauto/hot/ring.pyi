# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

class Sink:
    """What takes records without a Python object for each."""

def walk(
    consumer: memoryview,
    producer: memoryview,
    data: memoryview,
    size: int,
    take: Callable[[memoryview], None] | Sink,
) -> int:
    """Hand each waiting record to ``take`` and free it; returns how many there were.

    ``consumer`` and ``producer`` are the two positions (as 64-bit words), ``data`` the ring of
    ``size`` bytes, with as much of it behind once more as a record can reach into. The view given
    to ``take`` is valid during the call only. Stops at a record that is still being written, and at
    the producer position found on entry: a busy producer cannot hold the caller here.
    """
