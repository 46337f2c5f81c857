# SPDX-License-Identifier: Apache-2.0
"""Blocks that several components have."""

from __future__ import annotations

from otelauto.agent.schema import (
    CONSUMER,
    HANDLER,
    STORAGE,
    Argument,
    Block,
    at_least,
    at_most_one,
    exactly_one,
    not_above,
    optional,
    required,
)

INPUT = (("input", CONSUMER),)
COMPRESSIONS = ("gzip", "zlib", "deflate", "snappy", "zstd", "none", "")

OUTPUT = Block(
    "output",
    (
        optional("metrics", f"list({CONSUMER})", []),
        optional("logs", f"list({CONSUMER})", []),
        optional("traces", f"list({CONSUMER})", []),
    ),
    required=True,
)


def output(*signals: str) -> Block:
    """An output block of some signals only."""
    return Block(
        "output", tuple(optional(s, f"list({CONSUMER})", []) for s in signals), required=True
    )


DEBUG_METRICS = Block(
    "debug_metrics",
    (
        optional("disable_high_cardinality_metrics", "bool", True),
        optional("level", "string", "detailed", "none", "basic", "normal", "detailed"),
    ),
)

_TLS_FILES = (
    optional("ca_file", "string"),
    optional("ca_pem", "string"),
    optional("cert_file", "string"),
    optional("cert_pem", "string"),
    optional("key_file", "string"),
    optional("key_pem", "secret"),
)
_TLS_OTELCOL = (
    *_TLS_FILES,
    optional("min_version", "string", "TLS 1.2", "TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"),
    optional("max_version", "string", "TLS 1.3", "TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"),
    optional("reload_interval", "duration", "0s"),
    optional("cipher_suites", "list(string)", []),
    optional("curve_preferences", "list(string)", []),
    optional("include_system_ca_certs_pool", "bool", False),
)
_TLS_RULES = (
    at_most_one("ca_file", "ca_pem"),
    at_most_one("cert_file", "cert_pem"),
    at_most_one("key_file", "key_pem"),
)
TLS_SERVER = Block("tls", (*_TLS_OTELCOL, optional("client_ca_file", "string")), rules=_TLS_RULES)
TLS_CLIENT = Block(
    "tls",
    (
        *_TLS_OTELCOL,
        optional("insecure", "bool", False),
        optional("insecure_skip_verify", "bool", False),
        optional("server_name", "string"),
    ),
    rules=_TLS_RULES,
)

KEEPALIVE_CLIENT = Block(
    "keepalive",
    (
        optional("ping_wait", "duration"),
        optional("ping_response_timeout", "duration"),
        optional("ping_without_stream", "bool", False),
    ),
)
KEEPALIVE_SERVER = Block(
    "keepalive",
    blocks=(
        Block(
            "server_parameters",
            (
                optional("max_connection_idle", "duration"),
                optional("max_connection_age", "duration"),
                optional("max_connection_age_grace", "duration"),
                optional("time", "duration", "2h"),
                optional("timeout", "duration", "20s"),
            ),
        ),
        Block(
            "enforcement_policy",
            (
                optional("min_time", "duration", "5m"),
                optional("permit_without_stream", "bool", False),
            ),
        ),
    ),
)

SENDING_QUEUE = Block(
    "sending_queue",
    (
        optional("enabled", "bool", True),
        optional("num_consumers", "number", 10),
        optional("queue_size", "number", 1000),
        optional("block_on_overflow", "bool", False),
        optional("storage", STORAGE),
    ),
    rules=(at_least("num_consumers", 1), at_least("queue_size", 1)),
)
RETRY_ON_FAILURE = Block(
    "retry_on_failure",
    (
        optional("enabled", "bool", True),
        optional("initial_interval", "duration", "5s"),
        optional("randomization_factor", "number", 0.5),
        optional("multiplier", "number", 1.5),
        optional("max_interval", "duration", "30s"),
        optional("max_elapsed_time", "duration", "5m"),
    ),
    rules=(
        at_least("initial_interval", 1, "1ns"),
        at_least("multiplier", 1),
        not_above("initial_interval", "max_interval"),
    ),
)

# Of an HTTP client as Prometheus configures it.
PROMETHEUS_AUTH = ("basic_auth", "authorization", "oauth2", "bearer_token", "bearer_token_file")
BASIC_AUTH = Block(
    "basic_auth",
    (
        optional("username", "string"),
        optional("password", "secret"),
        optional("password_file", "string"),
    ),
    rules=(at_most_one("password", "password_file"),),
)
AUTHORIZATION = Block(
    "authorization",
    (
        optional("type", "string", "Bearer"),
        optional("credentials", "secret"),
        optional("credentials_file", "string"),
    ),
    rules=(at_most_one("credentials", "credentials_file"),),
)
TLS_CONFIG = Block(
    "tls_config",
    (
        *_TLS_FILES,
        optional("insecure_skip_verify", "bool", False),
        optional("min_version", "string", "TLS12", "TLS10", "TLS11", "TLS12", "TLS13"),
        optional("server_name", "string"),
    ),
    rules=_TLS_RULES,
)
OAUTH2 = Block(
    "oauth2",
    (
        required("client_id", "string"),
        optional("client_secret", "secret"),
        optional("client_secret_file", "string"),
        required("token_url", "string"),
        optional("scopes", "list(string)", []),
        optional("endpoint_params", "map(string)"),
        optional("proxy_url", "string"),
    ),
    (TLS_CONFIG,),
    rules=(at_most_one("client_secret", "client_secret_file"),),
)
HTTP_CLIENT: tuple[Argument, ...] = (
    optional("bearer_token", "secret"),
    optional("bearer_token_file", "string"),
    optional("enable_http2", "bool", True),
    optional("follow_redirects", "bool", True),
    optional("proxy_url", "string"),
    optional("no_proxy", "string"),
    optional("proxy_from_environment", "bool", False),
    optional("proxy_connect_header", "map(list(secret))"),
)
HTTP_CLIENT_BLOCKS = (BASIC_AUTH, AUTHORIZATION, OAUTH2, TLS_CONFIG)

AUTH = optional("auth", HANDLER)

HISTOGRAM = Block(
    "histogram",
    (
        optional("disable", "bool", False),
        optional("unit", "string", "ms", "ms", "s"),
    ),
    (
        Block(
            "explicit",
            (
                optional(
                    "buckets",
                    "list(duration)",
                    ["2ms", "4ms", "6ms", "8ms", "10ms", "50ms", "100ms", "200ms", "400ms",
                     "800ms", "1s", "1400ms", "2s", "5s", "10s", "15s"],
                ),
            ),
        ),
        Block("exponential", (optional("max_size", "number", 160),)),
    ),
    required=True,
    rules=(exactly_one("explicit", "exponential"),),
)  # fmt: skip
