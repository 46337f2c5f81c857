# SPDX-License-Identifier: Apache-2.0
"""The otelcol.* components. Defaults are those of Grafana Agent 0.44; the one difference is that a
receiver listens on 127.0.0.1 unless its configuration says otherwise.
"""

from __future__ import annotations

from otelauto.agent.components.common import (
    AUTH,
    COMPRESSIONS,
    DEBUG_METRICS,
    HISTOGRAM,
    INPUT,
    KEEPALIVE_CLIENT,
    KEEPALIVE_SERVER,
    OUTPUT,
    RETRY_ON_FAILURE,
    SENDING_QUEUE,
    TLS_CLIENT,
    TLS_SERVER,
    output,
)
from otelauto.agent.schema import (
    APPENDABLE,
    HANDLER,
    STORAGE,
    Block,
    Component,
    at_least,
    at_most_one,
    exactly_one,
    http_url,
    not_above,
    optional,
    required,
)

_NS = 1_000_000_000
_CONTEXT = ("from_context", "value")
_SERVICE_GRAPH_BUCKETS = [
    "2ms", "4ms", "6ms", "8ms", "10ms", "50ms", "100ms", "200ms", "400ms", "800ms", "1s", "1400ms",
    "2s", "5s", "10s", "15s",
]  # fmt: skip

RECEIVER_OTLP = Component(
    "otelcol.receiver.otlp",
    blocks=(
        Block(
            "grpc",
            (
                optional("endpoint", "string", "127.0.0.1:4317"),
                optional("transport", "string", "tcp", "tcp", "unix"),
                optional("max_recv_msg_size", "size", "4MiB"),
                optional("max_concurrent_streams", "number"),
                optional("read_buffer_size", "size", "512KiB"),
                optional("write_buffer_size", "size", "32KiB"),
                optional("include_metadata", "bool", False),
                AUTH,
            ),
            (TLS_SERVER, KEEPALIVE_SERVER),
        ),
        Block(
            "http",
            (
                optional("endpoint", "string", "127.0.0.1:4318"),
                optional("max_request_body_size", "size", "20MiB"),
                optional("include_metadata", "bool", False),
                optional("traces_url_path", "string", "/v1/traces"),
                optional("metrics_url_path", "string", "/v1/metrics"),
                optional("logs_url_path", "string", "/v1/logs"),
                optional("compression_algorithms", "list(string)"),
                AUTH,
            ),
            (
                TLS_SERVER,
                Block(
                    "cors",
                    (
                        optional("allowed_origins", "list(string)", []),
                        optional("allowed_headers", "list(string)", []),
                        optional("max_age", "number"),
                    ),
                ),
            ),
        ),
        DEBUG_METRICS,
        OUTPUT,
    ),
)

PROCESSOR_BATCH = Component(
    "otelcol.processor.batch",
    (
        optional("timeout", "duration", "200ms"),
        optional("send_batch_size", "number", 8192),
        optional("send_batch_max_size", "number", 0),
        optional("metadata_keys", "list(string)", []),
        optional("metadata_cardinality_limit", "number", 1000),
    ),
    (OUTPUT, DEBUG_METRICS),
    rules=(not_above("send_batch_size", "send_batch_max_size", unless=0),),
    exports=INPUT,
)

PROCESSOR_MEMORY_LIMITER = Component(
    "otelcol.processor.memory_limiter",
    (
        required("check_interval", "duration"),
        optional("limit", "size"),
        optional("spike_limit", "size"),
        optional("limit_percentage", "number"),
        optional("spike_limit_percentage", "number"),
    ),
    (OUTPUT, DEBUG_METRICS),
    rules=(
        exactly_one("limit", "limit_percentage"),
        at_least("check_interval", 1, "1ns"),
        not_above("spike_limit", "limit"),
    ),
    exports=INPUT,
)

_KEY_VALUE = (required("key", "string"), optional("value", "any"))


def _match(name: str) -> Block:
    return Block(
        name,
        (
            required("match_type", "string", "strict", "regexp"),
            optional("services", "list(string)", []),
            optional("span_names", "list(string)", []),
            optional("span_kinds", "list(string)", []),
            optional("log_bodies", "list(string)", []),
            optional("log_severity_texts", "list(string)", []),
            optional("metric_names", "list(string)", []),
        ),
        (
            Block(
                "regexp",
                (
                    optional("cache_enabled", "bool", False),
                    optional("cache_max_num_entries", "number", 0),
                ),
            ),
            Block("attribute", _KEY_VALUE, repeated=True),
            Block("resource", _KEY_VALUE, repeated=True),
            Block(
                "library",
                (required("name", "string"), optional("version", "string")),
                repeated=True,
            ),
            Block(
                "log_severity",
                (required("min", "string"), required("match_undefined", "bool")),
            ),
        ),
    )


PROCESSOR_ATTRIBUTES = Component(
    "otelcol.processor.attributes",
    blocks=(
        OUTPUT,
        Block(
            "action",
            (
                optional("key", "string"),
                required(
                    "action", "string",
                    "insert", "update", "upsert", "delete", "hash", "extract", "convert",
                ),
                optional("value", "any"),
                optional("pattern", "string"),
                optional("from_attribute", "string"),
                optional("from_context", "string"),
                optional("converted_type", "string", None, "string", "int", "double"),
            ),
            repeated=True,
            rules=(at_most_one("value", "from_attribute", "from_context"),),
        ),
        _match("include"),
        _match("exclude"),
        DEBUG_METRICS,
    ),
    exports=INPUT,
)  # fmt: skip

PROCESSOR_FILTER = Component(
    "otelcol.processor.filter",
    (optional("error_mode", "string", "propagate", "ignore", "silent", "propagate"),),
    (
        OUTPUT,
        Block(
            "traces",
            (
                optional("span", "list(string)", []),
                optional("spanevent", "list(string)", []),
            ),
        ),
        Block(
            "metrics",
            (
                optional("metric", "list(string)", []),
                optional("datapoint", "list(string)", []),
            ),
        ),
        Block("logs", (optional("log_record", "list(string)", []),)),
        DEBUG_METRICS,
    ),
    exports=INPUT,
)

EXPORTER_OTLP = Component(
    "otelcol.exporter.otlp",
    (optional("timeout", "duration", "5s"),),
    (
        Block(
            "client",
            (
                required("endpoint", "string"),
                optional("compression", "string", "gzip", *COMPRESSIONS),
                optional("read_buffer_size", "size"),
                optional("write_buffer_size", "size", "512KiB"),
                optional("wait_for_ready", "bool", False),
                optional("headers", "map(secret)"),
                optional("balancer_name", "string", "pick_first", "pick_first", "round_robin"),
                optional("authority", "string"),
                AUTH,
            ),
            (TLS_CLIENT, KEEPALIVE_CLIENT),
            required=True,
        ),
        SENDING_QUEUE,
        RETRY_ON_FAILURE,
        DEBUG_METRICS,
    ),
    exports=INPUT,
)

EXPORTER_OTLPHTTP = Component(
    "otelcol.exporter.otlphttp",
    (
        optional("traces_endpoint", "string"),
        optional("metrics_endpoint", "string"),
        optional("logs_endpoint", "string"),
        optional("encoding", "string", "proto", "proto", "json"),
    ),
    (
        Block(
            "client",
            (
                required("endpoint", "string"),
                optional("timeout", "duration", "30s"),
                optional("compression", "string", "gzip", *COMPRESSIONS),
                optional("read_buffer_size", "size", "0"),
                optional("write_buffer_size", "size", "512KiB"),
                optional("headers", "map(secret)"),
                optional("max_idle_conns", "number", 100),
                optional("max_idle_conns_per_host", "number"),
                optional("max_conns_per_host", "number"),
                optional("idle_conn_timeout", "duration", "90s"),
                optional("disable_keep_alives", "bool", False),
                optional("http2_read_idle_timeout", "duration", "0s"),
                optional("http2_ping_timeout", "duration", "15s"),
                optional("proxy_url", "string"),
                AUTH,
            ),
            (TLS_CLIENT,),
            required=True,
        ),
        SENDING_QUEUE,
        RETRY_ON_FAILURE,
        DEBUG_METRICS,
    ),
    exports=INPUT,
)

EXPORTER_PROMETHEUS = Component(
    "otelcol.exporter.prometheus",
    (
        required("forward_to", f"list({APPENDABLE})"),
        optional("include_target_info", "bool", True),
        optional("include_scope_info", "bool", False),
        optional("include_scope_labels", "bool", True),
        optional("add_metric_suffixes", "bool", True),
        optional("gc_frequency", "duration", "5m"),
        optional("resource_to_telemetry_conversion", "bool", False),
    ),
    rules=(at_least("gc_frequency", 1, "1ns"),),
    exports=INPUT,
)

EXPORTER_DEBUG = Component(
    "otelcol.exporter.debug",
    (
        optional("verbosity", "string", "basic", "basic", "normal", "detailed"),
        optional("sampling_initial", "number", 2),
        optional("sampling_thereafter", "number", 1),
        optional("use_internal_logger", "bool", True),
    ),
    (DEBUG_METRICS,),
    exports=INPUT,
)

_HANDLER = (("handler", HANDLER),)

AUTH_BASIC = Component(
    "otelcol.auth.basic",
    (required("username", "string"), required("password", "secret")),
    (DEBUG_METRICS,),
    exports=_HANDLER,
)
AUTH_BEARER = Component(
    "otelcol.auth.bearer",
    (
        required("token", "secret"),
        optional("scheme", "string", "Bearer"),
        optional("header", "string", "Authorization"),
    ),
    (DEBUG_METRICS,),
    exports=_HANDLER,
)
AUTH_HEADERS = Component(
    "otelcol.auth.headers",
    blocks=(
        Block(
            "header",
            (
                required("key", "string"),
                optional("value", "secret"),
                optional("from_context", "string"),
                optional("action", "string", "upsert", "insert", "update", "upsert", "delete"),
            ),
            repeated=True,
            rules=(at_most_one(*_CONTEXT),),
        ),
        DEBUG_METRICS,
    ),
    exports=_HANDLER,
)
AUTH_OAUTH2 = Component(
    "otelcol.auth.oauth2",
    (
        optional("client_id", "string"),
        optional("client_id_file", "string"),
        optional("client_secret", "secret"),
        optional("client_secret_file", "string"),
        required("token_url", "string"),
        optional("endpoint_params", "map(list(string))"),
        optional("scopes", "list(string)", []),
        optional("timeout", "duration", "0s"),
    ),
    (TLS_CLIENT, DEBUG_METRICS),
    rules=(
        exactly_one("client_id", "client_id_file"),
        exactly_one("client_secret", "client_secret_file"),
        http_url("token_url"),
    ),
    exports=_HANDLER,
)

STORAGE_FILE = Component(
    "otelcol.storage.file",
    (optional("directory", "string"),),
    (DEBUG_METRICS,),
    exports=(("handler", STORAGE),),
)

_DIMENSION = (required("name", "string"), optional("default", "string"))

CONNECTOR_SPANMETRICS = Component(
    "otelcol.connector.spanmetrics",
    (
        optional("aggregation_temporality", "string", "CUMULATIVE", "CUMULATIVE", "DELTA"),
        optional("dimensions_cache_size", "number", 1000),
        optional("exclude_dimensions", "list(string)", []),
        optional("metrics_flush_interval", "duration", "15s"),
        optional("metrics_expiration", "duration", "0s"),
        optional("namespace", "string", ""),
        optional("resource_metrics_cache_size", "number", 1000),
        optional("resource_metrics_key_attributes", "list(string)", []),
    ),
    (
        Block("dimension", _DIMENSION, repeated=True),
        HISTOGRAM,
        Block(
            "exemplars",
            (
                optional("enabled", "bool", False),
                optional("max_per_data_point", "number"),
            ),
        ),
        Block(
            "events",
            (optional("enabled", "bool", False),),
            (Block("dimension", _DIMENSION, repeated=True),),
        ),
        output("metrics"),
        DEBUG_METRICS,
    ),
    rules=(
        at_least("metrics_flush_interval", 1, "1ns"),
        at_least("dimensions_cache_size", 1),
    ),
    exports=INPUT,
)

CONNECTOR_SERVICEGRAPH = Component(
    "otelcol.connector.servicegraph",
    (
        optional("latency_histogram_buckets", "list(duration)", _SERVICE_GRAPH_BUCKETS),
        optional("dimensions", "list(string)", []),
        optional("cache_loop", "duration", "1m"),
        optional("store_expiration_loop", "duration", "2s"),
        optional("metrics_flush_interval", "duration", "0s"),
        optional("database_name_attributes", "list(string)", ["db.name"]),
        optional(
            "virtual_node_peer_attributes",
            "list(string)",
            ["peer.service", "db.name", "db.system"],
        ),
        optional("virtual_node_extra_label", "bool", False),
    ),
    (
        Block(
            "store",
            (
                optional("max_items", "number", 1000),
                optional("ttl", "duration", "2s"),
            ),
            rules=(at_least("max_items", 1), at_least("ttl", 1, "1ns")),
        ),
        output("metrics"),
        DEBUG_METRICS,
    ),
    rules=(
        at_least("cache_loop", 1, "1ns"),
        at_least("store_expiration_loop", 1, "1ns"),
    ),
    exports=INPUT,
)

COMPONENTS = (
    RECEIVER_OTLP,
    PROCESSOR_BATCH,
    PROCESSOR_MEMORY_LIMITER,
    PROCESSOR_ATTRIBUTES,
    PROCESSOR_FILTER,
    EXPORTER_OTLP,
    EXPORTER_OTLPHTTP,
    EXPORTER_PROMETHEUS,
    EXPORTER_DEBUG,
    AUTH_BASIC,
    AUTH_BEARER,
    AUTH_HEADERS,
    AUTH_OAUTH2,
    STORAGE_FILE,
    CONNECTOR_SPANMETRICS,
    CONNECTOR_SERVICEGRAPH,
)
