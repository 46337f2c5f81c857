# SPDX-License-Identifier: Apache-2.0
# The connections of the fast lane, by cookie: an open-addressing table of pointers.

from cpython.ref cimport PyObject, Py_XDECREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from otelauto.hot.contract cimport Segment
from otelauto.hot.http1 cimport Request, Response
from otelauto.hot.ledger cimport Party, release as release_party

cdef enum Phase:
    REST  # between two exchanges
    REQUEST_BODY
    WAITING  # for the response
    RESPONSE_BODY
    CHUNK_SIZE
    SIZE_LF
    CHUNK_DATA
    CHUNK_CR
    CHUNK_LF
    LAST_CR  # of the empty line at the end
    LAST_LF

cdef struct Connection:
    uint64_t cookie
    uint64_t offset[2]  # expected next, by direction
    uint64_t last_ns
    uint32_t sequence  # expected next
    uint32_t exchanges  # whole ones since the adoption
    uint8_t asks  # the direction of requests
    uint8_t phase
    bint af_unix
    PyObject* tally  # owned, None of HTTP/2
    PyObject* session  # of HTTP/2, owned; NULL: HTTP/1, and there is an exchange in progress
    Party party
    uint64_t boundary[2]  # offsets at its beginning
    uint64_t boundary_ns  # last_ns then
    uint64_t start_ns
    uint64_t remaining  # bytes of a body or chunk that are to come
    uint64_t decoded  # sum of the chunk sizes
    uint32_t size_digits  # read of the current chunk size
    Request request
    Response response
    # Its records, one behind another as they were, but that a body is one record without payload.
    uint8_t* records
    uint32_t used
    uint32_t room
    uint32_t record_count
    Segment* body  # the last record, if it may grow

cdef struct Table:
    Connection** slots
    uint32_t size  # a power of two
    uint32_t count


cdef inline uint32_t slot_of(const Table* table, uint64_t cookie) noexcept nogil:
    """Fibonacci hashing: cookies are consecutive numbers."""
    return <uint32_t> ((cookie * <uint64_t> 0x9e3779b97f4a7c15) >> 32) & (table.size - 1)


cdef inline Connection* find(const Table* table, uint64_t cookie) noexcept nogil:
    cdef uint32_t at = slot_of(table, cookie)
    while table.slots[at] != NULL:
        if table.slots[at].cookie == cookie:
            return table.slots[at]
        at = (at + 1) & (table.size - 1)
    return NULL


cdef inline void place(Table* table, Connection* c) noexcept nogil:
    cdef uint32_t at = slot_of(table, c.cookie)
    while table.slots[at] != NULL:
        at = (at + 1) & (table.size - 1)
    table.slots[at] = c


cdef inline bint put(Table* table, Connection* c) noexcept nogil:
    """False: no memory."""
    cdef Table larger
    cdef uint32_t i
    if 2 * table.count >= table.size:
        larger.size = 2 * table.size if table.size else 64
        larger.count = table.count
        larger.slots = <Connection**> calloc(larger.size, sizeof(Connection*))
        if larger.slots == NULL:
            return False
        for i in range(table.size):
            if table.slots[i] != NULL:
                place(&larger, table.slots[i])
        free(table.slots)
        table[0] = larger
    place(table, c)
    table.count += 1
    return True


cdef inline void remove(Table* table, Connection* c) noexcept nogil:
    """Take ``c`` out and close the gap (Knuth, The Art of Computer Programming, 6.4, R)."""
    cdef uint32_t mask = table.size - 1
    cdef uint32_t hole = slot_of(table, c.cookie)
    cdef uint32_t at, home
    while table.slots[hole] != c:
        hole = (hole + 1) & mask
    at = hole
    while True:
        at = (at + 1) & mask
        if table.slots[at] == NULL:
            break
        home = slot_of(table, table.slots[at].cookie)
        if ((at - home) & mask) >= ((at - hole) & mask):
            table.slots[hole] = table.slots[at]
            hole = at
    table.slots[hole] = NULL
    table.count -= 1


cdef inline void release(Connection* c) noexcept:
    """Free a connection that is in no table."""
    Py_XDECREF(c.tally)
    Py_XDECREF(c.session)
    release_party(&c.party)
    free(c.records)
    free(c)
