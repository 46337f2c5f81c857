# SPDX-License-Identifier: Apache-2.0
"""What plaintext of TLS costs the service: probes in its TLS library."""

from __future__ import annotations

from contextlib import closing

from benches.compare import Cell, Compared, by_itself, watched
from benches.harness import Bench, BenchError, Load, metrics_only, wrk
from benches.report import Budget, Section
from benches.saturation import HEADER, METRICS, cells
from benches.services import ITEM, nginx_over_tls, running
from otelauto.kernel.capture import Capture, Wanted
from otelauto.probe_cost import cost_of_a_call

TITLE = "Cost added to a service over TLS"
TLS_TITLE = "nginx over TLS, static file, 1 worker"
HOW = (
    "As at saturation, over TLS with kept connections: wrk shares a CPU with otelauto. nginx calls"
    " its TLS library three times a request, and each call is probed at its beginning and its"
    " return. Two such probes, where the kernel has to single-step the instruction, cost"
    " {cost:.1f} us here; on a machine that is not virtual they cost less."
)


def tls(bench: Bench) -> Section:
    """The bench."""
    with running(nginx_over_tls, bench.directory, "nginx-tls") as plain:

        def load() -> Load:
            return wrk(plain.port, ITEM, bench.settings.seconds, scheme="https")

        def first_load() -> Load:
            return wrk(plain.port, ITEM, 1, scheme="https")

        def with_plaintext() -> Cell:
            cell = watched(bench, plain, metrics_only(), load, first_load)
            if cell.spans < 0.9:
                raise BenchError("otelauto has not read the plaintext")
            return cell

        first_load()
        row = Compared.alternating(
            TLS_TITLE, METRICS, bench.settings.pairs, lambda: by_itself(plain, load), with_plaintext
        )
    with closing(Capture(Wanted(libraries=True))) as capture:
        if capture.libraries is None:
            raise BenchError(capture.libraries_refused)
        cost = cost_of_a_call(capture.libraries) / 1000
    budget = Budget("throughput left: nginx over TLS", row.ratio, 0.65, at_least=True)
    return Section(TITLE, HOW.format(cost=cost), HEADER, [cells(row)], [budget])
