# SPDX-License-Identifier: Apache-2.0
"""Many seeds of one check: in a long run all CPUs take their share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

MANY = 500  # that take longer than it takes to start a process
PORTION = 20


def each(check: Callable[[int], int], seeds: range) -> list[int]:
    """``check`` of each seed, which has to be a function of a module, or a partial one.

    Raises AssertionError, with the seed, for the first that fails.
    """
    if len(seeds) < MANY:
        return [_checked(check, seed) for seed in seeds]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_checked, [check] * len(seeds), seeds, chunksize=PORTION))


def _checked(check: Callable[[int], int], seed: int) -> int:
    try:
        return check(seed)
    except (AssertionError, ValueError) as error:
        raise AssertionError(f"seed {seed}: {error}") from error
