# SPDX-License-Identifier: Apache-2.0
"""The web configuration file of Prometheus's exporters: TLS, client certificates, basic auth.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md

Paths in it are relative to the file. The file, and those that it names, are read again when they
change; while they cannot be used, nobody is served.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from otelauto.errors import ConfigError

MAX_SIZE: Final = 1 << 20
MAX_CACHED: Final = 64  # right passwords; to check one costs tens of milliseconds on purpose
CLIENT_AUTH: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
HEADERS: Final = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)
# Cost, a salt of 128 bits (which is why its last digit is one of four), the hash.
_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_MOST_ROUNDS: Final = 16  # four seconds a check here; more would be an outage
_KEYS: Final = {
    "": ("tls_server_config", "http_server_config", "basic_auth_users"),
    "tls_server_config": (
        "cert_file", "key_file", "client_auth_type", "client_ca_file", "client_allowed_sans",
        "min_version", "max_version",
    ),
    "http_server_config": ("http2", "headers"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Content:
    """The file, read and checked."""

    context: ssl.SSLContext | None = None
    allowed_names: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, bytes] = field(default_factory=dict)


Version = tuple[tuple[str, int, int, int], ...]


class WebConfig:
    """The file at ``path``; without one everybody is served in clear text. Used by many threads.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, path: str = "") -> None:
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._content = _Content()
        self._version: Version | None = None
        self._right: dict[bytes, None] = {}
        self._check: Callable[[bytes, bytes], bool] | None = None
        self.refresh()

    @property
    def encrypted(self) -> bool:
        """Whether it is TLS that is spoken."""
        return self._content.context is not None

    @property
    def headers(self) -> Mapping[str, str]:
        """Fields of every response."""
        return self._content.headers

    def refresh(self) -> None:
        """Read the file again if it changed, or one that it names.

        Raises:
            ConfigError: it cannot be used.
        """
        if self._path is None:
            return
        with self._lock:
            if self._version is not None and _version(self._version) == self._version:
                return
            self._version = None
            files = [str(self._path)]
            content = _read(self._path, files)
            if content.users and self._check is None:
                self._check = _bcrypt()
            self._content = content
            self._right = {}
            self._version = _version([(name,) for name in files])

    def secure(self, connection: socket.socket, timeout_s: float) -> socket.socket:
        """The connection to speak on: with TLS if that is configured.

        Raises:
            ConfigError: the file cannot be used.
            OSError: the peer does not speak TLS, or has not the certificate that is wanted.
        """
        self.refresh()
        content = self._content
        if content.context is None:
            return connection
        connection.settimeout(timeout_s)
        secured = content.context.wrap_socket(connection, server_side=True)
        if content.allowed_names and not content.allowed_names & _names(secured):
            secured.close()
            raise ssl.SSLCertVerificationError("the client's certificate has no allowed name")
        return secured

    def admits(self, authorization: str | None) -> bool:
        """Whether an ``Authorization`` header is that of a user, or none is needed."""
        users = self._content.users
        if not users or self._check is None:
            return True
        scheme, _, text = (authorization or "").partition(" ")
        try:
            given = base64.b64decode(text.strip().encode(), validate=True)
        except (binascii.Error, ValueError):
            return False
        user, colon, password = given.partition(b":")
        if scheme.lower() != "basic" or not colon:
            return False
        known = users.get(user.decode("utf-8", "replace"))
        wanted = known or next(iter(users.values()))  # it takes as long for an unknown user
        digest = hashlib.sha256(wanted + b"\0" + given).digest()
        with self._lock:
            if known is not None and any(hmac.compare_digest(digest, each) for each in self._right):
                return True
        if b"\0" in password or not self._check(password[:72], wanted) or known is None:
            return False
        with self._lock:
            if len(self._right) >= MAX_CACHED:
                self._right.clear()
            self._right[digest] = None
        return True


def _bcrypt() -> Callable[[bytes, bytes], bool]:
    try:  # here: nobody else needs it
        from bcrypt import checkpw  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"basic authentication needs the Python package bcrypt, which does not load: {error}.",
            "Install it, or remove basic_auth_users.",
        ) from error
    return checkpw


def _version(files: Any) -> Version:
    """Differs from an earlier value when one of the files (first items) was replaced."""
    found = []
    for name, *_ in files:
        try:
            status = Path(name).stat()
        except OSError:
            found.append((name, 0, 0, 0))
        else:
            found.append((name, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _names(connection: ssl.SSLSocket) -> set[str]:
    certificate: Any = connection.getpeercert() or {}
    return {value for _, value in certificate.get("subjectAltName", ())}


class _Reader:
    """Reads one file; ``files`` grows by those that it names."""

    def __init__(self, path: Path, files: list[str]) -> None:
        self._path = path
        self._files = files

    def wrong(self, sentence: str, remedy: str) -> ConfigError:
        return ConfigError(f"{self._path}: {sentence}", remedy)

    def load(self) -> dict[str, Any]:
        try:
            with self._path.open("rb") as file:
                text = file.read(MAX_SIZE + 1)
            if len(text) > MAX_SIZE:
                raise self.wrong("the file is too long.", "Give a web configuration file.")
            loaded = yaml.safe_load(text)
        except OSError as error:
            raise self.wrong(
                f"the file cannot be read: {error.strerror}.",
                "Check prometheus_export.web_config_file.",
            ) from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" (line {where.line + 1})" if where is not None else ""
            raise self.wrong(f"this is no YAML{line}.", "Mend it.") from error
        return self.mapping(loaded, "")

    def mapping(self, value: object, section: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            what = f'"{section}"' if section else "the file"
            raise self.wrong(f"{what} must have keys and values.", "Mend it.")
        for key in value:
            if section in _KEYS and key not in _KEYS[section]:
                known = ", ".join(_KEYS[section])
                raise self.wrong(f'"{key}" is not supported.', f"Remove it; known are {known}.")
        return value

    def file(self, value: object, key: str) -> str:
        if value is None or value == "":
            return ""
        if not isinstance(value, str) or "\0" in value:
            raise self.wrong(f'"{key}" must be the path of a file.', "Mend it.")
        name = str(self._path.parent / value)
        self._files.append(name)
        return name

    def word(self, value: object, key: str, known: Mapping[str, Any], default: str) -> Any:
        chosen = default if value is None or value == "" else value
        if not isinstance(chosen, str) or chosen not in known:
            raise self.wrong(
                f'"{key}" cannot be "{chosen}" here.', f"Give one of {', '.join(known)}."
            )
        return known[chosen]


def _read(path: Path, files: list[str]) -> _Content:
    reader = _Reader(path, files)
    content = reader.load()
    tls = reader.mapping(content.get("tls_server_config"), "tls_server_config")
    http = reader.mapping(content.get("http_server_config"), "http_server_config")
    headers = reader.mapping(http.get("headers"), "headers")
    for name, value in headers.items():
        printable = isinstance(value, str) and value.isprintable() and value.isascii()
        if name not in HEADERS or not printable:
            raise reader.wrong(
                f'the header "{name}" cannot be set so.', f"Known are {', '.join(HEADERS)}."
            )
    return _Content(
        _context(reader, tls),
        _allowed_names(reader, tls),
        headers,
        _users(reader, content.get("basic_auth_users")),
    )


def _context(reader: _Reader, tls: dict[str, Any]) -> ssl.SSLContext | None:
    certificate = reader.file(tls.get("cert_file"), "cert_file")
    key = reader.file(tls.get("key_file"), "key_file")
    authorities = reader.file(tls.get("client_ca_file"), "client_ca_file")
    verify = reader.word(
        tls.get("client_auth_type"), "client_auth_type", CLIENT_AUTH, "NoClientCert"
    )
    if not tls:
        return None
    if not certificate or not key:
        raise reader.wrong("TLS needs cert_file and key_file.", "Give both.")
    if (verify is not ssl.CERT_NONE) != bool(authorities):
        raise reader.wrong(
            "client_auth_type and client_ca_file need each other.", "Give both or neither."
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = reader.word(tls.get("min_version"), "min_version", VERSIONS, "TLS12")
    context.maximum_version = reader.word(tls.get("max_version"), "max_version", VERSIONS, "TLS13")
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
        if authorities:
            context.load_verify_locations(authorities)
    except (OSError, ValueError) as error:
        raise reader.wrong(
            f"a certificate or key cannot be used: {error}.", "Give PEM files, without a password."
        ) from error
    context.verify_mode = verify
    context.set_alpn_protocols(["http/1.1"])
    return context


def _allowed_names(reader: _Reader, tls: dict[str, Any]) -> frozenset[str]:
    names = tls.get("client_allowed_sans") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise reader.wrong("client_allowed_sans must be a list of names.", "Mend it.")
    if names and tls.get("client_auth_type") != "RequireAndVerifyClientCert":
        raise reader.wrong(
            "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert.", "Give it too."
        )
    return frozenset(names)


def _users(reader: _Reader, value: object) -> dict[str, bytes]:
    users = {}
    for name, text in reader.mapping(value, "basic_auth_users").items():
        match = _BCRYPT.fullmatch(text) if isinstance(text, str) else None
        if match is None or not 4 <= int(match[1]) <= _MOST_ROUNDS:
            raise reader.wrong(
                f'the password of the user "{name}" is no bcrypt hash of cost 4 to {_MOST_ROUNDS}.',
                "Make one with `htpasswd -nBC 10 USER`.",
            )
        users[name] = text.encode()
    return users
