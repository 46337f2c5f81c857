# SPDX-License-Identifier: Apache-2.0
"""The consumer side of a BPF ring buffer (kernel/bpf/ringbuf.c), mapped once and walked in place.

Layout of the mapping: a consumer page, a producer page, the data twice in a row (so that a record
that wraps is contiguous). Of the second copy only so much is mapped as a record can reach into: a
mapped page counts as resident memory of this process. Each record has an 8-byte header: length with
two flag bits, and a page offset. The walk itself is compiled (hot/ring.pyx).
"""

from __future__ import annotations

import mmap
import platform
from collections.abc import Callable
from typing import Final

from otelauto import abi
from otelauto.errors import KernelError
from otelauto.hot.ring import Sink, walk

HEADER: Final = 8
LARGEST: Final = HEADER + abi.SEGMENT.size + abi.AbiLimit.CAPTURE_MAX  # record, header included
Take = Callable[[memoryview], None] | Sink  # what records are handed to


class Ring:
    """One ring; ``fd`` is the map's and stays the caller's."""

    def __init__(self, fd: int, size: int) -> None:
        if platform.machine() != "x86_64":
            raise KernelError(f"capture is not built for {platform.machine()}", "use x86-64")
        page = mmap.PAGESIZE
        wrapped = (LARGEST + page - 1) & -page
        self.fd = fd
        self.size = size
        self._consumer_map = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer_map = mmap.mmap(
            fd, page + size + wrapped, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._producer = memoryview(self._producer_map)[:page].cast("Q")
        self._data = memoryview(self._producer_map)[page:]

    @property
    def waiting(self) -> int:
        """Bytes produced and not consumed yet, record headers included."""
        return self._producer[0] - self._consumer[0]

    def drain(self, take: Take) -> int:
        """Hand each waiting record to ``take`` and free it; returns how many there were.

        The view is valid during the call only. Stops at a record that is still being written, and
        at the producer position found on entry: a busy producer cannot hold the caller here.
        """
        return walk(self._consumer, self._producer, self._data, self.size, take)

    def close(self) -> None:
        """Unmap. The ring itself goes with its last file descriptor."""
        for view in (self._consumer, self._producer, self._data):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()
