# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Compile the BPF objects with the pinned compiler of the ``ziglang`` wheel: reproducible bytes.

python bpf/build.py OUTPUT_DIRECTORY
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

FLAGS = [
    "-target", "bpfel-freestanding", "-mcpu=v3", "-g", "-O2", "-std=gnu11",
    "-D__TARGET_ARCH_x86", "-I.",
    "-Wall", "-Wextra", "-Werror", "-Wpadded",
    "-fno-sanitize=undefined", "-fno-stack-protector",
    "-fno-unwind-tables", "-fno-asynchronous-unwind-tables",
    # The object must not depend on where the checkout lies.
    f"-ffile-prefix-map={HERE}=bpf", "-fdebug-compilation-dir=bpf",
]  # fmt: skip


def build(output: Path) -> list[Path]:
    """Compile every ``*.bpf.c`` here to ``output``; raises CalledProcessError with clang's text."""
    output.mkdir(parents=True, exist_ok=True)
    objects = []
    for source in sorted(HERE.glob("*.bpf.c")):
        target = output / source.with_suffix(".o").name
        command = [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            *FLAGS,
            "-c",
            source.name,
            "-o",
            str(target),
        ]
        subprocess.run(command, cwd=HERE, check=True)
        objects.append(target)
    return objects


if __name__ == "__main__":
    for path in build(Path(sys.argv[1]).resolve()):
        print(path)
