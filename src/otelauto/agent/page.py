# SPDX-License-Identifier: Apache-2.0
"""The agent's own HTTP server: its page, ``/metrics``, ``/-/ready``, ``/-/healthy``, reloading."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from concurrent.futures import CancelledError
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from otelauto import logs
from otelauto.agent.page_html import page
from otelauto.agent.page_metrics import Rates, State, exposition
from otelauto.agent.pipeline import Health
from otelauto.errors import ConfigError, OtelautoError
from otelauto.export.exposition import encoded
from otelauto.export.prometheus import negotiate

log = logging.getLogger("otelauto.agent.page")

TIMEOUT_S: Final = 10.0  # for a client to say what it wants
RELOAD_S: Final = 60.0
_TEXT: Final = "text/plain; charset=utf-8"
_HTML: Final = "text/html; charset=utf-8"


class Page:
    """Serves ``state`` at ``listen`` (``host:port``; port 0 is any that is free)."""

    def __init__(self, state: State, listen: str) -> None:
        """Raises :class:`ConfigError` if ``listen`` is no address."""
        parts = _split(listen)
        self._listen = listen
        self._at = parts
        self._rates = Rates(state.graph.counters)
        self._state = state
        self._server: _Server | None = None
        self.ready = False

    def start(self) -> None:
        """Listen. Raises :class:`OtelautoError` if the address is taken."""
        try:
            self._server = _Server(self._at, self._state, self._rates, self)
        except OSError as error:
            raise OtelautoError(
                f"the agent's page cannot listen on {self._listen}: {error.strerror}",
                "Is another agent running? Give another --server.http.listen-addr.",
            ) from error
        self._rates.start()
        threading.Thread(
            target=self._server.serve_forever, name="otelauto-agent-page", daemon=True
        ).start()
        log.info("the agent's page is at http://%s/", self.address)

    @property
    def address(self) -> str:
        """``host:port``, once it listens."""
        assert self._server is not None  # noqa: S101 - it was started
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def stop(self) -> None:
        """Listen no more."""
        self._rates.stop()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _split(listen: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if port is None or parts.path:
        raise ConfigError(f'"{listen}" is no address to listen on.', "Write it as 127.0.0.1:12345.")
    return host or "", port


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, at: tuple[str, int], state: State, rates: Rates, owner: Page) -> None:
        self.address_family = socket.AF_INET6 if ":" in at[0] else socket.AF_INET
        self.state, self.rates, self.owner = state, rates, owner
        super().__init__(at, _Handler)

    def server_bind(self) -> None:
        """Without the look-up of a name that the base class makes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no trouble."""
        log.debug("a request to the page failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server_version = "otelauto"
    sys_version = ""

    def do_GET(self) -> None:
        """Whatever can be looked at."""
        if not self._is_for_us():
            return
        path = urlsplit(self.path).path
        server = self.server
        if path == "/":
            self._answer(HTTPStatus.OK, page(server.state, server.rates), _HTML)
        elif path == "/metrics":
            fmt = negotiate(self.headers.get("Accept"))
            self._answer(HTTPStatus.OK, exposition(server.state, fmt), fmt.value)
        elif path == "/-/healthy":
            self._healthy()
        elif path == "/-/ready":
            ready = server.owner.ready
            text = "Agent is Ready.\n" if ready else "Agent is not Ready.\n"
            self._answer(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, text)
        elif path == "/-/reload":
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "use POST\n", allow="POST")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "there is /, /metrics, /-/ready, /-/healthy\n")

    do_HEAD = do_GET  # noqa: N815 - the base class looks for it

    def do_POST(self) -> None:
        """Reading the configuration again, and nothing else."""
        if not self._is_for_us():
            return
        self.close_connection = True  # whatever body it has is not read
        path = urlsplit(self.path).path
        if path != "/-/reload":
            known = path in ("/", "/metrics", "/-/ready", "/-/healthy")
            status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
            self._answer(status, "only /-/reload takes POST\n", allow="GET, HEAD" if known else "")
            return
        try:
            wrong = self.server.state.reload_soon().result(RELOAD_S)
        except (TimeoutError, CancelledError):
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "it takes too long\n")
            return
        if "text/html" in self.headers.get("Accept", ""):  # the page's button
            self.send_response(HTTPStatus.SEE_OTHER)
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif wrong:
            self._answer(HTTPStatus.BAD_REQUEST, f"{wrong}\n")
        else:
            self._answer(HTTPStatus.OK, "config reloaded\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are no news."""
        log.debug(format, *args)

    def _healthy(self) -> None:
        cells = self.server.state.graph.cells()
        ill = [name for name, cell in cells.items() if cell.health()[0] is not Health.HEALTHY]
        if ill:
            text = "".join(f"{name}: {logs.masked(cells[name].health()[1])}\n" for name in ill)
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"unhealthy components:\n{text}")
        else:
            self._answer(HTTPStatus.OK, "All components are healthy.\n")

    def _is_for_us(self) -> bool:
        """No page of a foreign site may ask through its reader's browser (by a name of its own for
        this address, or by a form).
        """
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        origin = self.headers.get("Origin")
        same = origin is None or urlsplit(origin).netloc == self.headers.get("Host")
        if same and (_is_address(host) or not _is_local(self.connection.getsockname()[0])):
            return True
        self.close_connection = True
        self._answer(HTTPStatus.FORBIDDEN, "not asked by this page or by its address\n")
        return False

    def _answer(self, status: HTTPStatus, text: str, kind: str = _TEXT, *, allow: str = "") -> None:
        body = encoded(text)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
            "frame-ancestors 'none'",
        )
        if allow:
            self.send_header("Allow", allow)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_address(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
