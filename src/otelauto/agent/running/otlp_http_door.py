# SPDX-License-Identifier: Apache-2.0
"""What the HTTP receiver does with a request; :mod:`http_server` reads and writes it.

Source: opentelemetry-proto, docs/specification.md, "OTLP/HTTP"; the Fetch standard for CORS.
"""

from __future__ import annotations

import fnmatch
import http
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otelauto.agent.pipeline import NO_FIELDS, Refused
from otelauto.agent.running.otlp_intake import OVERLOADED_RETRY_S, Intake, Taken
from otelauto.agent.running.unpacking import ENCODINGS, TooLargeError, UnusableError
from otelauto.export import protobuf

PROTOBUF, JSON, TEXT = "application/x-protobuf", "application/json", "text/plain"
# Of google.rpc.Code.
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 3, 8, 12, 13
UNAVAILABLE, UNAUTHENTICATED = 14, 16
NO_SUCH_SIGNAL = "this receiver takes no {signal}: its output block names nobody for them"
_RESPONSES: dict[str, Any] = {
    "traces": ExportTraceServiceResponse,
    "metrics": ExportMetricsServiceResponse,
}
Admits = Callable[[Mapping[str, str]], bool]


def joined(lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Fields by name; what is there more than once, with commas (RFC 9110, section 5.3)."""
    found: dict[str, str] = {}
    for name, value in lines:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages of browsers may send; with no origin none."""

    origins: Sequence[str] = ()
    headers: Sequence[str] = ()
    max_age_s: int | None = None

    def answer(self, origin: str | None) -> list[tuple[str, str]]:
        """Fields that let the page at ``origin`` see an answer."""
        if origin is None or not any(fnmatch.fnmatchcase(origin, each) for each in self.origins):
            return []
        return [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]

    def preflight(self, origin: str | None) -> list[tuple[str, str]]:
        """Fields that let it send."""
        fields = self.answer(origin)
        if not fields:
            return []
        allowed = ", ".join(("Accept", "Content-Type", "X-Requested-With", *self.headers))
        fields += [
            ("Access-Control-Allow-Methods", "POST"),
            ("Access-Control-Allow-Headers", allowed),
        ]
        if self.max_age_s is not None:
            fields.append(("Access-Control-Max-Age", str(self.max_age_s)))
        return fields


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a request; names of ``fields`` in lower case."""

    method: str
    path: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response, without its length."""

    status: int
    body: bytes = b""
    fields: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """``paths`` are those of signals, of logs too. ``admits`` is asked with each request's fields;
    ``encodings`` are the compressions that are taken; with ``keeps_fields`` those of a request go
    with its telemetry.
    """

    intake: Intake
    paths: Mapping[str, str]
    limit: int
    encodings: Sequence[str] = ENCODINGS
    cors: Cors = field(default_factory=Cors)
    admits: Admits | None = None
    keeps_fields: bool = False

    def early(self, head: Head) -> Answer | None:
        """The answer to a request whose body need not be read; ``None`` if it is wanted."""
        answer = self._early(head)
        if answer is not None and answer.status >= http.HTTPStatus.BAD_REQUEST:
            self.intake.rejected(str(answer.status))
        return answer

    def _early(self, head: Head) -> Answer | None:
        signal = self.paths.get(head.path)
        content = _content_type(head)
        if signal is None:
            return self._plain(
                head, 404, f"404: there is nothing at this path, but at {_listed(self.paths)}"
            )
        if head.method == "OPTIONS" and "access-control-request-method" in head.fields:
            return Answer(204, b"", self.cors.preflight(head.fields.get("origin")))
        if head.method != "POST":
            answer = self._plain(head, 405, "405 method not allowed, supported: [POST]")
            answer.fields.append(("Allow", "POST"))
            return answer
        if self.admits is not None and not self.admits(head.fields):
            return self._status(head, 401, UNAUTHENTICATED, "the credentials are missing or wrong")
        if content not in (PROTOBUF, JSON):
            supported = f"415 unsupported media type, supported: [{JSON}, {PROTOBUF}]"
            return self._plain(head, 415, supported)
        if not self.intake.outputs.takes(signal):
            return self._status(head, 404, UNIMPLEMENTED, NO_SUCH_SIGNAL.format(signal=signal))
        encoding = _encoding(head)
        if encoding and encoding not in self.encodings:
            listed = ", ".join(self.encodings)
            answer = self._status(head, 415, INVALID_ARGUMENT, f"only {listed} can be decompressed")
            answer.fields.append(("Accept-Encoding", listed))
            return answer
        size = head.fields.get("content-length", "0")
        return self.too_large(head) if int(size) > self.limit else None

    def too_large(self, head: Head) -> Answer:
        """To a body of more bytes than the limit."""
        return self._status(head, 413, RESOURCE_EXHAUSTED, f"a request may have {self.limit} bytes")

    def overloaded(self, head: Head) -> Answer:
        """To a body that there is no room for."""
        self.intake.rejected("no_room")
        return self._again(head, "too many requests at a time", None)

    def serve(self, head: Head, body: bytes) -> Answer:
        """The answer to a request that is there as a whole. Runs in a thread of its own."""
        signal = self.paths[head.path]
        json_wanted = _content_type(head) == JSON
        try:
            fields = head.fields if self.keeps_fields else NO_FIELDS
            encoding = _encoding(head)
            taken = self.intake.take(signal, body, self.limit, encoding, json_wanted, fields)
        except TooLargeError as error:
            return self._status(head, 413, RESOURCE_EXHAUSTED, str(error))
        except UnusableError as error:
            return self._status(head, 400, INVALID_ARGUMENT, str(error))
        except Refused as refused:
            if refused.permanent:
                return self._status(head, 400, INVALID_ARGUMENT, str(refused))
            return self._again(head, str(refused), refused.retry_after_s)
        return self._answer(head, 200, _taken(signal, taken, json_wanted))

    def failed(self, head: Head) -> Answer:
        """To a request that a fault of our own befell."""
        return self._status(head, 500, INTERNAL, "an internal error; it is in the log")

    def _again(self, head: Head, message: str, after_s: float | None) -> Answer:
        """Not now: 429 if it is known when, else 503; both may be sent again."""
        if after_s is None:
            answer = self._status(head, 503, UNAVAILABLE, message)
        else:
            answer = self._status(head, 429, RESOURCE_EXHAUSTED, message)
        wait = OVERLOADED_RETRY_S if after_s is None else after_s
        answer.fields.append(("Retry-After", str(max(1, math.ceil(wait)))))
        return answer

    def _status(self, head: Head, status: int, code: int, message: str) -> Answer:
        """A google.rpc.Status."""
        if _content_type(head) == JSON:
            body = json.dumps({"code": code, "message": message}).encode()
        else:
            body = protobuf.integer(1, code) + protobuf.text(2, message)
        answer = self._answer(head, status, body)
        if status == http.HTTPStatus.UNAUTHORIZED:
            answer.fields.append(("WWW-Authenticate", "Basic"))
        return answer

    def _plain(self, head: Head, status: int, message: str) -> Answer:
        fields = [("Content-Type", TEXT), *self.cors.answer(head.fields.get("origin"))]
        return Answer(status, message.encode() + b"\n", fields)

    def _answer(self, head: Head, status: int, body: bytes) -> Answer:
        kind = JSON if _content_type(head) == JSON else PROTOBUF
        return Answer(
            status, body, [("Content-Type", kind), *self.cors.answer(head.fields.get("origin"))]
        )


def _taken(signal: str, taken: Taken, json_wanted: bool) -> bytes:
    encoded = taken.encoded()
    if not json_wanted:
        return encoded
    if not encoded:
        return b'{"partialSuccess":{}}'
    found: str = MessageToJson(_RESPONSES[signal].FromString(encoded), indent=None)
    return found.encode()


def _content_type(head: Head) -> str:
    return head.fields.get("content-type", "").partition(";")[0].strip().lower()


def _encoding(head: Head) -> str:
    encoding = head.fields.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def _listed(paths: Mapping[str, str]) -> str:
    return ", ".join(paths)
