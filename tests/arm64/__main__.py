# SPDX-License-Identifier: Apache-2.0
"""`make test-arm64`: the BPF objects for arm64, on an arm64 kernel in an emulator.

The guest is one static program, guest.c: it loads the objects, sends bytes to itself, and compares
what came out of the ring. Prints what it says; exit code 1 unless its last word is `passed`.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
SOURCES = CHECKOUT / ".build" / "wheel" / "sources" / "libbpf-sys"
KERNELS = CHECKOUT / ".build" / "arm64" / "boot"
EMULATOR = "qemu-system-aarch64"
SECONDS = 900


def _script(path: str) -> ModuleType:
    """A build script of the checkout, which is in no package."""
    spec = importlib.util.spec_from_file_location(Path(path).parent.name, CHECKOUT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_guest(to: Path) -> None:
    """The guest's first file system, as an archive for the kernel."""
    root, headers = to.parent / "root", to.parent / "include" / "bpf"
    root.mkdir()
    headers.mkdir(parents=True)
    for header in (SOURCES / "libbpf" / "src").glob("*.h"):
        shutil.copy(header, headers)
    compile_words = _script("tools/libbpf/build.py").compiler(SOURCES, "aarch64-linux-musl")
    compile_words += ["-static", f"-I{headers.parent}", f"-I{CHECKOUT / 'bpf'}"]
    subprocess.run([*compile_words, HERE / "guest.c", "-o", root / "init"], check=True)
    _script("bpf/build.py").build(root / "objects", machine="aarch64")
    pack = "find . | /bin/busybox cpio -o -H newc 2> /dev/null"
    with to.open("wb") as archive:
        subprocess.run(["bash", "-c", pack], cwd=root, stdout=archive, check=True)


def boot(archive: Path) -> str:
    """What the guest said on its console."""
    kernel = max(KERNELS.glob("vmlinuz-*"))
    words = [EMULATOR, "-M", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on", "-smp", "1"]
    words += ["-accel", "tcg,thread=single", "-m", "1024", "-nodefaults", "-no-user-config"]
    words += ["-display", "none", "-monitor", "none", "-no-reboot", "-serial", "stdio"]
    words += ["-kernel", str(kernel), "-initrd", str(archive)]
    words += ["-append", "console=ttyAMA0 panic=-1 loglevel=4"]
    print(kernel.name, flush=True)
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
        timeout=SECONDS,
        text=True,
        errors="replace",
    )
    return done.stdout


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        archive = Path(place) / "archive"
        make_guest(archive)
        said = boot(archive)
    print(said)
    return int("passed" not in said.splitlines())


if __name__ == "__main__":
    sys.exit(main())
