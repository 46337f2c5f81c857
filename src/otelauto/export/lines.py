# SPDX-License-Identifier: Apache-2.0
"""A span as one line: the text of the 2023 instrumenter, or JSON with everything."""

from __future__ import annotations

import json
import time

from otelauto.flows.vocabulary import Side
from otelauto.spans.clock import WallClock
from otelauto.spans.span import Span

# Columns of the text line: the first attribute that is present, by current or 2023 name.
STATUS = ("http.response.status_code", "http.status_code")
METHOD = ("http.request.method", "http.method")
PATH = ("url.path", "http.target", "url.full", "http.url")
PEER = ("client.address", "http.client_ip", "network.peer.address", "net.sock.peer.addr")
HOST = ("server.address", "net.host.name", "net.peer.name")
PORT = ("server.port", "net.host.port", "net.peer.port")
SIZE = (
    "http.request.body.size",
    "http.request_content_length",
    "otelauto.http.request.wire_size",
)
UNKNOWN = "-"

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def go_duration(ns: int) -> str:
    """Nanoseconds as Go's ``time.Duration`` prints them: ``942.583µs``, ``1m3.5s``, ``0s``."""
    if ns < 0:
        return f"-{go_duration(-ns)}"
    if ns == 0:
        return "0s"
    for unit, name in ((NS_PER_US, "ns"), (NS_PER_MS, "µs"), (NS_PER_S, "ms")):
        if ns < unit:
            return f"{_decimal(ns, unit // 1000 or 1)}{name}"
    minutes, rest = divmod(ns, 60 * NS_PER_S)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, NS_PER_S)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, unit: int) -> str:
    """``value / unit`` without trailing zeros; ``unit`` is a power of 1000."""
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")


def text_line(span: Span, clock: WallClock) -> str:
    """The 2023 line, without its end.

    ``2006-01-02 15:04:05.12345 (total[processing]) STATUS METHOD PATH [peer]->[host:port]
    size:NB comm=[svc]``. The time is the span's start in local time. What is not known is ``-``. A
    span that is not whole says so at the end, where 2023 had nothing.
    """
    wall = clock.wall_ns(span.start_ns)
    seconds, ns = divmod(wall, NS_PER_S)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    took = go_duration(span.end_ns - span.start_ns)
    peer = _column(span, PEER, "") if span.side is Side.SERVER else ""
    line = (
        f"{when}.{ns // 10_000:05d} ({took}[{took}]) {_column(span, STATUS)}"
        f" {_column(span, METHOD, span.name)} {_column(span, PATH)}"
        f" [{peer}]->[{_column(span, HOST, '')}:{_column(span, PORT, '')}]"
        f" size:{_column(span, SIZE, '0')}B comm=[{span.service.name}]"
    )
    if span.incomplete is not None:
        line += f" incomplete=[{span.incomplete}]"
    return printable(line)


def json_line(span: Span, clock: WallClock) -> str:
    """One JSON object, without a line end."""
    service = span.service
    return json.dumps(
        {
            "trace_id": span.trace_id.hex(),
            "span_id": span.span_id.hex(),
            "parent_id": span.parent_id.hex(),
            "trace_flags": span.trace_flags,
            "name": span.name,
            "kind": span.side.value,
            "start_unix_nano": clock.wall_ns(span.start_ns),
            "end_unix_nano": clock.wall_ns(span.end_ns),
            "duration_ns": span.end_ns - span.start_ns,
            "attributes": span.attributes,
            "service": {
                "name": service.name,
                "namespace": service.namespace,
                "instance_id": service.instance_id,
                "attributes": service.attributes,
            },
            "error": span.error,
            "incomplete": span.incomplete,
        },
        separators=(",", ":"),
    )


def _column(span: Span, names: tuple[str, ...], default: str = UNKNOWN) -> str:
    for name in names:
        value = span.attributes.get(name)
        if value is not None:
            return str(value)
    return default


def printable(text: str) -> str:
    """``text`` with control characters escaped: what strangers wrote must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
