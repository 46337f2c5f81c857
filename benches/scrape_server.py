# SPDX-License-Identifier: Apache-2.0
"""Serves a page of many series with the product's own aggregator and exporter.

``python -m benches.scrape_server SERVICES SERIES`` makes SERIES histogram series of request
durations in each of SERVICES services, prints the port as a line, and serves until its standard
input ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from otelauto.counters import Counters
from otelauto.export.prometheus import Prometheus, metrics_page
from otelauto.export.red import Red
from otelauto.flows.vocabulary import Attributes, Side
from otelauto.protocols.http1_describe import INSTRUMENTS
from otelauto.spans.span import Service, Span

DURATION = INSTRUMENTS[Side.SERVER][:1]
STATUSES = (200, 201, 404, 500)
PATH = "/metrics"


def spans(service: Service, series: int) -> Iterator[Span]:
    """Five spans for each series, spread over the buckets."""
    for number in range(series):
        attributes: Attributes = {
            "http.request.method": "GET",
            "url.scheme": "http",
            "http.response.status_code": STATUSES[number % len(STATUSES)],
            "http.route": f"/shop/{number // len(STATUSES)}/items/:id",
            "network.protocol.version": "1.1",
            "server.address": "shop.example",
            "server.port": 8080,
        }
        for turn in range(5):
            duration_ns = (number + 1) * 1009 * 10**turn
            yield Span(
                service, "GET", Side.SERVER, b"t" * 16, b"s" * 8, b"", 1, 0, duration_ns,
                attributes, False, None, DURATION,
            )  # fmt: skip


def filled(services: int, series: int) -> Red:
    """An aggregator with so many series in each of so many services."""
    red = Red(Counters(), max_series=services * series, max_series_per_service=series)
    for number in range(services):
        service = Service(f"service-{number}", "shop", f"host:{number}", {"host.name": "host"})
        red.add(list(spans(service, series)))
    assert red.size() == services * series
    return red


def main() -> None:
    red = filled(int(sys.argv[1]), int(sys.argv[2]))
    server = Prometheus("127.0.0.1", 0, {PATH: metrics_page(red)})
    server.start()
    print(server.address[1], flush=True)
    sys.stdin.read()
    server.close(1.0)


if __name__ == "__main__":
    main()
