# SPDX-License-Identifier: Apache-2.0
"""Spans against the records of those who know: one to one, by the id that ends the path."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.scale import PATIENCE

Record = dict[str, Any]
Span = dict[str, Any]

# A chunked body up to this size must have its exact size; a larger one has it or none.
SMALL_CHUNKED = 100
# Styles in which the client itself takes its time, so that a span is longer than its handler.
LEISURELY = ("dribble", "expect", "pieces")
# Wall time may be adjusted by this much between the start and the end of a span.
CLOCK_STEP_NS = 1_000_000
# Handlers of /slow/ sleep for longer, before they answer.
SLEEP_NS = 15_000_000
SLEEP_US = SLEEP_NS // 1000


@dataclass(frozen=True)
class Size:
    """What a span may say of a body: ``exact`` must be said, else it may be left out."""

    value: int
    exact: bool

    def admits(self, said: object) -> bool:
        return said == self.value if self.exact or said is not None else True

    def __str__(self) -> str:
        return f"{self.value}" if self.exact else f"{self.value} or unset"


def size_of(count: int, framing: str) -> Size:
    """By framing: "length" and "close" are exact; no or an empty body may be 0 or unset."""
    small = framing == "chunked" and count <= SMALL_CHUNKED
    return Size(count, exact=count > 0 and (framing in ("length", "close") or small))


@dataclass(frozen=True)
class Expected:
    """One exchange as its ends wrote it down. ``peer_port`` 0 and ``duration_ns`` None: unknown.

    ``slept``: the handler says that it slept.
    """

    ident: str
    method: str
    path: str
    status: int
    request_size: Size
    response_size: Size
    peer_port: int = 0
    duration_ns: int | None = None
    slept: bool = False


@dataclass
class Report:
    """``problems`` is empty when spans and records agree. Differences are span minus handler."""

    expected: int
    seen: int
    problems: list[str] = field(default_factory=list)
    differences_ns: list[int] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{self.expected} exchanges, {self.seen} spans, {len(self.problems)} problems"]
        lines += self.problems[:40]
        if len(self.problems) > 40:
            lines.append(f"... and {len(self.problems) - 40} more")
        if self.differences_ns:
            lines.append(f"span minus the server's own duration: {self.durations()}")
        return "\n  ".join(lines)

    def durations(self) -> str:
        """Median, 99th percentile, least and largest difference, in microseconds."""
        ordered = sorted(self.differences_ns)
        at = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "min": 0, "max": -1}
        return ", ".join(f"{name} {ordered[i] / 1000:.0f} us" for name, i in at.items())

    def median_ns(self) -> float:
        return statistics.median(self.differences_ns)


def logs_agree(clients: Sequence[Record], server: Sequence[Record]) -> list[str]:
    """Where the records of clients and server contradict each other, in sentences.

    Of the sizes, those are compared that the server has counted.
    """
    problems = []
    by_id = {record["id"]: record for record in clients}
    served = defaultdict(list)
    for record in server:
        served[record["id"]].append(record)
    problems += [f"{ident}: not in the server's log" for ident in by_id.keys() - served.keys()]
    problems += [f"{ident}: not sent by a client" for ident in served.keys() - by_id.keys()]
    for ident in by_id.keys() & served.keys():
        mine, (theirs, *more) = by_id[ident], served[ident]
        if more:
            problems.append(f"{ident}: {1 + len(more)} times in the server's log")
        for key in ("method", "path", "status", "request_bytes", "response_bytes"):
            if key in theirs and mine[key] != theirs[key]:
                problems.append(f"{ident}: {key} {mine[key]}, server says {theirs[key]}")
        # nginx counts what follows the final head as it was on the wire, and a 100 Continue too.
        if "body_bytes_sent" in theirs and "response_wire_bytes" in mine:
            sent = mine["response_wire_bytes"] + mine["interim_bytes"]
            if sent != theirs["body_bytes_sent"]:
                problems.append(f"{ident}: got {sent}, server sent {theirs['body_bytes_sent']}")
    return sorted(problems)


def expectations(
    clients: Sequence[Record],
    server: Sequence[Record] = (),
    *,
    proxied: bool = False,
    answers_early: bool = False,
) -> list[Expected]:
    """What spans must say, from the clients' records and the server's durations.

    ``proxied``: the spans are of the far side of a proxy, which frames bodies as it likes (every
    size may be left out) and whose port the clients do not know. ``answers_early``: an exchange
    may be over before its request's body has come, so that only a length given in advance counts,
    and that only where the body was sent. On a slow machine the body may come so late (half a
    second of silence) that the exchange is told without its size.
    """
    durations = {record["id"]: _duration_ns(record) for record in server}
    # nginx does not sleep; what it takes for its time includes what it did for others meanwhile.
    sleepers = {
        record["id"]
        for record in server
        if record["path"].startswith("/slow/") and record.get("duration_us", 0) >= SLEEP_US
    }
    found = []
    for record in clients:
        # A client that waits for "100 Continue" and gets the answer instead never sends its body.
        chunked = record["request_framing"] == "chunked"
        open_ended = chunked or record["style"] == "expect" or PATIENCE > 1
        leisurely = record["style"] in LEISURELY
        found.append(
            Expected(
                record["id"],
                record["method"],
                record["path"],
                record["status"],
                _expected_size(record, "request", vague=proxied or (answers_early and open_ended)),
                _expected_size(record, "response", vague=proxied),
                peer_port=0 if proxied else record["local_port"],
                duration_ns=None if leisurely else durations.get(record["id"]),
                slept=not leisurely and record["id"] in sleepers,
            )
        )
    return found


def _expected_size(record: Record, half: str, *, vague: bool) -> Size:
    count: int = record[f"{half}_bytes"]
    return Size(count, exact=False) if vague else size_of(count, record[f"{half}_framing"])


def _duration_ns(record: Record) -> int | None:
    if "duration_s" in record:  # nginx: in milliseconds, rounded
        return int(record["duration_s"] * 1e9)
    return int(record["duration_us"]) * 1000 if "duration_us" in record else None


def compare(expected: Iterable[Expected], spans: Sequence[Span], unproven_max: int = 0) -> Report:
    """One to one. Every exchange without its span, every span without its exchange, every second
    span of an exchange, and every attribute that differs is a problem.

    Up to ``unproven_max`` spans may have no peer, as of TLS whose connection is not proven."""
    wanted = {exchange.ident: exchange for exchange in expected}
    report = Report(len(wanted), len(spans))
    unproven = sum("network.peer.port" not in span["attributes"] for span in spans)
    may_lack_peer = unproven <= unproven_max
    found: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        found[str(span["attributes"].get("url.path", "")).rsplit("/", 1)[-1]].append(span)
    for ident in sorted(found.keys() - wanted.keys()):
        report.problems += [f"invented: {_brief(span)}" for span in found[ident]]
    for ident, exchange in wanted.items():
        match found[ident]:
            case []:
                report.problems.append(f"lost: {exchange.method} {exchange.path}")
            case [span]:
                report.problems += _differences(exchange, span, may_lack_peer)
                if exchange.duration_ns is not None:
                    report.differences_ns.append(span["duration_ns"] - exchange.duration_ns)
            case several:
                report.problems += [f"doubled: {_brief(span)}" for span in several[1:]]
    identities = [(span["trace_id"], span["span_id"]) for span in spans]
    if len(set(identities)) != len(identities):
        report.problems.append("two spans with the same trace and span id")
    return report


def _differences(exchange: Expected, span: Span, may_lack_peer: bool) -> list[str]:
    attributes = span["attributes"]
    rows: list[tuple[str, bool, object, object]] = [
        (name, said == wanted, wanted, said)
        for name, wanted, said in (
            ("method", exchange.method, attributes.get("http.request.method")),
            ("path", exchange.path, attributes.get("url.path")),
            ("status", exchange.status, attributes.get("http.response.status_code")),
            ("incomplete", None, span["incomplete"]),
        )
    ]
    length_ns = span["end_unix_nano"] - span["start_unix_nano"]
    agrees = abs(length_ns - span["duration_ns"]) < CLOCK_STEP_NS
    rows.append(("end minus start", agrees, span["duration_ns"], length_ns))
    if exchange.slept:
        slept = span["duration_ns"] >= SLEEP_NS
        rows.append(("duration", slept, f"{SLEEP_NS} at least", span["duration_ns"]))
    for side, size in (("request", exchange.request_size), ("response", exchange.response_size)):
        said = attributes.get(f"http.{side}.body.size")
        rows.append((f"{side} body size", size.admits(said), size, said))
    if exchange.peer_port:
        port = attributes.get("network.peer.port")
        right = port == exchange.peer_port or (port is None and may_lack_peer)
        rows.append(("peer port", right, exchange.peer_port, port))
    failed = exchange.status >= (500 if span["kind"] == "server" else 400)
    rows.append(("error", span["error"] is failed, failed, span["error"]))
    return [
        f"{exchange.path}: {name} must be {wanted}, span says {said}"
        for name, right, wanted, said in rows
        if not right
    ]


def _brief(span: Span) -> str:
    attributes = span["attributes"]
    words = (attributes.get("http.request.method"), attributes.get("url.path"))
    status = attributes.get("http.response.status_code")
    return f"{span['kind']} {words[0]} {words[1]} {status} incomplete={span['incomplete']}"
