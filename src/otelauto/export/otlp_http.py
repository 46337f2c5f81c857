# SPDX-License-Identifier: Apache-2.0
"""OTLP over HTTP with protobuf or JSON bodies: one request at a time over a kept connection.

What an answer means is the OTLP specification's ("OTLP/HTTP Response"): 2xx is success, with or
without a body; 429, 502, 503, 504 and no answer may be retried; anything else must not be.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, IncompleteRead
from urllib.parse import urlsplit

from otelauto.errors import ConfigError, OtelautoError
from otelauto.export import otlp_json
from otelauto.export.dial import Deadline, Resolver, TimedConnection
from otelauto.export.otlp_json import Json
from otelauto.export.own_traffic import End, OwnTraffic
from otelauto.export.packing import packed
from otelauto.export.proxy import Proxy
from otelauto.export.tls import NOT_TRUSTED, Tls, alert
from otelauto.export.transport import (
    DEFAULT_TIMEOUT_MS,
    MAX_ANSWER,
    NO_ANSWER,
    NO_TIME,
    STOPPED,
    Answer,
    Body,
    Compression,
    Piece,
    Verdict,
    accepted,
    pieces_of,
    rpc_status,
    shortened,
    shown,
    too_large,
)

LOG = logging.getLogger("otelauto.export.otlp")

PROTOBUF, JSON = "application/x-protobuf", "application/json"
RETRYABLE = frozenset({429, 502, 503, 504})
UNAUTHORIZED = frozenset({401, 403, 407})


class OtlpHttp:
    """A connection to one OTLP/HTTP endpoint. ``post`` is called by one thread.

    The timeout is for a request as a whole, from the name's look-up to the end of the answer.

    ``url`` is complete, ``/v1/traces`` and all. ``headers`` is asked for each request (an
    ``OtelautoError`` of it is a reason to try again), the files of ``tls`` when they were changed.
    ``timeout_ms`` 0 means no limit. With ``json`` messages are sent, and answers read, so.

    Raises:
        ConfigError: ``url`` is not an http or https URL, or a TLS file cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        version: str,
        headers: Callable[[], Mapping[str, str]] = dict,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        compression: Compression = Compression.NONE,
        tls: Tls | None = None,
        proxy: Proxy | None = None,
        own_traffic: OwnTraffic | None = None,
        json: Json | None = None,
    ) -> None:
        self._scheme, self._host, self._port, self._target = _split(url)
        # For people: without the query, which may hold a secret.
        self.url = f"{self._scheme}://{self._host}:{self._port}{self._target.partition('?')[0]}"
        self._timeout_s = timeout_ms / 1000 if timeout_ms else None
        self._compression = compression
        self._own_traffic = own_traffic or OwnTraffic()
        self._proxy = proxy
        self._tls = tls or Tls()
        self._tls_version = self._tls.version()
        self._context = self._tls.context() if self._scheme == "https" else None
        if self._context is not None and self._context.verify_mode == ssl.CERT_NONE:
            LOG.warning(
                "insecure_skip_verify: the certificate of %s is not checked; anyone on the way can"
                " read and change what is exported",
                self._host,
            )
        self._user_agent = f"OTel-OTLP-Exporter-otelauto/{version}"
        self._given_headers = headers
        self._json = json
        self._resolver = Resolver()
        self._connection: TimedConnection | None = None
        self._ends: frozenset[End] | None = None
        self._aborted = False

    def post(self, body: Body, seconds_left: float | None = None) -> Answer:
        """Send one message. ``seconds_left`` shortens the timeout (a deadline of the caller's)."""
        pieces = pieces_of(body)
        if self._json is not None:
            pieces = [self._json.encode(b"".join(pieces))]
        if (refusal := too_large(sum(map(len, pieces)))) is not None:
            return refusal
        pieces = packed(pieces, self._compression)
        timeout = shortened(self._timeout_s, seconds_left)
        if timeout is not None and timeout <= 0:
            return Answer(Verdict.RETRY, NO_TIME)
        if self._aborted:
            return Answer(Verdict.RETRY, STOPPED)
        try:
            self._renew_context()
            headers = self._headers()
        except OtelautoError as error:
            return Answer(Verdict.RETRY, error.message)
        kept = self._connection is not None
        deadline = Deadline(timeout)
        try:
            return self._exchange(pieces, headers, deadline)
        except (HTTPException, OSError) as error:
            self._hang_up()
            # The server may close a kept connection at any time: the first failure on one that was
            # idle says nothing about the endpoint. A timeout does.
            if not kept or self._aborted or isinstance(error, TimeoutError):
                return Answer(Verdict.RETRY, _explain(error))
        try:
            return self._exchange(pieces, headers, deadline)
        except (HTTPException, OSError) as error:
            self._hang_up()
            return Answer(Verdict.RETRY, _explain(error))

    def rest(self) -> None:
        """An idle connection costs nothing, and may serve again."""

    def abort(self) -> None:
        """From another thread: make a ``post`` in progress fail now."""
        self._aborted = True
        if (connection := self._connection) is not None:
            connection.abort()

    def close(self) -> None:
        """Close the connection."""
        self._hang_up()

    def _exchange(
        self, pieces: Sequence[Piece], headers: Mapping[str, str], deadline: Deadline
    ) -> Answer:
        connection = self._connect(deadline)
        size = str(sum(map(len, pieces)))
        connection.request(
            "POST", self._request_target(), headers={**headers, "content-length": size}
        )
        connection.send_pieces(pieces)
        response = connection.getresponse()
        data = response.read(MAX_ANSWER + 1)
        if response.will_close or len(data) > MAX_ANSWER:
            self._hang_up()
        if len(data) > MAX_ANSWER:
            return Answer(Verdict.REFUSED, f"an answer of more than {MAX_ANSWER} bytes")
        if response.length:  # read() of a number of bytes does not mind
            raise IncompleteRead(data, response.length)
        return self._judge(response, data)

    def _headers(self) -> dict[str, str]:
        headers = {
            "user-agent": self._user_agent,
            **self._given_headers(),
            "content-type": PROTOBUF if self._json is None else JSON,
        }
        if self._compression is not Compression.NONE:
            headers["content-encoding"] = self._compression.value
        if self._proxy is not None and self._context is None:
            headers.update(self._proxy.headers())
        return headers

    def _judge(self, response: HTTPResponse, data: bytes) -> Answer:
        status = response.status
        if 200 <= status < 300:
            return accepted(data) if self._json is None else otlp_json.accepted(data)
        message = _message(response.headers.get("Content-Type", ""), data)
        error = f"HTTP {status} {response.reason}{': ' if message else ''}{message}"
        if status in RETRYABLE:
            after = retry_after(response.headers.get("Retry-After"))
            return Answer(Verdict.RETRY, error, retry_after_s=after)
        return Answer(Verdict.REFUSED, error, unauthorized=status in UNAUTHORIZED)

    def _request_target(self) -> str:
        """The absolute form for a proxy that forwards (RFC 9112, section 3.2.2), else the path."""
        if self._proxy is None or self._context is not None:
            return self._target
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}{self._target}"

    def _renew_context(self) -> None:
        """Read the TLS files again if they were changed, and begin a new connection with them.

        Raises:
            ConfigError: they cannot be used as they are now; the next request tries again.
        """
        if self._context is None or (version := self._tls.version()) == self._tls_version:
            return
        self._context = self._tls.context()
        self._tls_version = version
        self._hang_up()

    def _connect(self, deadline: Deadline) -> TimedConnection:
        connection = self._connection
        if connection is not None and connection.sock is not None:
            connection.until(deadline)
            return connection
        host, port = self._host, self._port
        if self._proxy is not None:
            host, port = self._proxy.host, self._proxy.port
        connection = self._connection = TimedConnection(
            host, port, self._context, self._tls.server_name
        )
        if self._proxy is not None and self._context is not None:
            connection.set_tunnel(self._host, self._port, self._proxy.headers())
        self._ends = self._own_traffic.opened(connection.open(self._resolver, deadline))
        return connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._own_traffic.closed(self._ends)
            self._ends = None


def _split(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and request target of an endpoint URL."""
    remedy = "write it as http://host:4318/v1/traces or https://host/otlp/v1/traces"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"the OTLP endpoint is not a URL: {error}", remedy) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            "the OTLP endpoint must be an http or https URL with a host"
            f", not one with scheme {parts.scheme!r} and host {parts.hostname or ''!r}",
            remedy,
        )
    if parts.username is not None:
        raise ConfigError(
            "the OTLP endpoint has a user name in its URL",
            "give credentials as a header: OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20...",
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), target


def _message(content_type: str, data: bytes) -> str:
    """The message of a google.rpc.Status, else the beginning of a text answer."""
    if content_type.startswith(PROTOBUF):
        return rpc_status(data)[0]
    if content_type.startswith(JSON):
        return otlp_json.rpc_message(data)
    return shown(data) if content_type.startswith("text/plain") else ""


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, section 10.2.3): a number or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _explain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{NOT_TRUSTED}: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "the server has broken TLS off"
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return alert(error.reason)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__} {error}".strip()
