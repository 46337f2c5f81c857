# SPDX-License-Identifier: Apache-2.0

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from otelauto.hot.cells cimport Epoch
from otelauto.hot.http1 cimport Span as Text
from otelauto.hot.rows cimport Key, Row, Rows
from otelauto.hot.spans cimport Variable, Writer

cdef enum:
    CLIENT = 1  # bits of a key
    VERSION_1_0 = 2
    REQUEST_SIZE = 4
    RESPONSE_SIZE = 8
    VERSION_2 = 16
    HTTPS = 32
    CALL = 64

cdef struct Party:
    # Whose exchanges those of a connection are.
    uint32_t tgid
    PyObject* peer  # encoded attributes, bytes, owned
    uint64_t generation  # of the three that follow
    uint32_t service
    uint32_t host
    PyObject* host_text  # bytes, owned

cdef class Ledger:
    cdef Epoch epoch
    cdef uint64_t seen  # value of the epoch that everything remembered is of
    cdef Rows rows
    cdef Writer writer  # None: no spans are wanted
    cdef object resolver
    cdef list services
    cdef dict numbers
    cdef list batches  # of the services by number
    cdef list finished
    cdef Key wanted
    cdef bint wants
    cdef readonly int64_t exchanges
    cdef dict counts
    cdef bint publish(
        self, Party* party, Key* key, Text path, Text host, const Variable* v
    ) except -1
    cdef int tell(self, what, uint64_t count) except -1
    cdef int count(self, Party* party, Row row, const Variable* v) except -1
    cdef bint locate(self, Party* party) except -1
    cdef uint32_t host(self, Party* party, Text text) except 0
    cdef int forget(self) except -1
    cdef int learn(self, Row row) except -1
    cdef list take_spans(self)

cdef void release(Party* party) noexcept
