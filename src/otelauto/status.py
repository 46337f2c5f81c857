# SPDX-License-Identifier: Apache-2.0
"""What a running otelauto says of itself, as plain data."""

from __future__ import annotations

import os
import platform
import resource
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from otelauto import __version__

if TYPE_CHECKING:
    from otelauto.app import App


def live_report(app: App) -> dict[str, Any]:
    """Called between two drains by the thread that owns all state."""
    watcher, capture = app.watcher, app.watcher.capture
    watcher.count()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    summary = app.flows.connections()
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime_s": time.monotonic() - app.started,
        "kernel": platform.release(),
        "tier": capture.tier,
        "refusals": capture.refusals,
        "probes": [asdict(probe) for probe in capture.probes],
        "programs": [asdict(cost) for cost in capture.costs()],
        "targets": [
            {
                "pid": target.tgid,
                "service": target.service_name,
                "executable": target.executable,
                "reason": target.reason,
                "ports": list(target.ports),
                "tls": watcher.plaintext.report(target.tgid),
                "sdk": app.publisher.sdk_of(watcher.services.of(target.tgid)),
            }
            for target in watcher.targets()
        ],
        "kubernetes": watcher.cluster.status(),
        "connections": summary.open,
        "protocols": summary.by_protocol,
        "unread": [asdict(row) for row in summary.unread],
        "counters": [[m.name, label, total] for m, label, total in app.counters.items() if total],
        "exporters": app.publisher.status(),
        "spans": app.publisher.processed,
        "fast_lane": app.publisher.in_lane,
        "series": app.publisher.red.size(),
        "ring_fill": capture.ring_fill,
        "largest_backlog_bytes": capture.largest_backlog,
        "kernel_memory_bytes": capture.kernel_memory(),
        "overhead_step": app.governor.step.name.lower(),
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_max_bytes": usage.ru_maxrss * 1024,
    }
