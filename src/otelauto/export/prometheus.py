# SPDX-License-Identifier: Apache-2.0
"""The scrape endpoint: a small HTTP server on a thread of its own."""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from otelauto.errors import ConfigError, OtelautoError
from otelauto.export.exporter import Status
from otelauto.export.exposition import Family, Format, RedExposition, encoded, render_family
from otelauto.export.exposition_proto import family_message, red_messages
from otelauto.export.own_traffic import End, OwnTraffic
from otelauto.export.red import Red
from otelauto.export.web_config import WebConfig

LOG = logging.getLogger("otelauto.export.prometheus")
Page = Callable[[Format], Iterable[bytes]]  # pieces of UTF-8

MAX_PORT = 65_535
MAX_CONNECTIONS = 64
MAX_SCRAPES = 4  # rendered at the same time
IDLE_TIMEOUT_S = 60.0
HANDSHAKE_TIMEOUT_S = 10.0
# Stays in the CPU's cache, and below what malloc gives back to the kernel each time (128 KiB):
# chunks of 256 KiB take twice as long.
CHUNK_SIZE = 64 * 1024
GZIP_LEVEL = 1  # label texts repeat: higher levels cost much and gain little
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # 16: with a gzip header
GZIP_MEMORY = 5  # zlib's memLevel; its tables fit the CPU's cache, for 1 % more bytes than 8


def negotiate(accept: str | None, protobuf: bool = False) -> Format:
    """The format for an ``Accept`` header: the highest q wins, text 0.0.4 when nothing fits.

    ``protobuf``: that format is among those that can be had.
    """
    best, best_q = Format.TEXT, 0.0
    for media_range in (accept or "").split(","):
        media, *parameters = (part.strip().lower() for part in media_range.split(";"))
        given = dict(p.split("=", 1) for p in parameters if "=" in p)
        q = _quality(given.get("q", "1"))
        version = given.get("version", "").strip('"')
        if media == "application/openmetrics-text" and version in {"", "1.0.0"}:
            found = Format.OPENMETRICS
        elif protobuf and media == "application/vnd.google.protobuf" and _is_delimited(given):
            found = Format.PROTOBUF
        elif media in {"text/plain", "text/*", "*/*"} and version in {"", "0.0.4"}:
            found = Format.TEXT
        else:
            continue
        if q > best_q:
            best, best_q = found, q
    return best


def _is_delimited(given: Mapping[str, str]) -> bool:
    family, encoding = given.get("proto", "").strip('"'), given.get("encoding", "").strip('"')
    return family == "io.prometheus.client.metricfamily" and encoding == "delimited"


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether an ``Accept-Encoding`` header allows gzip."""
    for coding in (accept_encoding or "").split(","):
        name, _, parameter = coding.partition(";")
        if name.strip().lower() in {"gzip", "*"}:
            key, _, q = parameter.strip().partition("=")
            return key.strip().lower() != "q" or _quality(q) > 0
    return False


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def metrics_page(
    red: Red | None,
    families: Sequence[Callable[[], Iterable[Family]]] = (),
    wall_ns: Callable[[int], int] = int,
) -> Page:
    """A page of RED metrics (unless ``red`` is ``None``), then what ``families`` give.

    ``wall_ns`` makes wall time of boot-clock time.
    """
    exposition = RedExposition(wall_ns)

    def messages() -> Iterator[bytes]:
        if red is not None:
            yield from red_messages(red.collect(), wall_ns)
        for give in families:
            for family in give():
                yield family_message(family)

    def render(fmt: Format) -> Iterator[bytes]:
        if fmt is Format.PROTOBUF:
            yield from messages()
            return
        if red is not None:
            yield from exposition.render(red.collect(), fmt)
        for give in families:
            for family in give():
                yield encoded(render_family(family, fmt))
        if fmt is Format.OPENMETRICS:
            yield b"# EOF\n"

    return render


class Prometheus:
    """Serves ``pages`` (path to page) at ``host``:``port``; port 0 is any free one.

    ``setting`` is the name of the port's setting, for the message when it cannot be had. ``web``
    says who is served and how. ``protobuf``: scrapers that prefer that format get it.
    """

    name: str = "prometheus"  # a second server gets another

    def __init__(
        self,
        host: str,
        port: int,
        pages: Mapping[str, Page],
        own_traffic: OwnTraffic | None = None,
        setting: str = "prometheus_export.port",
        web: WebConfig | None = None,
        protobuf: bool = False,
    ) -> None:
        self._web = web or WebConfig()
        self._protobuf = protobuf
        self._host = host
        self._port = port
        self._pages = {f"/{path.lstrip('/')}": page for path, page in pages.items()}
        self._own_traffic = own_traffic or OwnTraffic()
        self._setting = setting
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen and serve.

        Raises:
            OtelautoError: the address cannot be listened on.
        """
        self._server = self._listen()
        self._server.protobuf = self._protobuf
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(None,),  # no timer: closing wakes it
            name="otelauto-prometheus",
            daemon=True,
        )
        self._thread.start()

    @property
    def address(self) -> End:
        """Host and port that are listened on."""
        if self._server is None:
            return self._host, self._port
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    @property
    def urls(self) -> list[str]:
        """Where the pages are."""
        host, port = self.address
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if self._web.encrypted else "http"
        return [f"{scheme}://{shown}:{port}{path}" for path in self._pages]

    def close(self, deadline_s: float) -> None:
        """Stop listening; scrapes in progress have until the deadline."""
        if self._server is None or self._thread is None:
            return
        give_up_at = time.monotonic() + deadline_s
        self._server.socket.shutdown(socket.SHUT_RDWR)  # ends the wait for a connection
        self._server.shutdown()
        self._thread.join(deadline_s)
        self._server.server_close()
        self._server.drain(max(0.0, give_up_at - time.monotonic()))

    def status(self) -> Status:
        """Where it listens, scrapes so far, the last error."""
        server = self._server
        return {
            "url": " ".join(self.urls),
            "scrapes": server.scrapes if server else 0,
            "last_error": server.last_error if server else None,
        }

    def _listen(self) -> _Server:
        try:
            if not 0 <= self._port <= MAX_PORT:  # getaddrinfo would cut it to 16 bits
                raise OverflowError
            found = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, _, _, _, address = found[0]
            return _Server(family, address, self._pages, self._own_traffic, self._web)
        except (OSError, OverflowError) as error:
            where = f"port {self._port} of {self._host}"
            raise OtelautoError(
                f"metrics cannot be served on {where}: {_cause(error)}",
                _remedy(error, self._port, self._setting),
            ) from error


def _cause(error: OSError | OverflowError) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return "a port is 0 to 65535"


def _remedy(error: OSError | OverflowError, port: int, setting: str) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return f"`ss -ltnp sport = :{port}` shows who listens there; set {setting} to another port"
    if code == errno.EACCES:
        return f"ports below 1024 need CAP_NET_BIND_SERVICE; set {setting} to a higher port"
    return f"check {setting} and the host beside it"


class _Server(socketserver.ThreadingTCPServer):
    """Accepts connections, a bounded number at a time."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        family: int,
        address: Any,
        pages: Mapping[str, Page],
        own_traffic: OwnTraffic,
        web: WebConfig,
    ) -> None:
        self.address_family = family
        self.web = web
        self.protobuf = False
        self.pages = pages
        self.own_traffic = own_traffic
        self.scrape_slots = threading.BoundedSemaphore(MAX_SCRAPES)
        self.scrapes = 0
        self.last_error: str | None = None
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve on a new thread, unless too many are busy."""
        if not self._connections.acquire(blocking=False):
            self.last_error = f"more than {MAX_CONNECTIONS} connections at once"
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, by TLS if that is wanted."""
        connection = self.web.secure(request, HANDSHAKE_TIMEOUT_S)
        try:
            super().finish_request(connection, client_address)
        finally:
            if connection is not request:  # which the caller closes
                connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away is its own affair; anything else is a defect."""
        error = sys.exception()
        if isinstance(error, (ConnectionError, TimeoutError, ssl.SSLError)):
            LOG.debug("scrape by %s failed: %s", client_address, error)
            return
        if isinstance(error, ConfigError):
            if self.last_error != error.message:
                LOG.error("nobody is served: %s", error)
            self.last_error = error.message
            return
        self.last_error = f"internal error: {error!r}"
        LOG.error("scrape by %s failed", client_address, exc_info=error)

    def drain(self, timeout_s: float) -> None:
        """Wait until no scrape is being rendered."""
        give_up_at = time.monotonic() + timeout_s
        for _ in range(MAX_SCRAPES):
            self.scrape_slots.acquire(timeout=max(0.0, give_up_at - time.monotonic()))


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the pages."""

    protocol_version = "HTTP/1.1"
    server_version = "otelauto"
    sys_version = ""
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        """All requests of a connection, known as otelauto's own meanwhile."""
        ends = self.server.own_traffic.opened(self.connection)
        try:
            super().handle()
        finally:
            self.server.own_traffic.closed(ends)

    def do_GET(self) -> None:
        """A page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """A page's head."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not worth a log line."""
        LOG.debug(format, *args)

    def end_headers(self) -> None:
        """The end of a head, after what every response has."""
        for name, value in self.server.web.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def _answer(self, with_body: bool) -> None:
        if not self.server.web.admits(self.headers.get("Authorization")):
            self._plain(HTTPStatus.UNAUTHORIZED, "user name and password, please\n")
            return
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            paths = " ".join(self.server.pages)
            self._plain(HTTPStatus.NOT_FOUND, f"there is nothing here; try {paths}\n")
        elif not with_body:
            self._page_head(self._format(), gzip=self._gzip())
        elif not self.server.scrape_slots.acquire(blocking=False):
            self._plain(HTTPStatus.SERVICE_UNAVAILABLE, "too many scrapes at once\n")
        else:
            try:
                self._page(page)
            finally:
                self.server.scrape_slots.release()

    def _format(self) -> Format:
        return negotiate(self.headers.get("Accept"), self.server.protobuf)

    def _gzip(self) -> bool:
        return accepts_gzip(self.headers.get("Accept-Encoding"))

    def _page_head(self, fmt: Format, gzip: bool) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", fmt.value)
        self.send_header("Vary", "Accept, Accept-Encoding")
        if gzip:
            self.send_header("Content-Encoding", "gzip")
        if self._chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.close_connection = True
        self.end_headers()

    @property
    def _chunked(self) -> bool:
        return self.request_version not in {"HTTP/0.9", "HTTP/1.0"}

    def _page(self, page: Page) -> None:
        fmt = self._format()
        gzip = self._gzip()
        body = _chunks(page(fmt), gzip)
        try:
            first = next(body)
        except Exception as error:  # the scraper must see a failure, not an empty page
            self.server.last_error = f"internal error: {error!r}"
            LOG.exception("the metrics page could not be rendered")
            self._plain(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; see the log\n")
            return
        self.server.scrapes += 1
        self._page_head(fmt, gzip)
        self._send(first)
        for chunk in body:
            self._send(chunk)
        if self._chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, chunk: bytes) -> None:
        if not self._chunked:
            self.wfile.write(chunk)
        elif chunk:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def _plain(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Basic")
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _chunks(pieces: Iterable[bytes], gzip: bool) -> Iterator[bytes]:
    """At least one chunk, each (but the last) of at least ``CHUNK_SIZE`` bytes before packing."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WINDOW, GZIP_MEMORY) if gzip else None
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= CHUNK_SIZE:
            chunk = b"".join(waiting)
            yield packer.compress(chunk) if packer else chunk
            waiting, size = [], 0
    last = b"".join(waiting)
    yield packer.compress(last) + packer.flush() if packer else last
