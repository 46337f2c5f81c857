# SPDX-License-Identifier: Apache-2.0
"""What a user may ask of the parsers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """``capture_query``: also report query strings (``url.query``), signatures redacted.

    ``operations``: of which kinds (``http_operations.KINDS``) bodies are read for their names.
    """

    capture_query: bool = False
    operations: tuple[str, ...] = ()
