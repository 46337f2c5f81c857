# SPDX-License-Identifier: Apache-2.0
"""What the table of connections names, keeps, evicts and hands on at its end."""

from __future__ import annotations

import pytest
from tests.wire.transcripts import answer, get
from tests.wire.wire import CLIENT, SECOND_NS, SERVER, Reader, Wire

from otelauto.abi import OPENING, Opening, SocketRole
from otelauto.flows import meanings
from otelauto.flows.endpoints import LEARN_EXCHANGES, Endpoints
from otelauto.flows.flows import EVICTION_SAMPLE, IDLE_NS, UNIX_IDLE_NS
from otelauto.flows.vocabulary import Address, Exchange, Family


def with_role(wire: Wire, role: SocketRole) -> Wire:
    opening = Opening._make(OPENING.unpack(wire.records[0]))
    wire.records[0] = OPENING.pack(*opening._replace(role=role))
    return wire


@pytest.mark.parametrize(
    ("role", "name"),
    [(SocketRole.ROLE_UNKNOWN, ":8080"), (SocketRole.ROLE_CLIENT, "10.0.0.1:40000")],
)
@pytest.mark.parametrize("late", [False, True], ids=["in time", "late opening"])
def test_an_unread_connection_is_named_by_its_listener(
    role: SocketRole, name: str, late: bool
) -> None:
    wire = with_role(Wire().open(), role)
    wire.send(CLIENT, bytes(40)).send(SERVER, bytes(40))
    records = wire.records
    if late:
        opening = Opening._make(OPENING.unpack(records[0]))._replace(sequence=2)
        records = [records[1], OPENING.pack(*opening), records[2]]
        wire.sequence = 3
        records += wire.send(CLIENT, bytes(40)).send(SERVER, bytes(40)).records[3:]
        for _ in range(8):
            records += wire.send(CLIENT, bytes(40)).records[-1:]
            records += wire.send(SERVER, bytes(40)).records[-1:]
    reader = Reader().feed(records)
    (unread,) = reader.flows.connections().unread
    assert (unread.carries, unread.endpoint) == ("unknown", name)


def test_a_busy_connection_outlives_idle_ones_however_old_it_is() -> None:
    busy = Wire(cookie=1).open()
    reader = Reader(connections_max=4 * EVICTION_SAMPLE).feed(busy.records)
    for cookie in range(2, 20 * EVICTION_SAMPLE):
        busy.time = cookie * SECOND_NS
        reader.feed(busy.send(CLIENT, get("/busy")).send(SERVER, answer()).records[-2:])
        reader.feed(Wire(cookie=cookie, time=busy.time).open().records)
    assert reader.flows.connections().open == 4 * EVICTION_SAMPLE
    assert reader.counters.get(meanings.CONNECTIONS_EXPIRED, "full") == 16 * EVICTION_SAMPLE - 1
    assert reader.counters.get(meanings.OPENINGS_MISSING) == 0
    assert len(reader.exchanges) == 20 * EVICTION_SAMPLE - 2
    assert {exchange.peer.host for exchange in reader.exchanges} == {"10.0.0.1"}


def test_a_connection_that_was_silent_for_hours_keeps_its_addresses() -> None:
    wire = Wire().open().send(CLIENT, get("/a")).send(SERVER, answer())
    reader = Reader().feed(wire.records).tick(wire.time + IDLE_NS - SECOND_NS)
    wire.time += IDLE_NS - SECOND_NS
    reader.feed(wire.send(CLIENT, get("/b")).send(SERVER, answer()).records[-2:])
    assert [(e.path, e.peer.host) for e in reader.exchanges] == [
        ("/a", "10.0.0.1"),
        ("/b", "10.0.0.1"),
    ]


def test_a_unix_socket_whose_close_leaves_no_record_goes_sooner() -> None:
    nowhere = ("0.0.0.0", 0)
    wire = Wire(family=Family.UNIX, path=b"/x", local=nowhere, remote=nowhere).open()
    reader = Reader().feed(wire.records).tick(wire.time + UNIX_IDLE_NS - SECOND_NS)
    assert reader.flows.connections().open == 1
    reader.tick(wire.time + UNIX_IDLE_NS + 5 * SECOND_NS)
    assert reader.flows.connections().open == 0


def outcomes(exchanges: list[Exchange]) -> list[tuple[str | None, str | None]]:
    return [(exchange.path, exchange.incomplete) for exchange in exchanges]


def test_closing_delivers_what_is_whole_and_what_is_not() -> None:
    unconfirmed = Wire(cookie=1, midstream=True).open()
    unconfirmed.send(CLIENT, get("/whole")).send(SERVER, answer())
    in_flight = Wire(cookie=2).open().send(CLIENT, get("/in-flight"))
    lossy = Wire(cookie=3).open().send(CLIENT, get("/before")).send(SERVER, answer())
    lossy.send(CLIENT, get("/lost")).lose().send(SERVER, answer())
    reader = Reader().feed(unconfirmed.records + in_flight.records + lossy.records)
    assert outcomes(reader.exchanges) == [("/before", None)]
    reader.flows.close()
    assert outcomes(reader.exchanges[1:]) == [("/whole", None), ("/in-flight", "aborted")]
    assert reader.flows.connections().open == 0
    assert reader.counters.get(meanings.EXCHANGES) == 3
    assert reader.counters.get(meanings.EXCHANGES_INCOMPLETE, "aborted") == 1
    assert reader.counters.get(meanings.RECORDS_LOST) == 1
    reader.flows.close()
    assert len(reader.exchanges) == 3


def test_cut_heads_on_both_sides_are_decided_once() -> None:
    """Then as much is wanted as of a pipelined endpoint, and that is not said again and again."""
    endpoints = Endpoints()
    key = (1, Address(Family.INET, "", 80), True)
    endpoint = endpoints.find(key, 0, b"HTTP/1.")
    for _ in range(5 * LEARN_EXCHANGES):
        endpoints.learn(endpoint, (16384, 16384), (True, True), False)
    assert [verdict.want for verdict in endpoints.take()] == [(16384, 16384)]
