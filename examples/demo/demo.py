# SPDX-License-Identifier: Apache-2.0
"""``make demo``: a small shop of services, instrumented from outside, in a live table.

Starts the services of services/ and customers who use them, lets otelauto watch, and shows what it
sees. Ctrl-C ends it; DEMO_SECONDS=N ends it after N seconds of load. At the end each service's own
log is compared, request by request, with the spans. Exit codes: 0 they are equal, 1 they differ or
a service failed, else that of otelauto.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from customers import Load
from fleet import Fleet
from processes import DemoError, run_demo
from red import Red
from screen import REFRESH_S, Screen, say
from tally import compare, table
from watcher import Watcher

QUIET_S = 0.5  # logs that do not grow for so long are complete
SETTLE_S = 10.0


def seconds_wanted() -> float:
    """DEMO_SECONDS; 0 is until Ctrl-C."""
    text = os.environ.get("DEMO_SECONDS", "") or "0"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise DemoError(f"DEMO_SECONDS is a number of seconds, not {text!r}", 2)
    return seconds


def lines_of(fleet: Fleet) -> int:
    """How many requests the services have logged."""
    return sum(fleet.log(name).read_bytes().count(b"\n") for name in fleet.names)


def settle(fleet: Fleet, watcher: Watcher) -> None:
    """Wait until nobody logs any more and every logged request had its chance to be a span.

    Whatever is lacking at the deadline shows in the comparison.
    """
    deadline = time.monotonic() + SETTLE_S
    known, since = lines_of(fleet), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = lines_of(fleet)
        if now != known:
            known, since = now, time.monotonic()
        elif time.monotonic() - since >= QUIET_S and len(watcher.spans) >= known:
            return


def show(screen: Screen, fleet: Fleet, watcher: Watcher, stopping: threading.Event) -> None:
    """Keep the picture fresh until the end is asked for or due."""
    seconds = seconds_wanted()
    deadline = time.monotonic() + seconds if seconds else float("inf")
    with screen.showing() as refresh:
        while time.monotonic() < deadline and not stopping.wait(REFRESH_S):
            watcher.check()
            fleet.check()
            refresh()


def summary(fleet: Fleet, watcher: Watcher, load: Load, stopped_early: bool) -> int:
    """Print the comparison; returns the exit code."""
    rows = compare({name: fleet.log(name) for name in fleet.names}, watcher.spans)
    say("\nRequests that the services counted in their own logs, and spans that otelauto made:\n")
    say("\n".join(table(rows)))
    served = sum(row.counted for row in rows if row.kind == "server")
    made = sum(row.counted for row in rows if row.kind == "client")
    if load.failed:
        say(f"\n{load.failed} requests to the shop got no answer.")
    if all(row.equal for row in rows) and served:
        say(f"\nEqual: {served} requests served and {made} calls made, by method, path and status.")
        return 0
    if served or made or watcher.spans:
        say("\nThey differ.")
        return 1
    say("\nThere was no request to count.")
    return 0 if stopped_early else 1


def run(directory: Path, stopping: threading.Event, stack: contextlib.ExitStack) -> int:
    """The demo from start to end; ``stack`` ends what was started."""
    until = f"ends after {seconds_wanted():g} s" if seconds_wanted() else "Ctrl-C ends it"
    fleet = Fleet(directory)
    for reason in fleet.left_out:
        say(f"without {reason}")
    say(f"starting {', '.join(fleet.names)} ...")
    stack.callback(fleet.stop)
    fleet.start(stopping)
    red = Red()
    watcher = Watcher(directory, list(fleet.ports.values()), red.take)
    stack.callback(watcher.kill)
    watcher.wait_ready(len(fleet.names), stopping)
    load = Load(fleet.ports["shop"])
    stack.callback(load.stop)
    load.start()
    show(Screen(red, fleet.names, watcher.url, until), fleet, watcher, stopping)
    load.stop()
    settle(fleet, watcher)
    watcher.stop()
    return summary(fleet, watcher, load, stopping.is_set())


if __name__ == "__main__":
    sys.exit(run_demo(run))
