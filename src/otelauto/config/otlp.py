# SPDX-License-Identifier: Apache-2.0
"""OTLP endpoints, headers and attributes as users write them.

Rules: https://opentelemetry.io/docs/specs/otel/protocol/exporter/ for the ``OTEL_*`` variables; the
2023 instrumenter's for YAML. Both types hide what is secret in them whenever they are shown.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from otelauto.config.kinds import STRING, Kind, Pairs, choice

T = TypeVar("T")

MASK = "****"
SCHEME_REMEDY = "Write scheme, host and port, for example http://localhost:4318."
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_HOST_AND_PORT = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", re.ASCII)
_CREDENTIAL_NAME = re.compile(r"auth|key|token|secret|passw|cookie|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """The URL that a signal is posted to, exactly as given or completed; may hold a password."""

    full_url: str

    @property
    def url(self) -> str:
        """The URL without user name and password."""
        parts = urlsplit(self.full_url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    @property
    def host(self) -> str:
        return urlsplit(self.full_url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.full_url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def has_scheme(self) -> bool:
        """False for ``host:port``, which gRPC allows."""
        return bool(urlsplit(self.full_url).scheme)

    @property
    def path(self) -> str:
        return urlsplit(self.full_url).path

    def for_grpc(self, default_scheme: str) -> Endpoint:
        """Without path and query, which a call has no use for, and with a scheme."""
        parts = urlsplit(self.full_url)
        return Endpoint(f"{parts.scheme or default_scheme}://{parts.netloc}")

    @property
    def encrypted(self) -> bool:
        return urlsplit(self.full_url).scheme == "https"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User name and password of the URL, decoded, or ``None``."""
        parts = urlsplit(self.full_url)
        if parts.username is None:
            return None
        return unquote(parts.username), unquote(parts.password or "")

    def is_loopback(self) -> bool:
        """True if what is sent there never leaves this machine."""
        if self.host.lower() == "localhost" or self.host.lower().endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return mask_url(self.full_url)

    def __repr__(self) -> str:
        return f"Endpoint({str(self)!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Headers(Mapping[str, str]):
    """Headers of each export request: lower-case name -> value. Values are never shown.

    ``reread`` gives them anew, where they refer to files; ``None`` if it never could.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    reread: Callable[[], Headers | None] | None = field(default=None, compare=False)

    def current(self) -> Headers:
        """These headers as the files that they refer to say now, or last said."""
        again = self.reread() if self.reread is not None else None
        return again if again is not None else self

    def __getitem__(self, name: str) -> str:
        return dict(self.pairs)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.pairs))

    def __len__(self) -> int:
        return len(dict(self.pairs))

    def masked(self) -> dict[str, str]:
        """The names with masked values."""
        return dict.fromkeys(self, MASK)

    def credential_names(self) -> list[str]:
        """Names of the headers that, by their name, carry a secret."""
        return [name for name in self if _CREDENTIAL_NAME.search(name)]

    def __repr__(self) -> str:
        return f"Headers({self.masked()!r})"


class Secret(str):
    """A text that is not shown where the settings are.

    ``reread`` gives it anew, where it refers to a file; ``None`` if it never could.
    """

    __slots__ = ("reread",)

    reread: Callable[[], Secret | None] | None

    def __new__(cls, text: str = "", reread: Callable[[], Secret | None] | None = None) -> Secret:
        made = super().__new__(cls, text)
        made.reread = reread
        return made

    def current(self) -> Secret:
        """This text as the file that it refers to says now, or last said."""
        again = self.reread() if self.reread is not None else None
        return again if again is not None else self

    def __repr__(self) -> str:
        return f"'{MASK}'"


class LastGood(Generic[T]):
    """Reads a setting anew at each call; while that fails, what was read last counts."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._last: T | None = None

    def __call__(self) -> T | None:
        try:
            self._last = self._read()
        except ValueError:
            return self._last
        return self._last


def basic_authorization(user: str, password: str) -> str:
    """The value of an ``authorization`` header for ``user`` (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def mask_url(text: str) -> str:
    """``text`` with the password and the query values of a URL replaced by asterisks.

    Works on text that is no valid URL too: what could be a password is then hidden whole.
    """
    head, at, rest = text.rpartition("@")
    if at:
        scheme, separator, user = head.rpartition("://")
        name, colon, _ = user.partition(":") if separator else ("", "", "")
        text = f"{scheme}{separator}{name if colon else ''}{colon}{MASK}@{rest}"
    return re.sub(r"([?&][^=&#]*=)[^&#]+", rf"\g<1>{MASK}", text)


def _split_url(text: str) -> SplitResult:
    remedy = SCHEME_REMEDY
    if any(ord(char) <= 32 or ord(char) == 127 for char in text):
        raise ValueError("Remove the blanks and control characters from the URL.")
    if bare := _HOST_AND_PORT.fullmatch(text):
        text = f"//{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(remedy) from None
    if bare and parts.hostname and port:
        return parts
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError(remedy)
    if parts.fragment:
        raise ValueError("Remove the fragment (#...) from the URL.")
    return parts


def _as_given(text: str) -> Endpoint:
    parts = _split_url(text.strip())
    return Endpoint(urlunsplit(parts._replace(path=parts.path or "/")))


def _yaml_base(text: str, signal: str) -> Endpoint:
    parts = _split_url(text.strip())
    path = parts.path.rstrip("/")
    if not path.endswith(f"/v1/{signal}"):
        path = f"{path}/v1/{signal}"
    return Endpoint(urlunsplit(parts._replace(path=path)))


def _generic_base(text: str, signal: str) -> Endpoint:
    parts = _split_url(text.strip())
    path = parts.path if parts.path.endswith("/") else parts.path + "/"
    return Endpoint(urlunsplit(parts._replace(path=f"{path}v1/{signal}")))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError('Write "name=value" pairs, separated by commas.')
    return unquote(name.strip()), unquote(value.strip())


def _read_headers(pairs: Pairs) -> Headers:
    for name, value in pairs:
        if not _TOKEN.fullmatch(name):
            raise ValueError("A header name has only letters, digits and - _ . and the like.")
        if any(ord(char) < 32 and char != "\t" for char in value) or "\x7f" in value:
            raise ValueError("Remove the line breaks and control characters from the header value.")
        if any(ord(char) > 255 for char in value):
            raise ValueError("A header value has only characters of Latin-1.")
    return Headers(tuple((name.lower(), value.strip()) for name, value in pairs))


def _read_attributes(pairs: Pairs) -> dict[str, str]:
    if any(not name for name, _ in pairs):
        raise ValueError("An attribute needs a name before the equals sign.")
    return dict(pairs)


def _split_pairs(text: str) -> list[tuple[str, str]]:
    return [_pair(item) for item in text.split(",") if item.strip()]


def endpoint_base(signal: str) -> Kind[Endpoint | None]:
    """The 2023 meaning: a base URL; ``/v1/<signal>`` is appended unless it is there."""
    return _endpoint_kind(lambda text: _yaml_base(text, signal))


def endpoint_generic(signal: str) -> Kind[Endpoint | None]:
    """``OTEL_EXPORTER_OTLP_ENDPOINT``: ``v1/<signal>`` is always appended."""
    return _endpoint_kind(lambda text: _generic_base(text, signal))


def _endpoint_kind(read: Any) -> Kind[Endpoint | None]:
    return Kind("URL", "an http or https URL", "http://localhost:4318", read, show=str, secret=True)


ENDPOINT_AS_GIVEN = _endpoint_kind(_as_given)
HEADERS: Kind[Headers] = Kind(
    "headers",
    "name=value pairs, or a mapping",
    "authorization=Basic%20...",
    lambda text: _read_headers(_split_pairs(text)),
    from_pairs=_read_headers,
    show=Headers.masked,
    secret=True,
)
ATTRIBUTES: Kind[dict[str, str]] = Kind(
    "attributes",
    "name=value pairs, or a mapping",
    "deployment.environment.name=test",
    lambda text: _read_attributes(_split_pairs(text)),
    from_pairs=_read_attributes,
)
SECRET: Kind[Secret] = Kind(
    "secret",
    "one line of text",
    "${credential:api-key}",
    lambda text: Secret(STRING.read(text).strip()),
    show=lambda _: MASK,
    secret=True,
)
PROTOCOL = choice("grpc", "http/json", "http/protobuf")


def resource_attribute(name: str) -> Kind[str]:
    """One attribute of ``OTEL_RESOURCE_ATTRIBUTES``; empty when it is not among them."""
    return Kind(
        ATTRIBUTES.name,
        ATTRIBUTES.allowed,
        ATTRIBUTES.example,
        lambda text: ATTRIBUTES.read(text).get(name, ""),
    )
