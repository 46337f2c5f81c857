# SPDX-License-Identifier: Apache-2.0
"""FastCGI (the FastCGI Specification 1.0): HTTP as a server hands it to an application.

Records carry the id of their request. A request is CGI variables and a body, a response a CGI head
(RFC 3875, section 6) and a body, so the exchange is described as HTTP.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from otelauto.flows.vocabulary import (
    Address,
    Description,
    Desync,
    Entry,
    Likeness,
    Role,
    Segment,
    Side,
    Stream,
)
from otelauto.protocols import traceparent
from otelauto.protocols.http1_describe import Describer
from otelauto.protocols.http_message import HttpMessage
from otelauto.protocols.settings import ProtocolSettings

_HEADER = 8
_unpack = struct.Struct("!BBHHBB").unpack_from  # version, type, request, content, padding, reserved
_BEGIN, _ABORT, _END, _PARAMS, _STDIN, _STDOUT, _STDERR = range(1, 8)
_TYPES = {
    Role.REQUEST: (_BEGIN, _ABORT, _PARAMS, _STDIN, 8, 9),
    Role.RESPONSE: (_END, _STDOUT, _STDERR, 10, 11),
}
_BEGIN_SIZE = 8
_BEGINNING = bytes((1, _BEGIN, 0, 1, 0, _BEGIN_SIZE, 0, 0))  # with request 1, as most do
_ROLES = (1, 2, 3)
_PARAMS_MAX = 64 * 1024
_HEAD_MAX = 16 * 1024
_OPEN_MAX = 1024
_STATUS_DIGITS = 3


@dataclass(slots=True)
class FastCgiMessage(HttpMessage):
    """A request, whose ``head`` are its variables, or a response, whose ``head`` is a CGI head."""

    head: bytes = b""
    head_complete: bool = False
    variables: dict[bytes, bytes] = field(default_factory=dict)

    def body_size(self) -> int | None:
        """The bytes of STDIN, or of STDOUT behind the head."""
        whole = self.complete and self.head_complete and not self.inexact
        return self.wire_size if whole and self.wire_size else None


class FastCgi:
    """The registry's entry."""

    name = "fastcgi"
    opaque = False
    multiplexed = True
    beginning = _BEGINNING
    response_start = b""

    def __init__(self, settings: ProtocolSettings) -> None:
        self._settings = settings

    def recognize(self, head: bytes, at_start: bool) -> Likeness:
        """FCGI_BEGIN_REQUEST, wherever it stands: every request begins with it."""
        if len(head) >= _HEADER + _BEGIN_SIZE:
            return Likeness.REQUEST if _is_begin(head) else Likeness.NO
        known = (0, 1, 4, 5, 7)  # bytes of a header that are the same in every one
        same = all(head[at] == _BEGINNING[at] for at in known if at < len(head))
        return Likeness.MAYBE if same and head else Likeness.NO

    def parser(self) -> FastCgiParser:
        """A reader for a new connection."""
        return FastCgiParser(self._settings)


def _is_begin(head: bytes) -> bool:
    version, kind, number, content, _, reserved = _unpack(head)
    return (
        (version, kind, content, reserved) == (1, _BEGIN, _BEGIN_SIZE, 0)
        and number > 0
        and int.from_bytes(head[_HEADER : _HEADER + 2]) in _ROLES
        and head[_HEADER + 2] <= 1
        and not any(head[_HEADER + 3 : _HEADER + _BEGIN_SIZE])
    )


class _Half:
    """One direction. ``left`` bytes of a record's payload are still to pass."""

    __slots__ = ("content", "kind", "left", "lost", "number", "role")

    def __init__(self, role: Role) -> None:
        self.role = role
        self.lost = False
        self.left = 0
        self.content = 0  # of them, without padding
        self.kind = 0
        self.number = 0


class FastCgiParser:
    """One connection."""

    __slots__ = ("_describer", "_halves", "_open", "_segment", "finished", "unmatched", "upgraded")

    def __init__(self, settings: ProtocolSettings) -> None:
        self.finished: list[Entry] = []
        self.unmatched = 0
        self.upgraded = False
        self._halves = {role: _Half(role) for role in Role}
        self._open: dict[int, Entry] = {}
        self._describer = Describer(settings)

    def begin(self, whole: tuple[bool, bool]) -> None:
        """Requests stand at a record; responses may stand anywhere."""
        self._halves[Role.RESPONSE].lost = not whole[1]

    def read(self, role: Role, stream: Stream, segment: Segment) -> None:
        """Read all records that are there. Raises Desync where the place is lost."""
        half = self._halves[role]
        self._segment = segment
        if half.lost and not self._finds_place(half, stream, segment):
            raise Desync("no record begins here")
        while True:
            stream.skip(self._walk(half, stream))
            if not stream.hole():
                return
            if not half.left:
                self._doubt(half)
                if not self._finds_place(half, stream, segment):
                    raise Desync("record header missing")
                continue
            count = min(half.left, stream.end - stream.position)
            self._pass(half, b"", min(count, half.content))
            half.content -= min(count, half.content)
            half.left -= count
            stream.skip(count)
            if stream.position >= stream.end:
                return

    def lose(self, role: Role, stream: Stream) -> None:
        """What passes up to the next segment is missed."""
        stream.skip(stream.end - stream.position)
        self._doubt(self._halves[role])

    def _doubt(self, half: _Half) -> None:
        half.lost = True
        half.left = 0
        for entry in self._open.values():
            message = entry.request if half.role is Role.REQUEST else entry.response
            if message is not None:
                message.inexact = True
            entry.incomplete = "lost"

    def _finds_place(self, half: _Half, stream: Stream, segment: Segment) -> bool:
        stream.skip(max(segment.offset - stream.position, 0))
        data = stream.window()
        if half.role is Role.REQUEST:
            found = len(data) >= _HEADER + _BEGIN_SIZE and _is_begin(data)
        else:
            found = len(data) >= _HEADER and self._is_record(half, data, 0)
            found = found and _unpack(data)[2] in self._open
        half.lost = not found
        return found

    def _is_record(self, half: _Half, data: bytes, at: int) -> bool:
        version, kind, number, _, _, reserved = _unpack(data, at)
        managed = kind in (9, 10, 11)
        return (
            version == 1
            and kind in _TYPES[half.role]
            and reserved == 0
            and (number == 0) == managed
        )

    def _walk(self, half: _Half, stream: Stream) -> int:
        """Read records from the window; how many bytes of it were used."""
        data = stream.window()
        at, size, begin = 0, len(data), stream.position
        while True:
            if half.left:
                count = min(half.left, size - at)
                content = min(count, half.content)
                self._pass(half, data[at : at + content], content)
                half.content -= content
                half.left -= count
                at += count
                if half.left:
                    return at
            if size - at < _HEADER:
                return at
            if not self._is_record(half, data, at):
                raise Desync("not a record")
            _, kind, number, content, padding, _ = _unpack(data, at)
            end = at + _HEADER + content + padding
            if kind in (_BEGIN, _END) and end > size:
                return at
            self._on_record(
                half, kind, number, content, data[at + _HEADER : end], stream, begin + at
            )
            at += _HEADER
            half.kind, half.number = kind, number
            half.left, half.content = content + padding, content

    def _on_record(
        self, half: _Half, kind: int, number: int, content: int, payload: bytes, stream: Stream,
        at: int,
    ) -> None:  # fmt: skip
        """A record begins at offset ``at``; its payload is passed after this."""
        if kind == _BEGIN:
            self._on_begin(number, stream, at)
            return
        entry = self._open.get(number)
        if entry is None:
            self.unmatched += kind == _END
            return
        request: FastCgiMessage = entry.request
        if kind == _PARAMS and not content:
            _read_variables(request)
        elif kind == _STDIN and not content:
            request.complete = True
            request.end_ns = stream.time_at(at)
        elif kind in (_STDOUT, _END) and entry.response is None:
            start = stream.time_at(at)
            entry.response = FastCgiMessage(at, start, stream.sequence_at(at), _HEADER)
        if kind == _END:
            self._on_end(number, entry, payload, stream.time_at(at + _HEADER + len(payload) - 1))

    def _on_begin(self, number: int, stream: Stream, at: int) -> None:
        if number in self._open:  # its end was not seen
            self._open[number].incomplete = "lost"
            self.finished.append(self._open.pop(number))
        elif len(self._open) >= _OPEN_MAX:
            raise Desync("too many requests without a response")
        request = FastCgiMessage(at, stream.time_at(at), stream.sequence_at(at), _HEADER)
        self._open[number] = Entry(request, self._segment.tgid, self._segment.tid)

    def _on_end(self, number: int, entry: Entry, payload: bytes, time: int) -> None:
        request: FastCgiMessage = entry.request
        response: FastCgiMessage = entry.response
        # PHP reads no further than the length that it was told.
        length = request.variables.get(b"CONTENT_LENGTH")
        request.complete = request.complete or length == str(request.wire_size).encode()
        if response.head_complete:
            response.status = _status_of(response.head)
        response.complete = True
        response.end_ns = time
        refused = len(payload) > 4 and payload[4] != 0  # FCGI_OVERLOADED and the like
        known = response.status or response.truncated
        entry.incomplete = "aborted" if refused else None if known else "lost"
        self.finished.append(self._open.pop(number))

    def _pass(self, half: _Half, data: bytes, count: int) -> None:
        """``count`` bytes of content passed, of which ``data`` is known: all or nothing."""
        entry = self._open.get(half.number)
        if entry is None or not count:
            return
        if half.kind == _PARAMS:
            _take(entry.request, data, count, _PARAMS_MAX)
        elif half.kind == _STDIN:
            entry.request.wire_size += count
        elif half.kind == _STDOUT and entry.response is not None:
            _take_output(entry.response, data, count)

    def settle(self) -> None:
        """Nothing is whole here before its end was read."""

    def compiled(self) -> None:
        """No compiled code reads this."""

    def abandon(self) -> list[Entry]:
        """The requests that are open."""
        left, self._open = list(self._open.values()), {}
        return left

    def describe(
        self,
        side: Side,
        ends: tuple[Address, Address],
        request: FastCgiMessage,
        response: FastCgiMessage | None,
    ) -> Description:
        """As HTTP."""
        if not request.head_complete:
            _read_variables(request)
        return self._describer.describe(side, ends, ends[1], request, response)


def _take(message: FastCgiMessage, data: bytes, count: int, limit: int) -> None:
    if len(data) < count or len(message.head) + count > limit:
        message.truncated = True
    if not message.truncated:
        message.head += data


def _take_output(response: FastCgiMessage, data: bytes, count: int) -> None:
    """A part of STDOUT: the CGI head up to an empty line, then the body."""
    if response.head_complete or response.truncated:
        response.wire_size += count
        return
    _take(response, data, count, _HEAD_MAX)
    for ending in (b"\r\n\r\n", b"\n\n"):
        end = response.head.find(ending)
        if end >= 0:
            response.wire_size = len(response.head) - end - len(ending)
            response.head = response.head[:end]
            response.head_complete = True
            return


def _status_of(head: bytes) -> int:
    """The status that a CGI head says: 200 if it says none, 302 with a Location (RFC 3875)."""
    status = 200
    for line in head.splitlines():
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"status":
            code = value.strip()[:_STATUS_DIGITS]
            return int(code) if len(code) == _STATUS_DIGITS and code.isdigit() else 0
        if name.strip().lower() == b"location":
            status = 302
    return status


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A length of one or four bytes, and where it ends (section 3.4); -1 if it is not there."""
    if at >= len(data):
        return -1, at
    if data[at] < 0x80:
        return data[at], at + 1
    if at + 4 > len(data):
        return -1, at
    return int.from_bytes(data[at : at + 4]) & 0x7FFFFFFF, at + 4


def _read_variables(request: FastCgiMessage) -> None:
    """Read the CGI variables, as far as they are there."""
    data, at = request.head, 0
    variables = request.variables
    while at < len(data):
        name_size, at = _length(data, at)
        value_size, at = _length(data, at)
        end = at + name_size + value_size
        if name_size < 0 or value_size < 0 or end > len(data):
            request.truncated = True
            break
        variables[data[at : at + name_size]] = data[at + name_size : end]
        at = end
    get = variables.get
    request.head_complete = not request.truncated
    request.head_size = len(data)
    request.method = get(b"REQUEST_METHOD", b"")
    query = get(b"QUERY_STRING", b"")
    script = get(b"SCRIPT_NAME", b"") + get(b"PATH_INFO", b"")
    request.target = get(b"REQUEST_URI") or (script + b"?" + query if query else script)
    request.scheme = get(b"REQUEST_SCHEME") or (b"https" if get(b"HTTPS") == b"on" else b"http")
    request.host = get(b"HTTP_HOST") or get(b"SERVER_NAME")
    request.user_agent = get(b"HTTP_USER_AGENT")
    parent = get(b"HTTP_TRACEPARENT")
    if parent is not None:
        request.parent = traceparent.parse(parent)
