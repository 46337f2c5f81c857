# SPDX-License-Identifier: Apache-2.0
"""The merged configuration as YAML, secrets masked, with the origin of every value."""

from __future__ import annotations

import re
from typing import Any

import yaml

from otelauto.config.load import Loaded
from otelauto.config.setting import Declaration, declarations
from otelauto.config.settings import Config

_COMMENT_COLUMN = 48


def value_of(config: Config, declaration: Declaration) -> Any:
    """The value of ``declaration`` in ``config``."""
    value: Any = config
    for name in declaration.attributes:
        value = getattr(value, name)
    return value


def shown(declaration: Declaration, value: Any) -> Any:
    """``value`` as YAML shows it; secrets are masked; what is unset is ``None``."""
    if value is None or value in ("", (), {}) or (not value and hasattr(value, "__iter__")):
        return None
    return declaration.setting.kind.show(value)


def inline(value: Any) -> str:
    """``value`` as YAML on one line, such that reading it gives the same text again."""
    if value is None:
        return ""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=1 << 20, sort_keys=False
    )
    return re.sub(r"\n(\.\.\.\n)?$", "", text)


def as_yaml(loaded: Loaded) -> str:
    """The whole configuration, one setting a line: ``key: value  # origin``."""
    lines: list[str] = []
    section: tuple[str, ...] = ()
    for declaration in declarations(Config):
        *parents, key = declaration.path
        for depth, name in enumerate(parents):
            if section[: depth + 1] != tuple(parents[: depth + 1]):
                lines.append(f"{'  ' * depth}{name}:")
        section = tuple(parents)
        value = inline(shown(declaration, value_of(loaded.config, declaration)))
        line = f"{'  ' * len(parents)}{key}: {value}".rstrip().replace("${", "$${")
        lines.append(f"{line:<{_COMMENT_COLUMN}} # {loaded.origins[declaration.key].where}")
    return "\n".join(lines) + "\n"


def secrets(config: Config) -> list[str]:
    """Every secret text of ``config``, for logs to hide."""
    key = config.grafana.otlp.cloud_api_key
    found: set[str] = {key, key.current()}
    for export in (config.otel_metrics_export, config.otel_traces_export):
        headers = export.request_headers()
        for name in {*export.headers.credential_names(), "authorization"} & headers.keys():
            found.add(headers[name])
            found.add(headers[name].rpartition(" ")[2])
        if export.endpoint is not None and export.endpoint.credentials is not None:
            found.add(export.endpoint.credentials[1])
    return sorted((text for text in found if len(text) >= 4), key=len, reverse=True)
