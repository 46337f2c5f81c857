# SPDX-License-Identifier: Apache-2.0
"""``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``, as curl and Go programs read them."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from otelauto.errors import ConfigError

DEFAULT_PORT = 80


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. ``url`` may hold a password: never show it."""

    host: str
    port: int
    url: str

    def headers(self) -> dict[str, str]:
        """``proxy-authorization``, if the URL has a user name (RFC 7617)."""
        parts = urlsplit(self.url)
        if parts.username is None:
            return {}
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        encoded = base64.b64encode(pair.encode("utf-8", "surrogateescape")).decode()
        return {"proxy-authorization": f"Basic {encoded}"}

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


def proxy_for(
    scheme: str, host: str, port: int, environ: Mapping[str, str], *, local: bool = False
) -> Proxy | None:
    """The proxy on the way to ``host``, for the URL scheme ``scheme`` (http or https).

    The names in small letters are stronger. What is on this machine needs no proxy, but ``local``.

    Raises:
        ConfigError: the variable does not hold the URL of an HTTP proxy.
    """
    name = f"{scheme}_proxy"
    text = (environ.get(name) or environ.get(name.upper()) or "").strip()
    spared = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not text or (_is_local(host) and not local):
        return None
    if any(_spares(each, host, port) for each in spared.split(",")):
        return None
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        proxy = Proxy(parts.hostname or "", parts.port or DEFAULT_PORT, url)
    except ValueError:
        proxy = None
    odd = any(ord(char) <= ord(" ") for char in text)
    if proxy is None or odd or not proxy.host or parts.scheme != "http":
        raise ConfigError(
            f"{name.upper()} does not name an HTTP proxy",
            f"write it as http://proxy.example:3128, or put {host} into NO_PROXY",
        )
    return proxy


def _is_local(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host.lower() == "localhost"


def _spares(entry: str, host: str, port: int) -> bool:
    """Whether an entry of ``NO_PROXY`` names ``host``: ``*``, a domain, an address, a network."""
    entry = entry.strip().lower()
    if entry == "*":
        return True
    address = _address(host)
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, _, suffix = entry.rpartition(":")
    if name and suffix.isdecimal() and (":" not in name or name.endswith("]")):
        if int(suffix) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if address is not None:
        return address == _address(entry)
    domain = entry.removeprefix("*").removeprefix(".")
    return bool(domain) and f".{host.lower()}".endswith(f".{domain}")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
