# SPDX-License-Identifier: Apache-2.0
"""Errors as the user sees them: one sentence, a remedy, an exit code.

OtelautoError          exit 1: anything else that stops us
|- ConfigError         exit 2: a setting, a flag, a file the user named
`- KernelError         exit 3: the kernel, a capability, a permission
"""

from __future__ import annotations


class OtelautoError(Exception):
    """A problem the user can understand. ``remedy`` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}" if self.remedy else self.message


class ConfigError(OtelautoError):
    """A bad value, key, flag or file of the configuration."""

    exit_code = 2


class KernelError(OtelautoError):
    """The kernel or the permissions do not allow what is needed."""

    exit_code = 3
