# SPDX-License-Identifier: Apache-2.0
"""``OTEL_EXPORTER_OTLP_HEADERS``: pairs in the form of W3C baggage, ``k1=v1,k2=v2``."""

from __future__ import annotations

import re
from urllib.parse import unquote

from otelauto.errors import ConfigError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110, section 5.6.2
_NOT_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
REMEDY = "write key=value pairs separated by commas, values percent-encoded"


def parse_headers(text: str, setting: str = "OTEL_EXPORTER_OTLP_HEADERS") -> dict[str, str]:
    """Header names (lower case) and values.

    Values are percent-decoded; unencoded ones are taken as they are (``Basic abc==``). Empty
    entries are skipped; the last of equal names wins.

    Raises:
        ConfigError: an entry has no ``=``, or its name or value cannot be in an HTTP header. The
            message does not hold the value: it may be a secret.
    """
    headers: dict[str, str] = {}
    for number, entry in enumerate(text.split(","), 1):
        if not entry.strip():
            continue
        name, equals, value = entry.partition("=")
        name = unquote(name.strip()).lower()
        if not equals:
            raise ConfigError(f"{setting}: entry {number} has no `=`", REMEDY)
        if not _TOKEN.match(name):
            raise ConfigError(f"{setting}: entry {number} has no valid header name", REMEDY)
        decoded = unquote(value.strip())
        if _NOT_IN_VALUE.search(decoded) or not _is_latin1(decoded):
            raise ConfigError(f"{setting}: the value of {name!r} has illegal characters", REMEDY)
        headers[name] = decoded
    return headers


def _is_latin1(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
