# SPDX-License-Identifier: Apache-2.0
"""The fast lane: plain HTTP/1 exchanges from record to histogram and span without Python objects.

A connection that the general reader (flows/) follows is *adopted* while it is at rest. Whatever
happens on it that is not a plain exchange *ejects* it: the general reader is put back to the last
boundary between exchanges, gets the records since, and goes on. So nothing is decided here that is
not plain, and no half-done state is handed over.

What exchanges of one kind come to is not worked out here either. The first of a kind is ejected,
described by the Python code, and what came of it is remembered as a row.
"""

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from otelauto.hot cimport connections
from otelauto.hot.cells cimport Epoch, Hits
from otelauto.hot.connections cimport Connection, Phase, Table
from otelauto.hot.contract cimport (
    CAPTURE_MAX, FLAG_TAIL, FLAG_TRUNCATED, FLAG_TURN_START, FLAG_UNREAD, RECORD_SEGMENT, Segment,
)
from otelauto.hot.exchange cimport chunk_byte, grow, keep, rebase
from otelauto.hot.http1 cimport read_request, read_response
from otelauto.hot.http1 cimport Span as Text
from otelauto.hot.ring cimport Sink
from otelauto.hot.rows cimport Key, PathSlot, Row, Rows
from otelauto.hot.spans cimport Batch, Variable, Writer

cdef enum:
    PLAIN_FLAGS = FLAG_TURN_START | FLAG_TAIL | FLAG_UNREAD | FLAG_TRUNCATED
    CLIENT = 1  # bits of a key
    VERSION_1_0 = 2
    REQUEST_SIZE = 4
    RESPONSE_SIZE = 8
    ROOM_KEPT_MAX = 512  # bytes, of a connection at rest: there may be tens of thousands


cdef inline void measure(Row row, const Variable* v) noexcept:
    if row.duration is not None:
        row.duration.add(<double> (v.end_ns - v.start_ns) / 1e9)
    if row.request_size is not None:
        row.request_size.add(<double> v.request_size)
    if row.response_size is not None:
        row.response_size.add(<double> v.response_size)


cdef inline int exemplify(Row row, const Variable* v, const uint8_t* ids) except -1:
    if row.duration is not None:
        row.duration.note(<double> (v.end_ns - v.start_ns) / 1e9, v.end_ns, ids)
    if row.request_size is not None:
        row.request_size.note(<double> v.request_size, v.end_ns, ids)
    if row.response_size is not None:
        row.response_size.note(<double> v.response_size, v.end_ns, ids)
    return 0


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
    cdef Epoch epoch
    cdef uint64_t seen  # value of the epoch that everything remembered is of
    cdef Rows rows
    cdef Writer writer  # None: no spans are wanted
    cdef bint queries
    cdef object resolver
    cdef public object rest  # takes every other record
    cdef public object resume
    cdef public object defect
    cdef list services
    cdef dict numbers
    cdef list batches  # of the services by number
    cdef list finished
    cdef list tallies
    cdef Key wanted
    cdef bint wants
    cdef readonly int64_t exchanges
    cdef dict counts

    def __cinit__(self, resolver, Epoch epoch, uint32_t most, bint queries, Writer writer,
                  bint by_shape):
        self.table.slots = <Connection**> calloc(64, sizeof(Connection*))
        if self.table.slots == NULL:
            raise MemoryError
        self.table.size = 64
        self.resolver = resolver
        self.epoch = epoch
        self.seen = epoch.value
        self.most = most
        self.queries = queries
        self.writer = writer
        self.rows = Rows(resolver.route, by_shape)
        self.services, self.numbers, self.batches = [], {}, []
        self.finished, self.tallies, self.counts = [], [], {}

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
            self.wants = False
            if self.defect is None:
                raise
            self.defect(error)
        self.wants = False
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
        if (s.sequence != c.sequence or s.offset != c.offset[d] or s.tgid != c.tgid
                or s.unseen or not s.length or s.flags & ~PLAIN_FLAGS):
            return False
        if c.phase == Phase.REST:
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

    # ---- exchanges ----

    cdef bint finish(self, Connection* c, uint64_t end_ns, uint64_t response_size) except -1:
        """The exchange is whole; false: what comes of its kind is not known."""
        cdef Key key
        cdef PathSlot* path = NULL
        cdef PyObject* found
        if self.epoch.value != self.seen or self.rows.full:
            self.forget()
        if c.generation != self.seen and not self.locate(c):
            return False
        memset(&key, 0, sizeof(key))
        key.service = c.service
        key.status = c.response.status
        key.method = c.request.method
        key.bits = (
            (CLIENT if c.asks else 0)
            | (VERSION_1_0 if c.request.version_1_0 else 0)
            | (REQUEST_SIZE if c.request.fields.has_length else 0)
            | (0 if c.response.bodiless else RESPONSE_SIZE)
        )
        if c.asks or self.writer is not None:
            key.host = self.host(c)
        if not c.asks:
            path = self.rows.path(c.service, self.services[c.service], c.request.path)
            key.route = path.route
        found = self.rows.find(&key)
        if found == NULL:
            self.wanted, self.wants = key, True
            return False
        if path != NULL:
            if path.hits != NULL:
                (<Hits> path.hits).count += 1
            if path.overflowed:
                self.tell("route")
        self.count(c, <Row> found, end_ns, response_size)
        self.reset(c)
        return True

    cdef int count(
        self, Connection* c, Row row, uint64_t end_ns, uint64_t response_size
    ) except -1:
        cdef Tally tally = <Tally> c.tally
        cdef Variable v
        if end_ns < c.start_ns:
            end_ns = c.start_ns
        v.start_ns, v.end_ns = c.start_ns, end_ns
        v.request_size, v.response_size = c.request.fields.length, response_size
        measure(row, &v)
        if row.counted is not None:
            for what in row.counted:
                self.tell(what)
        self.exchanges += 1
        c.exchanges += 1
        if tally.exchanges == 0:
            self.tallies.append(tally)
        tally.exchanges += 1
        if c.response.head > tally.largest_response:
            tally.largest_response = c.response.head
        if row.template is not None:
            v.path, v.user_agent = c.request.path, c.request.fields.user_agent
            v.traceparent = c.request.fields.traceparent
            v.has_request_size = c.request.fields.has_length
            v.has_response_size = not c.response.bodiless
            if self.writer.write(
                <Batch> self.batches[c.service], row.template, <bytes> c.peer, &v
            ) and self.writer.exemplars:
                exemplify(row, &v, self.writer.written)
        return 0

    cdef int tell(self, what) except -1:
        self.counts[what] = self.counts.get(what, 0) + 1
        return 0

    cdef void reset(self, Connection* c) noexcept:
        """At rest again."""
        c.phase = Phase.REST
        c.used = c.record_count = 0
        c.body = NULL
        if c.room > ROOM_KEPT_MAX:
            free(c.records)
            c.records, c.room = NULL, 0

    cdef bint locate(self, Connection* c) except -1:
        """The number of the connection's service; false if it has none."""
        number = self.numbers.get(c.tgid)
        if number is None:
            service = self.resolver.service(c.tgid)
            if service is None:
                return False
            if service in self.numbers:
                number = self.numbers[service]
            else:
                number = self.numbers[service] = len(self.services)
                self.services.append(service)
                self.batches.append(Batch(service))
            self.numbers[c.tgid] = number
        c.service = number
        c.host = 0
        c.generation = self.seen
        return True

    cdef uint32_t host(self, Connection* c) except 0:
        cdef Text text = c.request.fields.host
        if (c.host == 0 or <uint32_t> PyBytes_GET_SIZE(<bytes> c.host_text) != text.size
                or memcmp(PyBytes_AS_STRING(<bytes> c.host_text), text.at, text.size) != 0):
            value = PyBytes_FromStringAndSize(<char*> text.at, text.size)
            c.host = self.rows.host(value)
            Py_INCREF(value)
            Py_XDECREF(c.host_text)
            c.host_text = <PyObject*> value
        return c.host

    cdef int forget(self) except -1:
        """Begin anew: services, routes or series are not what they were."""
        self.seen = self.epoch.value
        if self.rows.full:
            self.epoch.value += 1
            self.seen = self.epoch.value
        self.rows.clear()
        self.finished = self.take_spans()
        self.services, self.numbers, self.batches = [], {}, []
        return 0

    @property
    def wants_row(self):
        """Whether an exchange is being described whose row is to be remembered."""
        return self.wants

    def learn(self, Row row):
        if self.wants and self.epoch.value == self.seen:
            self.rows.put(&self.wanted, row)
        self.wants = False

    # ---- connections ----

    def adopt(self, uint64_t cookie, uint64_t sequence, uint64_t received, uint64_t sent,
              uint8_t asks, uint32_t tgid, uint64_t last_ns, bint af_unix, Tally tally, bytes peer):
        cdef Connection* c
        if self.table.count >= self.most:
            return False
        c = <Connection*> calloc(1, sizeof(Connection))
        if c == NULL:
            raise MemoryError
        c.cookie, c.asks, c.tgid = cookie, asks, tgid
        c.sequence = <uint32_t> sequence  # modulo 2**32
        c.offset[0], c.offset[1] = received, sent
        c.last_ns, c.af_unix = last_ns, af_unix
        c.generation = self.seen - 1
        if not connections.put(&self.table, c):
            free(c)
            raise MemoryError
        Py_INCREF(tally)
        Py_INCREF(peer)
        c.tally, c.peer = <PyObject*> tally, <PyObject*> peer
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
        cdef int64_t exchanges = -1 if self.wants else c.exchanges
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
        counts, self.counts = self.counts, {}
        return counts

    def take_spans(self):
        cdef Batch batch
        taken, self.finished = self.finished, []
        for batch in self.batches:
            taken += batch.taken()
        return taken
