# SPDX-License-Identifier: Apache-2.0
"""The messages of remote write.

Sources: prometheus.io, "Prometheus Remote-Write 1.0 specification" and "2.0"; prompb/types.proto,
prompb/io/prometheus/write/v2/types.proto of Prometheus.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from otelauto.agent.pipeline import Metadata
from otelauto.agent.prometheus.names import NAME
from otelauto.agent.prometheus.wal import EXEMPLAR
from otelauto.export.protobuf import double, fields, head, integer, sized, text, varint

V1: Final = "prometheus.WriteRequest"
V2: Final = "io.prometheus.write.v2.Request"
HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    V1: {
        "content-type": "application/x-protobuf",
        "content-encoding": "snappy",
        "x-prometheus-remote-write-version": "0.1.0",
    },
    V2: {
        "content-type": f"application/x-protobuf;proto={V2}",
        "content-encoding": "snappy",
        "x-prometheus-remote-write-version": "2.0.0",
    },
}
KINDS: Final = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info",
                "stateset")  # fmt: skip
_DOUBLE: Final = struct.Struct("<d")
# A sample of usual size: value (key and 8 bytes), time (key and 6 bytes) in 16 bytes.
_TIME_BYTES: Final = 6
_SAMPLE_BYTES: Final = 1 + 8 + 1 + _TIME_BYTES
_SUFFIXES: Final = ("_bucket", "_count", "_sum")


class Target:
    """A series as an endpoint gets it. ``labels`` are encoded (field 1 of a ``TimeSeries``);
    ``latest_ms`` and ``value`` are those of the newest sample, ``seen`` the segment of it.
    """

    __slots__ = ("labels", "latest_ms", "prefix", "refs", "seen", "value")

    def __init__(self, labels: bytes, seen: int) -> None:
        self.labels = labels
        # Up to the sample of usual size: head of the TimeSeries, labels, head of the sample.
        inner = labels + head(2, _SAMPLE_BYTES)
        self.prefix = head(1, len(inner) + _SAMPLE_BYTES) + inner + b"\x09"
        self.refs: tuple[tuple[str, str], ...] = ()
        self.latest_ms = -1
        self.value = 0.0
        self.seen = seen


class Entry(NamedTuple):
    """What is sent of one series: a sample, or else only what is ``attached`` to it (kind, encoded
    exemplar or histogram).
    """

    target: Target
    timestamp_ms: int
    value: float | None
    attached: tuple[tuple[int, bytes], ...] = ()


def decoded_labels(data: bytes) -> tuple[tuple[str, str], ...]:
    """Names and values of encoded labels."""
    found = []
    for number, pair in fields(data):
        if number == 1 and isinstance(pair, bytes):
            parts = {n: v.decode() for n, v in fields(pair) if isinstance(v, bytes)}
            found.append((parts.get(1, ""), parts.get(2, "")))
    return tuple(found)


def write_request(entries: Iterable[Entry]) -> bytes:
    """A ``WriteRequest`` of remote write 1.0."""
    out: list[bytes] = []
    pack = _DOUBLE.pack
    last_ms, time = -1, b""
    for target, timestamp_ms, value, attached in entries:
        if value is not None:
            if timestamp_ms != last_ms:
                last_ms, time = timestamp_ms, varint(timestamp_ms)
            if len(time) == _TIME_BYTES:
                out.append(b"%b%b\x10%b" % (target.prefix, pack(value), time))
            else:
                sample = double(1, value) + integer(2, timestamp_ms)
                out.append(sized(1, target.labels + sized(2, sample)))
        for kind, data in attached:
            out.append(sized(1, target.labels + sized(3 if kind == EXEMPLAR else 4, data)))
    return b"".join(out)


def metadata_request(metadata: Iterable[Metadata]) -> bytes:
    """A ``WriteRequest`` of remote write 1.0 with metadata only."""
    return b"".join(
        sized(
            3,
            integer(1, KINDS.index(each.kind) if each.kind in KINDS else 0)
            + text(2, each.family) + text(4, each.help) + text(5, each.unit),
        )
        for each in metadata
    )  # fmt: skip


class _Symbols:
    """The table of strings of a request; the first is the empty one."""

    def __init__(self) -> None:
        self._refs: dict[str, int] = {"": 0}

    def __getitem__(self, symbol: str) -> int:
        return self._refs.setdefault(symbol, len(self._refs))

    def encoded(self) -> bytes:
        return b"".join(text(4, symbol) for symbol in self._refs)

    def references(self, field: int, pairs: Iterable[tuple[str, str]]) -> bytes:
        """Names and values by their places, packed."""
        return sized(
            field, b"".join(varint(self[name]) + varint(self[value]) for name, value in pairs)
        )


def write_request_v2(entries: Sequence[Entry], metadata: Mapping[str, Metadata]) -> bytes:
    """A ``Request`` of remote write 2.0. ``metadata`` is by family."""
    symbols = _Symbols()
    out: list[bytes] = []
    for target, timestamp_ms, value, attached in entries:
        if not target.refs:
            target.refs = decoded_labels(target.labels)
        parts = [symbols.references(1, target.refs)]
        if value is not None:
            parts.append(sized(2, double(1, value) + integer(2, timestamp_ms)))
        for kind, data in attached:
            if kind == EXEMPLAR:
                parts.append(sized(4, _exemplar_v2(data, symbols)))
            else:
                parts.append(sized(3, data))
        about = family_metadata(dict(target.refs).get(NAME, ""), metadata)
        if about is not None:
            kind = KINDS.index(about.kind) if about.kind in KINDS else 0
            described = integer(3, symbols[about.help]) + integer(4, symbols[about.unit])
            parts.append(sized(5, integer(1, kind) + described))
        out.append(sized(5, b"".join(parts)))
    return symbols.encoded() + b"".join(out)


def family_metadata(name: str, metadata: Mapping[str, Metadata]) -> Metadata | None:
    """That of the series ``name``, which may be a part of a histogram or summary."""
    found = metadata.get(name)
    if found is None:
        for suffix in _SUFFIXES:
            found = metadata.get(name.removesuffix(suffix)) if name.endswith(suffix) else found
    return found


def _exemplar_v2(data: bytes, symbols: _Symbols) -> bytes:
    """An exemplar of remote write 1.0 as 2.0 has it."""
    rest = b"".join(
        double(2, _DOUBLE.unpack(value)[0]) if number == 2 and isinstance(value, bytes)
        else integer(3, value) if number == 3 and isinstance(value, int) else b""
        for number, value in fields(data)
    )  # fmt: skip
    return symbols.references(1, decoded_labels(data)) + rest
