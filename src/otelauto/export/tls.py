# SPDX-License-Identifier: Apache-2.0
"""TLS of the OTLP exporters, from files that may be replaced while otelauto runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from otelauto.errors import ConfigError

NOT_TRUSTED = "the server's certificate is not trusted"
Version = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings; empty paths mean the system's authorities and no client certificate.

    ``server_name`` is whose certificate is expected, empty: the host's. ``versions`` are the lowest
    and the highest that are spoken (over HTTP; gRPC speaks 1.2 and 1.3).
    """

    certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""
    insecure_skip_verify: bool = False
    server_name: str = ""
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion] | None = None

    def context(self) -> ssl.SSLContext:
        """The context for these settings, from the files as they are now.

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
        if self.versions is not None:
            context.minimum_version, context.maximum_version = self.versions
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def authorities(self) -> bytes | None:
        """PEM certificates that a server's is checked with; ``None``: this machine has none.

        Raises:
            OSError: ``certificate`` cannot be read.
        """
        if self.certificate:
            return Path(self.certificate).read_bytes()
        paths = ssl.get_default_verify_paths()
        if paths.cafile:
            return Path(paths.cafile).read_bytes()
        hashed = sorted(Path(paths.capath).glob("*.[0-9]")) if paths.capath else []
        return b"\n".join(path.read_bytes() for path in hashed) or None

    def identity(self) -> tuple[bytes | None, bytes | None]:
        """PEM key and certificate chain of the client.

        Raises:
            OSError: a file cannot be read.
        """
        if not self.client_certificate:
            return None, None
        key = self.client_key or self.client_certificate
        return Path(key).read_bytes(), Path(self.client_certificate).read_bytes()

    def version(self) -> Version:
        """Differs from an earlier value when a file was replaced or written to since."""
        return tuple(
            _version(path) for path in (self.certificate, self.client_certificate, self.client_key)
        )


def _version(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).stat() if path else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status else None


def alert(reason: str) -> str:
    """What an alert of the server means (RFC 8446, section 6.2), by OpenSSL's name of it."""
    words = reason.partition("ALERT_")[2].replace("_", " ").lower()
    if words == "certificate required":
        return "the server wants the client's certificate, and none is configured"
    if words == "unknown ca" or "certificate" in words:
        return f"the server does not accept the client's certificate: {words}"
    return f"the server has broken TLS off: {words}"
