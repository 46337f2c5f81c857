# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: compile the BPF objects and the extension modules.

Both with the pinned compiler of the ``ziglang`` wheel, so a machine without a system compiler can
build, and the modules ask for no newer glibc than GLIBC. They keep to Python's stable ABI, so one
build serves 3.11 and every newer version. ``MACHINE=aarch64`` in the environment builds for that.
With ``SANITIZE=1`` the modules are built with gcc under AddressSanitizer and UBSan instead, for
`make sanitize`.
"""

import importlib.util
import os
import platform
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
GLIBC = "2.28"
MACHINE = os.environ.get("MACHINE") or platform.machine()
HOT = HERE / "src" / "otelauto" / "hot"
FLAGS = ["-O2", "-fPIC", "-fno-strict-aliasing", "-fno-sanitize=undefined", "-DNDEBUG", "-g0"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g"]
STABLE_ABI = [
    ("Py_LIMITED_API", "0x030B0000"),
    # What the stable ABI has in place of the two macros.
    ("PyBytes_GET_SIZE", "Py_SIZE"),
    ("PyBytes_AS_STRING", "PyBytes_AsString"),
]
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}


class BuildWithObjects(build_py):
    """Compile ``bpf/*.bpf.c`` before the package's files are collected."""

    def run(self) -> None:
        spec = importlib.util.spec_from_file_location("build_bpf", HERE / "bpf" / "build.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.build(HERE / "src" / "otelauto" / "kernel" / "objects", machine=MACHINE)
        # Found before the objects existed; look again.
        self.data_files = self._get_data_files()
        super().run()


class BuildHot(build_ext):
    """Compile the extension modules of ``src/otelauto/hot``."""

    def build_extensions(self) -> None:
        for other in HOT.glob("*.cpython-*.so"):  # of one version only: it would be found first
            other.unlink()
        if os.environ.get("SANITIZE"):
            compiler = ["gcc", "-O1", "-fPIC", "-fno-strict-aliasing", *SANITIZERS]
        else:
            target = f"{MACHINE}-linux-gnu.{GLIBC}"
            # Debian's Python.h includes a file of a directory beside its own. Last of all: what the
            # target's glibc has must not come from there.
            beside = ["-idirafter", str(Path(sysconfig.get_path("include")).parent)]
            compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS, *beside]
        self.compiler.set_executables(compiler_so=compiler, linker_so=[*compiler, "-shared"])
        super().build_extensions()


def extensions() -> list[Extension]:
    """One module for each ``.pyx``; the C files stay out of the source tree."""
    found = [
        Extension(
            f"otelauto.hot.{path.stem}",
            [str(path.relative_to(HERE))],
            define_macros=STABLE_ABI,
            py_limited_api=True,
        )
        for path in sorted(HOT.glob("*.pyx"))
    ]
    return cythonize(
        found,
        include_path=["src"],
        build_dir="build/cython",
        compiler_directives=DIRECTIVES,
        quiet=True,
    )


setup(
    cmdclass={"build_py": BuildWithObjects, "build_ext": BuildHot},
    ext_modules=extensions(),
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
