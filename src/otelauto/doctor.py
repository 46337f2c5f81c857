# SPDX-License-Identifier: Apache-2.0
"""The support desk: what works on this machine, what does not, why, and what to do about it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any, Final

from otelauto import __version__
from otelauto.config import Config
from otelauto.control import ask
from otelauto.discover.candidates import candidates
from otelauto.discover.environment import check_environment
from otelauto.discover.procfs import ProcFs
from otelauto.errors import KernelError, OtelautoError
from otelauto.instrument import naming_of
from otelauto.kernel.capture import Capture, Wanted

# capability: (its bit in <linux/capability.h>, what is lost without it)
CAPABILITIES: Final = {
    "CAP_BPF": (39, "BPF programs cannot be loaded: nothing is seen"),
    "CAP_PERFMON": (38, "tracing programs cannot be loaded: nothing is seen"),
    "CAP_SYS_PTRACE": (19, "other users' processes cannot be inspected: they are not found"),
    "CAP_DAC_READ_SEARCH": (2, "other users' files cannot be read: names may be missing"),
}


def _say(line: str = "") -> None:
    sys.stdout.write(line + "\n")


def examine(config: Config) -> int:
    """Print everything; exit code 3 if otelauto could not work here."""
    _say(f"otelauto {__version__} on Linux {platform.release()}, {platform.machine()}")
    _capabilities()
    code = _kernel()
    _listeners(config)
    _say()
    try:
        show(ask(Path(config.control_socket)))
    except OtelautoError as error:
        _say(f"No live report: {error.message}.")
    return code


def _capabilities() -> None:
    _say("\nCapabilities")
    status = Path("/proc/self/status").read_text()
    effective = int(next(x for x in status.splitlines() if x.startswith("CapEff:")).split()[1], 16)
    for name, (bit, lost) in CAPABILITIES.items():
        held = effective >> bit & 1
        _say(f"  {'ok      ' if held else 'MISSING '}{name}{'' if held else f': {lost}'}")


def _kernel() -> int:
    _say("\nCapture")
    try:
        check_environment()
        capture = Capture(Wanted(excluded=(os.getpid(),)))
    except KernelError as error:
        _say(f"  FAILED  {error.message}")
        _say(f"          -> {error.remedy}")
        return error.exit_code
    try:
        _say(f"  ok      tier {capture.tier}")
        for probe in capture.probes:
            mark = "ok      " if probe.state == "attached" else "REFUSED "
            _say(f"  {mark}{probe.name} on {probe.hook}{f': {probe.why}' if probe.why else ''}")
        _say(f"  kernel memory at rest: {capture.kernel_memory() / 2**20:.1f} MiB")
    finally:
        capture.close()
    _say("  not seen: UDP, QUIC, SCTP, vsock; plaintext inside TLS (this version)")
    return 0


def _listeners(config: Config) -> None:
    _say("\nListening here (put one of these under `ebpf:`)")
    try:
        found = candidates(ProcFs(), naming_of(config), os.getpid())
    except OSError as error:
        _say(f"  cannot list processes: {error.strerror}")
        return
    for row in found:
        pids = ",".join(map(str, row.tgids[:4])) + ("..." if len(row.tgids) > 4 else "")
        _say(f"  {row.setting:<32} {row.service_name}  ({row.summary}; pid {pids})")
    if not found:
        _say("  nothing that this user may see")


def show(report: dict[str, Any]) -> None:
    """Print a live report."""
    _say(f"otelauto {report['version']} runs, pid {report['pid']}, {report['uptime_s']:.0f} s")
    _say(
        f"  tier {report['tier']}; {report['spans']} spans; {report['series']} series;"
        f" CPU {report['cpu_s']:.2f} s; at most {report['rss_max_bytes'] / 2**20:.0f} MiB resident;"
        f" kernel {report['kernel_memory_bytes'] / 2**20:.1f} MiB"
    )
    _say(
        f"  ring {report['ring_fill']:.0%} full now,"
        f" {report['largest_backlog_bytes'] / 2**20:.2f} MiB at most"
    )
    _say("\nTargets")
    for target in report["targets"]:
        ports = ",".join(map(str, target["ports"])) or "-"
        _say(
            f"  {target['service']:<24} pid {target['pid']:<8} ports {ports:<12} {target['reason']}"
        )
    if not report["targets"]:
        _say("  none: nothing matches the selection")
    _show_traffic(report)
    _show_exporters(report)
    refused = [probe for probe in report["probes"] if probe["state"] != "attached"]
    for probe in refused:
        _say(f"\nProbe {probe['name']} on {probe['hook']} is {probe['state']}: {probe['why']}")


def _show_traffic(report: dict[str, Any]) -> None:
    protocols = ", ".join(
        f"{count} {name or 'not known yet'}" for name, count in report["protocols"].items()
    )
    _say(f"\nConnections: {report['connections']} open ({protocols or 'none'})")
    for row in report["unread"]:
        what = "TLS: ciphertext is not read" if row["carries"] == "tls" else f"{row['carries']}"
        _say(f"  not read: {row['endpoint']} ({row['connections']} connections): {what}")
    _say("\nCounters")
    for name, label, total in report["counters"]:
        _say(f"  {name + (f'[{label}]' if label else ''):<52} {total}")


def _show_exporters(report: dict[str, Any]) -> None:
    _say("\nExporters")
    for name, values in report["exporters"].items():
        text = ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
        _say(f"  {name}: {text}")
