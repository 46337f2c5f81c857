# SPDX-License-Identifier: Apache-2.0
"""Writes docs/names.md: ``python -m otelauto.reference > docs/names.md``.

Metrics and the labels of their series are those of the code. What is a span attribute is written in
:data:`SPAN` and :data:`RESOURCE` here, and a test holds them to what parsers and stages set.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from otelauto.export.exposition import label_name, metric_name, number
from otelauto.flows.vocabulary import Instrument, Side
from otelauto.protocols import grpc, http1_describe
from otelauto.spans.naming import INSTRUMENTS as NAMES_OF_2023
from otelauto.spans.naming import SPAN_ATTRIBUTES as ATTRIBUTES_OF_2023
from otelauto.spans.select import NOT_IN_2023

# Requirement levels of the OpenTelemetry semantic conventions.
REQUIRED: Final = "required"
RECOMMENDED: Final = "where known"
OPT_IN: Final = "opt-in"
BOTH: Final = tuple(Side)
SERVER: Final = (Side.SERVER,)
CLIENT: Final = (Side.CLIENT,)
_WHOLE: Final = "WebSocket, if no frame was missed"


class Attribute(NamedTuple):
    """A row of the page. ``condition`` is the requirement: a level, or when it is there."""

    name: str
    type: str
    sides: tuple[Side, ...]
    condition: str
    source: str


HTTP: Final = (
    Attribute("http.request.method", "string", BOTH, REQUIRED,
        "the request; a known method, or `_OTHER`"),
    Attribute("http.request.method_original", "string", BOTH, "if the method is `_OTHER`",
        "the request"),
    Attribute("http.response.status_code", "int", BOTH, "if a response was seen", "the response"),
    Attribute("http.route", "string", SERVER, "if there is a route",
        "`routes`, or learned from the paths"),
    Attribute("url.scheme", "string", BOTH, REQUIRED,
        "the request's target or `:scheme`, else `http`"),
    Attribute("url.path", "string", BOTH, RECOMMENDED, "the request's target"),
    Attribute("url.full", "string", CLIENT, RECOMMENDED,
        "the request's target and `Host`; no user, no password"),
    Attribute("url.query", "string", BOTH, f"{OPT_IN}: `http.capture_query`",
        "the request's target; known signatures redacted"),
    Attribute("user_agent.original", "string", BOTH, "if the request has one", "the request"),
    Attribute("http.request.body.size", "int, bytes", BOTH, "if it is exact",
        "the request's framing"),
    Attribute("http.response.body.size", "int, bytes", BOTH, "if it is exact",
        "the response's framing"),
    Attribute("otelauto.http.request.wire_size", "int, bytes", BOTH, "if the size is not exact",
        "bytes behind the head, framing included"),
    Attribute("otelauto.http.response.wire_size", "int, bytes", BOTH, "if the size is not exact",
        "bytes behind the head, framing included"),
    Attribute("otelauto.http.upgrade.duration", "double, seconds", BOTH, "WebSocket",
        "from the request to the status 101"),
    Attribute("otelauto.websocket.request.messages", "int", BOTH, _WHOLE,
        "messages of the client"),
    Attribute("otelauto.websocket.response.messages", "int", BOTH, _WHOLE,
        "messages of the server"),
    Attribute("otelauto.websocket.request.size", "int, bytes", BOTH, _WHOLE,
        "payload of the client, as on the wire"),
    Attribute("otelauto.websocket.response.size", "int, bytes", BOTH, _WHOLE,
        "payload of the server, as on the wire"),
    Attribute("otelauto.websocket.close_code", "int", BOTH, "WebSocket, if there was a code",
        "the first Close frame"),
)  # fmt: skip
CALLS: Final = (
    Attribute("rpc.system.name", "string", BOTH, REQUIRED,
        "the content type: `grpc`, `connectrpc`; `jsonrpc`"),
    Attribute("rpc.method", "string", BOTH, RECOMMENDED,
        "the request's path, `package.Service/Method`; `_OTHER` where there is no such method"),
    Attribute("rpc.method_original", "string", BOTH, "if `rpc.method` is `_OTHER`", "the request"),
    Attribute("rpc.response.status_code", "string", BOTH, "if it was seen",
        "the trailers, or the body of gRPC-Web, Connect and JSON-RPC"),
    Attribute("otelauto.rpc.status_message", "string", BOTH, "if the server sends one",
        "the trailers; 256 characters of it"),
    Attribute("otelauto.rpc.timeout", "double, seconds", BOTH, "if the client gives a deadline",
        "`grpc-timeout`, `connect-timeout-ms`"),
    Attribute("otelauto.rpc.request.messages", "int", BOTH, "if it is exact",
        "messages of the client"),
    Attribute("otelauto.rpc.response.messages", "int", BOTH, "if it is exact",
        "messages of the server"),
    Attribute("otelauto.rpc.request.size", "int, bytes", BOTH, "if it is exact",
        "messages of the client, as on the wire"),
    Attribute("otelauto.rpc.response.size", "int, bytes", BOTH, "if it is exact",
        "messages of the server, as on the wire"),
    Attribute("graphql.operation.type", "string", BOTH, f"{OPT_IN}: `http.operations`",
        "the document in the request's body"),
    Attribute("graphql.operation.name", "string", BOTH, f"{OPT_IN}: `http.operations`",
        "the document in the request's body"),
    Attribute("jsonrpc.protocol.version", "string", BOTH, f"{OPT_IN}: `http.operations`",
        "the request's body"),
)  # fmt: skip
ALL: Final = (
    Attribute("error.type", "string", BOTH, "if the exchange failed", "the status"),
    Attribute("network.protocol.version", "string", BOTH, RECOMMENDED,
        "the request: `1.0`, `1.1` or `2`"),
    Attribute("network.peer.address", "string", BOTH, RECOMMENDED, "the socket: its other end"),
    Attribute("network.peer.port", "int", BOTH, "if there is an address with ports",
        "the socket: its other end"),
    Attribute("server.address", "string", BOTH, RECOMMENDED,
        "the request's target, else `Host` or `:authority`, else the socket"),
    Attribute("server.port", "int", BOTH, RECOMMENDED, "the same"),
    Attribute("client.address", "string", SERVER, RECOMMENDED,
        "the PROXY protocol, else the socket"),
    Attribute("client.port", "int", SERVER, RECOMMENDED, "the same"),
    Attribute("otelauto.head.truncated", "boolean", BOTH, "if a head was longer than what was read",
        "the capture"),
    Attribute("otelauto.fields.unknown", "int", BOTH, "HTTP/2, if there are any",
        "header fields that refer to what was not seen"),
    Attribute("otelauto.http2.error", "string", BOTH, "HTTP/2, if the stream was reset",
        "the code of `RST_STREAM`"),
    Attribute("otelauto.incomplete", "string", BOTH, "if the exchange is not whole",
        "`aborted`, `lost` or `expired`"),
)  # fmt: skip
RESOURCE: Final = (
    Attribute("service.name", "string", BOTH, REQUIRED,
        "the configuration, the service's environment, or the program"),
    Attribute("service.namespace", "string", BOTH, "if one is given",
        "the configuration, or the service's environment"),
    Attribute("service.instance.id", "string", BOTH, REQUIRED,
        "the service's environment, else `host:pid`"),
    Attribute("service.version", "string", BOTH, "if one is given",
        "the service's environment, or the pod's annotations and labels"),
    Attribute("host.name", "string", BOTH, REQUIRED, "the host's name"),
    Attribute("host.id", "string", BOTH, RECOMMENDED, "`/etc/machine-id`"),
    Attribute("os.type", "string", BOTH, REQUIRED, "`linux`"),
    Attribute("process.pid", "int", BOTH, REQUIRED,
        "the process, or the one that leads the workers"),
    Attribute("process.executable.name", "string", BOTH, RECOMMENDED, "`/proc/PID/exe`"),
    Attribute("process.executable.path", "string", BOTH, RECOMMENDED, "`/proc/PID/exe`"),
    Attribute("telemetry.sdk.name", "string", BOTH, REQUIRED, "`otelauto`"),
    Attribute("telemetry.sdk.version", "string", BOTH, REQUIRED, "otelauto's version"),
    Attribute("telemetry.sdk.language", "string", BOTH, RECOMMENDED,
        "the program and what it has mapped"),
    *(Attribute(name, "string", BOTH, "in a container", source)
      for name, source in (
        ("container.id", "the process's cgroup, or the kubelet's mounts"),
        ("container.name", "the runtime's file of the container"),
        ("container.image.name", "the runtime's file, or the Kubernetes API"),
    )),
    Attribute("container.image.tags", "string[]", BOTH, "in a container",
        "the runtime's file, or the Kubernetes API"),
    *(Attribute(f"k8s.{name}", "string", BOTH, condition, source)
      for name, condition, source in (
        ("cluster.name", "if one is given", "the configuration"),
        ("node.name", "in a pod", "the Kubernetes API, or the configuration"),
        ("namespace.name", "in a pod", "the Kubernetes API, or the runtime's file"),
        ("pod.name", "in a pod", "the Kubernetes API, or the runtime's file"),
        ("pod.uid", "in a pod", "the process's cgroup, or the kubelet's mounts"),
        ("container.name", "in a pod", "the kubelet's mounts, or the runtime's file"),
        ("deployment.name", "if a Deployment made the pod", "the Kubernetes API"),
        ("replicaset.name", "if a ReplicaSet made the pod", "the Kubernetes API"),
        ("statefulset.name", "if a StatefulSet made the pod", "the Kubernetes API"),
        ("daemonset.name", "if a DaemonSet made the pod", "the Kubernetes API"),
        ("job.name", "if a Job made the pod", "the Kubernetes API"),
        ("cronjob.name", "if a CronJob made the Job", "the Kubernetes API"),
    )),
)  # fmt: skip
SPAN: Final = (*HTTP, *CALLS, *ALL)

_INTRODUCTION = """\
<!-- Generated by `python -m otelauto.reference`. Do not edit. -->
# Names of metrics and attributes

What each means, and when it is exact, is told in [metrics and spans](metrics-and-spans.md). The
names of 2023 are those with `naming: 2023`; where none is given, the name is the same.

## Metrics

Histograms all. On the Prometheus page each has the series `_bucket`, `_count` and `_sum`.
"""
_OF_RESOURCES = """\
Of spans and OTLP metrics; on the Prometheus page they are labels of `target_info`. What
`OTEL_RESOURCE_ATTRIBUTES` says, in the service's environment or in the configuration, is added, and
is stronger."""
_ELSEWHERE = """\
Metrics of otelauto itself are on [another page](prometheus.md#otelautos-own-metrics), what it
counts as lost on [a third](losses.md)."""


def instruments() -> Iterator[tuple[Side, Instrument]]:
    """Every metric of the services, with the side that measures it."""
    for side in Side:
        for instrument in (*http1_describe.INSTRUMENTS[side], *grpc.INSTRUMENTS[side]):
            yield side, instrument


def _table(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _metrics() -> Iterator[str]:
    yield from _table("name", "unit", "description", "Prometheus", "name of 2023")
    for _, each in instruments():
        prometheus, _ = metric_name(each.name, each.unit)
        old = NAMES_OF_2023[each.name]
        yield _row(f"`{each.name}`", each.unit, each.description, f"`{prometheus}`", f"`{old}`")


def _labels() -> Iterator[str]:
    yield from ("", "### Attributes of their series", "")
    yield (
        "Where they are known; `metrics.include` and `metrics.exclude` choose others. Those with † "
        "are not there with `naming: 2023`."
    )
    yield ""
    yield from _table("metric", "attributes")
    for _, each in instruments():
        names = (f"`{name}`{' †' if name in NOT_IN_2023 else ''}" for name in each.attributes)
        yield _row(f"`{each.name}`", ", ".join(names))
    yield ""
    yield (
        "On the Prometheus page a dot is an underscore: "
        f"`{label_name('http.response.status_code')}`. Beside these, series carry the service: "
        "`service_name`, `service_namespace`, `service_instance_id`. `otel.metric.overflow` is "
        "`true` on the one series that counts what is beyond [a limit](losses.md#metrics)."
    )


def _buckets() -> Iterator[str]:
    yield from ("", "### Buckets", "")
    yield from _table("unit", "upper bounds")
    for unit, bounds in {each.unit: each.buckets for _, each in instruments()}.items():
        yield _row(unit, ", ".join(number(bound) for bound in bounds))


def _attributes(title: str, rows: tuple[Attribute, ...]) -> Iterator[str]:
    yield from ("", f"### {title}", "")
    yield from _table("attribute", "type", "on", "there", "from", "name of 2023")
    for row in rows:
        on = "both" if len(row.sides) > 1 else row.sides[0].value
        old = {ATTRIBUTES_OF_2023[side].get(row.name) for side in row.sides} - {None}
        names = ", ".join(f"`{name}`" for name in sorted(map(str, old)))
        yield _row(f"`{row.name}`", row.type, on, row.condition, row.source, names)


def render() -> str:
    """The whole page."""
    lines = [_INTRODUCTION, *_metrics(), *_labels(), *_buckets(), "", "## Attributes of spans"]
    lines += _attributes("HTTP", HTTP)
    lines += _attributes("Calls and operations", CALLS)
    lines += _attributes("All", ALL)
    lines += ["", "## Attributes of the resource", "", _OF_RESOURCES, ""]
    lines += _table("attribute", "type", "there", "from")
    lines += [_row(f"`{row.name}`", row.type, row.condition, row.source) for row in RESOURCE]
    lines += ["", _ELSEWHERE]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
