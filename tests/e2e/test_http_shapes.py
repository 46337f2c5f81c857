# SPDX-License-Identifier: Apache-2.0
"""What HTTP looks like on a real socket: pipelines, upgrades, tunnels, interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness.otelauto import Span
from tests.e2e.harness.puppet import Link, Puppet, Server, cuts, get, ok
from tests.e2e.harness.rig import Rig, path_of, status_of

pytestmark = pytest.mark.e2e
SOON_S = 2.0


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    with Puppet() as running:
        yield running


@pytest.fixture
def server(puppet: Puppet) -> Iterator[Server]:
    listening = Server(puppet)
    yield listening
    listening.close()


@pytest.fixture
def rig(server: Server, tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path, {"open_port": server.port}) as running:
        yield running


def exchange(link: Link, path: str, response: bytes = b"") -> None:
    link.ask(get(path))
    link.answer(response or ok())


def only(rig: Rig, count: int) -> list[Span]:
    """All spans there are after a stop, which must be ``count``."""
    rig.stop()
    found = [(path_of(span), status_of(span), span["incomplete"]) for span in rig.spans]
    assert len(found) == count, found
    return rig.spans


@pytest.mark.parametrize("learned", [0, 100], ids=["first", "after 100 exchanges"])
def test_a_pipeline_in_one_write_on_a_new_connection(
    server: Server, rig: Rig, learned: int
) -> None:
    for number in range(learned):
        if number % 10 == 0:
            link = server.link()
        exchange(link, f"/before/{number}")
    rig.wait_for_paths([f"/before/{number}" for number in range(learned)])
    burst = server.link()
    paths = [f"/burst/{number}" for number in range(16)]
    burst.ask(b"".join(map(get, paths)))
    statuses = [400 + number for number in range(16)]
    burst.answer(b"".join(ok(b"x" * status, status=status) for status in statuses))
    spans = rig.wait_for_paths(paths, SOON_S)
    assert [status_of(span) for span in spans] == statuses
    assert [span["attributes"]["http.response.body.size"] for span in spans] == statuses
    assert all(span["incomplete"] is None for span in spans)


def test_a_websocket_is_one_span_and_its_frames_are_none(server: Server, rig: Rig) -> None:
    link = server.link()
    link.ask(get("/chat", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: a"))
    link.answer(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    link.ask(b"\x81\x85abcd" + b"GET /invented HTTP/1.1\r\nHost: x\r\n\r\n")
    link.answer(b"\x81\x05hello" + ok())
    exchange(server.link(), "/after")
    rig.wait_for_paths(["/after"])
    rig.stop()  # it goes on until then
    (span,) = [span for span in rig.spans if path_of(span) != "/after"]
    assert path_of(span) == "/chat"
    assert status_of(span) == 101


def test_a_tunnel_is_one_span_and_nothing_is_seen_inside(server: Server, rig: Rig) -> None:
    link = server.link()
    link.ask(b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n")
    link.answer(b"HTTP/1.1 200 Connection established\r\n\r\n")
    link.ask(get("/inside"))
    link.answer(ok())
    link.close()
    exchange(server.link(), "/after")
    rig.wait_for_paths(["/after"])
    spans = only(rig, 2)
    (tunnel,) = [span for span in spans if path_of(span) != "/after"]
    assert tunnel["attributes"]["http.request.method"] == "CONNECT"
    assert status_of(tunnel) == 200


def test_a_client_waits_for_100_continue(server: Server, rig: Rig) -> None:
    link = server.link()
    link.ask(
        b"POST /upload HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    link.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    link.ask(b"hello")
    link.answer(ok(status=201))
    (span,) = rig.wait_for_paths(["/upload"])
    assert status_of(span) == 201
    assert span["attributes"]["http.request.body.size"] == 5
    only(rig, 1)


def test_a_response_of_http_1_0_ends_with_its_connection(server: Server, rig: Rig) -> None:
    link = server.link()
    link.ask(get("/old", version="1.0"))
    link.answer(b"HTTP/1.0 200 OK\r\n\r\n", b"half ", b"and half")
    assert not rig.spans, "it has not ended yet"
    server.puppet.do("close", conn=link.far)
    (span,) = rig.wait_for_paths(["/old"], SOON_S)
    assert span["attributes"]["http.response.body.size"] == 13
    assert span["incomplete"] is None
    assert status_of(span) == 200


def test_request_and_response_cut_at_every_byte(server: Server, rig: Rig) -> None:
    link = server.link()
    link.ask(*cuts(get("/bytes", "User-Agent: by the byte")))
    link.answer(*cuts(ok(b"hello", status=202)))
    exchange(link, "/next")
    first, second = rig.wait_for_paths(["/bytes", "/next"])
    assert status_of(first) == 202
    assert first["attributes"]["http.response.body.size"] == 5
    assert first["attributes"]["user_agent.original"] == "by the byte"
    assert status_of(second) == 200


def test_each_cut_of_a_response_in_two(server: Server, rig: Rig) -> None:
    response = ok(b"hello", "X-Long: " + "y" * 30, status=203)
    link = server.link()
    for at in range(1, len(response)):
        link.ask(get(f"/cut/{at}"))
        link.answer(response[:at], response[at:])
    spans = rig.wait_for_paths([f"/cut/{at}" for at in range(1, len(response))])
    assert {status_of(span) for span in spans} == {203}
    assert {span["attributes"]["http.response.body.size"] for span in spans} == {5}
    only(rig, len(response) - 1)


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"])
def test_an_aborted_exchange_has_no_invented_status(
    server: Server, rig: Rig, end: str, begun: bytes
) -> None:
    exchange(server.link(), "/whole")
    rig.wait_for_paths(["/whole"])
    link = server.link()
    link.ask(get("/aborted"))
    if begun:
        link.answer(begun)
    if end == "reset":
        server.puppet.do("reset", conn=link.far)
    else:
        link.close()
        server.puppet.receive(link.far, 1)
        server.puppet.do("close", conn=link.far)
    (span,) = rig.wait_for_paths(["/aborted"], SOON_S)
    assert span["incomplete"] == "aborted"
    assert status_of(span) == (200 if begun else None), "known only if the server has said it"
    counts = [
        line for line in rig.page().splitlines()
        if line.startswith("http_server_request_duration_seconds_count")
    ]  # fmt: skip
    assert len(counts) == 1
    assert counts[0].endswith(" 1")


def test_a_whole_exchange_is_visible_while_its_connection_idles(server: Server, rig: Rig) -> None:
    link = server.link()
    for number in range(3):
        exchange(link, f"/idle/{number}")
        rig.wait_for_paths([f"/idle/{number}"], SOON_S)
    link.ask(get("/chunked"))
    link.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    (span,) = rig.wait_for_paths(["/chunked"], SOON_S)
    assert span["attributes"]["http.response.body.size"] == 5


def test_a_watched_client_of_an_unwatched_server(tmp_path: Path) -> None:
    with Puppet() as far, Puppet() as near:
        listener, port = far.do("listen")
        with Rig(tmp_path, {"pids": [near.pid]}) as rig:
            talk(near, far, listener, port, "/asked", 404)
            (span,) = rig.wait_for_paths(["/asked"])
            only(rig, 1)
    assert span["kind"] == "client"
    assert status_of(span) == 404
    assert span["error"] is True
    assert span["attributes"]["network.peer.port"] == port


def test_both_sides_of_one_exchange(tmp_path: Path) -> None:
    with Puppet() as far, Puppet() as near:
        listener, port = far.do("listen")
        with Rig(tmp_path, {"pids": [near.pid, far.pid]}) as rig:
            for number in range(5):
                talk(near, far, listener, port, f"/both/{number}", 200)
            rig.wait_for_spans(10)
            spans = only(rig, 10)
    for number in range(5):
        kinds = [span["kind"] for span in spans if path_of(span) == f"/both/{number}"]
        assert sorted(kinds) == ["client", "server"]


def talk(near: Puppet, far: Puppet, listener: int, port: int, path: str, status: int) -> None:
    """One exchange between two puppets on a connection of its own."""
    asking = near.do("connect", port=port)
    asked = far.do("accept", listener=listener)
    request, response = get(path), ok(status=status)
    near.send(asking, request)
    assert far.receive(asked, len(request)) == request
    far.send(asked, response)
    assert near.receive(asking, len(response)) == response
    near.do("close", conn=asking)
    far.do("close", conn=asked)


def test_a_server_on_a_unix_socket(puppet: Puppet, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    server = Server(puppet, path)
    with Rig(tmp_path, {"pids": [puppet.pid]}) as rig:
        link = server.link()
        for number in range(5):
            exchange(link, f"/unix/{number}")
        spans = rig.wait_for_paths([f"/unix/{number}" for number in range(5)])
        only(rig, 5)
    server.close()
    assert {span["kind"] for span in spans} == {"server"}
    assert {status_of(span) for span in spans} == {200}
    assert {span["attributes"]["server.address"] for span in spans} == {"puppet"}
    assert not any("network.peer.port" in span["attributes"] for span in spans)
