# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - setting() and section() return dataclass fields
"""Grafana Cloud, by zone, instance id and API key instead of endpoint and headers.

Source: Grafana Cloud, "Send data using OpenTelemetry Protocol"; names as in Beyla's configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from otelauto.config import kinds, otlp
from otelauto.config.kinds import Kind
from otelauto.config.otlp import Headers, Secret
from otelauto.config.problems import Origin
from otelauto.config.setting import section, setting

if TYPE_CHECKING:
    from otelauto.config.settings import Config

_ZONE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
KEYS = ("cloud_zone", "cloud_instance_id", "cloud_api_key")


def _read_zone(text: str) -> str:
    zone = text.strip().lower()
    if not _ZONE.fullmatch(zone):
        raise ValueError
    return zone


ZONE: Kind[str] = Kind("zone", "a zone of Grafana Cloud", "prod-eu-west-0", _read_zone)


@dataclass(frozen=True)
class GrafanaOtlp:
    """Grafana Cloud's OTLP endpoint. An exporter with an endpoint of its own does not use it."""

    cloud_zone: str = setting(
        "",
        ZONE,
        "Zone of the stack: what is sent goes to `https://otlp-gateway-<zone>.grafana.net/otlp`.",
        env=("GRAFANA_CLOUD_ZONE",),
    )
    cloud_instance_id: str = setting(
        "",
        kinds.STRING,
        "Instance id of the stack: the user name.",
        env=("GRAFANA_CLOUD_INSTANCE_ID",),
    )
    cloud_api_key: Secret = setting(
        Secret(),
        otlp.SECRET,
        "API key: the password. Masked wherever shown.",
        env=("GRAFANA_CLOUD_API_KEY",),
    )
    cloud_submit: tuple[str, ...] = setting(
        ("traces",),
        kinds.words("traces", "metrics"),
        "What is sent there.",
        env=("GRAFANA_CLOUD_SUBMIT",),
    )


@dataclass(frozen=True)
class Grafana:
    """Settings for Grafana Cloud."""

    otlp: GrafanaOtlp = section(GrafanaOtlp)


def lacking(given: GrafanaOtlp) -> list[str]:
    """Which of zone, instance id and API key are not given."""
    return [key for key in KEYS if not getattr(given, key)]


def settle_grafana(config: Config, origins: dict[str, Origin]) -> Config:
    """``config`` with endpoint and credentials for what goes to Grafana Cloud.

    What follows from ``grafana.otlp`` gets its origin.
    """
    given = config.grafana.otlp
    if lacking(given):
        return config
    login = f"{quote(given.cloud_instance_id, safe='')}:{quote(given.cloud_api_key, safe='')}"
    url = f"https://{login}@otlp-gateway-{given.cloud_zone}.grafana.net/otlp"
    for signal in given.cloud_submit:
        part = getattr(config, f"otel_{signal}_export", None)  # there is none for the word "none"
        if part is not None and part.endpoint is None:
            part = replace(part, endpoint=otlp.endpoint_base(signal).read(url))
            if given.cloud_api_key.reread is not None:
                part = replace(part, headers=_with_login(part.headers, given))
            config = replace(config, **{f"otel_{signal}_export": part})
            origins[f"otel_{signal}_export.endpoint"] = origins["grafana.otlp.cloud_api_key"]
    return config


def _with_login(headers: Headers, given: GrafanaOtlp) -> Headers:
    """``headers`` with the API key as its file says at each request, unless they have a login."""

    def reread() -> Headers:
        now = headers.current()
        if "authorization" in now:
            return now
        login = otlp.basic_authorization(given.cloud_instance_id, given.cloud_api_key.current())
        return replace(now, pairs=(*now.pairs, ("authorization", login)))

    return replace(headers, reread=reread)
