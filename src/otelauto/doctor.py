# SPDX-License-Identifier: Apache-2.0
"""The support desk: what works on this machine, what does not, why, and what to do about it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from otelauto import __version__
from otelauto.capabilities import CAPABILITIES, held
from otelauto.cluster import Cluster
from otelauto.config import Config
from otelauto.control import ask
from otelauto.counters import Counters
from otelauto.discover.candidates import candidates
from otelauto.discover.environment import check_environment
from otelauto.discover.procfs import ProcFs
from otelauto.discover.tls_libraries import GO, LIBRARIES
from otelauto.errors import KernelError, OtelautoError
from otelauto.export.lines import printable
from otelauto.instrument import naming_of, no_plaintext
from otelauto.kernel.capture import Capture, Wanted
from otelauto.kernel.statistics import run_time_statistics
from otelauto.kernel.uprobes import LibraryProbes
from otelauto.probe_cost import cost_of_a_call

MEASURE_S: Final = 1.0


def _say(line: str = "") -> None:
    """Print a line. Names, paths and arguments in it are strangers' words to root's terminal."""
    sys.stdout.write(printable(line) + "\n")


def examine(config: Config) -> int:
    """Print everything; exit code 3 if otelauto could not work here."""
    _say(f"otelauto {__version__} on Linux {platform.release()}, {platform.machine()}")
    _capabilities()
    code = _kernel(config)
    _listeners(config)
    _say()
    socket = Path(config.control_socket)
    try:
        show(ask(socket))
        _costs(socket)
    except OtelautoError as error:
        _say(f"No live report: {error.message}.")
    return code


def _capabilities() -> None:
    _say()
    _say("Capabilities")
    for name, (_, lost) in CAPABILITIES.items():
        _say(f"  ok      {name}" if held(name) else f"  MISSING {name}: {lost}")


def _kernel(config: Config) -> int:
    _say()
    _say("Capture")
    try:
        check_environment()
        unwanted = no_plaintext(config)
        capture = Capture(Wanted(excluded=(os.getpid(),), libraries=not unwanted))
    except KernelError as error:
        _say(f"  FAILED  {error.message}")
        _say(f"          -> {error.remedy}")
        return error.exit_code
    try:
        _say(f"  ok      tier {capture.tier}")
        for refusal in capture.refusals:
            _say(f"          nothing better: {refusal}")
        for probe in capture.probes:
            mark = {"attached": "ok      ", "absent": "absent  "}.get(probe.state, "REFUSED ")
            _say(f"  {mark}{probe.name} on {probe.hook}{f': {probe.why}' if probe.why else ''}")
        _say(f"  kernel memory at rest: {capture.kernel_memory() / 2**20:.1f} MiB")
        for line in tls_lines(capture.libraries, unwanted or capture.libraries_refused):
            _say(line)
        if capture.go:
            _say(f"  ok      plaintext of Go's {GO.name}")
        else:
            _say(f"  absent  plaintext of Go's {GO.name}: {unwanted or capture.go_refused}")
    finally:
        capture.close()
    _say(
        "  not seen: UDP, QUIC, SCTP, vsock; TLS of Java, of rustls and of libraries without names"
    )
    return 0


def tls_lines(probes: LibraryProbes | None, why: str) -> Iterator[str]:
    """Whether plaintext of TLS can be read here, and what each probed call costs."""
    if probes is None:
        yield f"  absent  plaintext of TLS: {why}"
        return
    names = " and ".join(library.name for library in LIBRARIES)
    yield f"  ok      plaintext of TLS: what has the functions of {names}, by {probes.way.name}"
    try:
        cost = cost_of_a_call(probes)
    except KernelError as error:
        yield f"  REFUSED {error.message}"
    else:
        yield f"          a probed call costs the service about {cost / 1000:.1f} us here"


def _listeners(config: Config) -> None:
    _say()
    _say("Listening here (put one of these under `ebpf:`)")
    try:
        naming = naming_of(config, Cluster(config, Counters()))
        every = candidates(ProcFs(), naming, os.getpid())
        found = [row for row in every if row.service_name != "otelauto"]  # never a target
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
    for refusal in report["refusals"]:
        _say(f"  nothing better: {refusal}")
    _say(
        f"  ring {report['ring_fill']:.0%} full now,"
        f" {report['largest_backlog_bytes'] / 2**20:.2f} MiB at most"
    )
    if kubernetes := report.get("kubernetes"):  # where its API is asked
        problem = kubernetes["problem"] or f"listed in {kubernetes['list_seconds']:.2f} s"
        _say(f"  Kubernetes: {kubernetes['pods']} pods; {problem}")
    if report["overhead_step"] != "full":
        _say(f"  over max_overhead: {report['overhead_step'].replace('_', ' ')}")
    _say()
    _say("Targets")
    for target in report["targets"]:
        ports = ",".join(map(str, target["ports"])) or "-"
        _say(
            f"  {target['service']:<24} pid {target['pid']:<8} ports {ports:<12} {target['reason']}"
        )
        for line in target_tls_lines(target["tls"]):
            _say(line)
        if target["sdk"]:
            _say(f"    has an OpenTelemetry SDK: {target['sdk']}; see the setting existing_sdk")
    if not report["targets"]:
        _say("  none: nothing matches the selection")
    _show_traffic(report)
    _show_exporters(report)
    refused = [probe for probe in report["probes"] if probe["state"] != "attached"]
    for probe in refused:
        _say()
        _say(f"Probe {probe['name']} on {probe['hook']} is {probe['state']}: {probe['why']}")


def target_tls_lines(tls: dict[str, Any]) -> Iterator[str]:
    """What is read of a target's TLS, and why not."""
    for row in tls["libraries"]:
        more = f": {row['why']}" if row["why"] else ""
        if row.get("probes"):
            more = f" ({row['stepped']} of {row['probes']} probes are single-stepped)"
        yield f"    TLS {row['state']}: {row['library']} in {row['path']}{more}"
    if not tls["libraries"] and tls["why"]:
        yield f"    TLS not seen: {tls['why']}"


def _costs(socket: Path) -> None:
    """What the programs of the otelauto that runs cost the services, measured for a moment."""
    _say()
    _say(f"Cost of the programs, measured for {MEASURE_S:.0f} s (of it, tens of ns a run measure)")
    try:
        with run_time_statistics():
            before, started = ask(socket)["programs"], time.monotonic()
            time.sleep(MEASURE_S)
            after, seconds = ask(socket)["programs"], time.monotonic() - started
    except KernelError as error:
        _say(f"  {error.message} -> {error.remedy}")
        return
    for line in cost_lines(before, after, seconds):
        _say(line)


def cost_lines(
    before: list[dict[str, Any]], after: list[dict[str, Any]], seconds: float
) -> Iterator[str]:
    """A line for each program: runs a second, ns a run, share of one CPU; from two reports."""
    known = {program["program_id"]: program for program in before}
    for program in after:
        first = known.get(program["program_id"])
        if first is None:  # otelauto was restarted meanwhile
            continue
        runs = program["runs"] - first["runs"]
        taken = program["run_time_ns"] - first["run_time_ns"]
        each = f"{taken / runs:.0f} ns a run" if runs else "did not run"
        yield (
            f"  {program['name']:<16} {runs / seconds:>9.0f} runs/s  {each:<14}"
            f" {taken / seconds / 1e9:.3%} of a CPU"
        )


def _show_traffic(report: dict[str, Any]) -> None:
    protocols = ", ".join(
        f"{count} {name or 'not known yet'}" for name, count in report["protocols"].items()
    )
    _say()
    _say(f"Connections: {report['connections']} open ({protocols or 'none'})")
    for row in report["unread"]:
        what = "TLS: ciphertext is not read" if row["carries"] == "tls" else f"{row['carries']}"
        _say(f"  not read: {row['endpoint']} ({row['connections']} connections): {what}")
    _say()
    _say("Counters")
    for name, label, total in report["counters"]:
        _say(f"  {name + (f'[{label}]' if label else ''):<52} {total}")


def _show_exporters(report: dict[str, Any]) -> None:
    _say()
    _say("Exporters")
    for name, values in report["exporters"].items():
        text = ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
        _say(f"  {name}: {text}")
