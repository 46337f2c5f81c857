# SPDX-License-Identifier: Apache-2.0
"""Is this /proc the host's? Kernel events name processes as the initial PID namespace does."""

from __future__ import annotations

from typing import Final

from otelauto.discover.procfs import ProcFs
from otelauto.errors import KernelError

_KTHREADD: Final = 2  # always the second process of the initial PID namespace, and of no other


def check_environment(proc_root: str = "/proc") -> None:
    """Refuse to work with a /proc that shows another PID namespace than the initial one.

    Its process ids would not be the ones the kernel reports, and other processes would be taken
    for the targets. Kernel threads tell: they live in the initial namespace only, and /proc/2/stat
    may be read by everyone, while the namespace links of process 1 may not even be by root.

    Raises:
        KernelError: /proc is another namespace's, or is missing or hides processes.
    """
    procfs = ProcFs(proc_root)
    if not procfs.tgids():
        raise KernelError(f"{proc_root} shows no processes", f"mount proc at {proc_root}")
    stat = procfs.stat(_KTHREADD)
    if stat is None or not stat.kernel_thread:
        raise KernelError(
            f"{proc_root} does not show the host's processes, only those of a container",
            "run otelauto on the host or in its PID namespace (docker run --pid=host, Kubernetes "
            "hostPID: true), as root where /proc is mounted with hidepid",
        )
