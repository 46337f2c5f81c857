# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed of otelauto's own servers: scrapers' requests, the control socket's answers, the
web configuration file, and the small grammars of rules."""

from __future__ import annotations

import atexit
import socket
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import bcrypt

from otelauto.config import rule_kinds
from otelauto.control import read_answer
from otelauto.counters import Counters
from otelauto.errors import ConfigError, OtelautoError
from otelauto.export.prometheus import Page, Prometheus, _Handler, metrics_page
from otelauto.export.red import Red
from otelauto.export.web_config import WebConfig
from otelauto.flows.vocabulary import Instrument, Side
from otelauto.spans.conditions import every
from otelauto.spans.sampling import thresholds
from otelauto.spans.shape import Shape
from otelauto.spans.span import Service, Span

_DIRECTORY = tempfile.TemporaryDirectory(prefix="otelauto-fuzz-")
atexit.register(_DIRECTORY.cleanup)
MARK = b"shop_took_seconds_count"
TOOK = Instrument("shop.took", "s", "Time.", (0.1, 1.0), ("method",))
SPAN = Span(
    Service("shop", "", "1"), "GET", Side.SERVER, b"t" * 16, b"s" * 8, b"", 1, 0, 10**8,
    {"method": "GET", "size": 3}, False, None, (TOOK,),
)  # fmt: skip
SECRET = "c2hvcDpzZWNyZXQ="  # shop:secret


def _page() -> Page:
    red = Red(Counters(), exemplars=True)
    red.add([SPAN])
    return metrics_page(red)


@cache
def _server(secured: bool) -> Prometheus:
    file = Path(_DIRECTORY.name) / "users.yml"
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    file.write_text(f"basic_auth_users: {{shop: '{hashed}'}}")
    web = WebConfig(str(file)) if secured else None
    server = Prometheus("127.0.0.1", 0, {"/metrics": _page()}, web=web)
    server._server = server._listen()
    atexit.register(server._server.server_close)
    return server


def request(data: bytes) -> None:
    """All that a scraper sends on one connection."""
    for secured in (False, True):
        server = _server(secured)
        with socket.create_connection(server.address, 20) as scraper:
            assert server._server is not None
            connection, address = server._server.get_request()
            scraper.sendall(data)
            scraper.shutdown(socket.SHUT_WR)
            with connection:
                try:
                    _Handler(connection, address, server._server)
                except (ConnectionError, TimeoutError):
                    continue
                connection.shutdown(socket.SHUT_WR)
            said = b"".join(iter(lambda: scraper.recv(65536), b""))
        assert server._server.last_error is None
        if secured and SECRET.encode() not in data:
            assert MARK not in said


def control_answer(data: bytes) -> None:
    """What something on the control socket's path says."""
    try:
        answer = read_answer(data, Path("/run/otelauto/control.sock"))
    except OtelautoError:
        return
    assert "error" not in answer


def web_configuration(data: bytes) -> None:
    """The file is refused in a sentence, or says who is served."""
    file = Path(_DIRECTORY.name) / "web.yml"
    file.write_bytes(data)
    try:
        web = WebConfig(str(file))
    except ConfigError:
        return
    web.admits("Basic " + SECRET)
    assert all(value.isprintable() for value in web.headers.values())


def rules(data: bytes) -> None:
    """Rules of sampling, filters and metrics: what is read can be used, and shown again."""
    text = data.decode("utf-8", "surrogateescape")
    kinds = (rule_kinds.RULES, rule_kinds.ENTRIES, rule_kinds.SELECTION, rule_kinds.BUCKETS)
    for kind in kinds:
        try:
            value = kind.read(text)
        except ValueError:
            continue
        if not value:  # as good as not given
            continue
        shown = kind.show(value)
        again = kind.read(list(shown.items()) if isinstance(shown, dict) else shown)
        assert again == value
        for one in value if kind is rule_kinds.RULES else ():
            thresholds(one.sampler, one.ratio)
            every(one.entry.conditions)(SPAN)
        for one in value if kind is rule_kinds.ENTRIES else ():
            every(one.conditions)(SPAN)
        if kind is rule_kinds.SELECTION:
            Shape(include=value, exclude=value)._shape(TOOK)
        if kind is rule_kinds.BUCKETS:
            Shape(buckets=value)._shape(TOOK)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": request,
    "control_answer": control_answer,
    "web_configuration": web_configuration,
    "rules": rules,
}


def seeds(target: str) -> list[bytes]:
    """Inputs to start from."""
    get = b"GET /metrics HTTP/1.1\r\nHost: a\r\n"
    match target:
        case "request":
            return [
                get + b"Accept: application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1\r\n\r\n",
                get + b"Accept-Encoding: gzip;q=0.5, br\r\nConnection: close\r\n\r\n",
                (get + b"\r\n") * 3,
                b"HEAD /metrics?x=1 HTTP/1.0\r\n\r\n",
                b"GET /metrics\r\n",
                b"POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
                get + b"Authorization: Basic " + SECRET[:-4].encode() + b"\r\n\r\n",
                get + b"Authorization: Basic %\r\nX: " + b"y" * 300 + b"\r\n\r\n",
                b"OPTIONS * HTTP/9.9\r\n\r\n\x00\xff",
            ]
        case "control_answer":
            return [b'{"a": [1, 2.5, null]}', b'{"error": "x"}', b"[]", b"", b"[" * 3000, b"\xff"]
        case "web_configuration":
            return [
                b"tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}\n",
                b"tls_server_config: {min_version: TLS13, client_allowed_sans: [a]}\n",
                b"http_server_config:\n  http2: false\n  headers: {X-Frame-Options: deny}\n",
                b"basic_auth_users: {shop: '$2b$04$" + b"a" * 21 + b"." + b"a" * 31 + b"'}\n",
                b"basic_auth_users: &a {b: *a}\n",
                b"--- !!python/object:os.system {}\n",
            ]
        case _:
            return [
                b"traceidratio 0.5 if http.route=/a* service.name!=b,always_off if a>=1",
                b"parentbased_always_on if size<4 method=[G]ET",
                b"http.route=/health*,http.response.status_code>=500",
                b"http.*=http.route http.request.*,*=a",
                b"shop.*=0.1 1 1e3",
                b"a=1,2",
                b"x if y",
            ]
