# SPDX-License-Identifier: Apache-2.0
"""References in YAML values to what is kept elsewhere.

``${VAR}`` and ``${env:VAR}`` are environment variables, ``${VAR:-default}`` has a default for one
that is unset or empty, ``${file:PATH}`` is a file's content, ``${credential:NAME}`` a systemd
credential (https://systemd.io/CREDENTIALS/). ``$${`` is a literal ``${``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

MAX_SECRET_BYTES = 64 * 1024

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(:-(.*))?", re.DOTALL)


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with its references replaced, once. Raises :class:`ValueError` with a remedy."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if match[1] is None:
            raise ValueError('Close the reference with "}", or write "$${" for a literal "${".')
        return _resolve(match[1], environ)

    return _REFERENCE.sub(replace, text)


def refers_to_files(text: str) -> bool:
    """Whether ``text`` refers to something that may change while otelauto runs."""
    found = (match[1] or "" for match in _REFERENCE.finditer(text))
    return any(each.startswith(("file:", "credential:")) for each in found)


def _resolve(reference: str, environ: Mapping[str, str]) -> str:
    if reference.startswith("file:"):
        return _content(Path(reference.removeprefix("file:")))
    if reference.startswith("credential:"):
        return _credential(reference.removeprefix("credential:"), environ)
    match = _VARIABLE.fullmatch(reference)
    if match is None:
        raise ValueError(
            "Write ${VAR}, ${VAR:-default}, ${file:PATH} or ${credential:NAME}, "
            'or "$${" for a literal "${".'
        )
    value = environ.get(match[1], "")
    if value or match[2]:
        return value or match[3]
    raise ValueError(f"Set the environment variable {match[1]}, or write ${{{match[1]}:-default}}.")


def _credential(name: str, environ: Mapping[str, str]) -> str:
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder:
        raise ValueError("Start otelauto as a systemd unit with LoadCredential= for it.")
    if "/" in name or name in {"", ".", ".."}:
        raise ValueError("Name a credential, not a path.")
    return _content(Path(folder) / name)


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ValueError(f"Make {path} readable ({reason}).") from None
    if len(data) > MAX_SECRET_BYTES:
        raise ValueError(f"Shorten {path}: more than {MAX_SECRET_BYTES} bytes is no setting.")
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"Make {path} a UTF-8 text.") from None
