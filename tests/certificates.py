# SPDX-License-Identifier: Apache-2.0
"""Certificates that tests make for themselves, with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(directory: Path, name: str) -> tuple[str, str]:
    """A certificate for localhost, which is its own authority, and its key: two PEM files."""
    cert, key = str(directory / f"{name}.pem"), str(directory / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def expired(directory: Path) -> tuple[str, str]:
    """A certificate for localhost of yesterday, its own authority, and its key."""
    cert, key, request = (str(directory / f"expired.{end}") for end in ("pem", "key", "csr"))
    new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", request]
    sign = f"openssl x509 -req -copy_extensions copy -days -1 -in {request} -signkey {key}"
    for command in ([*new.split(), *names], [*sign.split(), "-out", cert]):
        subprocess.run(command, check=True, capture_output=True)
    return cert, key
