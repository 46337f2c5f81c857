# SPDX-License-Identifier: Apache-2.0
"""How the API server is reached, and who asks: the pod's own service account, or a kubeconfig file.

Sources: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/ and
https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from otelauto.errors import ConfigError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REMEDY = "see attributes.kubernetes.kubeconfig_path in docs/config.md"


@dataclass(frozen=True, slots=True)
class Access:
    """An API server and credentials for it. Files are read anew for each connection or request:
    the kubelet replaces the token every hour.

    ``authority``, ``certificate`` and ``key`` are paths of PEM files or PEM bytes; empty: the
    system's authorities, no client certificate.
    """

    host: str
    port: int
    encrypted: bool = True
    prefix: str = ""  # of paths
    authority: str | bytes = ""
    certificate: str | bytes = ""
    key: str | bytes = ""
    token: str = ""
    token_file: str = ""
    server_name: str = ""
    verify: bool = True

    def context(self) -> ssl.SSLContext | None:
        """TLS from the files as they are now; ``None``: plain HTTP (a proxy beside us).

        Raises:
            OSError: a file cannot be read, or (``ssl.SSLError``) holds nothing of use.
        """
        if not self.encrypted:
            return None
        inline = (
            self.authority.decode("ascii", "replace") if isinstance(self.authority, bytes) else None
        )
        path = self.authority if isinstance(self.authority, str) else None
        context = ssl.create_default_context(cafile=path or None, cadata=inline or None)
        if self.certificate:
            with _File(self.certificate) as certificate, _File(self.key or self.certificate) as key:
                context.load_cert_chain(certificate, key)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def authorization(self) -> str:
        """The value of the ``authorization`` header; empty without a token.

        Raises:
            OSError: the file of the token cannot be read.
        """
        token = self.token
        if self.token_file:
            token = Path(self.token_file).read_text(encoding="utf-8").strip()
        return f"Bearer {token}" if token else ""


class _File:
    """PEM bytes as a file of memory only, for a library that takes nothing but paths."""

    def __init__(self, pem: str | bytes) -> None:
        self._pem = pem
        self._descriptor = -1

    def __enter__(self) -> str:
        if isinstance(self._pem, str):
            return self._pem
        self._descriptor = os.memfd_create("pem")
        with open(self._descriptor, "wb", closefd=False) as file:
            file.write(self._pem)
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def in_cluster(
    environ: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT
) -> Access | None:
    """What a pod is given; ``None`` outside of one, or in one without a service account's token."""
    host, port = (
        environ.get("KUBERNETES_SERVICE_HOST"),
        environ.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    token = directory / "token"
    if not host or not port.isdecimal() or not token.exists():
        return None
    return Access(host, int(port), authority=str(directory / "ca.crt"), token_file=str(token))


def from_kubeconfig(path: str) -> Access:
    """The current context of a kubeconfig file.

    Raises:
        ConfigError: it cannot be read, or asks for what is not spoken here (``exec`` plugins).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        document = yaml.safe_load(text)
        context = _named(document, "contexts", "context", document["current-context"])
        cluster = _named(document, "clusters", "cluster", context["cluster"])
        user = _named(document, "users", "user", context["user"]) if context.get("user") else {}
        return _access(cluster, user, Path(path).parent)
    except OSError as error:
        raise ConfigError(
            f"the kubeconfig {path} cannot be read: {error.strerror}.", _REMEDY
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        kind = "is no YAML" if isinstance(error, yaml.YAMLError) else f"makes no sense: {error}"
        raise ConfigError(f"the kubeconfig {path} {kind}.", _REMEDY) from error


def _named(document: Any, many: str, one: str, name: str) -> dict[str, Any]:
    for entry in document.get(many) or ():
        if entry["name"] == name:
            found: dict[str, Any] = entry[one]
            return found
    raise ValueError(f"it has no {one} {name!r}")


def _access(cluster: dict[str, Any], user: dict[str, Any], directory: Path) -> Access:
    for unknown in ("exec", "auth-provider", "username"):
        if unknown in user:
            raise ValueError(
                f"users with {unknown!r} are not supported, use a token or a certificate"
            )
    parts = urlsplit(str(cluster["server"]))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{cluster['server']!r} is no URL")

    def given(holder: dict[str, Any], name: str) -> str | bytes:
        if data := holder.get(f"{name}-data"):
            try:
                return base64.b64decode(data, validate=True)
            except binascii.Error:
                raise ValueError(f"{name}-data is no base64") from None
        return str(directory / holder[name]) if holder.get(name) else ""

    token_file = user.get("tokenFile")
    encrypted = parts.scheme == "https"
    return Access(
        host=parts.hostname,
        port=parts.port or (443 if encrypted else 80),
        encrypted=encrypted,
        prefix=parts.path.rstrip("/"),
        authority=given(cluster, "certificate-authority"),
        certificate=given(user, "client-certificate"),
        key=given(user, "client-key"),
        token=str(user.get("token") or ""),
        token_file=str(directory / token_file) if token_file else "",
        server_name=str(cluster.get("tls-server-name") or ""),
        verify=not cluster.get("insecure-skip-tls-verify"),
    )
