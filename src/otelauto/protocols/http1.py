# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.0 and HTTP/1.1 (RFC 9112), read from both directions of a connection.

A head is read as soon as it is whole; a body is only followed to its end. Where a head is cut short
or lengths contradict one another, the message is left open-ended: what comes next on the connection
ends it, and no size is claimed.
"""

from __future__ import annotations

from otelauto.flows.vocabulary import (
    Address,
    Change,
    Description,
    Desync,
    Entry,
    Likeness,
    Role,
    Side,
    Stream,
)
from otelauto.protocols import (
    grpc,
    h2c,
    http1_describe,
    http_operations,
    proxy_protocol,
    traceparent,
    websocket,
)
from otelauto.protocols.http1_body import (
    Framing,
    Http1Message,
    advance,
    begin_body,
    complete,
    frame,
    leave_open,
)
from otelauto.protocols.http1_head import (
    HEAD_MAX,
    KNOWN_METHODS,
    Fields,
    Heads,
    find_end,
    likeness,
    split_request_line,
    status_of,
)
from otelauto.protocols.http2 import Http2
from otelauto.protocols.json_body import Body
from otelauto.protocols.settings import ProtocolSettings

_SWITCHING_PROTOCOLS = 101
_NO_BODY = (204, 304)
_EVENT_STREAM = b"text/event-stream"
_HEADS = Heads()


class Http1:
    """The registry's entry."""

    name = "http"
    opaque = False
    multiplexed = False
    beginning = b""
    response_start = b"HTTP/1."

    def __init__(self, settings: ProtocolSettings) -> None:
        self._settings = settings

    def recognize(self, head: bytes, at_start: bool) -> Likeness:
        """A request line or a status line; a PROXY protocol prefix may precede the first one."""
        if at_start and head[:1] in (b"P", b"\r") and proxy_protocol.may_begin(head):
            if proxy_protocol.broken(head):
                return Likeness.NO
            prefix = proxy_protocol.parse(head)
            if prefix is None:
                return Likeness.MAYBE
            head = head[prefix.size :]
            if not head:
                return Likeness.MAYBE
        return likeness(head)

    def parser(self) -> Http1Parser:
        """A reader for a new connection."""
        return Http1Parser(self._settings)


class Http1Parser:
    """One connection."""

    __slots__ = ("_describer", "_proxied", "_settings", "upgraded")

    def __init__(self, settings: ProtocolSettings) -> None:
        self.upgraded = False
        self._proxied: Address | None = None
        self._settings = settings
        self._describer = http1_describe.Describer(settings)

    @property
    def compiled(self) -> bool:
        """As long as this is HTTP, and the peer is the client."""
        return not self.upgraded and self._proxied is None

    def read(self, role: Role, stream: Stream, request: Http1Message | None) -> Http1Message | None:
        """The next message, once its head is there. Raises Desync on anything else."""
        if request is None or role is Role.REQUEST:
            return self._read_request(stream)
        return self._read_response(stream, request)

    def _read_request(self, stream: Stream) -> Http1Message | None:
        if stream.position == 0 and not self._skip_prefix(stream):
            return None
        found = _head(stream)
        return None if found is None else _request(stream, *found, self._settings.operations)

    def _skip_prefix(self, stream: Stream) -> bool:
        """Pass a PROXY protocol prefix; ``False``: more bytes are needed."""
        data = stream.window()
        if data[:1] not in (b"P", b"\r") or not proxy_protocol.may_begin(data):
            return True
        if proxy_protocol.broken(data):
            raise Desync("PROXY protocol prefix")
        prefix = proxy_protocol.parse(data)
        if prefix is None:
            # PUT and PATCH begin like PROXY, an empty line like the signature of version 2.
            return False
        self._proxied = prefix.client
        stream.skip(prefix.size)
        return True

    def read_partial(self, stream: Stream) -> Http1Message | None:
        """A request whose head will not become whole: at least its first line must be there."""
        if stream.end <= stream.position or b"\n" not in stream.window():
            return None
        data = stream.window()
        return _request(stream, data, len(data), True, ())

    def _read_response(self, stream: Stream, request: Http1Message) -> Http1Message | None:
        while True:
            found = _head(stream)
            if found is None:
                return None
            response = _response(stream, *found, request)
            if response.status >= 200 or response.status == _SWITCHING_PROTOCOLS:
                break
            if response.truncated:
                raise Desync("interim response cut short")
            request.expects_continue = False
        self._begin_response(stream, request, response)
        return response

    def _begin_response(
        self, stream: Stream, request: Http1Message, response: Http1Message
    ) -> None:
        tunnel = request.method == b"CONNECT" and response.status // 100 == 2
        if tunnel or response.status == _SWITCHING_PROTOCOLS:
            self.upgraded = True
            _without_body(response)
        elif not response.truncated and (request.method == b"HEAD" or response.status in _NO_BODY):
            _without_body(response)
        begin_body(response, stream)

    def advance(self, message: Http1Message, stream: Stream) -> None:
        """Follow the body of ``message`` as far as bytes have passed."""
        advance(message, stream)

    def settle(self, message: Http1Message, stream: Stream) -> None:
        """An open-ended ``message`` ended with the last byte that was advanced over."""
        complete(message, stream)

    def answered(self, request: Http1Message, response: Http1Message, stream: Stream) -> None:
        """A final answer to ``Expect: 100-continue``: the body may never come.

        The client may send it all the same, or go on with its next request (RFC 9110, section
        10.1.1). So the end of the request is open until something follows.
        """
        if request.complete or not request.expects_continue or stream.end > request.body_start:
            return
        stream.rewind()
        leave_open(request)

    def change(self, entry: Entry) -> Change | None:
        """What a response with status 101 says."""
        upgrade = entry.response.upgrade
        if upgrade == websocket.NAME.encode():
            parser = websocket.WebSocketParser(entry, self.describe)
            return Change(websocket.NAME, parser, None, websocket.WANT)
        if upgrade == h2c.UPGRADE:
            http2 = Http2(self._settings)
            following = h2c.parser_of(http2, entry)
            return None if following is None else Change(http2.name, following, http2)
        return None

    def describe(
        self,
        side: Side,
        ends: tuple[Address, Address],
        request: Http1Message,
        response: Http1Message | None,
    ) -> Description:
        """Attributes by the semantic conventions of HTTP, or of the call that it carries."""
        if request.call is not None:
            return grpc.describe(side, ends, request, response, request.call)
        client = self._proxied or ends[1]
        said = self._describer.describe(side, ends, client, request, response)
        if isinstance(request.sink, Body):
            answer = response.sink if response is not None else None
            asked = http_operations.Asked(
                request.sink, answer if isinstance(answer, Body) else None
            )
            said = http_operations.describe(said, side, asked, self._settings.operations)
        return said


def _head(stream: Stream) -> tuple[bytes, int, bool] | None:
    """(lines, size, whether cut short) of the head that begins at the position.

    ``None``: more bytes are needed. Raises Desync if they cannot come.
    """
    data = stream.window()
    if data[:1] in (b"\r", b"\n"):
        # Empty lines before a head are ignored (RFC 9112, section 2.2).
        blank = len(data) - len(data.lstrip(b"\r\n"))
        stream.skip(blank)
        data = stream.window()
    end = find_end(data)
    if end is not None:
        return data[: end[0]], end[1], False
    if not stream.hole() and len(data) < HEAD_MAX:
        if data and likeness(data) is Likeness.NO:
            raise Desync("not a head")
        return None
    return data, len(data), True


def _message(role: Role, stream: Stream, size: int) -> Http1Message:
    """The message whose head, of ``size`` bytes, begins at the position."""
    start = stream.position
    return Http1Message(start, stream.time_at(start), stream.sequence_at(start), size, role=role)


def _frame(message: Http1Message, fields: Fields, truncated: bool) -> None:
    message.truncated = truncated
    if truncated:
        leave_open(message)
    else:
        frame(message, fields)


def _request(
    stream: Stream, lines: bytes, size: int, truncated: bool, operations: tuple[str, ...]
) -> Http1Message:
    line, fields = _HEADS.split(_whole_lines(lines) if truncated else lines)
    parts = split_request_line(line)
    if parts is None and truncated:
        parts = _cut_request_line(lines)
    if parts is None:
        raise Desync("not a request line")
    message = _message(Role.REQUEST, stream, size)
    message.method, message.target, message.version = parts
    message.host = fields.value(b"\nhost:")
    message.user_agent = fields.value(b"\nuser-agent:")
    message.may_upgrade = message.method == b"CONNECT" or fields.value(b"\nupgrade:") is not None
    for value in fields.values(b"\ntraceparent:"):
        message.parent = traceparent.parse(value)
        if message.parent is not None:
            break
    expect = fields.value(b"\nexpect:")
    continues = expect is not None and expect.lower() == b"100-continue"
    message.expects_continue = continues and not truncated
    _look_into(message, fields, operations)
    stream.skip(size)
    _frame(message, fields, truncated)
    begin_body(message, stream)
    return message


def _look_into(message: Http1Message, fields: Fields, operations: tuple[str, ...]) -> None:
    """Whether the request carries a call, or may name an operation: then its body is looked at."""
    content_type = fields.value(b"\ncontent-type:") or b""
    connect = fields.value(b"\nconnect-protocol-version:")
    kind = grpc.kind_of(content_type, {} if connect is None else {grpc.CONNECT_VERSION: connect})
    if kind is not None and kind is not grpc.GRPC:  # which HTTP/1 cannot carry
        timeout = fields.value(b"\ngrpc-timeout:") or b""
        message.call = grpc.Call(kind, timeout=timeout)
        if kind.prefixed:
            message.sink = message.call.sent = grpc.messages(kind)
    elif operations and http_operations.may_ask(message.method, content_type):
        message.sink = Body()


def _response(
    stream: Stream, lines: bytes, size: int, truncated: bool, request: Http1Message
) -> Http1Message:
    line, fields = _HEADS.split(_whole_lines(lines) if truncated else lines)
    parts = status_of(line)
    if parts is None:
        raise Desync("not a status line")
    message = _message(Role.RESPONSE, stream, size)
    message.version, message.status = parts
    if message.status == _SWITCHING_PROTOCOLS:
        message.upgrade = (fields.value(b"\nupgrade:") or b"").lower()
    message.lasting = (fields.value(b"\ncontent-type:") or b"").startswith(_EVENT_STREAM)
    if request.call is not None:
        _answer_call(message, fields, request.call)
    elif isinstance(request.sink, Body):
        message.sink = Body()
    stream.skip(size)
    _frame(message, fields, truncated)
    return message


def _answer_call(response: Http1Message, fields: Fields, call: grpc.Call) -> None:
    """The head of a response to ``call``, whose body may tell how it ended."""
    names = (b"grpc-status", b"grpc-message")
    call.take({name: fields.value(b"\n" + name + b":") or b"" for name in names})
    if call.kind.prefixed:
        response.sink = call.answered = grpc.messages(call.kind)
    elif response.status != 200:
        response.sink = call.refusal = Body()


def _without_body(response: Http1Message) -> None:
    response.framing, response.declared = Framing.NONE, None
    response.open_ended = response.may_be_over = response.endless = False


def _whole_lines(lines: bytes) -> bytes:
    """The lines up to the last line end: what follows may be cut anywhere."""
    return lines[: lines.rfind(b"\n") + 1]


def _cut_request_line(line: bytes) -> tuple[bytes, bytes, str] | None:
    """Method and path of a request line that was cut behind its path, which must be whole."""
    method, _, target = line.partition(b" ")
    path, mark, _ = target.partition(b"?")
    if not mark or method not in KNOWN_METHODS or path[:1] != b"/" or b" " in path:
        return None
    return method, path + b"?", ""
