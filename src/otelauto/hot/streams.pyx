# SPDX-License-Identifier: Apache-2.0
"""The streams of one HTTP/2 connection: requests, their responses, and the calls that they are."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from otelauto.hot cimport messages
from otelauto.hot.hpack cimport (
    METHOD, PATH, SCHEME, AUTHORITY, STATUS, HOST, USER_AGENT, TRACEPARENT, CONTENT_TYPE, CONTENT_LENGTH, CONNECT_VERSION, GRPC_TIMEOUT, GRPC_STATUS, GRPC_MESSAGE, NAMES, Decoder,
)
from otelauto.hot.http1 cimport Span as Text, read_decimal

cdef enum:
    OPEN_MAX = 4096  # streams; the oldest is given up
    HELD_MAX = 4194304  # bytes of what their requests say, likewise
    HELD_FOR_CONTENT = 2097152  # above it no more content is kept: no stream is given up for it
    CONTENT_MAX = 16384  # bytes kept of one message, as in json_body.py
    NO_ERROR = 0  # RFC 9113, section 7
    STREAM_CLOSED = 5
    CANCEL = 8


cdef inline bint starts(Text text, const char* word, uint32_t size) noexcept nogil:
    return text.size >= size and memcmp(text.at, word, size) == 0


cdef inline int call_of(const Text* fields) noexcept nogil:
    """How a request carries a call (PROTOCOL-HTTP2.md, PROTOCOL-WEB.md, connectrpc.com)."""
    cdef Text said = fields[CONTENT_TYPE]
    if said.at == NULL:
        return NO_CALL
    if starts(said, b"application/grpc", 16):
        if said.size == 16 or said.at[16] == 43 or said.at[16] == 59:  # + and ;
            return GRPC
        if starts(said, b"application/grpc-web-text", 25):
            return GRPC_WEB_TEXT
        return GRPC_WEB if starts(said, b"application/grpc-web", 20) else NO_CALL
    if starts(said, b"application/connect+", 20):
        return CONNECT_STREAM
    return CONNECT_UNARY if fields[CONNECT_VERSION].at != NULL else NO_CALL


cdef inline void expect_messages(messages.Count* c, int call) noexcept nogil:
    c.wanted = True
    c.encoded = call == GRPC_WEB_TEXT
    c.last = messages.END_FLAG if call == CONNECT_STREAM else messages.TRAILER_FLAG


cdef inline uint16_t status_of(Text text) noexcept nogil:
    """The status of a response, 0 if it is not known."""
    cdef uint64_t status
    return <uint16_t> status if text.size == 3 and read_decimal(text, &status) else 0


cdef inline void move(Text* to, Text text, uint8_t** at) noexcept nogil:
    """Copy ``text`` to ``at``, which goes on behind it."""
    if text.at == NULL:
        return
    memcpy(at[0], text.at, text.size)
    to.at, to.size = at[0], text.size
    at[0] += text.size


cdef void discard(Exchange* x) noexcept:
    free(x.asked)
    free(x.said)
    free(x.request.count.trailers)
    free(x.response.count.trailers)
    free(x.request.content)
    free(x.response.content)
    free(x)


cdef object value_of(Text text):
    return None if text.at == NULL else PyBytes_FromStringAndSize(<char*> text.at, text.size)


cdef tuple message_of(Message* m):
    cdef messages.Count* c = &m.count
    count = None
    if c.wanted:
        trailers = PyBytes_FromStringAndSize(<char*> c.trailers, c.trailers_size)
        count = c.messages, c.size, not c.inexact, trailers
    content = None
    if m.keeps or m.kept:
        content = PyBytes_FromStringAndSize(<char*> m.content, m.kept)
    return (m.start_ns, m.tcp_sequence, m.head_size, m.end_ns, bool(m.complete), bool(m.truncated),
            bool(m.inexact), m.unknown, m.body_size, bool(m.has_body), m.declared, count, content)


cdef tuple facts_of(Exchange* x):
    """As ``Ended`` of http2.pyi."""
    return (
        x.tgid, x.tid, (None, "aborted", "lost")[x.fate], x.reset, x.call, x.status,
        message_of(&x.request), message_of(&x.response) if x.response.there else None,
        (value_of(x.method), value_of(x.target), value_of(x.scheme), value_of(x.authority),
         value_of(x.user_agent), value_of(x.traceparent)),
        (value_of(x.timeout), value_of(x.grpc_status), value_of(x.grpc_message)),
    )


cdef class Streams:
    """The table of those that are open, by number and by age, and the list of those that ended."""

    def __cinit__(self, make, may_ask):
        self.make, self.may_ask = make, may_ask

    def __dealloc__(self):
        cdef Exchange* x
        while self.oldest != NULL:
            self.finish(self.oldest)
        x = self.shift()
        while x != NULL:
            discard(x)
            x = self.shift()

    cdef object described(self, Exchange* x):
        """In the words of the flows."""
        return self.make(facts_of(x))

    cdef list take_ended(self):
        cdef Exchange* x = self.shift()
        found = []
        while x != NULL:
            try:
                found.append(self.described(x))
            finally:
                discard(x)
            x = self.shift()
        return found

    cdef int on_request(
        self, Decoder block, uint32_t number, uint32_t size, Origin origin, const Moved* moved, bint cut
    ) except -1:
        """A header block of ``size`` bytes that a client has sent."""
        cdef Text* fields = block.fields
        cdef Exchange* x
        cdef uint8_t* at
        cdef size_t room = 1
        cdef int i
        if number <= self.last:
            return 0  # trailers
        self.last = number
        for i in range(1, NAMES):
            room += fields[i].size
        while self.open and (self.open >= OPEN_MAX or self.held + room > HELD_MAX):
            self.unsure = True
            self.oldest.fate = LOST
            self.finish(self.oldest)
        x = <Exchange*> calloc(1, sizeof(Exchange))
        at = <uint8_t*> malloc(room)
        if x == NULL or at == NULL:
            free(x)
            free(at)
            raise MemoryError
        x.asked, x.room = at, room
        move(&x.method, fields[METHOD], &at)
        move(&x.target, fields[PATH], &at)
        move(&x.scheme, fields[SCHEME], &at)
        i = AUTHORITY if fields[AUTHORITY].size else HOST
        move(&x.authority, fields[i], &at)
        move(&x.user_agent, fields[USER_AGENT], &at)
        move(&x.traceparent, fields[TRACEPARENT], &at)
        move(&x.timeout, fields[GRPC_TIMEOUT], &at)
        x.number, x.tgid, x.tid, x.reset = number, moved.tgid, moved.tid, -1
        x.request.there, x.request.truncated = True, cut
        x.request.start_ns, x.request.tcp_sequence = origin.time, origin.tcp_sequence
        x.request.head_size, x.request.unknown = size, block.unknown
        x.request.declared = -1
        x.call = call_of(fields)
        if x.call not in (NO_CALL, CONNECT_UNARY) or (
            # The content may tell what the head cannot.
            fields[CONTENT_TYPE].at == NULL and x.request.unknown
            and x.method.size == 4 and memcmp(x.method.at, b"POST", 4) == 0
        ):
            expect_messages(&x.request.count, x.call)
        elif self.may_ask is not None and x.call == NO_CALL:
            x.request.keeps = self.may_ask(
                value_of(fields[METHOD]) or b"", value_of(fields[CONTENT_TYPE])
            )
        self.place(x)
        return 0

    cdef void place(self, Exchange* x) noexcept:
        cdef uint32_t number = x.number
        x.chained = self.buckets[number >> 1 & (BUCKETS - 1)]
        self.buckets[number >> 1 & (BUCKETS - 1)] = x
        x.older = self.newest
        if self.newest != NULL:
            self.newest.newer = x
        else:
            self.oldest = x
        self.newest = x
        self.open += 1
        self.held += x.room

    cdef int keep(self, Message* m, const uint8_t* data, uint32_t size) except -1:
        """The next bytes of content that is kept, as far as there is room."""
        cdef uint8_t* larger
        cdef uint32_t count = min(size, CONTENT_MAX - m.kept)
        if self.held + count > HELD_FOR_CONTENT:
            count = 0
        if count:
            larger = <uint8_t*> realloc(m.content, m.kept + count)
            if larger == NULL:
                raise MemoryError
            memcpy(larger + m.kept, data, count)
            m.content = larger
            m.kept += count
            self.held += count
        m.keeps = count == size
        return 0

    cdef void drop(self, Message* m) noexcept:
        """Another one comes in its place."""
        self.held -= m.kept
        free(m.content)
        free(m.count.trailers)
        memset(m, 0, sizeof(Message))

    cdef int on_response(
        self, Decoder block, uint32_t number, uint32_t size, Origin origin, bint cut
    ) except -1:
        """A header block that a server has sent."""
        cdef Text* fields = block.fields
        cdef Text status = fields[STATUS]
        cdef uint32_t unknown = block.unknown
        cdef Exchange* x = self.find(number)
        cdef uint16_t code = status_of(status)
        cdef uint64_t length
        if x == NULL:
            if status.at != NULL and number & 1:
                self.unmatched += 1
            return 0
        if status.at == NULL and (x.response.there or not (unknown or cut)):
            # Trailers, maybe of a head that was missed. A request whose head did not tell that it
            # carries a call is one if its content is framed like one and trailers end the response.
            if x.call == NO_CALL and x.request.count.wanted and messages.proves(&x.request.count):
                x.call = GRPC
            if x.response.there:
                x.response.unknown += unknown
            return self.take_status(x, fields)
        if 100 <= code < 200:
            return 0
        self.drop(&x.response)
        x.response.there, x.response.truncated = True, cut
        x.response.start_ns, x.response.tcp_sequence = origin.time, origin.tcp_sequence
        x.response.head_size, x.response.unknown = size, unknown
        x.status = code
        x.response.declared = -1
        if read_decimal(fields[CONTENT_LENGTH], &length):
            x.response.declared = <int64_t> length
        if x.call not in (NO_CALL, CONNECT_UNARY):
            expect_messages(&x.response.count, x.call)
        # What a call of Connect was refused for, or what an operation came to.
        x.response.keeps = (
            x.request.keeps or x.request.kept > 0 or (x.call == CONNECT_UNARY and code != 200)
        )
        return self.take_status(x, fields)

    cdef int take_status(self, Exchange* x, const Text* fields) except -1:
        """What trailers, or the head of a response that is both, say of a call."""
        cdef uint8_t* at
        if x.call == NO_CALL or fields[GRPC_STATUS].size == 0:
            return 0
        at = <uint8_t*> malloc(
            fields[GRPC_STATUS].size + fields[GRPC_MESSAGE].size + 1
        )
        if at == NULL:
            raise MemoryError
        free(x.said)
        x.said = at
        memset(&x.grpc_message, 0, sizeof(Text))
        move(&x.grpc_status, fields[GRPC_STATUS], &at)
        move(&x.grpc_message, fields[GRPC_MESSAGE], &at)
        return 0

    cdef Exchange* find(self, uint32_t number) noexcept:
        cdef Exchange* x = self.buckets[number >> 1 & (BUCKETS - 1)]
        while x != NULL and x.number != number:
            x = x.chained
        return x

    cdef void end(self, Exchange* x, bint asks, uint64_t time_ns) noexcept:
        """The last byte in one direction has passed; the response's ends the exchange."""
        cdef Message* m = &x.request if asks else &x.response
        if m.there:
            m.complete = True
            m.end_ns = time_ns
        if not asks:
            x.fate = WHOLE if m.there else LOST
            self.finish(x)

    cdef void abort(self, Exchange* x, uint32_t code, uint64_t time_ns) noexcept:
        self.unsure = True
        if code not in (NO_ERROR, STREAM_CLOSED, CANCEL) or not self.settle(x, time_ns):
            x.fate = ABORTED
            x.reset = code
        self.finish(x)

    cdef bint settle(self, Exchange* x, uint64_t time_ns) noexcept:
        """Make an exchange whole that lacks nothing but the end of its stream; false: more lacks.

        By what the response's head promises no more would come. Clients may then reset the stream,
        or close the connection, without waiting for that end.
        """
        cdef Message* m = &x.response
        if not m.there or m.inexact or x.call != NO_CALL:
            return False
        if not (
            x.status in (204, 304)
            or (x.method.size == 4 and memcmp(x.method.at, b"HEAD", 4) == 0)
            or (m.declared >= 0 and <uint64_t> m.declared == m.body_size)
        ):
            return False
        m.complete, m.end_ns = True, time_ns
        x.fate = WHOLE
        return True

    cdef void finish(self, Exchange* x) noexcept:
        cdef Exchange** link = &self.buckets[x.number >> 1 & (BUCKETS - 1)]
        while link[0] != x:
            link = &link[0].chained
        link[0] = x.chained
        if x.older != NULL:
            x.older.newer = x.newer
        else:
            self.oldest = x.newer
        if x.newer != NULL:
            x.newer.older = x.older
        else:
            self.newest = x.older
        if self.passing[0] == &x.request:
            self.passing[0] = NULL
        if self.passing[1] == &x.response:
            self.passing[1] = NULL
        self.open -= 1
        self.held -= x.room + x.request.kept + x.response.kept
        self.exchanges += 1
        x.newer = NULL
        if self.ended_last != NULL:
            self.ended_last.newer = x
        else:
            self.ended = x
        self.ended_last = x

    cdef Exchange* shift(self) noexcept:
        """An exchange that has ended; whoever takes it discards it. NULL: there is none."""
        cdef Exchange* x = self.ended
        if x != NULL:
            self.ended = x.newer
            if self.ended == NULL:
                self.ended_last = NULL
        return x
