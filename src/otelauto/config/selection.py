# SPDX-License-Identifier: Apache-2.0
"""What ``traces_exporter`` and ``metrics_exporter`` turn on and off.

Words and defaults:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#exporter-selection
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from otelauto.config.otlp import Endpoint
from otelauto.config.problems import DEFAULT, Findings, Origin
from otelauto.config.settings import Config

_PROMETHEUS_PORT: Final = 9464  # OTEL_EXPORTER_PROMETHEUS_PORT of the specification


def select_exporters(config: Config, origins: dict[str, Origin], findings: Findings) -> Config:
    """``config`` with the exporters that its lists name; what follows from them gets their origin.

    A list decides about OTLP, as an endpoint only says where to. The printer and the Prometheus
    page have switches of their own: a list turns them on if it is from a stronger source, and only
    ``none``, from one at least as strong, turns them off.
    """
    chooser = _Chooser(config, origins, findings)
    chooser.otlp("traces")
    chooser.otlp("metrics")
    chooser.own_switch("traces", "console", "trace_printer", "text", "disabled")
    chooser.own_switch("metrics", "prometheus", "prometheus_export.port", _PROMETHEUS_PORT, 0)
    return chooser.config


class _Chooser:
    def __init__(self, config: Config, origins: dict[str, Origin], findings: Findings) -> None:
        self.config = config
        self._origins = origins
        self._findings = findings

    def otlp(self, signal: str) -> None:
        chosen, section = self._chosen(signal), f"otel_{signal}_export"
        part = getattr(self.config, section)
        endpoint = part.endpoint
        if not chosen or ("otlp" in chosen) == (endpoint is not None):
            return
        over_grpc = part.protocol == "grpc"
        url = "http://localhost:4317" if over_grpc else f"http://localhost:4318/v1/{signal}"
        default = Endpoint(url)
        self._set(signal, f"{section}.endpoint", default if "otlp" in chosen else None)

    def own_switch(self, signal: str, word: str, key: str, on: Any, off: Any) -> None:
        chosen = self._chosen(signal)
        given = self._origins.get(key, DEFAULT)
        origin = self._origins.get(f"{signal}_exporter", DEFAULT)
        is_off = self._value(key) == off
        if word in chosen and is_off and given.source < origin.source:
            self._set(signal, key, on)
        elif chosen == ("none",) and not is_off and given.source <= origin.source:
            sentence = f'"{key}" is not looked at, because "{signal}_exporter" is none'
            self._findings.warn(given.where, f"{sentence} ({origin.where}).")
            self._set(signal, key, off)

    def _chosen(self, signal: str) -> tuple[str, ...]:
        chosen: tuple[str, ...] = getattr(self.config, f"{signal}_exporter")
        return chosen

    def _value(self, key: str) -> Any:
        value: Any = self.config
        for name in key.split("."):
            value = getattr(value, name)
        return value

    def _set(self, signal: str, key: str, value: Any) -> None:
        section, _, name = key.rpartition(".")
        if section:
            part = replace(getattr(self.config, section), **{name: value})
            self.config = replace(self.config, **{section: part})
        else:
            self.config = replace(self.config, **{name: value})
        self._origins[key] = self._origins[f"{signal}_exporter"]
