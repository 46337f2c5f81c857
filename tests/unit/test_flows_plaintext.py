# SPDX-License-Identifier: Apache-2.0
"""Plaintext beside ciphertext: a connection of its own, whose socket says nothing more."""

from __future__ import annotations

from tests.wire.transcripts import answer, get
from tests.wire.wire import CLIENT, SERVER, Reader, Wire

from otelauto.abi import OPENING, CaptureMode, Opening
from otelauto.flows import meanings
from otelauto.flows.flows import Unread

HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(64)
SOCKET, SESSION = 7, 1 << 63 | 7
UNREAD = (Unread("tls", ":8080", 1),)


def ciphertext() -> Wire:
    return Wire(cookie=SOCKET).open().send(CLIENT, HELLO)


def plaintext(carrier: int, path: str = "/plain") -> Wire:
    """A session with one exchange; without a carrier it does not know its addresses."""
    wire = Wire(cookie=SESSION, carrier=carrier).open()
    if not carrier:
        opening = Opening._make(OPENING.unpack(wire.records[0]))
        unknown = opening._replace(
            family=0, netns=0, local_port=0, remote_port=0, local=bytes(16), remote=bytes(16)
        )
        wire.records[0] = OPENING.pack(*unknown)
    return wire.send(CLIENT, get(path)).send(SERVER, answer())


def test_the_plaintext_is_read_and_its_socket_is_not_called_unread() -> None:
    reader = Reader().feed(ciphertext().records)
    assert reader.flows.connections().unread == UNREAD
    reader.feed(plaintext(SOCKET).records)
    assert reader.flows.connections().unread == ()
    (exchange,) = reader.exchanges
    assert (exchange.peer.host, exchange.peer.port) == ("10.0.0.1", 40000)
    assert reader.counters.get(meanings.SESSIONS_UNPROVEN) == 0


def test_a_socket_that_is_seen_after_its_plaintext_is_not_called_unread() -> None:
    wire = plaintext(SOCKET)
    reader = Reader().feed(wire.records).feed(ciphertext().records)
    assert reader.flows.connections().unread == ()
    assert reader.counters.get(meanings.CONNECTIONS_UNREAD, "tls") == 0


def test_a_session_that_is_gone_excuses_no_socket() -> None:
    wire = plaintext(SOCKET)
    reader = Reader().feed(wire.records)
    reader.flows.forget(wire.tgid)
    reader.feed(ciphertext().records)
    assert reader.flows.connections().unread == UNREAD


def test_another_session_on_the_socket_takes_nothing_back_twice() -> None:
    other = Wire(cookie=9).open().send(CLIENT, HELLO)
    reader = Reader().feed(ciphertext().records).feed(other.records)
    again = Wire(cookie=SESSION + 1, carrier=SOCKET).open()
    reader.feed(plaintext(SOCKET).records).feed(again.records)
    assert reader.flows.connections().unread == UNREAD


def test_a_socket_that_was_joined_late_is_silenced_by_its_plaintext() -> None:
    """Its hello was not seen: what passes looks like nothing, and might be looked at for long."""
    late = Wire(cookie=SOCKET, midstream=True).open().send(CLIENT, bytes(range(40)))
    reader = Reader().feed(late.records).feed(plaintext(SOCKET).records)
    verdicts = [v for v in reader.flows.take_verdicts() if v.connection == SOCKET]
    assert [verdict.mode for verdict in verdicts] == [CaptureMode.MODE_NOTHING]
    assert reader.flows.connections().unread == ()
    assert reader.counters.get(meanings.CONNECTIONS_UNREAD, "tls") == 0


def test_a_peer_that_is_not_proven_is_empty_until_it_is() -> None:
    wire = plaintext(0)
    reader = Reader().feed(ciphertext().records).feed(wire.records)
    assert reader.flows.connections().unread == UNREAD, "nobody knows whose plaintext it is"
    assert reader.counters.get(meanings.SESSIONS_UNPROVEN) == 1
    proven = Wire(cookie=SESSION, carrier=SOCKET, sequence=wire.sequence).open()
    wire.sequence += 1
    reader.feed(proven.records)
    reader.feed(wire.send(CLIENT, get("/proven")).send(SERVER, answer()).records[-2:])
    assert [exchange.peer.host for exchange in reader.exchanges] == ["", "10.0.0.1"]
    assert reader.flows.connections().unread == ()
    assert reader.counters.get(meanings.SESSIONS_UNPROVEN) == 1


def test_a_process_that_is_gone_takes_its_sessions_along() -> None:
    wire = plaintext(SOCKET)
    reader = Reader().feed(wire.records)
    reader.feed(wire.send(CLIENT, get("/never-answered")).records[-1:])
    reader.flows.forget(wire.tgid + 1)
    assert reader.flows.connections().open == 1
    reader.flows.forget(wire.tgid)
    assert reader.flows.connections().open == 0
    assert [exchange.incomplete for exchange in reader.exchanges] == [None, "aborted"]
