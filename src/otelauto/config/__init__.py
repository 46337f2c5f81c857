# SPDX-License-Identifier: Apache-2.0
"""Settings: declared once, read from file, environment and flags, checked, shown masked."""

from otelauto.config.kinds import Ports
from otelauto.config.load import Loaded, load
from otelauto.config.otlp import Endpoint, Headers
from otelauto.config.problems import InvalidConfig
from otelauto.config.rules import Purpose
from otelauto.config.settings import Config

__all__ = [
    "Config",
    "Endpoint",
    "Headers",
    "InvalidConfig",
    "Loaded",
    "Ports",
    "Purpose",
    "load",
]
