# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Compile the BPF objects with the pinned compiler of the ``ziglang`` wheel: reproducible bytes.

python bpf/build.py OUTPUT_DIRECTORY [SOURCE...]
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent

FLAGS = [
    "-target", "bpfel-freestanding", "-mcpu=v3", "-g", "-O2", "-std=gnu11",
    "-Wall", "-Wextra", "-Werror", "-Wpadded",
    "-fno-sanitize=undefined", "-fno-stack-protector",
    "-fno-unwind-tables", "-fno-asynchronous-unwind-tables",
]  # fmt: skip


# How libbpf calls the machines whose registers registers.h knows.
TARGETS = {"x86_64": "x86", "aarch64": "arm64"}


# They read registers by their names on x86-64: there is none of them elsewhere yet.
X86_ONLY = {
    "system_calls.bpf.c", "system_calls_older.bpf.c", "tls.bpf.c", "tls_go.bpf.c",
}  # fmt: skip


def sources_for(headers: Path, machine: str) -> list[Path]:
    """Every ``*.bpf.c`` that there is for ``machine``."""
    found = sorted(headers.glob("*.bpf.c"))
    return [path for path in found if machine == "x86_64" or path.name not in X86_ONLY]


def build(
    output: Path,
    sources: Iterable[Path] | None = None,
    headers: Path = HERE,
    machine: str | None = None,
) -> list[Path]:
    """Compile ``sources`` (by default all that ``headers`` has for ``machine``) to ``output``.

    The objects are for kernels of ``machine``, by default this one. Raises CalledProcessError; the
    compiler has said why on stderr.
    """
    output.mkdir(parents=True, exist_ok=True)
    machine = machine or platform.machine()
    flags = [*FLAGS, f"-D__TARGET_ARCH_{TARGETS[machine]}"]

    def compiled(source: Path) -> Path:
        target = output / source.with_suffix(".o").name
        directory = source.resolve().parent
        # The object must not depend on where the checkout lies.
        place = [f"-ffile-prefix-map={directory}=bpf", "-fdebug-compilation-dir=bpf"]
        include = "-I." if directory == headers.resolve() else f"-I{headers}"
        command = [sys.executable, "-m", "ziglang", "cc", *flags, include, *place]
        command += ["-c", source.name, "-o", str(target)]
        subprocess.run(command, cwd=directory, check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(
            pool.map(compiled, sources_for(headers, machine) if sources is None else sources)
        )


if __name__ == "__main__":
    given = [Path(word) for word in sys.argv[2:]]
    for path in build(Path(sys.argv[1]).resolve(), given or None):
        print(path)
