# SPDX-License-Identifier: Apache-2.0
"""A ``prometheus.remote_write`` in a process of its own, which can be killed.

    python -m tests.e2e.harness.remote_writer DIRECTORY URL SERIES START_MS FIRST LAST

Appends one sample of each series for each number from FIRST to LAST, and prints the number when it
was taken; goes on as far as the last number that it reads from standard input. Then it stops as an
agent does, and prints its counters as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from otelauto.agent.check import check, evaluated
from otelauto.agent.pipeline import Context, Sample
from otelauto.agent.river.diagnostics import Source
from otelauto.agent.running.remote_write import RemoteWrite
from otelauto.counters import Counters

STEP_MS = 100
STOP_S = 120.0


def series(count: int) -> list[tuple[tuple[str, str], ...]]:
    """The labels of ``count`` series."""
    return [
        (("__name__", "written"), ("job", "eu/shop"), ("n", f"{n:05d}"), ("route", f"/r/{n % 7}"))
        for n in range(count)
    ]


def configuration(url: str) -> str:
    """The component's block; it does not wait for more than it has."""
    return f"""prometheus.remote_write "x" {{
  endpoint {{
    url = "{url}"
    queue_config {{
      batch_send_deadline  = "20ms"
      max_samples_per_send = 500
      min_shards           = 2
      capacity             = 2000
    }}
  }}
}}
"""


def main() -> None:
    directory, url, count, start_ms, first, last = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    (node,) = check([Source("x.river", configuration(url))], {}).nodes.values()
    counters = Counters()
    context = Context("prometheus.remote_write.x", counters, Path(directory), lambda: None)
    writer = RemoteWrite(context, evaluated(node, {}, {}))
    writer.start()
    labels = series(int(count))
    limit = -1
    for number in range(int(first), int(last) + 1):
        while number > limit:
            limit = int(sys.stdin.readline())
        at = int(start_ms) + number * STEP_MS
        writer.append([Sample(own, float(number), at) for own in labels])
        print(number, flush=True)
    writer.stop(STOP_S)
    print(json.dumps({f"{m.name} {label}".strip(): v for m, label, v in counters.items()}))


if __name__ == "__main__":
    main()
