# SPDX-License-Identifier: Apache-2.0
"""The kernel's own count of what BPF programs cost (``BPF_ENABLE_STATS``, kernel 5.8)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from otelauto.errors import KernelError
from otelauto.kernel.libbpf import library

BPF_STATS_RUN_TIME: Final = 0  # enum bpf_stats_type


@contextmanager
def run_time_statistics() -> Iterator[None]:
    """Within the block the kernel counts runs and run time of every BPF program.

    Counting costs each run some tens of ns itself, and is part of what is counted. Raises
    KernelError where that is not allowed (it takes CAP_SYS_ADMIN).
    """
    try:
        descriptor = library().call("bpf_enable_stats", BPF_STATS_RUN_TIME)
    except OSError as error:
        raise KernelError(
            f"the kernel does not count the cost of BPF programs: {error.strerror}",
            "run as root (CAP_SYS_ADMIN)",
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)
