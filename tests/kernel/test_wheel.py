# SPDX-License-Identifier: Apache-2.0
"""The wheel: built from the sources alone, it holds all that is compiled, and that loads."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tools.sbom import text_of

from otelauto import __version__

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(900)]  # libbpf is compiled
ROOT = Path(__file__).resolve().parent.parent.parent
OBJECTS = Path("otelauto/kernel/objects")
EM_AARCH64 = 183
LICENCES = (
    "libbpf.BSD-2-Clause.txt", "libelf.GPL-2.0.txt", "libelf.LGPL-3.0.txt", "zlib.txt",
)  # fmt: skip
# No variable may lead into this checkout.
CLEAN = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root")}


def run(*words: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(words, cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels() -> dict[str, Path]:
    """The wheels as they are released, by machine, built beside each other.

    The build uses the backend of this environment.
    """
    run(ROOT / "tools" / "libbpf" / "fetch.sh", cwd=ROOT)
    machines = sorted({platform.machine(), "aarch64"})
    with ThreadPoolExecutor() as pool:
        said = pool.map(lambda machine: run(ROOT / "tools/wheel.sh", machine, cwd=ROOT), machines)
        return {
            machine: Path(lines.splitlines()[-1])
            for machine, lines in zip(machines, said, strict=True)
        }


@pytest.fixture(scope="module")
def wheel(wheels: dict[str, Path]) -> Path:
    """That for this machine."""
    return wheels[platform.machine()]


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of programs of a new virtual environment with the wheel and what it needs."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", venv, cwd=venv.parent)
    words = "install --no-index --no-deps --disable-pip-version-check"
    run(venv / "bin" / "pip", *words.split(), wheel, cwd=venv.parent)
    (packages,) = venv.glob("lib/python3*/site-packages")
    for needed in (
        "PyYAML", "grpcio", "iced-x86", "typing_extensions", "bcrypt", "opentelemetry-proto",
        "protobuf", "cramjam", "h11",
    ):  # fmt: skip
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


def test_it_holds_what_the_sources_give(wheel: Path) -> None:
    tag = f"cp311-abi3-manylinux_2_28_{platform.machine()}"
    assert wheel.name == f"otelauto-{__version__}-{tag}.whl"
    wanted = {path.name.replace(".c", ".o") for path in (ROOT / "bpf").glob("*.bpf.c")}
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name) for name in archive.namelist()]
        assert {path.name for path in names if path.parent == OBJECTS} == wanted
        compiled = {path.name for path in names if path.suffix == ".so"}
        assert compiled == {f"{p.stem}.abi3.so" for p in (ROOT / "src/otelauto/hot").glob("*.pyx")}
        for name in wanted:
            object_bytes = archive.read(str(OBJECTS / name))
            assert object_bytes.startswith(b"\x7fELF")
            assert object_bytes == (ROOT / "src" / OBJECTS / name).read_bytes()
    bundled = {path.name for path in names if path.parent == OBJECTS.parent / "bundled"}
    assert bundled == {"libbpf.so.1", *LICENCES}
    assert {path.parts[0] for path in names} == {
        "otelauto", f"otelauto-{__version__}.dist-info", f"otelauto-{__version__}.data",
    }  # fmt: skip


def test_its_bill_of_materials_is_valid(wheel: Path) -> None:
    text = text_of(wheel)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    parts = {each["name"]: each.get("version") for each in json.loads(text)["components"]}
    notice = (ROOT / "NOTICE").read_text()
    assert all(f"{name} {parts[name]}" in notice for name in ("libbpf", "elfutils", "zlib"))


def test_it_runs_where_its_name_says(wheel: Path, tmp_path: Path) -> None:
    said = run(sys.executable, "-m", "auditwheel", "-v", "show", wheel, cwd=tmp_path)
    assert 'following platform tag: "manylinux_2_28_' in said.replace("\n", " ")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith((".so", ".so.1")):
                assert newest_glibc(archive.read(name)) <= (2, 28), name


def test_the_wheel_for_arm64_holds_its_code(wheels: dict[str, Path], tmp_path: Path) -> None:
    wheel = wheels["aarch64"]
    assert wheel.name == f"otelauto-{__version__}-cp311-abi3-manylinux_2_28_aarch64.whl"
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.endswith((".so", ".so.1"))]
        assert len(libraries) > 5
        for name in libraries:
            assert machine_of(archive.read(name)) == EM_AARCH64, name
        sockets = archive.read(str(OBJECTS / "sockets.bpf.o"))
    # Of struct pt_regs there and here.
    assert b"syscallno" in sockets
    assert b"orig_ax" not in sockets
    run(sys.executable, "-m", "auditwheel", "show", wheel, cwd=tmp_path)


def machine_of(library: bytes) -> int:
    """Field e_machine of an ELF file."""
    return int.from_bytes(library[18:20], "little")


def newest_glibc(library: bytes) -> tuple[int, ...]:
    """The newest version of glibc that a library names."""
    found = re.findall(rb"\0GLIBC_([0-9.]+)", library)
    return max((tuple(map(int, version.split(b"."))) for version in found), default=(0,))


def test_a_newer_glibc_is_found() -> None:
    assert newest_glibc(b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.4\0") == (2, 34)


def test_installed_it_says_its_version(scripts: Path, tmp_path: Path) -> None:
    assert run(scripts / "otelauto", "--version", cwd=tmp_path) == f"otelauto {__version__}\n"
    where = run(scripts / "python", "-c", "import otelauto; print(otelauto.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(scripts.parent)


def test_installed_it_has_manual_pages(scripts: Path) -> None:
    manual = scripts.parent / "share" / "man"
    for page in (ROOT / "docs" / "man").iterdir():
        assert (manual / f"man{page.name[-1]}" / page.name).read_bytes() == page.read_bytes()


def test_installed_it_can_load_what_it_brings(scripts: Path, tmp_path: Path) -> None:
    said = run(scripts / "otelauto", "doctor", cwd=tmp_path)
    assert "ok      tier A" in said
    assert "ok      sock_send on sock_send_length" in said


def test_installed_it_uses_the_libbpf_that_it_brings(scripts: Path, tmp_path: Path) -> None:
    load = "from otelauto.kernel.libbpf import library; library()"
    words = f"{load}; print(open('/proc/self/maps').read())"
    mapped = run(scripts / "python", "-c", words, cwd=tmp_path)
    files = {line.split()[-1] for line in mapped.splitlines() if "/lib" in line}
    (bundled,) = (file for file in files if "libbpf" in file)
    assert Path(bundled).is_relative_to(scripts.parent)
    assert not [file for file in files if "libelf" in file]
