# SPDX-License-Identifier: Apache-2.0
"""How the process holds its memory: what is settled once, when everything is loaded."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

M_MMAP_THRESHOLD: Final = -3  # mallopt(3)
LARGE: Final = 128 * 1024  # bytes; glibc's own first value


def settle() -> None:
    """Call it when what will stay is there: collections look at the rest only.

    Message bodies of megabytes come and go. Left alone, glibc moves its threshold after the first
    of them and keeps the room of the largest in each thread's heap (mallopt(3), M_MMAP_THRESHOLD);
    with one that is set they go back to the kernel. Another C library's malloc is left as it is.
    """
    gc.freeze()
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(M_MMAP_THRESHOLD, LARGE)
