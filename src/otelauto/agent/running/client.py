# SPDX-License-Identifier: Apache-2.0
"""What clients of the otelcol.* components share: TLS, proxy, headers, the endpoint's parts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from otelauto.agent.river.values import Secret, Value
from otelauto.agent.schema import Decoded
from otelauto.errors import ConfigError
from otelauto.export.proxy import Proxy, proxy_for
from otelauto.export.tls import Tls

VERSIONS: Final = {
    "TLS 1.0": ssl.TLSVersion.TLSv1,
    "TLS 1.1": ssl.TLSVersion.TLSv1_1,
    "TLS 1.2": ssl.TLSVersion.TLSv1_2,
    "TLS 1.3": ssl.TLSVersion.TLSv1_3,
}
_UNSUPPORTED: Final = ("cipher_suites", "curve_preferences", "include_system_ca_certs_pool")


Headers = Callable[[], Mapping[str, str]]


class Pem:
    """A text as a file that only this process has (memfd_create(2)): TLS libraries want paths."""

    def __init__(self, text: str) -> None:
        self._fd = os.memfd_create("otelauto-pem", os.MFD_CLOEXEC)
        os.write(self._fd, text.encode("utf-8", "surrogateescape"))
        self.path = f"/proc/self/fd/{self._fd}"

    def __del__(self) -> None:
        os.close(self._fd)


class ClientTls(NamedTuple):
    """TLS settings, and the files that they are in while this is kept."""

    tls: Tls
    pems: tuple[Pem, ...]


def client_tls(block: Decoded) -> ClientTls:
    """The settings of a block ``tls``; an empty one means the system's authorities, or those of
    SSL_CERT_FILE.

    Raises :class:`ConfigError` for what is not supported, or cannot be used.
    """
    check_tls(block)
    pems: list[Pem] = []

    def path(file: str, pem: str) -> str:
        text = plain_text(block[pem])
        if not text:
            return block[file] or ""
        pems.append(Pem(text))
        return pems[-1].path

    low, high = VERSIONS[block["min_version"]], VERSIONS[block["max_version"]]
    tls = Tls(
        path("ca_file", "ca_pem"),
        path("cert_file", "cert_pem"),
        path("key_file", "key_pem"),
        bool(block["insecure_skip_verify"]),
        server_name=block["server_name"] or "",
        versions=(low, high),
    )
    try:
        tls.context()
    except (ConfigError, ValueError) as error:
        why = error.message.rpartition(": ")[2] if isinstance(error, ConfigError) else error
        raise ConfigError(
            f"a certificate or key of tls cannot be used: {why}", "Give PEM files."
        ) from error
    return ClientTls(tls, tuple(pems))


def check_tls(block: Decoded) -> None:
    """Raises :class:`ConfigError` for what no client of this agent can do."""
    for name in _UNSUPPORTED:
        if block[name]:
            raise ConfigError(f'"{name}" of tls is not supported', "Leave it out.")


def plain_text(value: Value) -> str:
    """The text of a secret or a string; null is empty."""
    return value.text if isinstance(value, Secret) else str(value or "")


def request_headers(client: Decoded, known: bool = False) -> Headers:
    """The headers of a block ``client`` and those of its ``auth``, which may change; ``known``:
    only those that are known without asking anybody.
    """
    given = {name.lower(): plain_text(value) for name, value in (client["headers"] or {}).items()}
    auth = client["auth"]
    if auth is None:
        return lambda: given
    return lambda: {**given, **auth.inner.headers(known)}


def way(scheme: str, host: str, port: int, proxy_url: str = "") -> Proxy | None:
    """The proxy on the way: ``proxy_url``, else what the environment names."""
    name = f"{scheme}_proxy"
    return proxy_for(scheme, host, port, {name: proxy_url} if proxy_url else os.environ)


def grpc_endpoint(text: str) -> tuple[str, str, int]:
    """Scheme (empty, if not given), host and port of ``host:port`` or ``https://host:port``.

    Raises :class:`ConfigError` if it is something else.
    """
    scheme, _, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or scheme not in ("", "http", "https") or parts.username or parts.path.strip("/"):
        raise ConfigError(
            "the endpoint is not the address of a gRPC server"
            + ("" if text else ": it is empty, as of a variable that is not set"),
            "Write it as host:4317.",
        )
    return scheme, host, port or 443
