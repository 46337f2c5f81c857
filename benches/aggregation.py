# SPDX-License-Identifier: Apache-2.0
"""What an exchange costs when the kernel aggregates it, and when its heads are handed over."""

from __future__ import annotations

import ctypes
import importlib.util
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benches.harness import BENCHES, ROOT, Bench, BenchError
from benches.lane import LAPS, REQUEST, RESPONSE, SETTINGS, measure
from benches.report import Figure, Section
from otelauto.kernel.libbpf import library
from otelauto.kernel.ring import Ring

SOURCE = BENCHES / "bpf" / "aggregation.bpf.c"
RING: Final = 4 << 20
PATHS = 8
REPEAT = 1000  # of each path; both records of all of them fit into the ring
OPTIONS_SIZE: Final = 80  # struct bpf_test_run_opts of libbpf
TITLE = "Where to aggregate"
HOW = (
    "What follows the copy of an exchange's heads, for metrics alone. *In the kernel*: the path is"
    " hashed, its route looked up in an LRU map, a histogram in a hash map counted up. *With"
    " Content-Length*: it is looked for in both heads too, without which nobody knows where a"
    " message ends; this is still less than the fast lane does, which checks every field line,"
    " counts three histograms and keeps the state of the connection. *In user space*: both heads"
    " are put into the ring, and the fast lane reads them. Kernel time is that of"
    f" BPF_PROG_TEST_RUN, {REPEAT:,} times each for {PATHS} paths, less that of the program that"
    f" only copies; the service pays it. The least of {LAPS} laps counts."
)


@contextmanager
def programs(directory: Path) -> Iterator[tuple[dict[str, int], int]]:
    """File descriptors of the loaded programs by name, and that of the ring."""
    spec = importlib.util.spec_from_file_location("build_bpf", ROOT / "bpf" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    (path,) = build.build(directory, [SOURCE])
    lib = library()
    loaded = lib.call("bpf_object__open_file", str(path).encode(), None)
    try:
        lib.call("bpf_object__load", loaded)
        found = {
            lib.call("bpf_program__name", each).decode(): lib.call("bpf_program__fd", each)
            for each in lib.each("bpf_object__next_program", loaded)
        }
        (ring,) = (
            lib.call("bpf_map__fd", each)
            for each in lib.each("bpf_object__next_map", loaded)
            if lib.call("bpf_map__name", each) == b"records"
        )
        yield found, ring
    finally:
        lib.call("bpf_object__close", loaded)


def run(program: int, packet: bytes) -> int:
    """Mean time of a run in ns. BenchError if the program did not get to its end."""
    data = ctypes.create_string_buffer(packet, len(packet))
    options = (ctypes.c_uint8 * OPTIONS_SIZE)()
    struct.pack_into("<QQ", options, 0, OPTIONS_SIZE, ctypes.addressof(data))
    struct.pack_into("<I", options, 24, len(packet))  # data_size_in
    struct.pack_into("<i", options, 60, REPEAT)
    library().call("bpf_prog_test_run_opts", program, ctypes.addressof(options))
    (result,) = struct.unpack_from("<I", options, 56)
    if result != 1:
        raise BenchError("the exchange was not taken")
    (duration,) = struct.unpack_from("<I", options, 64)
    return int(duration)


def _discard(_: Any) -> None:
    """What the ring holds is read elsewhere (benches/lane.py)."""


def kernel_ns(directory: Path) -> dict[str, float]:
    """The least mean time of an exchange by program, in ns."""
    requests = [REQUEST % (number, b"") for number in range(PATHS)]
    packets = [struct.pack("<HH", len(r), len(RESPONSE)) + r + RESPONSE for r in requests]
    with programs(directory) as (found, fd):
        ring = Ring(fd, RING)
        laps: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(LAPS):
            for name, program in found.items():
                laps[name].append(sum(run(program, packet) for packet in packets) / PATHS)
                ring.drain(_discard)
        ring.close()
    return {name: min(every) for name, every in laps.items()}


def aggregation(bench: Bench) -> Section:
    """Both ways, what each makes the service pay, and otelauto."""
    kernel = kernel_ns(bench.directory)
    copied = kernel["only_copy"]
    lane = measure(SETTINGS["metrics"])[0] * 1000
    header = ("where", "kernel, ns/exchange", "otelauto, ns/exchange", "together, ns")
    section = Section(TITLE, HOW, header)
    for where, program, agent in (
        ("in the kernel", "aggregate", 0.0),
        ("in the kernel, with Content-Length", "aggregate_framed", 0.0),
        ("in user space", "hand_over", lane),
    ):
        added = kernel[program] - copied
        cells = (Figure([value], digits=0) for value in (added, agent, added + agent))
        section.rows.append((where, *map(str, cells)))
    return section
