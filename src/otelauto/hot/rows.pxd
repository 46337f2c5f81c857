# SPDX-License-Identifier: Apache-2.0

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from otelauto.hot.cells cimport Hits, Series
from otelauto.hot.http1 cimport Span as Text
from otelauto.hot.spans cimport Template

cdef struct Key:
    uint32_t service
    uint32_t route  # or the method of a call
    uint32_t host
    uint16_t status
    uint8_t method
    uint8_t bits

cdef struct RowSlot:
    Key key
    PyObject* row

cdef struct PathSlot:
    uint64_t hash
    uint8_t* path
    uint32_t size
    uint32_t service
    uint32_t route
    bint overflowed  # the service has its full number of routes
    PyObject* hits  # NULL where nobody counts them

cdef class Row:
    cdef Series duration
    cdef Series request_size
    cdef Series response_size
    cdef Template template
    cdef object counted  # as what each exchange is counted beside its cells, or None

cdef class Rows:
    cdef RowSlot* rows
    cdef uint32_t row_count
    cdef PathSlot* paths
    cdef uint32_t path_count
    cdef uint64_t seed
    cdef list kept  # the rows that the table borrows
    cdef PathSlot long_path
    cdef bint full  # begin anew before the next exchange
    cdef dict routes
    cdef dict texts
    cdef object route_of
    cdef bint by_shape
    cdef int clear(self) except -1
    cdef void forget_paths(self) noexcept
    cdef RowSlot* slot(self, const Key* key) noexcept
    cdef PathSlot* new_path(self, uint64_t digest, Text path) except NULL
    cdef PyObject* find(self, const Key* key) noexcept
    cdef int put(self, const Key* key, Row row) except -1
    cdef PathSlot* path(self, uint32_t service, object owner, Text path) except NULL
    cdef uint32_t text(self, Text text) except 0
