# SPDX-License-Identifier: Apache-2.0
"""What the tests of the prometheus.* components share."""

from __future__ import annotations

import http.server
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from otelauto.agent.check import check, evaluated
from otelauto.agent.pipeline import Appender, Context, Labels, Metadata, Refused, Sample
from otelauto.agent.river.diagnostics import Source
from otelauto.agent.river.values import Capsule
from otelauto.agent.schema import APPENDABLE, Decoded
from otelauto.counters import Counters

# The messages of remote write, from their definitions: nothing here is of the code under test.
_SCALARS = {"double": 1, "int64": 3, "uint64": 4, "string": 9, "uint32": 13, "sint32": 17,
            "sint64": 18, "enum": 5}  # fmt: skip
_V1 = {
    "Label": [("string name", 1), ("string value", 2)],
    "Sample": [("double value", 1), ("int64 timestamp", 2)],
    "Exemplar": [("*Label labels", 1), ("double value", 2), ("int64 timestamp", 3)],
    "BucketSpan": [("sint32 offset", 1), ("uint32 length", 2)],
    "Histogram": [
        ("uint64 count_int", 1), ("double sum", 3), ("sint32 schema", 4),
        ("double zero_threshold", 5), ("uint64 zero_count_int", 6),
        ("*BucketSpan negative_spans", 8), ("*sint64 negative_deltas", 9),
        ("*BucketSpan positive_spans", 11), ("*sint64 positive_deltas", 12),
        ("int64 timestamp", 15),
    ],
    "TimeSeries": [
        ("*Label labels", 1), ("*Sample samples", 2), ("*Exemplar exemplars", 3),
        ("*Histogram histograms", 4),
    ],
    "MetricMetadata": [
        ("enum type", 1), ("string metric_family_name", 2), ("string help", 4), ("string unit", 5),
    ],
    "WriteRequest": [("*TimeSeries timeseries", 1), ("*MetricMetadata metadata", 3)],
}  # fmt: skip
_V2 = {
    "Sample": _V1["Sample"],
    "Exemplar": [("*uint32 labels_refs", 1), ("double value", 2), ("int64 timestamp", 3)],
    "BucketSpan": _V1["BucketSpan"],
    "Histogram": _V1["Histogram"],
    "Metadata": [("enum type", 1), ("uint32 help_ref", 3), ("uint32 unit_ref", 4)],
    "TimeSeries": [
        ("*uint32 labels_refs", 1), ("*Sample samples", 2), ("*Histogram histograms", 3),
        ("*Exemplar exemplars", 4), ("Metadata metadata", 5),
    ],
    "Request": [("*string symbols", 4), ("*TimeSeries timeseries", 5)],
}  # fmt: skip


@cache
def message_type(version: int) -> type:
    """The class of the message of remote write 1 or 2."""
    package = f"test.v{version}"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    definitions = _V1 if version == 1 else _V2
    for name, fields in definitions.items():
        message = file.message_type.add(name=name)
        for about, number in fields:
            kind, _, field_name = about.lstrip("*").partition(" ")
            described = message.field.add(name=field_name, number=number)
            described.label = 3 if about.startswith("*") else 1
            described.type = _SCALARS.get(kind, 11)
            if kind not in _SCALARS:
                described.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{package}.{'WriteRequest' if version == 1 else 'Request'}")
    return message_factory.GetMessageClass(found)


def decoded_request(body: bytes, version: int = 1) -> Any:
    """The message of a request's body."""
    return message_type(version).FromString(bytes(cramjam.snappy.decompress_raw(body)))


def series_of(message: Any) -> dict[Labels, list[tuple[int, float]]]:
    """Samples by labels of a message of remote write 1.0."""
    found: dict[Labels, list[tuple[int, float]]] = {}
    for series in message.timeseries:
        labels = tuple((label.name, label.value) for label in series.labels)
        assert list(labels) == sorted(labels)
        found.setdefault(labels, []).extend((s.timestamp, s.value) for s in series.samples)
    return found


def symbols_of(message: Any, refs: Sequence[int]) -> Labels:
    """Labels of a message of remote write 2.0."""
    texts = [message.symbols[ref] for ref in refs]
    return tuple(zip(texts[::2], texts[1::2], strict=True))


def labels(name: str, **others: str) -> Labels:
    """Labels of a series."""
    return tuple(sorted({"__name__": name, **others}.items()))


def bits(value: float) -> int:
    """The bits of a double: NaN is not equal to itself."""
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


class Store(Appender):
    """Remembers what it is given; refuses as long as ``refusing`` is a reason."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.metadata: list[Metadata] = []
        self.refusing = ""

    def append(self, samples, metadata=()):
        if self.refusing:
            raise Refused(self.refusing)
        self.samples += samples
        self.metadata += metadata

    def values(self) -> dict[Labels, float]:
        """The newest value of each series."""
        return {sample.labels: sample.value for sample in self.samples}


def content_of(text: str, **capsules: object) -> Decoded:
    """The block of the one component in ``text``, decoded. ``STORE`` in it is a store."""
    replaced = text
    stores = ""
    for name in capsules:
        replaced = replaced.replace(name, f"prometheus.remote_write.{name}.receiver")
        stores += f'prometheus.remote_write "{name}" {{ endpoint {{ url = "http://h/" }} }}\n'
    configuration = check([Source("test.river", stores + replaced)], {})
    node = list(configuration.nodes.values())[-1]
    exports = {
        f"prometheus.remote_write.{name}": {"receiver": Capsule(APPENDABLE, store)}
        for name, store in capsules.items()
    }
    return evaluated(node, exports, {})


def context_of(path: Path, counters: Counters | None = None) -> Context:
    """What the agent gives to a component."""
    return Context("prometheus.test.x", counters or Counters(), path, lambda: None)


@dataclass
class Request:
    """What a server got."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Web:
    """A web server. ``answer`` gives status, headers and body of the answer to a request; ``None``
    hangs up without one.
    """

    answer: Callable[[Request], tuple[int, dict[str, str], bytes] | None]
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@contextmanager
def web(
    answer: Callable[[Request], tuple[int, dict[str, str], bytes] | None],
    tls: ssl.SSLContext | None = None,
) -> Iterator[Web]:
    """Run a web server."""
    found = Web(answer, scheme="https" if tls else "http")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, self.rfile.read(size))
            found.requests.append(request)
            answered = found.answer(request)
            if answered is None:
                self.close_connection = True
                return
            status, more, body = answered
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.port = server.server_address[1]
    server.handle_error = lambda *_: None  # connections that are cut, TLS that is refused
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
