# SPDX-License-Identifier: Apache-2.0
"""Boot a Debian kernel in an emulator, run one command in it as root, bring its output back.

The guest sees the programs of this machine (``/usr`` and the interpreter, read-only), the checkout
(what it writes there is thrown away) and an ``/etc`` of its own. It has no network card, no disk.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
KERNELS = CHECKOUT / ".build" / "vm" / "kernels"
MODULES = (
    "virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci",
    "fuse", "virtiofs", "overlay",
)  # fmt: skip
ETC = (
    "alternatives", "group", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "nginx",
    "nsswitch.conf", "passwd", "protocols", "services",
)  # fmt: skip
# Without these two the emulator's lock-free compare corrupts the allocator of newer kernels.
PROCESSOR = "max,-cx16,la57=off"
# Dear to an emulator, and nothing that a test is about: strings moved byte by byte, the end of a
# block of its code at each access to user memory, wide registers saved at each switch.
QUICK = ",-erms,-fsrm,-smap,-smep,-xsave"
# Likewise: what keeps strangers out of a real machine, and pages cleared that nobody reads.
QUICK_KERNEL = "mitigations=off init_on_alloc=0 transparent_hugepage=never tsc=reliable"
# Of a process that leaves compiled Python files for the guests, whatever is said of them here.
COMPILING = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
BOOTS = 3  # an early panic of the emulated machine says nothing about the command
PROGRAMS = ("/usr/bin/qemu-system-x86_64", "/usr/lib/qemu/virtiofsd", "/bin/busybox")


class NoGuestError(Exception):
    """The emulator, or the kernel, is not there, or does not boot."""


@dataclass(frozen=True)
class Ended:
    """What became of the command. ``code`` is None when it did not end in time.

    ``cpu`` are the seconds of processor time that the emulator took, whatever else ran here.
    """

    code: int | None
    output: str
    seconds: float
    cpu: float


def find_kernel(release: str) -> Path:
    """The image of the newest unpacked kernel whose release begins so; "newest" is any."""
    start = "" if release == "newest" else release
    found = sorted(
        (KERNELS / "boot").glob(f"vmlinuz-{start}*"),
        key=lambda path: [
            int(n) if n.isdigit() else 0 for n in path.name[8:].split("-")[0].split(".")
        ],
    )
    if not found:
        raise NoGuestError(f"no kernel {release}: run tests/vm/install.sh {release}")
    return found[-1]


def compile_sources() -> None:
    """Compile what guests import; what they compile is thrown away with each of them."""
    words = ["compileall", "-q", "-x", "node_modules", "src", "tests", "benches"]
    subprocess.run([sys.executable, "-m", *words], cwd=CHECKOUT, env=COMPILING, check=True)


def _module(release: str, name: str) -> bytes | None:
    """The module's file, unpacked; None if it is built in."""
    for root in (KERNELS / "lib/modules", KERNELS / "usr/lib/modules"):
        for path in (root / release).rglob(f"{name}.ko*"):
            raw = path.read_bytes()
            return lzma.decompress(raw) if path.suffix == ".xz" else raw
    return None


def _initial_files(image: Path, to: Path) -> None:
    """The guest's first file system, as an archive for the kernel."""
    release = image.name.removeprefix("vmlinuz-")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        root.chmod(0o755)  # as the guest's / is to be for users who are not root
        for name in ("dev", "etc", "modules", "proc", "root", "run", "sys", "tmp", "usr", "var/log",
                     "var/lib/nginx", "var/tmp"):  # fmt: skip
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        shutil.copy("/bin/busybox", root / "busybox")
        shutil.copy(HERE / "init", root / "init")
        (root / "init").chmod(0o755)
        for name in ETC:
            source = Path("/etc") / name
            if source.is_dir():
                shutil.copytree(source, root / "etc" / name, symlinks=True)
            elif source.exists():
                shutil.copy(source, root / "etc" / name)
        for number, name in enumerate(MODULES):
            raw = _module(release, name)
            if raw is not None:
                (root / "modules" / f"{number}-{name}.ko").write_bytes(raw)
        pack = "find . | /bin/busybox cpio -o -H newc 2> /dev/null"
        with to.open("wb") as archive:
            subprocess.run(["bash", "-c", pack], cwd=root, stdout=archive, check=True)


@contextlib.contextmanager
def _shared(source: Path, socket: Path, *, read_only: bool) -> Iterator[None]:
    """A daemon that shares a directory; read-only by a mount that only the daemon sees."""
    daemon = (
        f"exec /usr/lib/qemu/virtiofsd --socket-path={shlex.quote(str(socket))}"
        " -o source={source} -o cache={cache} -o sandbox=chroot -o log_level=err"
        " --thread-pool-size=0"
    )
    if read_only:
        place = socket.with_suffix(".mount")
        place.mkdir()
        words = (
            "mount --make-rprivate / && "
            f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(place))} && "
            f"mount -o remount,ro,bind {shlex.quote(str(place))} && "
            + daemon.format(source=shlex.quote(str(place)), cache="always")
        )
        command = ["unshare", "-m", "bash", "-c", words]
    else:
        command = ["bash", "-c", daemon.format(source=shlex.quote(str(source)), cache="auto")]
    with socket.with_suffix(".log").open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said)
    try:
        deadline = time.monotonic() + 20
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise NoGuestError(f"{source} cannot be shared with a guest")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def _shares() -> dict[str, Path]:
    """Tag and directory of what the guest sees beside the checkout, at the same place."""
    shares = {"usr": Path("/usr")}
    interpreter = Path(sys.base_prefix)
    if not interpreter.is_relative_to("/usr"):
        shares["python"] = interpreter
    return shares


def _command(
    image: Path, place: Path, tags: list[str], line: str, memory: int, counting: bool
) -> list[str]:
    words = ["qemu-system-x86_64", "-M", "q35,hpet=off", "-nodefaults", "-no-user-config"]
    words += ["-accel", "tcg,thread=single,tb-size=512"]
    if counting:
        words += ["-icount", "shift=0,sleep=off"]
    processor = PROCESSOR if counting else PROCESSOR + QUICK
    words += ["-cpu", processor, "-smp", "1", "-m", str(memory), "-no-reboot", "-display", "none"]
    words += ["-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"]
    words += ["-numa", "node,memdev=memory", "-monitor", "none"]
    for tag in tags:
        words += ["-chardev", f"socket,id={tag},path={place / tag}.socket"]
        words += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=1024"]
    words += ["-serial", f"file:{place / 'console'}", "-kernel", str(image)]
    return [*words, "-initrd", str(place / "initial"), "-append", line]


def _emulate(words: list[str], seconds: float) -> tuple[bool, float]:
    """Run the emulator for ``seconds`` at most; whether it ended by itself, and its CPU time."""
    emulator = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    descriptor = os.pidfd_open(emulator.pid)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        ended = bool(waiting.poll(1000 * seconds))
    finally:
        os.close(descriptor)
        os.kill(emulator.pid, signal.SIGKILL)  # Popen's own would take the usage with the status
        _, status, usage = os.wait4(emulator.pid, 0)
        emulator.returncode = os.waitstatus_to_exitcode(status)
    return ended, usage.ru_utime + usage.ru_stime


def _run_once(
    image: Path,
    command: str,
    result: Path,
    seconds: float,
    memory: int,
    counting: bool,
    parameters: str,
) -> tuple[bool, float]:
    """One boot; whether the command was started, and the emulator's CPU time."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=result.parent)))
        shares = _shares()
        for tag, path in {**shares, "checkout": CHECKOUT}.items():
            stack.enter_context(_shared(path, place / f"{tag}.socket", read_only=True))
        stack.enter_context(_shared(result, place / "result.socket", read_only=False))
        _initial_files(image, place / "initial")
        (result / "command").write_text(command)
        line = "console=ttyS0 panic=-1 loglevel=4 no_timer_check random.trust_cpu=on"
        line += f" {parameters}" if counting else f" {QUICK_KERNEL} {parameters}"
        line += f" checkout={CHECKOUT} " + " ".join(
            f"share.{tag}={tag}:{path}" for tag, path in shares.items()
        )
        words = _command(image, place, [*shares, "checkout", "result"], line, memory, counting)
        try:
            ended, cpu = _emulate(words, seconds)
        finally:
            if (place / "console").exists():
                shutil.copy(place / "console", result / "console")
    return not ended or (result / "started").exists(), cpu


def run(
    image: Path,
    command: str,
    *,
    seconds: float = 600,
    memory: int = 2048,
    counting: bool = False,
    parameters: str = "",
) -> Ended:
    """Run ``command`` (of bash, in the checkout) under the kernel ``image``.

    ``counting`` makes the guest's clock count instructions, one is a nanosecond, and leaves the
    machine and the kernel as they are by default; else both are made quicker to emulate.
    ``parameters`` are more words for the kernel's command line. Raises NoGuestError when there is
    no emulator, or no boot reaches the command.
    """
    lacking = [program for program in PROGRAMS if not os.access(program, os.X_OK)]
    if lacking:
        raise NoGuestError(f"not installed: {', '.join(lacking)}: run tests/vm/install.sh")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as top:
        result = Path(top) / "result"
        result.mkdir(mode=0o755)
        for _ in range(BOOTS):
            started, cpu = _run_once(image, command, result, seconds, memory, counting, parameters)
            if started:
                break
        else:
            text = (result / "console").read_text(errors="replace")
            raise NoGuestError(f"{image.name} did not boot: {text[-2000:]}")
        output, code = result / "output", result / "code"
        text = output.read_text(errors="replace") if output.exists() else ""
        ended = int(code.read_text()) if code.exists() and code.read_text().strip() else None
        return Ended(ended, text, time.monotonic() - began, cpu)


if __name__ == "__main__":
    outcome = run(find_kernel(sys.argv[1]), " ".join(sys.argv[2:]))
    sys.stdout.write(outcome.output)
    sys.exit(125 if outcome.code is None else outcome.code)
