# SPDX-License-Identifier: Apache-2.0
# The exchange in progress on a connection: the records kept of it, and chunked framing.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy

from otelauto.hot.connections cimport Connection, Phase
from otelauto.hot.contract cimport CAPTURE_MAX, FLAG_TURN_START, Segment

cdef enum:
    RECORDS_MAX = 2 * (CAPTURE_MAX + 64)  # bytes kept of one exchange
    CHUNK_DIGITS_MAX = 15  # as in http1_body.py


cdef inline void rebase(Connection* c, ptrdiff_t moved) noexcept nogil:
    """The record that the request was read from lies elsewhere now."""
    c.request.path.at += moved
    c.request.fields.host.at += moved
    if c.request.fields.user_agent.at != NULL:
        c.request.fields.user_agent.at += moved
    if c.request.fields.traceparent.at != NULL:
        c.request.fields.traceparent.at += moved


cdef inline bint keep(Connection* c, const Segment* s, uint32_t captured) except -1:
    """Keep a record of the exchange in progress; false: too much is kept already."""
    cdef uint32_t size = sizeof(Segment) + captured
    cdef uint32_t room = max(2 * c.room, c.used + size)
    cdef uint8_t* records
    if c.used + size > RECORDS_MAX:
        return False
    if c.used + size > c.room:
        records = <uint8_t*> realloc(c.records, room)
        if records == NULL:
            raise MemoryError
        if c.used:
            rebase(c, records - c.records)
        c.records, c.room = records, room
    memcpy(c.records + c.used, s, size)
    c.used += size
    c.record_count += 1
    c.body = NULL
    return True


cdef inline bint grow(Connection* c, const Segment* s) except -1:
    """Keep a segment of a body of known length: they become one without payload."""
    if c.body != NULL:
        if <uint64_t> c.body.length + s.length > 0xffffffffu:
            return False
        c.body.length += s.length
        c.body.time = s.time
        return True
    if not keep(c, s, 0):
        return False
    c.body = <Segment*> (c.records + c.used - sizeof(Segment))
    c.body.captured = 0
    c.body.flags &= FLAG_TURN_START
    return True


cdef inline bint chunk_byte(Connection* c, uint8_t byte) noexcept nogil:
    """One byte of chunked framing; REST is the end of the body."""
    if c.phase == Phase.CHUNK_SIZE:
        if byte == 13:
            c.phase = Phase.SIZE_LF
            return c.size_digits > 0
        c.size_digits += 1
        if byte - 48u <= 9u:
            byte -= 48
        elif (byte | 0x20u) - 97u <= 5u:
            byte = (byte | 0x20) - 87
        else:
            return False
        c.remaining = c.remaining << 4 | byte
        return c.size_digits <= CHUNK_DIGITS_MAX
    if c.phase == Phase.SIZE_LF:
        c.decoded += c.remaining
        c.phase = Phase.CHUNK_DATA if c.remaining else Phase.LAST_CR
        return byte == 10
    if c.phase == Phase.CHUNK_CR:
        c.phase = Phase.CHUNK_LF
        return byte == 13
    if c.phase == Phase.CHUNK_LF:
        c.phase = Phase.CHUNK_SIZE
        c.size_digits = 0
        return byte == 10
    if c.phase == Phase.LAST_CR:
        c.phase = Phase.LAST_LF
        return byte == 13
    c.phase = Phase.REST
    return byte == 10
