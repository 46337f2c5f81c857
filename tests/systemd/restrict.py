# SPDX-License-Identifier: Apache-2.0
"""Runs a command as a unit file says, by hand: where no systemd runs, the kernel is the same.

``restrict.py PLAN`` makes the mount namespace and the limits, then hands over to setpriv(1) for
the user and the capabilities, and that to ``restrict.py PLAN filter``, which loads the filters of
system calls and becomes the command. The process id stays. ``plan.py`` makes the plan, in JSON.

What systemd does: systemd.exec(5). Not done here: cgroups (MemoryMax, TasksMax, devices), private
UTS and keyring.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyseccomp as seccomp

Plan = dict[str, Any]
CLONE_NEWNS = 0x20000
# CLONE_NEWTIME, CGROUP, UTS, IPC, USER, PID, NET, and NEWNS
NAMESPACES = 0x80 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
SHM_EXEC = 0o100000
PROT_WRITE, PROT_EXEC = 2, 4
LAST_FAMILY = 64


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount("--bind", source, target)
    if read_only:
        mount("-o", "remount,bind,ro", target)


def empty(target: Path, mode: str = "0755") -> None:
    """Nothing of what lies there is seen."""
    if target.exists():
        mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", target)


def make_root(plan: Plan) -> Path:
    """The system as the unit sees it: this one, with a layer on top."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("--make-rprivate", "/")
    base = Path(plan["base"])
    mount("-t", "tmpfs", "tmpfs", base)
    above, work, root = base / "above", base / "work", base / "root"
    for each in (above, work, root):
        each.mkdir()
    layers = f"lowerdir=/,upperdir={above},workdir={work}"
    mount("-t", "overlay", "-o", layers, "overlay", root)
    for name in ("proc", "sys", "dev", "tmp"):
        mount("--rbind", f"/{name}", root / name)
    return root


def hide(plan: Plan, root: Path) -> None:
    """What is empty, unreadable or read-only."""
    for each, mode in plan["emptied"].items():
        empty(root / each.lstrip("/"), mode)
    if plan["proc"]:
        mount("-t", "proc", "-o", plan["proc"], "proc", root / "proc")
    if plan["private_devices"]:
        empty(root / "dev")
        for name in DEVICES:
            bind(Path("/dev", name), root / "dev" / name)
    for each in plan["unreadable"]:
        if (path := root / each.lstrip("/")).exists():
            mount("--bind", "/dev/null", path)
    for each in plan["read_only"]:
        if (path := root / each.lstrip("/")).exists():
            mount("--bind", path, path)
            mount("-o", "remount,bind,ro", path)


def show(plan: Plan, root: Path) -> None:
    """The unit's own files, and this otelauto; then the root is this one, and read-only."""
    for each in plan["shown"]:
        bind(Path(each), root / each.lstrip("/"), read_only=True)
    for target, source in plan["bound"].items():
        bind(Path(source), root / target.lstrip("/"), read_only=target in plan["bound_read_only"])
    for target, text in plan["links"].items():
        path = root / target.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(text)
    if plan["strict"]:
        mount("-o", "remount,ro", root)
    os.chroot(root)
    os.chdir("/")


def letting_through() -> Any:
    """A filter without a rule: all is allowed that none forbids."""
    return seccomp.SyscallFilter(seccomp.ALLOW)


def allowing(names: Iterable[str]) -> Any:
    """SystemCallFilter= with a list of what is allowed, and SystemCallArchitectures=native."""
    found = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in names:
        try:
            found.add_rule(seccomp.ALLOW, name)
        except (OSError, RuntimeError, ValueError):
            continue  # of another architecture, or newer than the library
    return found


def deny(found: Any, name: str, *arguments: Any, code: int = errno.EPERM) -> None:
    found.add_rule(seccomp.ERRNO(code), name, *arguments)


def no_writable_code() -> Any:
    """MemoryDenyWriteExecute=."""
    found, both = letting_through(), PROT_WRITE | PROT_EXEC
    deny(found, "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        deny(found, name, seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, PROT_EXEC))
    deny(found, "shmat", seccomp.Arg(2, seccomp.MASKED_EQ, SHM_EXEC, SHM_EXEC))
    return found


def families(allowed: Iterable[int]) -> Any:
    """RestrictAddressFamilies= with a list of what is allowed."""
    found, kept = letting_through(), set(allowed)
    deny(found, "socket", seccomp.Arg(0, seccomp.GT, LAST_FAMILY), code=errno.EAFNOSUPPORT)
    for each in set(range(LAST_FAMILY + 1)) - kept:
        deny(found, "socket", seccomp.Arg(0, seccomp.EQ, each), code=errno.EAFNOSUPPORT)
    return found


def no_namespaces() -> Any:
    """RestrictNamespaces=yes."""
    found = letting_through()
    deny(found, "setns")
    deny(found, "clone3", code=errno.ENOSYS)  # its flags cannot be looked at
    for bit in (1 << number for number in range(32) if (NAMESPACES | CLONE_NEWNS) >> number & 1):
        for name in ("unshare", "clone"):
            deny(found, name, seccomp.Arg(0, seccomp.MASKED_EQ, bit, bit))
    return found


def no_set_user_id() -> Any:
    """RestrictSUIDSGID=yes."""
    found = letting_through()
    places = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "mkdir": 1, "mkdirat": 2, "creat": 1}
    for name, place in places.items():
        for bit in (stat.S_ISUID, stat.S_ISGID):
            deny(found, name, seccomp.Arg(place, seccomp.MASKED_EQ, bit, bit))
    return found


def no_real_time() -> Any:
    """RestrictRealtime=yes: only the policies 0 (other), 3 (batch) and 5 (idle)."""
    found = letting_through()
    for policy in (1, 2, 6):
        deny(found, "sched_setscheduler", seccomp.Arg(1, seccomp.EQ, policy))
    return found


def linux_only() -> Any:
    """LockPersonality=yes."""
    found = letting_through()
    deny(found, "personality", seccomp.Arg(0, seccomp.NE, 0))
    return found


def denying(names: Iterable[str]) -> Any:
    """What ProtectClock=, ProtectKernelLogs= and the like forbid."""
    found = letting_through()
    for name in names:
        deny(found, name)
    return found


def load_filters(plan: Plan) -> None:
    """Those that the plan asks for. The last word is the strictest one's."""
    made = [families(plan["families"])] if plan["families"] else []
    named = {
        "MemoryDenyWriteExecute": no_writable_code, "RestrictNamespaces": no_namespaces,
        "RestrictSUIDSGID": no_set_user_id, "RestrictRealtime": no_real_time,
        "LockPersonality": linux_only,
    }  # fmt: skip
    made += [named[name]() for name in plan["filters"]]
    made.append(denying(plan["denied_calls"]))
    made.append(allowing(plan["allowed_calls"]))  # the last: seccomp(2) itself is in none of it
    for each in made:
        each.set_attr(seccomp.Attr.CTL_NNP, 0)
        each.load()


def main() -> None:
    plan: Plan = json.loads(Path(sys.argv[1]).read_text())
    if sys.argv[2:] == ["filter"]:
        os.umask(plan["umask"])
        load_filters(plan)
        os.execve(plan["words"][0], plan["words"], plan["environment"])
    root = make_root(plan)
    hide(plan, root)
    show(plan, root)
    for name, value in plan["limits"].items():
        which = getattr(resource, name)
        most = resource.getrlimit(which)[1]
        if value >= 0 and (most == resource.RLIM_INFINITY or value < most):  # none is raised here
            most = value
        resource.setrlimit(which, (most, most))
    again = [sys.executable, __file__, plan["file"], "filter"]
    os.execvp("setpriv", ["setpriv", *plan["setpriv"], *again])


if __name__ == "__main__":
    main()
