# SPDX-License-Identifier: Apache-2.0
"""Compile libbpf for a release wheel, with libelf and zlib inside: it needs nothing but glibc.

python tools/libbpf/build.py SOURCES PACKAGE [MACHINE]

SOURCES is the directory of the libbpf-sys package; the library and the licences go to the directory
``kernel/bundled`` of PACKAGE. MACHINE is x86_64 (default: this one) or aarch64.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GLIBC = "2.28"
FLAGS = [
    "-O2", "-g0", "-fPIC", "-std=gnu11", "-fvisibility=hidden", "-fno-sanitize=undefined",
    "-w",  # other people's code
    "-DHAVE_CONFIG_H", "-DHAVE_UNISTD_H", "-DSHARED",
    "-D_LARGEFILE64_SOURCE", "-D_FILE_OFFSET_BITS=64",
]  # fmt: skip
INCLUDE = ("libbpf/include", "libbpf/include/uapi", "zlib", "elfutils/libelf", "elfutils/lib")
ZLIB = (
    "adler32", "compress", "crc32", "deflate", "gzclose", "gzlib", "gzread", "gzwrite", "infback",
    "inffast", "inflate", "inftrees", "trees", "uncompr", "zutil",
)  # fmt: skip
LICENCES = {
    "libbpf/LICENSE.BSD-2-Clause": "libbpf.BSD-2-Clause.txt",
    "elfutils/COPYING-GPLV2": "libelf.GPL-2.0.txt",
    "elfutils/COPYING-LGPLV3": "libelf.LGPL-3.0.txt",
    "zlib/LICENSE": "zlib.txt",
}


def compiler(sources: Path, target: str) -> list[str]:
    """The compiler's command line, up to what is special, with all C files of the three."""
    files = [
        *sorted((sources / "libbpf" / "src").glob("*.c")),
        *sorted((sources / "elfutils" / "libelf").glob("*.c")),
        *(sources / "zlib" / f"{name}.c" for name in ZLIB),
    ]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS]
    command += [f"-ffile-prefix-map={sources}=.", f"-I{HERE}"]
    command += [f"-I{sources / name}" for name in INCLUDE]
    return [*command, *map(str, files)]


def build(sources: Path, package: Path, machine: str) -> Path:
    """The library. Raises CalledProcessError; the compiler has said why on stderr."""
    bundled = package / "kernel" / "bundled"
    bundled.mkdir(parents=True, exist_ok=True)
    library = bundled / "libbpf.so.1"
    command = compiler(sources, f"{machine}-linux-gnu.{GLIBC}")
    command += [
        "-shared",
        "-Wl,-z,defs",
        f"-Wl,--version-script={sources / 'libbpf' / 'src' / 'libbpf.map'}",
    ]
    command += ["-Wl,-soname,libbpf.so.1", "-o", str(library)]
    subprocess.run(command, check=True)
    for source, name in LICENCES.items():
        shutil.copy(sources / source, bundled / name)
    return library


if __name__ == "__main__":
    where = [Path(word).resolve() for word in sys.argv[1:3]]
    build(where[0], where[1], (sys.argv[3:] or [platform.machine()])[0])
