# SPDX-License-Identifier: Apache-2.0
"""The HTTP client of the prometheus.* components, as their blocks configure it.

HTTP/1.1 over kept connections, a deadline for each request as a whole; credentials, certificates
and keys in files are read when they are needed, so that they may be replaced meanwhile.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

from otelauto.agent.river.values import OptionalSecret, Secret, Value
from otelauto.agent.schema import Decoded
from otelauto.agent.tokens import TIMEOUT_S, Post, Tokens
from otelauto.errors import ConfigError, OtelautoError
from otelauto.export.dial import Deadline, Resolver, TimedConnection
from otelauto.export.proxy import Proxy, proxy_for

REDIRECTS_MAX: Final = 10
REDIRECTS_OF_ANY: Final = frozenset({307, 308})  # with the same method and body
REDIRECTS_OF_GET: Final = REDIRECTS_OF_ANY | {301, 302, 303}
ANSWER_MAX: Final = 1 << 20
_VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1, "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; header names in small letters."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class TooLargeError(HTTPException):
    """An answer that is larger than it may be."""


def secret_text(value: Value) -> str:
    """The text of an argument that may be a secret."""
    return value.text if isinstance(value, Secret | OptionalSecret) else str(value or "")


class _Url:
    """Scheme, host, port and request target; ``user`` is "name:password" of the URL."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"a URL cannot be used: {error}", "see the configuration") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "a URL has no host, or does not begin with http:// or https://",
                "is a variable not set that it is made of?",
            )
        self.scheme, self.host = parts.scheme, parts.hostname
        self.port = port or (443 if parts.scheme == "https" else 80)
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.user = ""
        if parts.username is not None:
            self.user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        bracketed = f"[{self.host}]" if ":" in self.host else self.host
        self.origin = f"{self.scheme}://{bracketed}:{self.port}"
        self.shown = self.origin + (parts.path or "/")  # for people: no secrets


class HttpClient:
    """A client for ``url``; ``block`` is that of an endpoint or of a scrape. One thread uses it,
    another may call :meth:`abort`. ``grants`` are those of the block, where clients share them.

    Raises:
        ConfigError: the URL or a file cannot be used, or an argument is not supported.
    """

    def __init__(
        self,
        url: str,
        block: Decoded,
        environ: Mapping[str, str] = os.environ,
        grants: Grants | None = None,
    ) -> None:
        self._url = _Url(url)
        self.shown = self._url.shown
        self._block = block
        self._grants = grants or Grants.of(block, environ)
        if self._grants is not None:
            self._credentials = self._grants.headers
        else:
            self._credentials = _credentials(block, self._url.user)
        self._follow = bool(block["follow_redirects"])
        self._environ = environ
        self._tls = _Tls(next(iter(block.blocks.get("tls_config", ())), None))
        if self._url.scheme == "https":
            self._tls.context()
        self._proxy(self._url)
        self._resolver = Resolver()
        self._connection: TimedConnection | None = None
        self._origin = ""
        self._tunnelled = False
        self._aborted = False

    def request(
        self,
        method: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        timeout_s: float | None = None,
        most: int = ANSWER_MAX,
    ) -> Response:
        """Send a request and read the answer, redirects followed; at most ``most`` bytes of it.

        Raises:
            OSError: there was no answer, in time or at all.
            HTTPException: it was no HTTP, or larger.
            OtelautoError: a file that is needed cannot be used, or there is no access token.
        """
        deadline = Deadline(timeout_s)
        url = self._url
        allowed = REDIRECTS_OF_GET if method == "GET" else REDIRECTS_OF_ANY
        for _ in range(REDIRECTS_MAX):
            given = dict(headers)
            if url.origin == self._url.origin:
                given.update(self._credentials())
            response = self._try(url, method, given, body, deadline, most)
            location = response.headers.get("location")
            if not self._follow or response.status not in allowed or not location:
                return response
            url = _Url(urljoin(url.origin + url.target, location))
        raise HTTPException("too many redirects")

    def abort(self) -> None:
        """From another thread: make a request in progress, and each later one, fail now."""
        self._aborted = True
        if (connection := self._connection) is not None:
            connection.abort()
        if self._grants is not None:
            self._grants.abort()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _try(
        self,
        url: _Url,
        method: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: Deadline,
        most: int,
    ) -> Response:
        kept = self._connection is not None and self._origin == url.origin
        try:
            return self._exchange(url, method, headers, body, deadline, most)
        except (HTTPException, OSError) as error:
            self.close()
            # A server may close a kept connection at any time; that says nothing about it.
            if not kept or self._aborted or isinstance(error, TimeoutError):
                raise
        try:
            return self._exchange(url, method, headers, body, deadline, most)
        except (HTTPException, OSError):
            self.close()
            raise

    def _exchange(
        self,
        url: _Url,
        method: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: Deadline,
        most: int,
    ) -> Response:
        if self._aborted:
            raise OSError("stopped")
        connection = self._connect(url, deadline)
        proxy = self._proxy(url)
        target = url.target
        given = dict(headers)
        if proxy is not None and not self._tunnelled:
            target = url.origin + url.target  # RFC 9112, section 3.2.2
            given.update(proxy.headers())
        if method != "GET":
            given["content-length"] = str(len(body))
        connection.request(method, target, headers=given)
        if body:
            connection.send_pieces([body])
        response = connection.getresponse()
        data = response.read(most + 1)
        if response.will_close or len(data) > most:
            self.close()
        if len(data) > most:
            raise TooLargeError(f"an answer of more than {most} bytes")
        if response.length:
            raise IncompleteRead(data, response.length)
        found = {name.lower(): value for name, value in response.headers.items()}
        return Response(response.status, response.reason, found, data)

    def _connect(self, url: _Url, deadline: Deadline) -> TimedConnection:
        changed = self._tls.changed() if url.scheme == "https" else False
        connection = self._connection
        same = self._origin == url.origin and not changed
        if connection is not None and connection.sock is not None and same:
            connection.until(deadline)
            return connection
        self.close()
        proxy = self._proxy(url)
        context = self._tls.context() if url.scheme == "https" else None
        host, port = (proxy.host, proxy.port) if proxy is not None else (url.host, url.port)
        connection = TimedConnection(host, port, context, server_name=self._tls.server_name)
        self._tunnelled = proxy is not None and context is not None
        if proxy is not None and context is not None:
            connection.set_tunnel(url.host, url.port, proxy.headers())
        self._connection, self._origin = connection, url.origin
        connection.open(self._resolver, deadline)
        return connection

    def _proxy(self, url: _Url) -> Proxy | None:
        given = self._block["proxy_url"]
        if given:
            name = f"{url.scheme}_proxy"
            environ = {name: given, "no_proxy": self._block["no_proxy"] or ""}
            try:
                return proxy_for(url.scheme, url.host, url.port, environ, local=True)
            except ConfigError as error:
                raise ConfigError('"proxy_url" does not name an HTTP proxy', error.remedy) from None
        if self._block["proxy_from_environment"]:
            return proxy_for(url.scheme, url.host, url.port, self._environ)
        return None


class Grants:
    """The access tokens of a block's ``oauth2``, for all clients of it. Raises as HttpClient."""

    def __init__(self, block: Decoded, environ: Mapping[str, str]) -> None:
        self._client = HttpClient(block["token_url"], block, environ)
        self._tokens = Tokens(
            token_post(self._client, TIMEOUT_S),
            lambda: (
                block["client_id"],
                given_or_read(block, "client_secret", "client_secret_file"),
            ),
            block["scopes"],
            list((block["endpoint_params"] or {}).items()),
            explained,
        )

    @classmethod
    def of(cls, block: Decoded, environ: Mapping[str, str] = os.environ) -> Grants | None:
        """Those of the block of an endpoint or of a scrape, if it has any."""
        found = block.blocks.get("oauth2")
        return cls(found[0], environ) if found else None

    def headers(self) -> Mapping[str, str]:
        """The credentials of a request; raises :class:`OtelautoError` if there are none now."""
        return _header(self._tokens.header())

    def abort(self) -> None:
        """From another thread: fail now."""
        self._client.abort()


def token_post(client: HttpClient, timeout_s: float) -> Post:
    """A request for a token by ``client``. They are rare: the connection is not kept."""

    def post(headers: Mapping[str, str], body: bytes) -> Response:
        try:
            return client.request("POST", headers, body, timeout_s=timeout_s)
        finally:
            client.close()

    return post


class _Tls:
    """A ``tls_config`` block, or what is without one."""

    def __init__(self, block: Decoded | None) -> None:
        self._block = block
        self.server_name: str = self._text("server_name")
        self._context: ssl.SSLContext | None = None
        self._version: tuple[object, ...] = ()

    def _text(self, name: str) -> str:
        return secret_text(self._block[name]) if self._block is not None else ""

    def changed(self) -> bool:
        """Whether a file was replaced since :meth:`context` read it."""
        return self._files() != self._version

    def context(self) -> ssl.SSLContext:
        """The context, of the files as they are now. Raises :class:`ConfigError`."""
        version = self._files()
        if self._context is None or version != self._version:
            try:
                self._context = self._made()
            except (OSError, ValueError, ssl.SSLError) as error:
                raise ConfigError(
                    f"a certificate or key of tls_config cannot be used: {error}",
                    "they are in PEM form",
                ) from error
            self._version = version
        return self._context

    def _made(self) -> ssl.SSLContext:
        authorities = self._text("ca_pem")
        context = ssl.create_default_context(
            cafile=self._text("ca_file") or None, cadata=authorities or None
        )
        if self._block is None:
            return context
        context.minimum_version = _VERSIONS[self._block["min_version"]]
        certificate, key = self._text("cert_pem"), self._text("key_pem")
        cert_file, key_file = self._text("cert_file"), self._text("key_file")
        with _InMemory(certificate) as of_certificate, _InMemory(key) as of_key:
            chain = of_certificate or cert_file
            if chain:
                context.load_cert_chain(chain, of_key or key_file or None)
        if self._block["insecure_skip_verify"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _files(self) -> tuple[object, ...]:
        found: list[object] = []
        for name in ("ca_file", "cert_file", "key_file"):
            path = self._text(name)
            try:
                status = Path(path).stat() if path else None
            except OSError:
                status = None
            found.append(status and (status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)


class _InMemory:
    """A file of memory with ``text``, for a library that only takes paths; "" without a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._fd = -1

    def __enter__(self) -> str:
        if not self._text:
            return ""
        self._fd = os.memfd_create("pem", os.MFD_CLOEXEC)
        os.write(self._fd, self._text.encode())
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _credentials(block: Decoded, of_url: str) -> Callable[[], Mapping[str, str]]:
    """What gives the ``authorization`` of a request. Raises :class:`ConfigError`."""
    for basic in block.blocks.get("basic_auth", ()):
        return lambda: _basic(
            f"{basic['username'] or ''}:{given_or_read(basic, 'password', 'password_file')}"
        )
    for found in block.blocks.get("authorization", ()):
        kind = found["type"]
        return lambda: _header(f"{kind} {given_or_read(found, 'credentials', 'credentials_file')}")
    if block.given(("bearer_token", "bearer_token_file")):
        return lambda: _header(
            f"Bearer {given_or_read(block, 'bearer_token', 'bearer_token_file')}"
        )
    return lambda: _basic(of_url) if of_url else {}


def given_or_read(block: Decoded, argument: str, file_argument: str) -> str:
    """The text of an argument, or of the file that another one names; raises ConfigError."""
    path = block[file_argument]
    if not path:
        return secret_text(block[argument])
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file_argument} {path}: {error}", "the file holds the secret"
        ) from error


def _basic(pair: str) -> Mapping[str, str]:
    encoded = base64.b64encode(pair.encode("utf-8", "surrogateescape")).decode()
    return _header(f"Basic {encoded}")


def _header(value: str) -> Mapping[str, str]:
    return {"authorization": value}


def explained(error: Exception) -> str:
    """What went wrong, for a log."""
    if isinstance(error, OtelautoError):
        return error.message
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__} {error}".strip()
