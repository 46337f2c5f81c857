# SPDX-License-Identifier: Apache-2.0
"""Which OTLP transport counts, and what the endpoint means to it.

Rules: https://opentelemetry.io/docs/specs/otel/protocol/exporter/; the rule of the ports is that of
the 2023 instrumenter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from otelauto.config.otlp import SCHEME_REMEDY
from otelauto.config.problems import DEFAULT, Findings, Origin
from otelauto.config.settings import Config

GRPC_PORT: Final = 4317
HTTP_PORT: Final = 4318


def settle_protocols(config: Config, origins: dict[str, Origin], findings: Findings) -> Config:
    """``config`` with a protocol, and an endpoint that suits it, for each OTLP exporter that is on.

    What follows from an endpoint gets its origin.
    """
    for signal in ("metrics", "traces"):
        section = f"otel_{signal}_export"
        part = getattr(config, section)
        endpoint = part.endpoint
        if endpoint is None:
            continue
        origin = origins.get(f"{section}.endpoint", DEFAULT)
        protocol = part.protocol
        if not protocol:
            protocol = "grpc" if endpoint.port == GRPC_PORT else "http/protobuf"
            origins[f"{section}.protocol"] = origin
        if protocol == "grpc":
            if endpoint.path.removesuffix(f"/v1/{signal}").rstrip("/"):
                sentence = "the path of the endpoint is not looked at: gRPC has none."
                findings.warn(origin.where, sentence)
            endpoint = endpoint.for_grpc("http" if part.insecure else "https")
        elif not endpoint.has_scheme:
            sentence = f'"{section}.endpoint" has no scheme, which {protocol} needs.'
            findings.problem(origin.where, sentence, SCHEME_REMEDY)
        part = replace(part, protocol=protocol, endpoint=endpoint)
        config = replace(config, **{section: part})
    return config
