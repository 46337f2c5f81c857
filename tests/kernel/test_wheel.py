# SPDX-License-Identifier: Apache-2.0
"""The wheel: built from the sources alone, it holds the compiled BPF objects, and they load."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from otelauto import __version__

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).resolve().parent.parent.parent
OBJECTS = Path("otelauto/kernel/objects")
# What the build reads: nothing that was compiled before.
SOURCES = (
    "bpf",
    "src",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "NOTICE",
)
# No variable may lead into this checkout.
CLEAN = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root")}


def run(*words: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(words, cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds with the backend of this environment, without the network."""
    tree = tmp_path_factory.mktemp("sources")
    built = shutil.ignore_patterns("*.bpf.o", "built", "*.egg-info", "__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=built)
        else:
            shutil.copy(ROOT / name, tree / name)
    assert not list(tree.rglob("*.bpf.o"))
    words = "wheel . --no-build-isolation --no-deps --no-index --disable-pip-version-check -w dist"
    run(sys.executable, "-m", "pip", *words.split(), cwd=tree)
    (found,) = (tree / "dist").iterdir()
    return found


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of programs of a new virtual environment with the wheel and what it needs."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", venv, cwd=venv.parent)
    words = "install --no-index --no-deps --disable-pip-version-check"
    run(venv / "bin" / "pip", *words.split(), wheel, cwd=venv.parent)
    (packages,) = venv.glob("lib/python3*/site-packages")
    for needed in ("PyYAML", "grpcio", "iced-x86", "typing_extensions"):
        copy_distribution(needed, packages)
    run(venv / "bin" / "pip", "check", "--disable-pip-version-check", cwd=venv.parent)
    return venv / "bin"


def copy_distribution(name: str, packages: Path) -> None:
    """Install what this environment has of ``name`` into the site-packages of another."""
    for file in importlib.metadata.files(name) or ():
        if ".." not in file.parts:
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.locate(), target)


def test_it_holds_the_objects_that_the_sources_give(wheel: Path) -> None:
    interpreter = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.startswith(f"otelauto-{__version__}-{interpreter}-{interpreter}-linux_")
    wanted = {path.name.replace(".c", ".o") for path in (ROOT / "bpf").glob("*.bpf.c")}
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name) for name in archive.namelist()]
        assert {path.name for path in names if path.parent == OBJECTS} == wanted
        compiled = {path.name.split(".")[0] for path in names if path.suffix == ".so"}
        assert compiled == {path.stem for path in (ROOT / "src/otelauto/hot").glob("*.pyx")}
        for name in wanted:
            object_bytes = archive.read(str(OBJECTS / name))
            assert object_bytes.startswith(b"\x7fELF")
            assert object_bytes == (ROOT / "src" / OBJECTS / name).read_bytes()
    assert {path.parts[0] for path in names} == {
        "otelauto", f"otelauto-{__version__}.dist-info",
    }  # fmt: skip


def test_installed_it_says_its_version(scripts: Path, tmp_path: Path) -> None:
    assert run(scripts / "otelauto", "--version", cwd=tmp_path) == f"otelauto {__version__}\n"
    where = run(scripts / "python", "-c", "import otelauto; print(otelauto.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(scripts.parent)


def test_installed_it_can_load_what_it_brings(scripts: Path, tmp_path: Path) -> None:
    said = run(scripts / "otelauto", "doctor", cwd=tmp_path)
    assert "ok      tier A" in said
    assert "ok      sock_send on sock_send_length" in said
