# SPDX-License-Identifier: Apache-2.0
"""Lists the pods of the API server at a port, and says what that took: a JSON object.

``python kubernetes_many.py HOST PORT TOKEN [KUBECONFIG]``; sizes are of resident memory, in bytes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from otelauto.counters import Counters
from otelauto.kubernetes.access import Access, from_kubeconfig
from otelauto.kubernetes.pods import PodStore
from otelauto.kubernetes.watch import PodWatch


def memory(what: str) -> int:
    """``VmRSS`` now, or ``VmHWM``, the most there was (proc(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def main(host: str, port: str, token: str, kubeconfig: str = "") -> None:
    access = Access(host, int(port), encrypted=False, token=token)
    if kubeconfig:
        access = from_kubeconfig(kubeconfig)
    access.context()  # TLS takes its memory whatever is listed
    store = PodStore()
    watch = PodWatch(access, store, Counters())
    before, cpu = memory("VmRSS:"), time.process_time()
    watch.start()
    listed = watch.listed.wait(60)
    found = {
        "pods": len(store) if listed else 0,
        "list_seconds": round(watch.list_seconds, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "most": memory("VmHWM:") - before,
        "kept": memory("VmRSS:") - before,
    }
    watch.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
