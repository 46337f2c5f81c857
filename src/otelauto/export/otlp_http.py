# SPDX-License-Identifier: Apache-2.0
"""OTLP over HTTP with protobuf bodies: one request at a time over a kept connection.

What an answer means is the OTLP specification's ("OTLP/HTTP Response"): 2xx is success, with or
without a body; a partial success is never retried; 429, 502, 503, 504 and no answer may be retried;
anything else must not be.
"""

from __future__ import annotations

import enum
import gzip
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

from otelauto.errors import ConfigError
from otelauto.export.own_traffic import End, OwnTraffic
from otelauto.export.protobuf import MalformedError, fields

LOG = logging.getLogger("otelauto.export.otlp")

RETRYABLE = frozenset({429, 502, 503, 504})
MAX_ANSWER = 4 * 1024 * 1024
MAX_REJECTED = 1 << 63  # an int64 that is negative on the wire looks larger
DEFAULT_TIMEOUT_MS = 10_000
GZIP_LEVEL = 1


class Compression(enum.StrEnum):
    """``OTEL_EXPORTER_OTLP_COMPRESSION``."""

    NONE = "none"
    GZIP = "gzip"


class Verdict(enum.Enum):
    """What to do after a request."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one request. ``rejected`` counts items of a partial success."""

    verdict: Verdict
    error: str = ""
    rejected: int = 0
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings; empty paths mean the system's authorities and no client certificate."""

    certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""
    insecure_skip_verify: bool = False

    def context(self) -> ssl.SSLContext:
        """The context for these settings.

        Raises:
            ConfigError: a file cannot be read or does not hold what it should.
        """
        try:
            context = ssl.create_default_context(cafile=self.certificate or None)
            if self.client_certificate:
                context.load_cert_chain(self.client_certificate, self.client_key or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"a TLS certificate or key of the OTLP exporter cannot be used: {error}",
                "check OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY"
                " (PEM files)",
            ) from error
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class OtlpHttp:
    """A connection to one OTLP/HTTP endpoint. ``post`` is called by one thread.

    ``url`` is complete, ``/v1/traces`` and all. ``timeout_ms`` 0 means no limit.

    Raises:
        ConfigError: ``url`` is not an http or https URL, or a TLS file cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        version: str,
        headers: Mapping[str, str] | None = None,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        compression: Compression = Compression.NONE,
        tls: Tls | None = None,
        own_traffic: OwnTraffic | None = None,
    ) -> None:
        self._scheme, self._host, self._port, self._target = _split(url)
        # For people: without the query, which may hold a secret.
        self.url = f"{self._scheme}://{self._host}:{self._port}{self._target.partition('?')[0]}"
        self._timeout_s = timeout_ms / 1000 if timeout_ms else None
        self._compression = compression
        self._own_traffic = own_traffic or OwnTraffic()
        self._context = (tls or Tls()).context() if self._scheme == "https" else None
        if self._context is not None and self._context.verify_mode == ssl.CERT_NONE:
            LOG.warning(
                "insecure_skip_verify: the certificate of %s is not checked; anyone on the way can"
                " read and change what is exported",
                self._host,
            )
        self._headers = {
            "user-agent": f"OTel-OTLP-Exporter-otelauto/{version}",
            **(headers or {}),
            "content-type": "application/x-protobuf",
        }
        if compression is Compression.GZIP:
            self._headers["content-encoding"] = "gzip"
        self._connection: HTTPConnection | None = None
        self._ends: frozenset[End] | None = None
        self._aborted = False

    def post(self, body: bytes, seconds_left: float | None = None) -> Answer:
        """Send one message. ``seconds_left`` shortens the timeout (a shutdown's deadline)."""
        if self._compression is Compression.GZIP:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        timeout = self._timeout_s
        if seconds_left is not None:
            timeout = min(timeout or seconds_left, seconds_left)
            if timeout <= 0:
                return Answer(Verdict.RETRY, "no time left")
        if self._aborted:
            return Answer(Verdict.RETRY, "the exporter was stopped")
        kept = self._connection is not None
        try:
            return self._exchange(body, timeout)
        except (HTTPException, OSError) as error:
            self._hang_up()
            # The server may close a kept connection at any time: the first failure on one that was
            # idle says nothing about the endpoint. A timeout does.
            if not kept or self._aborted or isinstance(error, TimeoutError):
                return Answer(Verdict.RETRY, _explain(error))
        try:
            return self._exchange(body, timeout)
        except (HTTPException, OSError) as error:
            self._hang_up()
            return Answer(Verdict.RETRY, _explain(error))

    def abort(self) -> None:
        """From another thread: make a ``post`` in progress fail now."""
        self._aborted = True
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                LOG.debug("the connection was gone before it could be shut down")

    def close(self) -> None:
        """Close the connection."""
        self._hang_up()

    def _exchange(self, body: bytes, timeout: float | None) -> Answer:
        connection = self._connect(timeout)
        connection.request("POST", self._target, body=body, headers=self._headers)
        response = connection.getresponse()
        data = response.read(MAX_ANSWER + 1)
        if response.will_close or len(data) > MAX_ANSWER:
            self._hang_up()
        if len(data) > MAX_ANSWER:
            return Answer(Verdict.REFUSED, f"an answer of more than {MAX_ANSWER} bytes")
        return _judge(response, data)

    def _connect(self, timeout: float | None) -> HTTPConnection:
        connection = self._connection
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(timeout)
            return connection
        if self._context is not None:
            connection = HTTPSConnection(
                self._host, self._port, timeout=timeout, context=self._context
            )
        else:
            connection = HTTPConnection(self._host, self._port, timeout=timeout)
        self._connection = connection
        connection.connect()
        self._ends = self._own_traffic.opened(connection.sock)
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


def _judge(response: HTTPResponse, data: bytes) -> Answer:
    status = response.status
    if 200 <= status < 300:
        rejected, message = _partial_success(data)
        return Answer(Verdict.ACCEPTED, message, rejected)
    message = _status_message(response.headers.get("Content-Type", ""), data)
    error = f"HTTP {status} {response.reason}{': ' if message else ''}{message}"
    if status in RETRYABLE:
        after = _retry_after(response.headers.get("Retry-After"))
        return Answer(Verdict.RETRY, error, retry_after_s=after)
    return Answer(Verdict.REFUSED, error)


def _partial_success(data: bytes) -> tuple[int, str]:
    """Rejected items and message of an Export*ServiceResponse; (0, "") for anything else."""
    rejected, message = 0, ""
    try:
        for field, value in fields(data):
            if field != 1 or not isinstance(value, bytes):
                continue
            for inner, content in fields(value):
                if inner == 1 and isinstance(content, int):
                    rejected = content if content < MAX_REJECTED else 0
                elif inner == 2 and isinstance(content, bytes):
                    message = _shown(content)
    except MalformedError:
        LOG.debug("the answer is not an OTLP response; its status counts")
        return 0, ""
    return rejected, message


def _status_message(content_type: str, data: bytes) -> str:
    """The message of a google.rpc.Status, else the beginning of a text answer."""
    if not content_type.startswith("application/x-protobuf"):
        return _shown(data) if content_type.startswith(("text/plain", "application/json")) else ""
    try:
        for field, value in fields(data):
            if field == 2 and isinstance(value, bytes):
                return _shown(value)
    except MalformedError:
        LOG.debug("the error answer is not a google.rpc.Status")
    return ""


def _shown(data: bytes) -> str:
    """Bytes of a peer as they may stand in a log."""
    text = data[:200].decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() else " " for c in text)


def _retry_after(value: str | None) -> float | None:
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
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__} {error}".strip()
