# SPDX-License-Identifier: Apache-2.0
"""OTLP spans from templates: trace.v1 Span messages, as fields ``ScopeSpans.spans`` (2).

What is written here decodes to the same as what export/otlp_encode.py writes.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

from otelauto.hot.http1 cimport Span as Text, hex_value
from otelauto.hot.protobuf cimport put_constant, put_double, put_fixed64, put_varint, varint_size

cdef enum:
    BLOCK_SIZE = 64 << 10  # less than what malloc gives back to the kernel each time (memory.py)
    SPARE_MAX = 64
    SAMPLED = 1
    ATTRIBUTES = 9  # that differ within a row, at most
    FIXED_SIZE = 128  # more than what ids, times, tags and sizes need


cdef class Names:
    """Encoded names (KeyValue.key) of the attributes that differ within a row."""

    def __cinit__(self, bytes path, bytes user_agent, bytes request_size, bytes response_size,
                  bytes request_messages, bytes response_messages, bytes timeout, bytes message):
        self.path, self.user_agent = path, user_agent
        self.request_size, self.response_size = request_size, response_size
        self.request_messages, self.response_messages = request_messages, response_messages
        self.timeout, self.message = timeout, message
        self.size = sum(map(len, (
            path, user_agent, request_size, response_size, request_messages, response_messages,
            timeout, message,
        )))


cdef class Policy:
    """Which spans are sampled."""

    def __cinit__(self, uint64_t root, uint64_t sampled, uint64_t unsampled, bint always):
        self.root, self.sampled, self.unsampled = root, sampled, unsampled
        self.always = always


cdef class Template:
    """What the spans of one row have in common."""

    def __cinit__(self, Names names, bytes front, bytes back, bytes url_name, bytes url,
                  Policy policy):
        self.policy = policy
        self.names = names
        self.front = front
        self.back = back
        self.url_name = url_name
        self.url = url


cdef uint8_t* spare[SPARE_MAX]  # blocks that nobody uses; the interpreter lock guards them
cdef uint32_t spare_count = 0


cdef class Chunk:
    """A block of encoded spans, which can be read as bytes. It goes back when nobody reads it."""

    def __cinit__(self, size_t room):
        global spare_count
        self.room = max(room, <size_t> BLOCK_SIZE)
        if self.room == BLOCK_SIZE and spare_count:
            spare_count -= 1
            self.data = spare[spare_count]
        else:
            self.data = <uint8_t*> malloc(self.room)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        global spare_count
        if self.room == BLOCK_SIZE and spare_count < SPARE_MAX and self.data != NULL:
            spare[spare_count] = self.data
            spare_count += 1
        else:
            free(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 1, flags)


cdef class Batch:
    """Encoded spans of one service."""

    def __cinit__(self, service):
        self.service = service
        self.full = []

    cdef uint8_t* reserve(self, size_t more) except NULL:
        if self.chunk is None or self.chunk.size + more > self.chunk.room:
            self.end_chunk()
            self.chunk = Chunk(more)
        return self.chunk.data + self.chunk.size

    cdef int end_chunk(self) except -1:
        if self.count == 0:
            return 0
        cdef Chunk chunk = self.chunk
        if 2 * chunk.size < chunk.room:  # what waits in a queue must not hold twice its room
            data = PyBytes_FromStringAndSize(<char*> chunk.data, chunk.size)
            chunk.size = 0
        else:
            data = chunk
            self.chunk = None
        self.full.append((self.service, self.count, memoryview(data)))
        self.count = 0
        return 0

    cdef list taken(self):
        """(service, number of spans, their bytes), for each block."""
        self.end_chunk()
        full, self.full = self.full, []
        return full


cdef inline uint64_t rotated(uint64_t value, int by) noexcept nogil:
    return value << by | value >> (64 - by)


cdef class Ids:
    """Random ids: xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number
    generators", 2021) with a state from the system. The system's own cost as much as a quarter of a
    span, though it gave a page of them at a time."""

    def __cinit__(self, random_bytes):
        cdef bytes seed = random_bytes(sizeof(self.state))
        memcpy(self.state, PyBytes_AS_STRING(seed), sizeof(self.state))
        self.state[0] |= 1  # all zeros would stay so

    cdef uint64_t next(self) noexcept:
        cdef uint64_t* s = self.state
        cdef uint64_t result = rotated(s[0] + s[3], 23) + s[0]
        cdef uint64_t moved = s[1] << 17
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= moved
        s[3] = rotated(s[3], 45)
        return result

    cdef void take(self, uint8_t* to, uint32_t words) noexcept:
        """An id of 8 bytes a word, not all zero (which is invalid)."""
        cdef uint32_t i
        cdef uint64_t word, any_set = 0
        while not any_set:
            for i in range(words):
                word = self.next()
                any_set |= word
                memcpy(to + 8 * i, &word, 8)


cdef inline uint8_t* put_key(uint8_t* at, bytes name, uint32_t value_size) noexcept:
    """Span.attributes = 9 up to KeyValue.value = 2, whose message has ``value_size`` bytes."""
    at[0] = 0x4a
    at = put_varint(at + 1, PyBytes_GET_SIZE(name) + 1 + varint_size(value_size) + value_size)
    at = put_constant(at, name)
    at[0] = 0x12
    return put_varint(at + 1, value_size)


cdef inline uint8_t* put_text(uint8_t* at, bytes name, bytes before, Text text) noexcept:
    """An attribute whose value is ``before`` and then ``text``. AnyValue.string_value = 1."""
    cdef uint32_t first = <uint32_t> PyBytes_GET_SIZE(before) if before is not None else 0
    cdef uint32_t size = first + text.size
    at = put_key(at, name, 1 + varint_size(size) + size)
    at[0] = 0x0a
    at = put_varint(at + 1, size)
    if first:
        at = put_constant(at, before)
    memcpy(at, text.at, text.size)
    return at + text.size


cdef inline uint8_t* put_integer(uint8_t* at, bytes name, uint64_t value) noexcept:
    """AnyValue.int_value = 3."""
    at = put_key(at, name, 1 + varint_size(value))
    at[0] = 0x18
    return put_varint(at + 1, value)


cdef inline void put_hex(uint8_t* to, const uint8_t* digits, uint32_t size) noexcept nogil:
    cdef uint32_t i
    for i in range(size):
        to[i] = <uint8_t> (hex_value(digits[2 * i]) << 4 | hex_value(digits[2 * i + 1]))


cdef inline uint64_t big_endian(const uint8_t* at, uint32_t size) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t value = 0
    for i in range(size):
        value = value << 8 | at[i]
    return value


cdef class Writer:
    """Writes spans behind one another."""

    def __cinit__(self, random_bytes):
        self.ids = Ids(random_bytes)
        self.sample_below = <uint64_t> 1 << 56

    cdef uint8_t* identity(self, uint8_t* at, Text traceparent) except NULL:
        """trace_id = 1, span_id = 2, parent_span_id = 4, flags = 16."""
        cdef uint8_t flags = SAMPLED
        memcpy(at, b"\x0a\x10", 2)
        memcpy(at + 18, b"\x12\x08", 2)
        self.ids.take(at + 20, 1)
        if traceparent.at == NULL:
            self.ids.take(at + 2, 2)
            at += 28
        else:
            put_hex(at + 2, traceparent.at + 3, 16)
            memcpy(at + 28, b"\x22\x08", 2)
            put_hex(at + 30, traceparent.at + 36, 8)
            put_hex(&self.parent_flags, traceparent.at + 53, 1)
            flags |= self.parent_flags
            at += 38
        memcpy(at, b"\x85\x01", 2)
        at[2] = flags
        at[3] = at[4] = at[5] = 0
        return at + 6

    cdef bint is_sampled(self, Policy policy, const uint8_t* trace_id, const Variable* v) noexcept:
        """As spans/sampling.py decides."""
        cdef uint64_t below = policy.root
        if policy.always or (self.keep_slow_ns and v.end_ns - v.start_ns >= self.keep_slow_ns):
            return True
        if v.traceparent.at != NULL:
            below = policy.sampled if self.parent_flags & SAMPLED else policy.unsampled
        return big_endian(trace_id + 8, 8) >> 1 < below

    cdef bint write(self, Batch batch, Template template, bytes peer, const Variable* v) except -1:
        """Append one span; false: it is not sampled. ``written`` is its trace id and span id."""
        cdef Names names = template.names
        cdef size_t most = (
            FIXED_SIZE + PyBytes_GET_SIZE(template.front) + PyBytes_GET_SIZE(template.back)
            + PyBytes_GET_SIZE(peer) + 2 * v.path.size + v.user_agent.size + v.message.size
            + names.size + ATTRIBUTES * 24
        )
        if template.url is not None:
            most += PyBytes_GET_SIZE(template.url) + PyBytes_GET_SIZE(template.url_name)
        cdef uint8_t* begin = batch.reserve(most)
        cdef uint8_t* body = begin + 3  # a tag, and a size of two bytes most of the time
        cdef uint8_t* at = self.identity(body, v.traceparent)
        cdef uint32_t size, prefix
        if not self.is_sampled(template.policy, body + 2, v):
            self.unsampled += 1
            return False
        if big_endian(body + 11, 7) >= self.sample_below:
            self.sampled_out += 1
            return False
        memcpy(self.written, body + 2, 16)
        memcpy(self.written + 16, body + 20, 8)
        at = put_constant(at, template.front)
        at = put_fixed64(at, 0x39, v.start_ns + <uint64_t> self.wall_offset_ns)
        at = put_fixed64(at, 0x41, v.end_ns + <uint64_t> self.wall_offset_ns)
        at = put_constant(at, template.back)
        at = put_constant(at, peer)
        if v.path.size:
            at = put_text(at, names.path, None, v.path)
        if v.user_agent.size:
            at = put_text(at, names.user_agent, None, v.user_agent)
        if v.message.size:
            at = put_text(at, names.message, None, v.message)
        if v.has_timeout:
            at = put_key(at, names.timeout, 9)
            at = put_double(at, 0x21, v.timeout)  # AnyValue.double_value = 4
        if v.has_request_messages:
            at = put_integer(at, names.request_messages, v.request_messages)
        if v.has_response_messages:
            at = put_integer(at, names.response_messages, v.response_messages)
        if v.has_request_size:
            at = put_integer(at, names.request_size, v.request_size)
        if v.has_response_size:
            at = put_integer(at, names.response_size, v.response_size)
        if template.url is not None:
            at = put_text(at, template.url_name, template.url, v.path)
        size = <uint32_t> (at - body)
        prefix = 1 + varint_size(size)
        if prefix != 3:
            memmove(begin + prefix, body, size)
        begin[0] = 0x12
        put_varint(begin + 1, size)
        batch.chunk.size += prefix + size
        batch.count += 1
        return True
