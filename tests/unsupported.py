# SPDX-License-Identifier: Apache-2.0
"""The one way to skip a test."""

from __future__ import annotations


class Unsupported(Exception):  # noqa: N818 - it names a state of this machine, not a mistake
    """This machine cannot run the test; the text says what it lacks."""
