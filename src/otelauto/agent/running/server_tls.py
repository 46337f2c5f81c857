# SPDX-License-Identifier: Apache-2.0
"""The ``tls`` block of a server: certificates from files or texts, read again if it says so."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path

import grpc

from otelauto.agent.river.values import Secret
from otelauto.agent.running.outputs import only, seconds
from otelauto.agent.schema import Decoded
from otelauto.errors import ConfigError

VERSIONS = {
    "TLS 1.0": ssl.TLSVersion.TLSv1,
    "TLS 1.1": ssl.TLSVersion.TLSv1_1,
    "TLS 1.2": ssl.TLSVersion.TLSv1_2,
    "TLS 1.3": ssl.TLSVersion.TLSv1_3,
}
_UNSUPPORTED = ("cipher_suites", "curve_preferences")


class ServerTls:
    """Certificate and key of a server, and those whose clients it serves (``client_ca_file``).

    Raises:
        ConfigError: they cannot be used.
    """

    def __init__(self, block: Decoded) -> None:
        self._block = block
        unsupported = [name for name in _UNSUPPORTED if block[name]]
        if unsupported:
            raise ConfigError(f"tls: {', '.join(unsupported)} cannot be set here.", "Remove it.")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = VERSIONS[block["min_version"]]
        self._context.maximum_version = VERSIONS[block["max_version"]]
        self._context.set_alpn_protocols(["http/1.1"])
        self._load(self._context)
        if self._authorities():
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._watcher: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, block: Decoded | None) -> ServerTls | None:
        """That of a server's block, if it has one."""
        tls = only(block, "tls") if block is not None else None
        return cls(tls) if tls is not None else None

    def context(self) -> ssl.SSLContext:
        """For connections from now on; ``watch`` keeps its certificate fresh."""
        return self._context

    def check_for_grpc(self) -> None:
        """Raises :class:`ConfigError` for what gRPC's library cannot do."""
        if (self._block["min_version"], self._block["max_version"]) != ("TLS 1.2", "TLS 1.3"):
            raise ConfigError(
                "tls: a gRPC server speaks TLS 1.2 and 1.3; min_version and max_version cannot be"
                " set.",
                "Remove them.",
            )

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC, which asks for each connection: the files are as they are then."""
        configuration = self._configuration()

        def fetch() -> grpc.ServerCertificateConfiguration:
            try:
                return self._configuration()
            except OSError:
                return configuration  # it goes on with what it began with

        if not self._block["reload_interval"]:
            return grpc.ssl_server_credentials(
                [(self._text("key"), self._text("cert"))],
                self._authorities(),
                require_client_auth=self._authorities() is not None,
            )
        return grpc.dynamic_ssl_server_credentials(
            configuration, fetch, require_client_authentication=self._authorities() is not None
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._text("key"), self._text("cert"))
        return grpc.ssl_server_certificate_configuration([pair], self._authorities())

    def watch(self, log: logging.Logger) -> None:
        """Read the files again at each ``reload_interval``, if there is one. Called in a loop."""
        interval = seconds(self._block["reload_interval"])
        if interval > 0:
            self._watcher = asyncio.get_running_loop().create_task(self._reload(interval, log))

    def stop(self) -> None:
        """End the watch."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _reload(self, interval_s: float, log: logging.Logger) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                self._load(self._context)
            except ConfigError as error:
                log.warning("the certificate stays as it is: %s", error.message)

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            with _as_file(self._text("cert")) as cert, _as_file(self._text("key")) as key:
                context.load_cert_chain(cert.path, key.path, password=lambda: b"")
            authorities = self._authorities()
            if authorities:
                context.load_verify_locations(cadata=authorities.decode())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"tls: a certificate or key cannot be used: {error}.",
                "Give cert_file and key_file (or cert_pem and key_pem), PEM without a password.",
            ) from error

    def _text(self, what: str) -> bytes:
        """PEM of ``cert`` or ``key``; raises :class:`OSError`."""
        path, text = self._block[f"{what}_file"], self._block[f"{what}_pem"]
        if path:
            return Path(path).read_bytes()
        return (text.text if isinstance(text, Secret) else text or "").encode()

    def _authorities(self) -> bytes | None:
        path = self._block["client_ca_file"]
        return Path(path).read_bytes() if path else None


class _as_file:  # noqa: N801 - a context manager
    """Text that can be opened by a path and is on no disk."""

    def __init__(self, text: bytes) -> None:
        self._descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
        os.write(self._descriptor, text)
        self.path = f"/proc/self/fd/{self._descriptor}"

    def __enter__(self) -> _as_file:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
