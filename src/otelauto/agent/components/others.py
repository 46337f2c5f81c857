# SPDX-License-Identifier: Apache-2.0
"""The prometheus.*, local.* and beyla.* components, and the blocks of the agent itself."""

from __future__ import annotations

from otelauto.agent.components.common import (
    HTTP_CLIENT,
    HTTP_CLIENT_BLOCKS,
    PROMETHEUS_AUTH,
    output,
)
from otelauto.agent.schema import (
    APPENDABLE,
    Argument,
    Block,
    Component,
    at_least,
    at_most_one,
    http_url,
    not_above,
    optional,
    required,
)

_TARGETS = "list(map(string))"
_RELABEL = Block(
    "write_relabel_config",
    (
        optional("source_labels", "list(string)"),
        optional("separator", "string", ";"),
        optional("regex", "string", "(.*)"),
        optional("modulus", "number"),
        optional("target_label", "string"),
        optional("replacement", "string", "$1"),
        optional(
            "action", "string", "replace",
            "replace", "keep", "drop", "hashmod", "labelmap", "labeldrop", "labelkeep",
            "lowercase", "uppercase", "keepequal", "dropequal",
        ),
    ),
    repeated=True,
)  # fmt: skip

REMOTE_WRITE = Component(
    "prometheus.remote_write",
    (optional("external_labels", "map(string)"),),
    (
        Block(
            "endpoint",
            (
                required("url", "string"),
                optional("name", "string"),
                optional("remote_timeout", "duration", "30s"),
                optional("headers", "map(string)"),
                optional("send_exemplars", "bool", True),
                optional("send_native_histograms", "bool", False),
                optional(
                    "protobuf_message", "string", None,
                    "prometheus.WriteRequest", "io.prometheus.write.v2.Request",
                ),
                *HTTP_CLIENT,
            ),
            (
                *HTTP_CLIENT_BLOCKS,
                Block(
                    "queue_config",
                    (
                        optional("capacity", "number", 10000),
                        optional("min_shards", "number", 1),
                        optional("max_shards", "number", 50),
                        optional("max_samples_per_send", "number", 2000),
                        optional("batch_send_deadline", "duration", "5s"),
                        optional("min_backoff", "duration", "30ms"),
                        optional("max_backoff", "duration", "5s"),
                        optional("retry_on_http_429", "bool", True),
                        optional("sample_age_limit", "duration", "0s"),
                    ),
                    rules=(
                        at_least("min_shards", 1),
                        at_least("max_samples_per_send", 1),
                        not_above("min_shards", "max_shards"),
                        not_above("min_backoff", "max_backoff"),
                    ),
                ),
                Block(
                    "metadata_config",
                    (
                        optional("send", "bool", True),
                        optional("send_interval", "duration", "1m"),
                        optional("max_samples_per_send", "number", 2000),
                    ),
                ),
                _RELABEL,
            ),
            repeated=True,
            rules=(http_url("url"), at_most_one(*PROMETHEUS_AUTH)),
        ),
        Block(
            "wal",
            (
                optional("truncate_frequency", "duration", "2h"),
                optional("min_keepalive_time", "duration", "5m"),
                optional("max_keepalive_time", "duration", "8h"),
            ),
            rules=(
                at_least("truncate_frequency", 1, "1ns"),
                not_above("min_keepalive_time", "max_keepalive_time"),
            ),
        ),
    ),
    exports=(("receiver", APPENDABLE),),
)  # fmt: skip

SCRAPE = Component(
    "prometheus.scrape",
    (
        required("targets", _TARGETS),
        required("forward_to", f"list({APPENDABLE})"),
        optional("job_name", "string"),
        optional("extra_metrics", "bool", False),
        optional("enable_protobuf_negotiation", "bool", False),
        optional("honor_labels", "bool", False),
        optional("honor_timestamps", "bool", True),
        optional("track_timestamps_staleness", "bool", False),
        optional("params", "map(list(string))"),
        optional("scrape_classic_histograms", "bool", False),
        optional("scrape_interval", "duration", "60s"),
        optional("scrape_timeout", "duration", "10s"),
        optional("metrics_path", "string", "/metrics"),
        optional("scheme", "string", "http", "http", "https"),
        optional("body_size_limit", "size", "0"),
        optional("sample_limit", "number", 0),
        optional("target_limit", "number", 0),
        optional("label_limit", "number", 0),
        optional("label_name_length_limit", "number", 0),
        optional("label_value_length_limit", "number", 0),
        *HTTP_CLIENT,
    ),
    (
        *HTTP_CLIENT_BLOCKS,
        Block("clustering", (required("enabled", "bool"),)),
    ),
    rules=(
        at_most_one(*PROMETHEUS_AUTH),
        at_least("scrape_interval", 1, "1ns"),
        not_above("scrape_timeout", "scrape_interval"),
    ),
    exports=(),
)

LOCAL_FILE = Component(
    "local.file",
    (
        required("filename", "string"),
        optional("detector", "string", "fsnotify", "fsnotify", "poll"),
        optional("poll_frequency", "duration", "1m"),
        optional("is_secret", "bool", False),
    ),
    rules=(at_least("poll_frequency", 1, "1ns"),),
    exports=(("content", "string"),),
)

_SERVICES: tuple[Argument, ...] = (
    optional("name", "string"),
    optional("namespace", "string"),
    optional("open_ports", "string"),
    optional("exe_path", "string"),
)

BEYLA = Component(
    "beyla.ebpf",
    (
        optional("open_port", "string"),
        optional("executable_name", "string"),
        optional("debug", "bool", False),
    ),
    (
        Block(
            "routes",
            (
                optional("unmatched", "string", "heuristic"),
                optional("patterns", "list(string)", []),
                optional("ignored_patterns", "list(string)", []),
                optional("ignore_mode", "string", None, "all", "metrics", "traces"),
            ),
        ),
        Block(
            "discovery",
            blocks=(
                Block("services", _SERVICES, repeated=True),
                Block("exclude_services", _SERVICES, repeated=True),
            ),
        ),
        output("metrics", "traces"),
    ),
    exports=(("targets", _TARGETS),),
)

LOGGING = Component(
    "logging",
    (
        optional("level", "string", "info", "debug", "info", "warn", "error"),
        optional("format", "string", "logfmt", "logfmt", "json"),
    ),
    labelled=False,
)

COMPONENTS = (REMOTE_WRITE, SCRAPE, LOCAL_FILE, BEYLA, LOGGING)
