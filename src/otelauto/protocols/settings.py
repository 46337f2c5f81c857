# SPDX-License-Identifier: Apache-2.0
"""What a user may ask of the parsers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """``capture_query``: also report query strings (``url.query``), signatures redacted."""

    capture_query: bool = False
