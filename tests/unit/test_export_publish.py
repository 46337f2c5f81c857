# SPDX-License-Identifier: Apache-2.0
"""The publisher: which exporters there are, what is measured, and how they are closed together."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from otelauto.config import Purpose, load
from otelauto.counters import Counters
from otelauto.export.exporter import Status
from otelauto.flows.vocabulary import Address, Exchange, Family, Instrument, Side
from otelauto.publish import SPANS_SAMPLED_OUT, Publisher
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Service, Span

SHOP = Service("shop", "", "1")
TOOK = Instrument("took", "s", "How long.", (1.0,), ("code",))
OTLP = "--otlp-endpoint"


def publisher(tmp_path: Path, flags: Mapping[str, str], yaml: str = "") -> Publisher:
    path = tmp_path / "c.yml"
    path.write_text(yaml)
    config = load(path, {}, {"--open-port": "80", **flags}, Purpose.RUN).config
    return Publisher(config, Counters(), lambda tgid: SHOP, WallClock())


def exchange() -> Exchange:
    return Exchange(
        protocol="http",
        side=Side.SERVER,
        connection=1,
        tgid=1,
        tid=1,
        start_ns=0,
        end_ns=10,
        local=Address(Family.INET, "10.0.0.1", 80),
        peer=Address(Family.INET, "10.0.0.2", 40000),
        name="GET",
        attributes={"code": 200},
        instruments=(TOOK,),
    )


class Stuck:
    """Closes when every exporter of the test is being closed: one after another never ends."""

    def __init__(self, name: str, all_closing: threading.Barrier) -> None:
        self.name = name
        self.closed_in: float | None = None
        self._all_closing = all_closing

    def start(self) -> None:
        """Nothing to begin."""

    def close(self, deadline_s: float) -> None:
        self._all_closing.wait(30)
        self.closed_in = deadline_s

    def status(self) -> Status:
        return {}


class Defective(Stuck):
    def close(self, deadline_s: float) -> None:
        super().close(deadline_s)
        raise ZeroDivisionError


def test_exporters_are_closed_at_the_same_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = publisher(tmp_path, {"--print": "text"})
    together = threading.Barrier(3)
    exporters = [Stuck("a", together), Defective("b", together), Stuck("c", together)]
    made._exporters[:] = exporters
    made.close(20.0)
    assert [one.closed_in for one in exporters] == [20.0] * 3
    assert [record.getMessage() for record in caplog.records] == ["exporter b could not be closed"]


def test_an_exporter_that_never_stops_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otelauto.publish.CLOSE_GRACE_SECONDS", 0.1)
    made = publisher(tmp_path, {"--print": "text"})
    together = threading.Barrier(2)
    made._exporters[:] = [Stuck("a", together)]
    made.close(0.0)
    assert [record.getMessage() for record in caplog.records] == ["exporter a did not stop in time"]
    together.wait(30)


INTERNAL = "internal_metrics:\n  prometheus:\n    port: 9400\n"


@pytest.mark.parametrize(
    ("flags", "yaml", "series"),
    [
        ({"--print": "text"}, "", 0),
        ({"--print": "text"}, INTERNAL, 0),
        ({"--prometheus-port": "9401"}, INTERNAL, 1),
        ({OTLP: "http://localhost:4318"}, "", 1),
    ],
)
def test_nothing_is_measured_for_nobody(
    tmp_path: Path, flags: Mapping[str, str], yaml: str, series: int
) -> None:
    made = publisher(tmp_path, flags, yaml)
    made.deliver(exchange())
    made.flush()
    assert made.processed == 1
    assert made.red.size() == series


def test_series_end_although_nobody_collects(tmp_path: Path) -> None:
    made = publisher(tmp_path, {"--prometheus-port": "9401"}, "limits:\n  series_ttl: 1ns\n")
    made.deliver(exchange())
    made.flush()
    made.expire()
    assert made.red.size() == 1
    made.forget(SHOP)
    made.expire()
    assert made.red.size() == 0


@pytest.mark.parametrize(
    ("main", "names"),
    [("9401", {"prometheus", "prometheus_internal"}), ("9400", {"prometheus"})],
)
def test_servers_have_names_of_their_own(tmp_path: Path, main: str, names: set[str]) -> None:
    made = publisher(tmp_path, {"--prometheus-port": main}, INTERNAL)
    assert set(made.status()) == names


def test_a_share_of_the_traces_is_exported_and_everything_is_measured(tmp_path: Path) -> None:
    made = publisher(tmp_path, {"--prometheus-port": "9401", "--print": "json"})
    offered: list[Span] = []
    made._span_exporters[0].offer = offered.extend  # type: ignore[method-assign]

    def exported(share: float) -> list[Span]:
        made.keep_spans(share)
        offered.clear()
        for _ in range(2000):
            made.deliver(exchange())
        made.flush()
        return list(offered)

    every, some, none = exported(1.0), exported(0.1), exported(0.0)
    assert (len(every), len(none)) == (2000, 0)
    assert 100 < len(some) < 300
    assert {int.from_bytes(span.trace_id[-7:]) < 2**56 // 10 + 1 for span in some} == {True}
    assert made._counters.get(SPANS_SAMPLED_OUT) == 4000 - len(some)
    assert made.processed == 6000
    (collected,) = made.red.collect()
    ((_, (series,)),) = collected.series
    assert series.count == 6000
