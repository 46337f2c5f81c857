# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: compile the BPF objects into the package, and tag the wheel.

The objects are compiled for one architecture, so a wheel is for one; and for any Python 3, because
nothing in it links to the interpreter.
"""

import importlib.util
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildWithObjects(build_py):
    """Compile ``bpf/*.bpf.c`` before the package's files are collected."""

    def run(self) -> None:
        spec = importlib.util.spec_from_file_location("build_bpf", HERE / "bpf" / "build.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.build(HERE / "src" / "otelauto" / "kernel" / "objects")
        # Found before the objects existed; look again.
        self.data_files = self._get_data_files()
        super().run()


class OfOneArchitecture(Distribution):
    """A distribution whose wheel is not ``any``."""

    def has_ext_modules(self) -> bool:
        """The BPF objects are machine code too."""
        return True


class WheelOfAnyPython(bdist_wheel):
    """Tags the wheel ``py3-none-PLATFORM``."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, ABI and platform tags."""
        return "py3", "none", super().get_tag()[2]


setup(
    distclass=OfOneArchitecture,
    cmdclass={"build_py": BuildWithObjects, "bdist_wheel": WheelOfAnyPython},
)
