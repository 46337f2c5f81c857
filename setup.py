# SPDX-License-Identifier: Apache-2.0
"""The one build step that pyproject.toml cannot say: compile the BPF objects into the package."""

import importlib.util
from pathlib import Path

from setuptools import setup
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


setup(cmdclass={"build_py": BuildWithObjects})
