# SPDX-License-Identifier: Apache-2.0
"""The fast lane: plain exchanges from record to histogram and span without Python objects.

A connection that the general reader (flows/) follows is *adopted* while it is at rest. Whatever
happens on it that is not a plain exchange *ejects* it: the general reader is put back to the last
boundary between exchanges, gets the records since, and goes on. So nothing is decided here that is
not plain, and no half-done state is handed over.

What exchanges of one kind come to is not worked out here either (see ledger.pyx): the first of a
kind is ejected.

A connection of HTTP/2 has a reader of its own (http2.pyx), which it shares with the general path:
nothing is put back. Its exchanges that are not plain, and the first of each kind, are described by
the Python code one by one.
"""

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.ref cimport Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from otelauto.hot cimport connections
from otelauto.hot.cells cimport Epoch
from otelauto.hot.connections cimport Connection, Phase, Table
from otelauto.hot.contract cimport (
    CAPTURE_MAX, FLAG_TAIL, FLAG_TRUNCATED, FLAG_TURN_START, FLAG_UNREAD, RECORD_SEGMENT, Segment,
)
from otelauto.hot.exchange cimport chunk_byte, grow, keep, rebase
from otelauto.hot.http1 cimport read_request, read_response
from otelauto.hot.ring cimport Sink
from otelauto.hot.http2 cimport Session, Taken
from otelauto.hot.http2_rows cimport publish_exchange
from otelauto.hot.ledger cimport (
    CLIENT, REQUEST_SIZE, RESPONSE_SIZE, VERSION_1_0, Ledger,
)
from otelauto.hot.rows cimport Key, Row
from otelauto.hot.spans cimport Variable, Writer
from otelauto.hot.streams cimport Exchange, Moved, discard

cdef enum:
    PLAIN_FLAGS = FLAG_TURN_START | FLAG_TAIL | FLAG_UNREAD | FLAG_TRUNCATED
    BULK_LOOK = 4194304  # bytes of HTTP/2, after which flows/ looks what they are
    ROOM_KEPT_MAX = 512  # bytes, of a connection at rest: there may be tens of thousands


cdef class Tally:
    """What connections of an endpoint have shown since it was last looked at."""

    cdef readonly object endpoint
    cdef readonly set followers
    cdef int64_t exchanges
    cdef int64_t largest_response

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.followers = set()

    def take(self):
        found = self.exchanges, self.largest_response
        self.exchanges = 0
        return found


cdef class Lane(Sink):
    """The table of adopted connections."""

    cdef Table table
    cdef uint32_t most
    cdef Ledger ledger
    cdef bint queries
    cdef public object rest  # takes every other record
    cdef public object resume
    cdef public object describe
    cdef public object defect
    cdef list tallies
    cdef bint leaves  # the connection at hand, after this segment

    def __cinit__(self, resolver, Epoch epoch, uint32_t most, bint queries, Writer writer,
                  bint by_shape):
        self.table.slots = <Connection**> calloc(64, sizeof(Connection*))
        if self.table.slots == NULL:
            raise MemoryError
        self.table.size = 64
        self.most = most
        self.queries = queries
        self.ledger = Ledger(resolver, epoch, writer, by_shape)
        self.tallies = []

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.table.size):
            if self.table.slots[i] != NULL:
                connections.release(self.table.slots[i])
        free(self.table.slots)

    # ---- records ----

    def feed(self, const uint8_t[::1] record):
        if record.shape[0]:
            self.record(&record[0], <uint32_t> record.shape[0])
        else:
            self.rest(memoryview(b""))

    cdef int record(self, const uint8_t* data, uint32_t size) except -1:
        try:
            if not self.take(data, size):
                self.rest(PyMemoryView_FromMemory(<char*> data, size, PyBUF_READ))
        except Exception as error:
            self.ledger.wants = False
            if self.defect is None:
                raise
            self.defect(error)
        self.ledger.wants = False
        return 0

    cdef bint take(self, const uint8_t* data, uint32_t size) except -1:
        """False: the record is not the lane's."""
        cdef const Segment* s = <const Segment*> data
        cdef Connection* c
        if size < sizeof(Segment):
            return False
        c = connections.find(&self.table, s.connection)
        if c == NULL:
            return False
        if s.kind == RECORD_SEGMENT:
            if (s.captured > s.length or s.captured > CAPTURE_MAX or s.direction > 1
                    or sizeof(Segment) + s.captured > size):
                return False  # it says nothing of the connection
            if self.step(c, s, data + sizeof(Segment)):
                return True
        self.eject(c)
        return False

    cdef bint step(self, Connection* c, const Segment* s, const uint8_t* payload) except -1:
        cdef uint8_t d = s.direction
        cdef bint plain = False
        if (s.sequence != c.sequence or s.offset != c.offset[d] or s.tgid != c.party.tgid
                or s.unseen or not s.length or s.flags & ~PLAIN_FLAGS):
            return False
        if c.session != NULL:
            plain = self.frames(c, s, payload)
        elif c.phase == Phase.REST:
            plain = d == c.asks and self.begin(c, s, payload)
        elif c.phase == Phase.REQUEST_BODY:
            plain = d == c.asks and self.body(c, s, Phase.WAITING)
        elif d == c.asks:
            return False
        elif c.phase == Phase.WAITING:
            plain = self.answer(c, s, payload)
        elif c.phase == Phase.RESPONSE_BODY:
            if s.length < c.remaining:
                plain = self.body(c, s, Phase.RESPONSE_BODY)
            elif s.length == c.remaining:
                plain = self.finish(c, s.time, c.response.fields.length)
        else:
            plain = self.chunks(c, s, payload, 0)
        if not plain:
            return False
        c.sequence += 1
        c.offset[d] += s.length
        c.last_ns = s.time
        if self.leaves:
            self.leaves = False
            self.eject(c)
        return True

    cdef bint begin(self, Connection* c, const Segment* s, const uint8_t* payload) except -1:
        """A request."""
        cdef uint64_t total
        memset(&c.request, 0, sizeof(c.request))
        if not read_request(&c.request, payload, s.captured, self.queries):
            return False
        total = c.request.head + c.request.fields.length
        if s.length > total:
            return False
        c.boundary = c.offset
        c.boundary_ns = c.last_ns
        c.start_ns = s.time
        c.remaining = total - s.length
        keep(c, s, s.captured)
        rebase(c, c.records + sizeof(Segment) - payload)
        c.phase = Phase.REQUEST_BODY if c.remaining else Phase.WAITING
        return True

    cdef bint body(self, Connection* c, const Segment* s, uint8_t after) except -1:
        """Bytes of a body of known length: only how many there are counts."""
        if s.length > c.remaining or not grow(c, s):
            return False
        c.remaining -= s.length
        if c.remaining == 0:
            c.phase = after
        return True

    cdef bint answer(self, Connection* c, const Segment* s, const uint8_t* payload) except -1:
        """A response."""
        cdef uint64_t total
        memset(&c.response, 0, sizeof(c.response))
        if not read_response(&c.response, payload, s.captured, c.request.is_head):
            return False
        if c.response.fields.chunked and not c.response.bodiless:
            c.phase = Phase.CHUNK_SIZE
            c.remaining = c.decoded = c.size_digits = 0
            return self.chunks(c, s, payload, c.response.head)
        total = c.response.head
        if not c.response.bodiless:
            total += c.response.fields.length
        if s.length == total:
            return self.finish(c, s.time, c.response.fields.length)
        if s.length > total or not keep(c, s, s.captured):
            return False
        c.remaining = total - s.length
        c.phase = Phase.RESPONSE_BODY
        return True

    cdef bint chunks(
        self, Connection* c, const Segment* s, const uint8_t* payload, uint32_t at
    ) except -1:
        """A chunked body (RFC 9112, section 7.1) without extensions and trailers."""
        cdef uint32_t moved
        while at < s.length:
            if c.phase == Phase.CHUNK_DATA:
                moved = s.length - at
                if moved >= c.remaining:
                    moved = <uint32_t> c.remaining
                    c.phase = Phase.CHUNK_CR
                c.remaining -= moved
                at += moved
                continue
            if at >= s.captured or not chunk_byte(c, payload[at]):
                return False
            at += 1
            if c.phase == Phase.REST:
                return at == s.length and self.finish(c, s.time, c.decoded)
        return keep(c, s, s.captured)

    # ---- HTTP/2 ----

    cdef bint frames(self, Connection* c, const Segment* s, const uint8_t* payload) except -1:
        """Its own reader takes the segment in any case; the connection may go after it."""
        cdef Session session = <Session> c.session
        cdef Moved moved
        cdef Exchange* x
        cdef int became
        moved.time, moved.tcp_sequence = s.time, s.tcp_sequence
        moved.tgid, moved.tid = s.tgid, s.tid
        became = session.take(
            s.direction == c.asks, payload, s.captured, s.length - s.captured, &moved
        )
        if session.streams.unmatched:
            self.ledger.tell("unmatched", session.take_unmatched())
        x = session.streams.shift()
        while x != NULL:
            try:
                if publish_exchange(self.ledger, &c.party, x, c.asks, self.queries):
                    c.exchanges += 1
                else:
                    self.describe(c.cookie, s.time, session.streams.described(x))
            finally:
                self.ledger.wants = False
                discard(x)
            x = session.streams.shift()
        if became != Taken.READ:
            self.ledger.tell("desync", 1)
        self.leaves = became != Taken.READ or session.passed >= BULK_LOOK
        return True

    # ---- exchanges ----

    cdef bint finish(self, Connection* c, uint64_t end_ns, uint64_t response_size) except -1:
        """The exchange is whole; false: what comes of its kind is not known."""
        cdef Tally tally = <Tally> c.tally
        cdef Key key
        cdef Variable v
        memset(&key, 0, sizeof(key))
        memset(&v, 0, sizeof(v))
        key.status = c.response.status
        key.method = c.request.method
        key.bits = (
            (CLIENT if c.asks else 0)
            | (VERSION_1_0 if c.request.version_1_0 else 0)
            | (REQUEST_SIZE if c.request.fields.has_length else 0)
            | (0 if c.response.bodiless else RESPONSE_SIZE)
        )
        v.start_ns, v.end_ns = c.start_ns, max(c.start_ns, end_ns)
        v.request_size, v.response_size = c.request.fields.length, response_size
        v.path, v.user_agent = c.request.path, c.request.fields.user_agent
        v.traceparent = c.request.fields.traceparent
        v.has_request_size = c.request.fields.has_length
        v.has_response_size = not c.response.bodiless
        if not self.ledger.publish(&c.party, &key, c.request.path, c.request.fields.host, &v):
            return False
        c.exchanges += 1
        if tally.exchanges == 0:
            self.tallies.append(tally)
        tally.exchanges += 1
        if c.response.head > tally.largest_response:
            tally.largest_response = c.response.head
        self.reset(c)
        return True

    cdef void reset(self, Connection* c) noexcept:
        """At rest again."""
        c.phase = Phase.REST
        c.used = c.record_count = 0
        c.body = NULL
        if c.room > ROOM_KEPT_MAX:
            free(c.records)
            c.records, c.room = NULL, 0

    @property
    def exchanges(self):
        return self.ledger.exchanges

    @property
    def wants_row(self):
        """Whether an exchange is being described whose row is to be remembered."""
        return bool(self.ledger.wants)

    def learn(self, Row row):
        self.ledger.learn(row)

    # ---- connections ----

    def adopt(self, uint64_t cookie, uint64_t sequence, uint64_t received, uint64_t sent,
              uint8_t asks, uint32_t tgid, uint64_t last_ns, bint af_unix, bytes peer, Tally tally,
              Session session):
        cdef Connection* c
        if self.table.count >= self.most:
            return False
        c = <Connection*> calloc(1, sizeof(Connection))
        if c == NULL:
            raise MemoryError
        c.cookie, c.asks, c.party.tgid = cookie, asks, tgid
        c.sequence = <uint32_t> sequence  # modulo 2**32
        c.offset[0], c.offset[1] = received, sent
        c.last_ns, c.af_unix = last_ns, af_unix
        c.party.generation = self.ledger.seen - 1
        if not connections.put(&self.table, c):
            free(c)
            raise MemoryError
        Py_INCREF(tally)
        Py_INCREF(peer)
        c.tally, c.party.peer = <PyObject*> tally, <PyObject*> peer
        if session is not None:
            Py_INCREF(session)
            c.session = <PyObject*> session
        return True

    def take_out(self, uint64_t cookie):
        cdef Connection* c = connections.find(&self.table, cookie)
        if c == NULL:
            return False
        self.eject(c)
        return True

    cdef int eject(self, Connection* c) except -1:
        cdef uint32_t at = 0, number = 0
        cdef uint64_t cookie = c.cookie, last_ns = c.last_ns
        cdef uint32_t sequence = c.sequence - c.record_count
        cdef int64_t exchanges = -1 if self.ledger.wants else c.exchanges
        cdef Segment* s
        offsets = (c.offset[0], c.offset[1])
        if c.record_count:
            last_ns = c.boundary_ns
            offsets = (c.boundary[0], c.boundary[1])
        records = []
        while at < c.used:
            s = <Segment*> (c.records + at)
            s.sequence = sequence + number
            records.append(PyBytes_FromStringAndSize(<char*> s, sizeof(Segment) + s.captured))
            at += sizeof(Segment) + s.captured
            number += 1
        connections.remove(&self.table, c)
        connections.release(c)
        self.resume(cookie, sequence, offsets, last_ns, records, exchanges)
        return 0

    def last_ns(self, uint64_t cookie):
        cdef Connection* c = connections.find(&self.table, cookie)
        return 0 if c == NULL else c.last_ns

    def stalled(self, int64_t before_ns):
        cdef uint32_t i
        cdef Connection* c
        found = []
        for i in range(self.table.size):
            c = self.table.slots[i]
            if (c != NULL and c.af_unix and c.phase >= Phase.RESPONSE_BODY
                    and <int64_t> c.last_ns <= before_ns):
                found.append(c.cookie)
        return found

    # ---- what has come of it ----

    def take_tallies(self):
        tallies, self.tallies = self.tallies, []
        return tallies

    def take_counts(self):
        counts, self.ledger.counts = self.ledger.counts, {}
        return counts

    def take_spans(self):
        return self.ledger.take_spans()
