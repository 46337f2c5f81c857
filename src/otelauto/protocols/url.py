# SPDX-License-Identifier: Apache-2.0
"""Request targets (RFC 9112, section 3.2) and authorities (RFC 3986, section 3.2) as captured."""

from __future__ import annotations

from dataclasses import dataclass

# Query parameters whose values are signatures; semantic conventions have them redacted.
_SIGNED = ("awsaccesskeyid", "signature", "sig", "x-goog-signature")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PORT_DIGITS_MAX = 5


@dataclass(frozen=True, slots=True)
class Target:
    """A request target taken apart. ``path`` is ``None`` in authority form (CONNECT)."""

    path: str | None
    query: str = ""
    scheme: str = "http"
    authority: str = ""
    credentials: bool = False  # the authority came with a user or a password


def text(captured: bytes) -> str:
    """Captured bytes as text; what is not UTF-8 is replaced."""
    return captured.decode("utf-8", "replace")


def split_target(target: bytes, connect: bool) -> Target:
    """Take a request target apart; a fragment, which does not belong there, is cut off."""
    if connect:
        return Target(None, authority=text(target))
    whole = text(target)
    if whole.startswith("/") or "://" not in whole:
        path, _, query = whole.partition("#")[0].partition("?")
        return Target(path, query)
    scheme, _, rest = whole.partition("://")
    rest = rest.partition("#")[0]
    slash, mark = rest.find("/"), rest.find("?")
    cut = min((at for at in (slash, mark) if at >= 0), default=len(rest))
    authority, rest = rest[:cut], rest[cut:]
    path, _, query = rest.partition("?")
    user, at, host = authority.rpartition("@")
    return Target(path or "/", query, scheme.lower(), host, bool(at and user))


def split_authority(authority: str, scheme: str) -> tuple[str, int]:
    """(host, port) of ``host[:port]``; the scheme's port, or 0, where none is written."""
    default = _DEFAULT_PORTS.get(scheme, 0)
    host, colon, digits = authority.rpartition(":")
    if not colon or (host.startswith("[") and not host.endswith("]")):
        return authority.strip("[]"), default
    if not digits:
        return host.strip("[]"), default
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _PORT_DIGITS_MAX):
        return authority, default
    return host.strip("[]"), int(digits)


def redact_query(query: str) -> str:
    """The query with the values of signatures replaced by ``REDACTED``."""
    lower = query.lower()
    if not any(name in lower for name in _SIGNED):
        return query
    pairs = (pair.partition("=") for pair in query.split("&"))
    return "&".join(
        f"{name}=REDACTED" if equals and name.lower() in _SIGNED else f"{name}{equals}{value}"
        for name, equals, value in pairs
    )
